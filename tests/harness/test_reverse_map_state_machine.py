# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that share, copy, move, swap and drop pages at random, over either reverse map of 2.6.

After each step a sweep over all page tables finds exactly the PTEs that the reverse map names, and
at the end every page holds what was written to it last.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.monitors.reverse_map import reverse_map_census
from kernel_model.config import Highmem
from kernel_model.errors import MmucheckError
from kernel_model.mm.rmap.anon_vma import AnonVmas
from kernel_model.mm.rmap.mapped_pages import MappedPages
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.mm.rmap.pte_chain import PteChains
from tests.kernel_model.mm.rmap.world import World

PAGE = 4096
BASE = 0x40000000 - 4 * PAGE
"""The pages lie below two page tables."""
PAGES = 12
FILE_PAGES = 6
MOST_PROCESSES = 5
READ, READ_WRITE = 1, 3
SHARED, PRIVATE, ANONYMOUS, FIXED = 1, 2, 0x20, 0x10
MREMAP_FIXED = 3

processes = st.integers(0, 4)
places = st.integers(0, PAGES - 1)
protections = st.sampled_from([READ, READ_WRITE])
lengths = st.integers(1, 4)


class Sharing(RuleBasedStateMachine):
    """The machine, and what each page of each process is known to hold.

    A page is ``(protection, cell)``; processes that share a page share the cell, a list of one
    value. A private page of a file that was not written to has the file's own cell.
    """

    kind, highmem = "object", Highmem.NONE

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.kind, highmem=self.highmem)
        self.spaces: dict[int, dict[int, tuple[int, list[int], bool]]] = {}
        contents = b"".join((900 + n).to_bytes(4, "little").ljust(PAGE, b"\0") for n in range(6))
        self.file = self.world.open(contents)
        self.on_file = [[900 + n] for n in range(FILE_PAGES)]
        self.value = 1000

    @initialize()
    def first(self) -> None:
        self.spaces[self.world.start()] = {}

    def some(self, which: int) -> int:
        """One of the processes."""
        return sorted(self.spaces)[which % len(self.spaces)]

    # -- mapping -------------------------------------------------------------------------------

    def _map(self, mm: int, page: int, count: int, prot: int, flags: int, off: int) -> None:
        self.world.run(mm)
        addr, file = BASE + page * PAGE, 0 if flags & ANONYMOUS else self.file.file
        mmap = self.world.spaces.do_mmap_pgoff
        assert mmap(file, addr, count * PAGE, prot, flags | FIXED, off) == addr

    @rule(which=processes, page=places, count=lengths, prot=protections)
    def map_zeros(self, which: int, page: int, count: int, prot: int) -> None:
        mm = self.some(which)
        self._map(mm, page, count, prot, PRIVATE | ANONYMOUS, 0)
        for number in range(page, page + count):
            self.spaces[mm][number] = prot, [0], True

    @rule(which=processes, page=places, count=lengths, off=st.integers(0, 2), shared=st.booleans())
    def map_file(self, which: int, page: int, count: int, off: int, shared: bool) -> None:
        mm = self.some(which)
        self._map(mm, page, count, READ_WRITE, SHARED if shared else PRIVATE, off)
        for number in range(count):
            cell = self.on_file[off + number]
            self.spaces[mm][page + number] = READ_WRITE, cell, not shared

    @rule(which=processes, page=places, count=lengths)
    def unmap(self, which: int, page: int, count: int) -> None:
        mm = self.some(which)
        self.world.run(mm)
        assert self.world.spaces.do_munmap(mm, BASE + page * PAGE, count * PAGE) == 0
        for number in range(page, page + count):
            self.spaces[mm].pop(number, None)

    @rule(which=processes, page=places, prot=protections)
    def protect(self, which: int, page: int, prot: int) -> None:
        mm = self.some(which)
        if page in self.spaces[mm]:
            self.world.run(mm)
            assert self.world.spaces.sys_mprotect(BASE + page * PAGE, PAGE, prot) == 0
            self.spaces[mm][page] = prot, *self.spaces[mm][page][1:]

    @rule(which=processes, page=places, to=places)
    def move(self, which: int, page: int, to: int) -> None:
        mm = self.some(which)
        if page in self.spaces[mm] and to != page:
            self.world.run(mm)
            target = BASE + to * PAGE
            moved = self.world.spaces.do_mremap(
                BASE + page * PAGE, PAGE, PAGE, MREMAP_FIXED, target
            )
            assert moved == target
            self.spaces[mm][to] = self.spaces[mm].pop(page)

    @rule(which=processes, page=places, off=st.integers(0, FILE_PAGES - 1))
    def reorder(self, which: int, page: int, off: int) -> None:
        """``remap_file_pages()``, where a file is mapped shared."""
        mm = self.some(which)
        if page in self.spaces[mm] and not self.spaces[mm][page][2]:
            self.world.run(mm)
            addr = BASE + page * PAGE
            assert self.world.spaces.sys_remap_file_pages(addr, PAGE, 0, off, 0) == 0
            self.spaces[mm][page] = self.spaces[mm][page][0], self.on_file[off], False

    # -- using ---------------------------------------------------------------------------------

    @rule(which=processes, page=places)
    def write(self, which: int, page: int) -> None:
        mm = self.some(which)
        self.value += 1
        prot, cell, private = self.spaces[mm].get(page, (0, [0], True))
        assert self.world.write(mm, BASE + page * PAGE, self.value) == (prot == READ_WRITE)
        if prot != READ_WRITE:
            return
        if private:
            self.spaces[mm][page] = prot, [self.value], True
        else:
            cell[0] = self.value

    @rule(which=processes, page=places)
    def read(self, which: int, page: int) -> None:
        mm = self.some(which)
        expected = self.spaces[mm][page][1][0] if page in self.spaces[mm] else -1
        assert self.world.read(mm, BASE + page * PAGE) == expected

    @precondition(lambda self: len(self.spaces) < MOST_PROCESSES)
    @rule(which=processes)
    def fork(self, which: int) -> None:
        parent = self.some(which)
        self.spaces[self.world.fork(parent)] = dict(self.spaces[parent])

    @precondition(lambda self: len(self.spaces) > 1)
    @rule(which=processes)
    def exit(self, which: int) -> None:
        mm = self.some(which)
        self.world.exit(mm)
        del self.spaces[mm]

    @rule(rounds=st.integers(1, 3))
    def evict(self, rounds: int) -> None:
        self.world.evict(rounds)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def reverse_map_and_page_tables_agree(self) -> None:
        world = self.world
        reverse_map_census(world.image, world.memmap, world.walk, world.mms)

    @invariant()
    def pages_are_as_meant(self) -> None:
        for mm in self.spaces:
            self.world.pages_are_as_meant(mm)

    def teardown(self) -> None:
        for mm, pages in self.spaces.items():
            for page, (_, cell, _private) in pages.items():
                assert self.world.read(mm, BASE + page * PAGE) == cell[0]
        for mm in list(self.spaces):
            self.world.exit(mm)
        self.reverse_map_and_page_tables_agree()
        assert not any(self.world.areas.counts(0)[1:])


