# SPDX-License-Identifier: GPL-2.0-or-later
"""What a fork makes of each kind of page, in parent, child and grandchild, on the CPU.

``parent``, ``child`` and ``grandchild`` are the PTEs right after both forks, before any of the
three touched the page: P present, W writable, U user, A accessed, D dirty, N kept but for nobody,
``swap`` a swap slot. ``count`` is ``page->count``, or how often the slot is meant: users of the
frame, and the page cache as one more. Then the grandchild, the child and the parent each store a
word from ring 3: ``free`` without a fault, ``new`` into a frame where none was mapped, ``copy``
into a copy, ``reuse`` into the frame that was there, once the others have left it to the last one;
``ACCERR`` and ``MAPERR`` are SIGSEGV.

The table was written from the book (4.4, 4.6) and from what 2.4.22 does to each entry: a child's
entry is old (``pte_mkold``), and clean if the mapping is shared (``pte_mkclean``); both sides lose
the right to write to what is private and may ever be written (``VM_SHARED | VM_MAYWRITE``);
reserved frames, such as the zero page, are copied as they stand.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pytest

from kernel_model.arch_i386.fault import FaultKind
from kernel_model.arch_i386.pgtable import PAGE_SHARED
from kernel_model.structs.mm import VM_DONTCOPY, VM_LOCKED
from tests.harness.process_machine import (
    ANONYMOUS,
    CONFIGS,
    MCL_CURRENT,
    NONE,
    PAGE,
    PRIVATE,
    RW,
    SHARED,
    Content,
    ProcessMachine,
    R,
)

TABLE = """
what                    parent        child        grandchild   count  writes: G  C      P
untouched               none          none         none         -      new     new    new
zero page               zero P U A    zero P U A   zero P U A   -      new     new    new
written                 P U A D       P U D        P U D        3      copy    copy   reuse
written, then read-only P U A D       P U D        P U D        3      ACCERR  ACCERR ACCERR
written, then PROT_NONE N A D         N D          N D          3      ACCERR  ACCERR ACCERR
locked                  P U A D       P U D        P U D        3      copy    copy   reuse
not to be copied        P W U A D     none         none         1      MAPERR  MAPERR free
reserved frame          P W U A       P W U A      P W U A      -      free    free   free
shared anonymous        P W U A D     P W U        P W U        4      free    free   free
shared, only read       P W U A       P W U        P W U        4      free    free   free
shared file             P W U A D     P W U        P W U        4      free    free   free
shared read-only file   P U A         P U          P U          4      ACCERR  ACCERR ACCERR
private file, read      P U A         P U          P U          4      copy    copy   copy
private file, written   P U A D       P U D        P U D        3      copy    copy   reuse
in the swap cache       swap          swap         swap         4      copy    copy   reuse
swapped out             swap          swap         swap         3      copy    copy   reuse
swapped in, read        P U A         P U          P U          4      copy    copy   reuse
"""
COLUMNS = (0, 24, 38, 51, 64)

AT = 0x50000000
FIRST = 0x11110000
"""The first word of the page before the forks; the file and shared memory have it, too."""
KERNEL_IMAGE = 0x3F0000
"""A reserved frame in RAM that nothing uses: the space behind the kernel's data."""
WRITTEN, OWN = AT + 8, 0x22220000
"""Where each stores its own word: so a copy shows by the first word that it was made."""


@dataclass(frozen=True)
class Row:
    what: str
    ptes: tuple[str, str, str]
    count: str
    writes: tuple[str, str, str]

    def __str__(self) -> str:
        return self.what


def rows() -> Iterator[Row]:
    for line in TABLE.strip().splitlines()[1:]:
        cells = [line[a:b].strip() for a, b in zip(COLUMNS, (*COLUMNS[1:], None), strict=True)]
        count, *writes = cells[4].split()
        yield Row(
            cells[0], (cells[1], cells[2], cells[3]), count, (writes[0], writes[1], writes[2])
        )


# -- the page of the parent ------------------------------------------------------------------


def touch(world: ProcessMachine, parent: int, *, write: bool) -> None:
    if write:
        assert world.write(parent, AT, FIRST) == FIRST
    else:
        world.read(parent, AT)


