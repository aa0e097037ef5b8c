# SPDX-License-Identifier: GPL-2.0-or-later
"""Each request for frames refused in turn, under a process with pages of every kind.

The process has three pages written, and one each of the zero page, a private file, shared memory,
and one that is out, each kind in a page table of its own. No cache has a free object, so whatever
wants one asks for a frame. What must come of each refusal stands in
:mod:`tests.harness.refused_frames`, for both releases.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import MmucheckError
from kernel_model.exec import Exec
from kernel_model.fork import Fork
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.gfp import GFP_HIGHUSER
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.memory.change import EntryChanger
from kernel_model.mm.memory.fault import Fault, FaultHandler
from kernel_model.mm.rmap.anon_vma import AnonVmas
from kernel_model.mm.swap_state import SwapCache
from tests.harness.process_machine import CONFIGS, PAGE, PRIVATE, Content, ProcessMachine, R
from tests.harness.refused_frames import EXEC, Row, rows
from tests.harness.scarce_process import (
    BORDER,
    ELSEWHERE,
    FRESH,
    OUT,
    WORD,
    WRITTEN,
    ZERO,
    Stage,
    errno,
    what_is_left,
)

BUILDS = {"2.4": "2-level", "2.6": "2.6"}
SUCCESS = ("ok", "3 pages")
"""What an operation comes to when nothing is refused."""
NEW_DIRECTORY = ("fork", "exec_mmap()")

S = Stage
MIDDLE = WRITTEN + PAGE
Prepare = Callable[[Stage], None]
OPERATIONS: dict[str, tuple[Prepare | None, Callable[[Stage], str]]] = {
    "fork": (None, S.fork),
    "write to a copy": (S.has_child, lambda s: s.store(WRITTEN)),
    "write to the zero page": (None, lambda s: s.store(ZERO)),
    "first write": (S.has_room, lambda s: s.store(FRESH)),
    "first read": (S.has_room, lambda s: s.load(FRESH, 0)),
    "read what is out": (None, lambda s: s.load(OUT, WORD)),
    "write what is out": (S.has_child, lambda s: s.store(OUT)),
    "read of a file": (S.has_file, lambda s: s.load(FRESH, WORD)),
    "write to a file": (S.has_file, lambda s: s.store(FRESH)),
    "write to shared memory": (S.has_shared_memory, lambda s: s.store(FRESH)),
    "put_user() to a copy": (S.has_child, S.put_user),
    "put_user() below stack": (S.has_stack_below, S.put_user_below_stack),
    "get_user_pages()": (S.has_room, S.get_user_pages),
    "copy_strings()": (None, S.copy_strings),
    "exec_mmap()": (S.has_thread, S.exec_mmap),
    "setup_arg_pages()": (S.has_arguments, S.setup_arg_pages),
    "mmap over the middle": (None, lambda s: s.mmap(MIDDLE, 1)),
    "mmap locked": (S.locks_what_comes, lambda s: s.mmap(FRESH, 3)),
    "munmap the middle": (None, lambda s: errno(s.kernel.spaces.do_munmap(s.mm, MIDDLE, PAGE))),
    "mprotect the middle": (None, lambda s: errno(s.kernel.spaces.sys_mprotect(MIDDLE, PAGE, R))),
    "mlock": (S.has_room, lambda s: errno(s.kernel.spaces.sys_mlock(FRESH, 3 * PAGE))),
    "mremap": (None, lambda s: s.mremap(WRITTEN, 3, ELSEWHERE)),
    "mremap the middle": (None, lambda s: s.mremap(MIDDLE, 1, ELSEWHERE)),
    "mremap over a border": (None, lambda s: s.mremap(WRITTEN, 3, BORDER)),
}


class Worlds:
    """A machine of each release, made when it is wanted."""

    def __init__(self) -> None:
        self._made: dict[str, ProcessMachine] = {}

    def __getitem__(self, release: str) -> ProcessMachine:
        if release not in self._made:
            self._made[release] = ProcessMachine(CONFIGS[BUILDS[release]])
        return self._made[release]


# -- the table -------------------------------------------------------------------------------


def refuse(stage: Stage, operation: str, numbers: range) -> tuple[list[str], str, str]:
    """What each request was for, what came of the operation, and what it left."""
    prepare, operate = OPERATIONS[operation]
    if prepare:
        prepare(stage)
    before = stage.moment()
    with stage.no_free_objects(), stage.refusing(numbers) as asked:
        result = operate(stage)
    left = what_is_left(before, stage.moment()) if len(asked) > numbers[0] else ""
    return asked, result, left


@pytest.fixture(scope="module")
def worlds() -> Worlds:
    return Worlds()


ROWS = [row for release in BUILDS for row in rows(release)]
EACH_ROW = [
    pytest.param(
        row,
        for_good,
        id=f"{row}-{'for good' if for_good else 'once'}",
        # On 2.6, where it is dearer, but few rows tell of it.
        marks=[pytest.mark.slow] if for_good and row.release == "2.6" and row.is_alike else [],
    )
    for row in ROWS
    for for_good in (False, True)
]
on_both = pytest.mark.parametrize("release", BUILDS)


@pytest.mark.book("4.3", "4.4", "4.6")
@pytest.mark.parametrize(("row", "for_good"), EACH_ROW)
def test_row(worlds: Worlds, row: Row, for_good: bool) -> None:
    stage, first = Stage(worlds[row.release]), row.number - 1
    numbers = range(first, 1 << 30 if for_good else row.number)
    asked, result, left = refuse(stage, row.operation, numbers)
    assert asked[first] == row.refused
    assert (result, left) == row.outcome(for_good)
    if row.operation != "setup_arg_pages()":
        stage.is_as_it_was()
        again = OPERATIONS[row.operation][1](stage)
        assert again in SUCCESS, "with memory it works"
    stage.end()


@pytest.mark.book("4.4", "4.6")
@on_both
def test_a_parent_whose_fork_failed_writes_without_a_copy(worlds: Worlds, release: str) -> None:
    world = worlds[release]
    stage = Stage(world)
    frames = [world.frame(stage.process, WRITTEN + n * PAGE) for n in range(3)]
    _, result, left = refuse(stage, "fork", range(10, 11))
    assert (result, left) == ("ENOMEM", "3 read-only")
    for n, frame in enumerate(frames):
        assert stage.store(WRITTEN + n * PAGE) == "ok"
        assert len(world.faults) == 1
        assert world.frame(stage.process, WRITTEN + n * PAGE) == frame
    stage.end()


@pytest.mark.book("4.3", "4.4")
@pytest.mark.parametrize(
    ("release", "number"),
    [(release, number) for release in BUILDS for number in range(len(EXEC[release]) + 1)],
)
def test_exec_of_a_whole_program(worlds: Worlds, release: str, number: int) -> None:
    """Of a process that shares its address space, and so needs a new one."""
    stage, table = Stage(worlds[release]), EXEC[release]
    stage.has_program()
    stage.has_thread()
    with stage.no_free_objects(), stage.refusing(range(number, number + 1)) as asked:
        result = stage.exec_program()
    if number == len(table):
        assert (asked, result) == ([purpose for purpose, *_ in table], "ok")
    else:
        purpose, expected, process = table[number]
        assert (asked[number], result) == (purpose, expected)
        assert stage.has_its_areas() == (process == "as it was")
        if process == "as it was":
            stage.is_as_it_was()
    stage.end()


READ_AHEAD = {"2.4": ("SIGKILL", "SIGKILL"), "2.6": ("ok", "ok")}
"""What comes of a fault on the second page of a file whose first or second page gets no frame. In
2.6 both are read ahead, and then the second one is asked for again."""


@pytest.mark.book("4.4", "4.6")
@pytest.mark.parametrize("page", [0, 1])
@on_both
def test_a_page_that_is_not_wanted_yet(worlds: Worlds, release: str, page: int) -> None:
    stage = Stage(worlds[release])
    stage.world.map_file(FRESH, Content(WORD, pages=2), PRIVATE)
    with stage.refusing(range(page + 1, page + 2)) as asked:
        assert stage.load(FRESH + PAGE, WORD) == READ_AHEAD[release][page]
    assert asked[: page + 2] == ["page table", *["page cache"] * (page + 1)]
    assert stage.load(FRESH, WORD) == stage.load(FRESH + PAGE, WORD) == "ok"
    stage.end()


@on_both
def test_every_request_has_a_row(worlds: Worlds, release: str) -> None:
    known = [(row.operation, row.number) for row in rows(release)]
    for operation in OPERATIONS:
        stage = Stage(worlds[release])
        asked, result, _ = refuse(stage, operation, range(1000, 1001))
        assert result in SUCCESS
        numbers = [number for name, number in known if name == operation]
        assert numbers == list(range(1, len(asked) + 1)), operation
        stage.end()


OF_TABLES = ("fork", "exec_mmap()", "setup_arg_pages()", "first write", "mremap over a border")
"""Operations that make page tables and directories, where a build differs most."""


@pytest.mark.book("3.3", "4.3")
@pytest.mark.parametrize(
    ("release", "build", "operations"),
    [
        ("2.4", "PAE", OF_TABLES),
        ("2.6", "2.6 PAE", OF_TABLES),
        *(
            pytest.param(release, build, tuple(OPERATIONS), marks=pytest.mark.slow)
            for release, build in (
                *(("2.4", "PAE"), ("2.4", "highmem")),
                *(("2.6", "2.6 PAE"), ("2.6", "2.6 highmem")),
            )
        ),
    ],
)
def test_other_builds_leave_nothing_either(
    release: str, build: str, operations: tuple[str, ...]
) -> None:
    """A directory of three levels is four frames; the rest is as in the table."""
    known = {(row.operation, row.refused, row.result, row.left) for row in rows(release)}
    known |= {(name, "page middle directory", "ENOMEM", "nothing") for name in NEW_DIRECTORY}
    world = ProcessMachine(CONFIGS[build])
    for operation in operations:
        for number in range(30):
            stage = Stage(world)
            asked, result, left = refuse(stage, operation, range(number, number + 1))
            if len(asked) > number:
                assert (operation, asked[number], result, left) in known
            stage.end()
            if len(asked) <= number:
                break


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_a_refused_chain_of_ptes_ends_as_a_refused_frame_does() -> None:
    """With the reverse map of 2.6.0 a line of a chain is wanted besides, at other moments."""
    answers = {row.result for row in rows("2.6")} | {*SUCCESS}
    world = ProcessMachine(CONFIGS["2.6 chains"])
    for operation in OPERATIONS:
        for number in range(30):
            stage = Stage(world)
            asked, result, _ = refuse(stage, operation, range(number, number + 1))
            assert result in answers
            if len(asked) > number and operation != "setup_arg_pages()":
                stage.is_as_it_was()
                assert OPERATIONS[operation][1](stage) in SUCCESS, "with memory it works"
            stage.end()
            if len(asked) <= number:
                break


# -- planted faults --------------------------------------------------------------------------


def a_move_is_not_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real = EntryChanger._move_one_page

    def move(self: Any, mm: int, pgd: int, source: int, to: int) -> bool:
        return to < source or real(self, mm, pgd, source, to)

    monkeypatch.setattr(EntryChanger, "_move_one_page", move)


def the_file_page_keeps_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def early_copy(self: Any, vma: int, page: int) -> int:
        copy = self._allocator.alloc_page(GFP_HIGHUSER, "user page")
        if copy:
            self.copy_user_highpage(copy, page)
            self._lru.add(copy)
            self._allocator.put_page(page)
        return int(copy)

    monkeypatch.setattr(FaultHandler, "_early_copy", early_copy)


def half_a_child_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Fork.dup_mmap

    def dup_mmap(self: Any, mm: int) -> int:
        error = real(self, mm)
        if error:
            self._areas.mm(mm).mm_users += 1
        return error

    monkeypatch.setattr(Fork, "dup_mmap", dup_mmap)


def the_slot_goes_before_the_page_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SwapCache.read

    def read(self: Any, entry: int) -> int:
        page = real(self, entry)
        if not page:
            self.areas.swap_free(entry)
        return page

    monkeypatch.setattr(SwapCache, "read", read)


def rss_counts_pages_that_did_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FaultHandler._do_anonymous_page

    def do_anonymous_page(self: Any, mm: int, *rest: Any) -> Fault:
        fault = real(self, mm, *rest)
        if fault is Fault.OOM:
            self._words[(mm - PAGE_OFFSET >> 2) + self._rss] += 1
        return fault

    monkeypatch.setattr(FaultHandler, "_do_anonymous_page", do_anonymous_page)


def arguments_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Exec, "free_arg_pages", lambda self, bprm: None)


def a_space_without_directory_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fork, "free_mm", lambda self, mm: None)


def the_tree_is_given_no_frame_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that got no place in the page cache is lost."""
    real = RadixPageCache.add_to_page_cache

    def add(self: Any, page: int, mapping: int, index: int) -> int:
        error = real(self, page, mapping, index)
        if error:
            self._allocator.get_page(page)
        return error

    monkeypatch.setattr(RadixPageCache, "add_to_page_cache", add)