class ChainedSharing(Sharing):
    kind = "pte_chain"


class WideSharing(Sharing):
    """PTEs of eight bytes, in page tables of three levels."""

    highmem = Highmem.GB64


class WideChainedSharing(ChainedSharing):
    highmem = Highmem.GB64


MACHINES = {"object": Sharing, "pte_chain": ChainedSharing}
WIDE = {"object with PAE": WideSharing, "pte_chain with PAE": WideChainedSharing}
EVERY = MACHINES | WIDE
RUN = settings(max_examples=20, stateful_step_count=30, deadline=None, derandomize=True)


@pytest.mark.book("3.10", "4.8")
@pytest.mark.parametrize("kind", MACHINES)
def test_state_machine(kind: str) -> None:
    run_state_machine_as_test(MACHINES[kind], settings=RUN)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVERY)
def test_longer_runs(kind: str) -> None:
    longer = settings(RUN, max_examples=100, stateful_step_count=60)
    run_state_machine_as_test(EVERY[kind], settings=longer)


def _nothing(*arguments: Any, **named: Any) -> None:
    """A step that is forgotten."""


def _next_page(self: MappedPages, vma: int, vaddr: int) -> int:
    return _LINEAR(self, vma, vaddr) + 1


_LINEAR = MappedPages.linear_page_index
FORGOTTEN: dict[str, tuple[str, type, str, Callable[..., Any]]] = {
    "removal": ("object", ObjectReverseMap, "remove", _nothing),
    "duplication": ("object", ObjectReverseMap, "duplicate", _nothing),
    "list at fork": ("object", AnonVmas, "link", _nothing),
    "file pages": ("object", ObjectReverseMap, "add_file", _nothing),
    "wrong index": ("object", MappedPages, "linear_page_index", _next_page),
    "chain removal": ("pte_chain", PteChains, "_remove_from_chain", _nothing),
    "chain move": ("pte_chain", PteChains, "moved", _nothing),
    "chain duplication": ("pte_chain", PteChains, "duplicate", _nothing),
    "owner of tables": ("pte_chain", PteChains, "table_made", _nothing),
    "slot in the PTE": ("object", PteUnmapper, "_to_swap", _nothing),
}


def tour(kind: str) -> None:
    """A run that leaves out nothing: each kind of page shared, copied, moved, swapped, dropped."""
    machine = EVERY[kind]()
    machine.first()
    steps: list[Callable[[], object]] = [
        lambda: machine.map_zeros(which=0, page=0, count=4, prot=READ_WRITE),
        lambda: machine.map_file(which=0, page=4, count=3, off=0, shared=True),
        lambda: machine.map_file(which=0, page=8, count=2, off=1, shared=False),
        *(lambda page=page: machine.write(which=0, page=page) for page in (0, 1, 2, 3, 4, 5, 8)),
        lambda: machine.read(which=0, page=9),
        *(lambda: machine.fork(which=0) for _ in range(2)),
        *(lambda page=page: machine.write(which=1, page=page) for page in (0, 4, 9)),
        lambda: machine.move(which=2, page=1, to=11),
        lambda: machine.move(which=0, page=2, to=10),
        lambda: machine.reorder(which=0, page=5, off=4),
        lambda: machine.evict(rounds=3),
        *(lambda page=page: machine.read(which=2, page=page) for page in (0, 2, 3, 4, 9, 11)),
        lambda: machine.protect(which=0, page=3, prot=READ),
        lambda: machine.unmap(which=0, page=3, count=2),
        lambda: machine.exit(which=1),
        lambda: machine.evict(rounds=2),
    ]
    for step in steps:
        step()
        machine.reverse_map_and_page_tables_agree()
        machine.pages_are_as_meant()
    machine.teardown()


@pytest.mark.book("3.10", "4.8")
@pytest.mark.parametrize("kind", EVERY)
def test_tour(kind: str) -> None:
    tour(kind)


@pytest.mark.book("3.10")
@pytest.mark.parametrize("fault", FORGOTTEN)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, owner, name, replacement = FORGOTTEN[fault]
    monkeypatch.setattr(owner, name, replacement)
    with pytest.raises((MmucheckError, AssertionError, IndexError)):
        tour(kind)