def untouched(world: ProcessMachine) -> None:
    world.map(AT)


def anonymous(world: ProcessMachine, parent: int, *, write: bool = True) -> None:
    world.map(AT)
    touch(world, parent, write=write)


def protected(world: ProcessMachine, parent: int, prot: int) -> None:
    anonymous(world, parent)
    assert world.kernel.spaces.sys_mprotect(AT, PAGE, prot) == 0


def locked(world: ProcessMachine, parent: int) -> None:
    anonymous(world, parent)
    assert world.kernel.spaces.sys_mlock(AT, PAGE) == 0


def not_to_be_copied(world: ProcessMachine, parent: int) -> None:
    anonymous(world, parent)
    area(world, parent).vm_flags |= VM_DONTCOPY


def reserved_frame(world: ProcessMachine, parent: int) -> None:
    """A driver maps what it does not share with anybody's accounts; the mapping is private."""
    world.map(AT)
    mm = world.spaces.mm(parent)
    assert world.kernel.memory.remap_page_range(mm, AT, KERNEL_IMAGE, PAGE, PAGE_SHARED) == 0


def shared_memory(world: ProcessMachine, parent: int, *, write: bool) -> None:
    world.map(AT, RW, SHARED | ANONYMOUS)
    touch(world, parent, write=write)


def of_a_file(
    world: ProcessMachine, parent: int, flags: int, *, write: bool, prot: int = RW
) -> None:
    world.map_file(AT, Content(FIRST), flags, prot)
    touch(world, parent, write=write)


def in_swap_cache(world: ProcessMachine, parent: int) -> None:
    """All else is locked, so that reclaim has this page alone to take."""
    assert world.kernel.spaces.sys_mlockall(MCL_CURRENT) == 0
    anonymous(world, parent)
    world.swap_out()


def swapped_out(world: ProcessMachine, parent: int) -> None:
    in_swap_cache(world, parent)
    world.reclaim()


def swapped_in(world: ProcessMachine, parent: int) -> None:
    swapped_out(world, parent)
    assert world.read(parent, AT) == FIRST


MAKERS: dict[str, Callable[[ProcessMachine, int], None]] = {
    "untouched": lambda world, parent: untouched(world),
    "zero page": lambda world, parent: anonymous(world, parent, write=False),
    "written": anonymous,
    "written, then read-only": lambda world, parent: protected(world, parent, R),
    "written, then PROT_NONE": lambda world, parent: protected(world, parent, NONE),
    "locked": locked,
    "not to be copied": not_to_be_copied,
    "reserved frame": reserved_frame,
    "shared anonymous": lambda world, parent: shared_memory(world, parent, write=True),
    "shared, only read": lambda world, parent: shared_memory(world, parent, write=False),
    "shared file": lambda world, parent: of_a_file(world, parent, SHARED, write=True),
    "shared read-only file": lambda world, parent: of_a_file(
        world, parent, SHARED, write=False, prot=R
    ),
    "private file, read": lambda world, parent: of_a_file(world, parent, PRIVATE, write=False),
    "private file, written": lambda world, parent: of_a_file(world, parent, PRIVATE, write=True),
    "in the swap cache": in_swap_cache,
    "swapped out": swapped_out,
    "swapped in, read": swapped_in,
}
ZEROS = {"untouched", "zero page", "reserved frame", "shared, only read"}
COMMON = {row for row in MAKERS if row.startswith("shared")} | {"reserved frame"}
"""What one writes, all see."""
READABLE = {"written, then read-only", "shared read-only file"}
"""Of those that may not be written."""


def area(world: ProcessMachine, pgd: int) -> Any:
    vma = world.kernel.spaces.find_vma(world.spaces.mm(pgd), AT)
    return world.kernel.spaces.areas.vma(vma)