def an_area_forgets_its_anon_vma(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken, and the area does not have it: the next fault takes another one."""
    real = AnonVmas.anon_vma_prepare

    def prepare(self: Any, vma: int) -> int:
        error = real(self, vma)
        if not error and vma not in self.__dict__.setdefault("seen", set()):
            self.seen.add(vma)
            self._alloc()
        return error

    monkeypatch.setattr(AnonVmas, "anon_vma_prepare", prepare)


def the_slot_of_2_6_goes_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SwapCache26._insert

    def insert(self: Any, page: int, entry: int) -> bool:
        inserted = real(self, page, entry)
        if not inserted:
            self.areas.swap_free(entry)
        return inserted

    monkeypatch.setattr(SwapCache26, "_insert", insert)


SHARED_ROWS = [
    (a_move_is_not_put_back, "mremap over a border, 3"),
    (half_a_child_stays, "fork, 8"),
    (arguments_are_forgotten, "copy_strings(), 2"),
    (a_space_without_directory_is_lost, "fork, 3"),
]
FAULTS = {
    "2.4": [
        *SHARED_ROWS,
        (the_file_page_keeps_its_user, "write to a file, 3"),
        (the_slot_goes_before_the_page_is_in, "read what is out, 1"),
        (rss_counts_pages_that_did_not_come, "first write, 2"),
    ],
    "2.6": [
        *SHARED_ROWS,
        (the_tree_is_given_no_frame_back, "read of a file, 3"),
        (an_area_forgets_its_anon_vma, "first write, 3"),
        (the_slot_of_2_6_goes_too_early, "read what is out, 2"),
        (rss_counts_pages_that_did_not_come, "first write, 3"),
    ],
}


@pytest.mark.parametrize(
    ("release", "fault", "row"),
    [
        pytest.param(release, fault, row, id=f"{release}-{fault.__name__}-{row}")
        for release, faults in FAULTS.items()
        for fault, row in faults
    ],
)
def test_planted_faults_are_found(
    release: str,
    fault: Callable[[pytest.MonkeyPatch], None],
    row: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worlds = Worlds()
    assert worlds[release]
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError)):
        test_row(worlds, next(known for known in ROWS if str(known) == f"{release}-{row}"), False)
