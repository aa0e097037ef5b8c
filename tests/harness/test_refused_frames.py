# SPDX-License-Identifier: GPL-2.0-or-later
"""Each request for frames refused in turn, under a process with pages of every kind.

The process has three pages written, and one each of the zero page, a private file, shared memory,
and one that is out, each kind in a page table of its own. No cache has a free object, so whatever
wants one asks for a frame. A row is one request that is refused: the how manieth, for what, what
came of the operation, and what is different afterwards from before; ``nothing`` is nothing of
areas, PTEs, contents, counts, counters, swap slots and the owner of every frame. What does stay,
2.4.22 leaves just so:

* ``page table``: ``handle_mm_fault()`` makes one first, and the next fault will want it; it goes
  with the range. ``move_page_tables()`` leaves one at the place that it could not move to.
* ``read-only``: ``copy_page_range()`` has taken the right to write from pages of the parent that
  the child was to share; the parent's next write has each for itself and gets it back.
* ``page cache``: the page of the file has been read, and stays cached.
* ``1 changed``: the page has come in, for reading; only the copy was refused.
* ``mlock`` and ``mmap`` do not look at what ``make_pages_present()`` returns: the area is locked,
  with the pages that there was memory for, and the others come by faults.
* ``get_user_pages()`` leaves what it has brought in.
* ``put_user()`` below the stack: ``expand_stack()`` comes before the page.
* ``setup_arg_pages()``: the old program is gone, and the new one is killed on its way.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import MmucheckError
from kernel_model.exec import Exec
from kernel_model.fork import Fork
from kernel_model.mm.gfp import GFP_HIGHUSER
from kernel_model.mm.memory.change import EntryChanger
from kernel_model.mm.memory.fault import Fault, FaultHandler
from kernel_model.mm.swap_state import SwapCache
from tests.harness.process_machine import CONFIGS, PAGE, ProcessMachine, R
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

TABLE = """
operation              no  refused         result          left
fork                    1  task_struct     ENOMEM          nothing
fork                    2  slab            ENOMEM          nothing
fork                    3  page directory  ENOMEM          nothing
fork                    4  slab            ENOMEM          nothing
fork                    5  page table      ENOMEM          nothing
fork                    6  page table      ENOMEM          nothing
fork                    7  page table      ENOMEM          3 read-only
fork                    8  page table      ENOMEM          3 read-only
fork                    9  page table      ENOMEM          3 read-only
fork                   10  page table      ENOMEM          3 read-only
fork                   11  page table      ENOMEM          3 read-only
write to a copy         1  user page       SIGKILL         nothing
write to the zero page  1  user page       SIGKILL         nothing
first write             1  page table      SIGKILL         nothing
first write             2  user page       SIGKILL         +table
first read              1  page table      SIGKILL         nothing
read what is out        1  user page       SIGKILL         nothing
write what is out       1  user page       SIGKILL         nothing
write what is out       2  user page       SIGKILL         1 changed, +user page
read of a file          1  page table      SIGKILL         nothing
read of a file          2  page cache      SIGKILL         +table
write to a file         1  page table      SIGKILL         nothing
write to a file         2  page cache      SIGKILL         +table
write to a file         3  user page       SIGKILL         +page cache, +table
write to shared memory  1  page table      SIGKILL         nothing
write to shared memory  2  page cache      SIGKILL         +table
put_user() to a copy    1  user page       EFAULT          nothing
put_user() below stack  1  page table      EFAULT          areas
put_user() below stack  2  user page       EFAULT          areas, +table
get_user_pages()        1  page table      0 pages, ENOMEM nothing
get_user_pages()        2  user page       0 pages, ENOMEM +table
get_user_pages()        3  user page       1 pages, ENOMEM 1 new, +table, +user page
get_user_pages()        4  user page       2 pages, ENOMEM 2 new, +table, +2 user page
copy_strings()          1  argument page   ENOMEM          nothing
copy_strings()          2  argument page   ENOMEM          nothing
copy_strings()          3  argument page   ENOMEM          nothing
exec_mmap()             1  slab            ENOMEM          nothing
exec_mmap()             2  page directory  ENOMEM          nothing
setup_arg_pages()       1  slab            ENOMEM          -3 argument page
setup_arg_pages()       2  page table      ENOMEM          areas, -3 argument page, +slab
mmap over the middle    1  slab            ENOMEM          nothing
mmap locked             1  slab            ENOMEM          nothing
mmap locked             2  page table      ok              areas, +slab
mmap locked             3  user page       ok              areas, +table, +slab
mmap locked             4  user page       ok              areas, 1 new, +table, +slab, +user page
mmap locked             5  user page       ok              areas, 2 new, +table, +slab, +2 user page
munmap the middle       1  slab            ENOMEM          nothing
mprotect the middle     1  slab            ENOMEM          nothing
mlock                   1  page table      ok              areas
mlock                   2  user page       ok              areas, +table
mlock                   3  user page       ok              areas, 1 new, +table, +user page
mlock                   4  user page       ok              areas, 2 new, +table, +2 user page
mremap                  1  slab            ENOMEM          nothing
mremap                  2  page table      ENOMEM          nothing
mremap the middle       1  slab            ENOMEM          nothing
mremap the middle       2  page table      ENOMEM          nothing
mremap over a border    1  slab            ENOMEM          nothing
mremap over a border    2  page table      ENOMEM          nothing
mremap over a border    3  page table      ENOMEM          +table
"""
COLUMNS = (0, 23, 27, 43, 59)

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


# -- the table -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    operation: str
    number: int
    refused: str
    result: str
    left: str

    def __str__(self) -> str:
        return f"{self.operation}, {self.number}"


def rows() -> Iterator[Row]:
    for line in TABLE.strip().splitlines()[1:]:
        ends = (*COLUMNS[1:], None)
        cells = [line[a:b].strip() for a, b in zip(COLUMNS, ends, strict=True)]
        yield Row(cells[0], int(cells[1]), *cells[2:])


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
def world() -> ProcessMachine:
    return ProcessMachine(CONFIGS["2-level"])


@pytest.mark.book("4.3", "4.4", "4.6")
@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_row(world: ProcessMachine, row: Row, for_good: bool) -> None:
    stage, first = Stage(world), row.number - 1
    numbers = range(first, 1 << 30 if for_good else row.number)
    asked, result, left = refuse(stage, row.operation, numbers)
    assert (asked[first], result, left) == (row.refused, row.result, row.left)
    if row.operation != "setup_arg_pages()":
        stage.is_as_it_was()
        again = OPERATIONS[row.operation][1](stage)
        assert again in SUCCESS, "with memory it works"
    stage.end()


@pytest.mark.book("4.4", "4.6")
def test_a_parent_whose_fork_failed_writes_without_a_copy(world: ProcessMachine) -> None:
    stage = Stage(world)
    frames = [world.frame(stage.process, WRITTEN + n * PAGE) for n in range(3)]
    _, result, left = refuse(stage, "fork", range(10, 11))
    assert (result, left) == ("ENOMEM", "3 read-only")
    for n, frame in enumerate(frames):
        assert stage.store(WRITTEN + n * PAGE) == "ok"
        assert len(world.faults) == 1
        assert world.frame(stage.process, WRITTEN + n * PAGE) == frame
    stage.end()


EXEC = [
    ("argument page", "NoMemory", "as it was"),
    ("slab", "NoMemory", "as it was"),
    ("page directory", "NoMemory", "as it was"),
    ("slab", "NoMemory", "dead"),
    ("page table", "NoMemory", "dead"),
    ("page table", "ok", "new"),
    ("page cache", "ok", "new"),
    ("page cache", "ok", "new"),
    ("user page", "ok", "new"),
]
"""Each request of a whole ``execve()``, and what the process is afterwards. The last four are for
``padzero()``, and 2.4.22 does not ask it whether it has cleared the end of the data."""


@pytest.mark.book("4.3", "4.4")
@pytest.mark.parametrize("number", range(len(EXEC) + 1))
def test_exec_of_a_whole_program(world: ProcessMachine, number: int) -> None:
    """Of a process that shares its address space, and so needs a new one."""
    stage = Stage(world)
    stage.has_program()
    stage.has_thread()
    with stage.no_free_objects(), stage.refusing(range(number, number + 1)) as asked:
        result = stage.exec_program()
    if number == len(EXEC):
        assert (asked, result) == ([purpose for purpose, *_ in EXEC], "ok")
    else:
        purpose, expected, process = EXEC[number]
        assert (asked[number], result) == (purpose, expected)
        assert stage.has_its_areas() == (process == "as it was")
        if process == "as it was":
            stage.is_as_it_was()
    stage.end()


def test_every_request_has_a_row(world: ProcessMachine) -> None:
    known = [(row.operation, row.number) for row in rows()]
    for operation in OPERATIONS:
        stage = Stage(world)
        asked, result, _ = refuse(stage, operation, range(1000, 1001))
        assert result in SUCCESS
        numbers = [number for name, number in known if name == operation]
        assert numbers == list(range(1, len(asked) + 1)), operation
        stage.end()


@pytest.mark.book("3.3", "4.3")
@pytest.mark.parametrize("build", ["PAE", pytest.param("highmem", marks=pytest.mark.slow)])
def test_other_builds_leave_nothing_either(build: str) -> None:
    """A directory of three levels is four frames; the rest is as in the table."""
    world = ProcessMachine(CONFIGS[build])
    known = {(row.operation, row.refused, row.result, row.left) for row in rows()}
    known |= {(name, "page middle directory", "ENOMEM", "nothing") for name in NEW_DIRECTORY}
    for operation in OPERATIONS:
        for number in range(30):
            stage = Stage(world)
            asked, result, left = refuse(stage, operation, range(number, number + 1))
            if len(asked) > number:
                assert (operation, asked[number], result, left) in known
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


@pytest.mark.parametrize(
    ("fault", "row"),
    [
        (a_move_is_not_put_back, "mremap over a border, 3"),
        (the_file_page_keeps_its_user, "write to a file, 3"),
        (half_a_child_stays, "fork, 8"),
        (the_slot_goes_before_the_page_is_in, "read what is out, 1"),
        (rss_counts_pages_that_did_not_come, "first write, 2"),
        (arguments_are_forgotten, "copy_strings(), 2"),
        (a_space_without_directory_is_lost, "fork, 3"),
    ],
)
def test_planted_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None], row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = ProcessMachine(CONFIGS["2-level"])
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError)):
        test_row(world, next(known for known in rows() if str(known) == row), False)