class Family:
    """Parent, child and grandchild, with one page of the kind ``what`` at AT."""

    def __init__(self, world: ProcessMachine, what: str) -> None:
        self.world = world
        self.before = self._moment()
        self.parent = world.spaces.fork(world.first)
        world.spaces.enter(self.parent)
        MAKERS[what](world, self.parent)
        self.child = world.spaces.fork(self.parent)
        self.grandchild = world.spaces.fork(self.child)
        self.members = (self.parent, self.child, self.grandchild)

    def _moment(self) -> tuple[object, ...]:
        kernel = self.world.kernel
        swap = list(kernel.swap_areas.counts(0))
        return self.world.owners(), swap, self.world.cached_frames()

    def write(self, member: int, value: int) -> str:
        """Store a word from ring 3; how that came about, in the table's words."""
        world, before = self.world, self.world.pte(member, WRITTEN)
        kind, frame = world.bits(member, WRITTEN), world.frame(member, WRITTEN)
        users = world.users(frame)
        result = world.write(member, WRITTEN, value)
        if isinstance(result, str):
            assert world.pte(member, WRITTEN) == before
            return result.removeprefix("SEGV_")
        assert result == value
        assert world.bits(member, WRITTEN) == "P W U A D"
        if not world.faults:
            return "free"
        assert {fault[1] for fault in world.faults} == {WRITTEN}
        assert {fault[2] for fault in world.faults} <= {FaultKind.MINOR, FaultKind.MAJOR}
        if kind == "none" or kind.startswith("zero"):
            return "new"
        if kind == "swap":
            frame = world.frame_in_swap_cache(before)
        elif world.frame(member, WRITTEN) != frame:
            assert world.users(frame) == users - 1
        return "reuse" if world.frame(member, WRITTEN) == frame else "copy"

    def exit_all(self, order: tuple[int, ...]) -> None:
        for member in order:
            self.world.spaces.exit(member)
        assert self._moment() == self.before


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def world(request: pytest.FixtureRequest) -> ProcessMachine:
    return ProcessMachine(CONFIGS[request.param])


SLOW = [pytest.param("PAE", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=["2-level", *SLOW])
def one_world(request: pytest.FixtureRequest) -> ProcessMachine:
    """For what takes many families: tables of both shapes."""
    return ProcessMachine(CONFIGS[request.param])


# -- the table -------------------------------------------------------------------------------


@pytest.mark.book("4.4", "4.6")
@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_row(world: ProcessMachine, row: Row) -> None:
    family = Family(world, row.what)
    assert tuple(world.bits(member, AT) for member in family.members) == row.ptes
    if row.count != "-":
        assert world.count(family.parent, AT) == int(row.count)
    writers = (family.grandchild, family.child, family.parent)
    ways = [family.write(member, OWN + n) for n, member in enumerate(writers)]
    assert tuple(ways) == row.writes
    for n, (member, way) in enumerate(zip(writers, ways, strict=True)):
        first: int | str = 0 if row.what in ZEROS else FIRST
        own: int | str = OWN + (2 if row.what in COMMON else n)
        if way.endswith("ERR"):
            first, own = (first, 0) if row.what in READABLE else (f"SEGV_{way}",) * 2
        assert (world.read(member, AT), world.read(member, WRITTEN)) == (first, own)
    family.exit_all(writers)


@pytest.mark.book("4.4")
def test_locks_are_not_inherited_and_counters_are(world: ProcessMachine) -> None:
    family = Family(world, "locked")
    spaces, areas = world.spaces, world.kernel.spaces.areas
    parent, child = (areas.mm(spaces.mm(m)) for m in (family.parent, family.child))
    assert (parent.locked_vm, child.locked_vm) == (1, 0)
    assert area(world, family.parent).vm_flags & VM_LOCKED
    assert not area(world, family.child).vm_flags & VM_LOCKED
    assert (child.total_vm, child.map_count) == (parent.total_vm, parent.map_count)
    family.exit_all(family.members)


@pytest.mark.book("4.6")
@pytest.mark.parametrize("what", ["written", "private file, read"])
def test_reclaim_may_take_a_page_while_it_is_copied(
    world: ProcessMachine, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The PTE is looked at again when the copy has its frame: the process comes once more.

    An object-based map leaves a page alone that somebody holds and that has a swap slot. 2.4 brings
    a page back read-only, and copies it at one more fault.
    """
    family, faults = Family(world, what), world.kernel.memory.faults
    real = faults._private_copy

    def with_the_last_memory(*arguments: int) -> int:
        monkeypatch.setattr(faults, "_private_copy", real)
        world.reclaiming.unmap_one(world.kernel, world.spaces.mm(family.child), AT)
        return real(*arguments)

    monkeypatch.setattr(faults, "_private_copy", with_the_last_memory)
    assert world.write(family.child, WRITTEN, OWN) == OWN
    times = 2
    if what == "written":
        times = {"NoReverseMap": 3, "ObjectReverseMap": 1, "PteChains": 2}[
            type(faults._rmap).__name__
        ]
    assert [address for _, address, _ in world.faults].count(WRITTEN) == times
    assert [world.read(member, AT) for member in family.members] == [FIRST] * 3
    assert [world.read(member, WRITTEN) for member in family.members] == [0, OWN, 0]
    family.exit_all(family.members)


@pytest.mark.book("4.4.1")
def test_truncation_takes_private_copies_that_are_swapped_out(world: ProcessMachine) -> None:
    """The address is behind the end of the file, whoever wrote there before."""
    before, parent = world.owners(), world.spaces.fork(world.first)
    world.spaces.enter(parent)
    assert world.kernel.spaces.sys_mlockall(MCL_CURRENT) == 0
    world.map_file(AT, Content(FIRST, 3), PRIVATE)
    assert world.write(parent, AT + 2 * PAGE, OWN) == OWN
    world.swap_out()
    assert world.bits(parent, AT + 2 * PAGE) == "swap"
    file = int(area(world, parent).vm_file)
    world.kernel.file_memory.filemap.vmtruncate(world.kernel.files.inode_of(file), PAGE)
    assert world.bits(parent, AT + 2 * PAGE) == "none"
    assert world.read(parent, AT + 2 * PAGE) == "BUS_ADRERR"
    world.spaces.exit(parent)
    assert world.owners() == before


@pytest.mark.parametrize("what", [row.what for row in rows()])
def test_each_copy_counts_what_it_has_mapped(world: ProcessMachine, what: str) -> None:
    """``rss`` of a child is its present pages, reserved frames aside; so it stays."""
    family = Family(world, what)
    for step in range(2):
        for member in family.members:
            assert world.rss(member) == world.mapped_frames(member), step
        for member in family.members:
            family.write(member, 1)
    family.exit_all(family.members)


# -- every order -----------------------------------------------------------------------------

ORDERS = list(permutations(range(3)))


@pytest.mark.book("4.6")
@pytest.mark.parametrize("what", ["written", "in the swap cache", "swapped out"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_whoever_writes_last_has_the_frame_to_itself(
    one_world: ProcessMachine, what: str, order: tuple[int, ...]
) -> None:
    family = Family(one_world, what)
    ways = [family.write(family.members[n], OWN + n) for n in order]
    assert ways == ["copy", "copy", "reuse"]
    for n, member in enumerate(family.members):
        assert (one_world.read(member, AT), one_world.read(member, WRITTEN)) == (FIRST, OWN + n)
    family.exit_all(family.members)


@pytest.mark.book("4.3.3")
@pytest.mark.parametrize("written", [False, True], ids=["as forked", "written"])
@pytest.mark.parametrize("what", [row.what for row in rows()])
def test_nothing_is_left_in_whatever_order_they_exit(
    one_world: ProcessMachine, what: str, written: bool
) -> None:
    """Frames by owner, swap slots, the page cache: as before the first fork."""
    for order in ORDERS:
        family = Family(one_world, what)
        if written:
            for member in family.members:
                family.write(member, OWN)
        family.exit_all(tuple(family.members[n] for n in order))


@pytest.mark.book("4.6")
@pytest.mark.parametrize("what", ["written", "in the swap cache", "swapped out"])
@pytest.mark.parametrize("survivor", range(3))
def test_the_last_one_alive_writes_without_a_copy(
    one_world: ProcessMachine, what: str, survivor: int
) -> None:
    family = Family(one_world, what)
    member = family.members[survivor]
    for other in family.members:
        if other != member:
            one_world.spaces.exit(other)
    assert family.write(member, OWN) == "reuse"
    assert (one_world.read(member, AT), one_world.read(member, WRITTEN)) == (FIRST, OWN)
    family.exit_all((member,))
