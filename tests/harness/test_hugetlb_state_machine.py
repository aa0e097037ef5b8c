# SPDX-License-Identifier: GPL-2.0-or-later
"""Random users of huge pages against lists and dictionaries.

They fill and shrink the pool, map, fork, unmap and truncate. The oracle knows which huge page of
which file each process has where, and what was written to it last. After each step the pool has as
many free ones as it says, the census of huge pages finds their users, and the ledger means every
page of every mapping as the page tables map it.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from kernel_model.errors import MmucheckError
from kernel_model.fs.hugetlbfs import HugetlbFs
from kernel_model.mm.hugetlb.pool import HugePagePool
from kernel_model.mm.hugetlb.tables import HugePageTables
from tests.kernel_model.mm.hugetlb.huge_kernel import HugeKernel, slowly

PLACES = 6
"""Where a process may have a huge page: one place behind the other."""
BASE = 0x50000000
MOST_FILES, MOST_PROCESSES, MOST_PAGES, QUOTA = 3, 3, 7, 6
READ, READ_WRITE, SHARED = 1, 3, 1
ENOMEM, EINVAL = -12, -22

which = st.integers(0, 5)
places = st.integers(0, PLACES - 1)
counts = st.integers(1, 3)
offsets = st.sampled_from([0, 0, 1, 2, 3])
uses = st.sampled_from(["to fill", "to write later", "to write later", "to read"])


class HugeUsers(RuleBasedStateMachine):
    """``files`` are huge index -> cell, a list of one word; ``spaces`` place -> (cell, writable),
    or None where truncation left a hole in a mapping."""

    kind = "PAE"

    def __init__(self) -> None:
        super().__init__()
        self.huge = HugeKernel(self.kind, 5)
        self.huge.limited(QUOTA)
        self.ledger = self.huge.ledger
        self.total = 5
        self.files: dict[int, dict[int, list[int]]] = {}
        self.sizes: dict[int, int] = {}
        self.spaces: dict[int, dict[int, tuple[int, int, list[int], bool] | None]] = {}
        self.value = 0

    @initialize()
    def first(self) -> None:
        self.spaces[self.huge.processes.start()] = {}
        self.new_file()

    def at(self, place: int) -> int:
        return BASE + place * self.huge.size

    def process(self, number: int) -> int:
        return sorted(self.spaces)[number % len(self.spaces)]

    def file(self, number: int) -> int:
        return sorted(self.files)[number % len(self.files)]

    def cells(self) -> list[list[int]]:
        """Every huge page in use, once."""
        cached = [cell for pages in self.files.values() for cell in pages.values()]
        mapped = [page[2] for space in self.spaces.values() for page in space.values() if page]
        return list({id(cell): cell for cell in cached + mapped}.values())

    @property
    def charged(self) -> int:
        """Huge pages that the mount counts: those that are in a file."""
        return sum(len(pages) for pages in self.files.values())

    # -- files ---------------------------------------------------------------------------------

    @rule(number=which, new=st.booleans())
    def change_files(self, number: int, new: bool) -> None:
        if new and len(self.files) < MOST_FILES:
            self.new_file()
        elif len(self.files) > 1:
            self.unlink(number)

    def new_file(self) -> None:
        inode = self.huge.new_file()
        self.files[inode], self.sizes[inode] = {}, 0

    def unlink(self, number: int) -> None:
        """The file lives on while somebody maps it; that is not looked at any further here."""
        inode = self.file(number)
        if any(page and page[0] == inode for s in self.spaces.values() for page in s.values()):
            return
        if any(inode in self._mapped_holes(space) for space in self.spaces):
            return
        self.huge.unlink(inode)
        del self.files[inode], self.sizes[inode]

    def _mapped_holes(self, pgd: int) -> set[int]:
        """Files whose VMAs a process still has, whatever of them is mapped."""
        areas = self.huge.kernel.spaces.areas
        views = [areas.vma(vma) for vma in areas.list(self.huge.processes.mm(pgd))]
        return {self.huge.kernel.files.inode_of(view.vm_file) for view in views if view.vm_file}

    @rule(number=which, keep=st.integers(0, 3))
    def truncate(self, number: int, keep: int) -> None:
        """To nothing, to one more than it has, to what it has, or to one less."""
        inode = self.file(number)
        keep = max(self.sizes[inode] + 2 - keep, 0) if keep else 0
        answer = self.huge.fs.hugetlbfs_setattr_size(inode, keep * self.huge.size)
        if keep > self.sizes[inode]:
            assert answer == EINVAL
            return
        assert answer == 0
        self.sizes[inode] = keep
        for index in [index for index in self.files[inode] if index >= keep]:
            del self.files[inode][index]
        for space in self.spaces.values():
            for place, page in space.items():
                if page and page[0] == inode and page[1] >= keep:
                    space[place] = None

    # -- mapping -------------------------------------------------------------------------------

    @rule(number=which, of=which, place=places, count=counts, off=offsets, how=uses)
    def map(self, number: int, of: int, place: int, count: int, off: int, how: str) -> None:
        pgd, inode = self.process(number), self.file(of)
        if how == "to read":
            self.map_read_only(pgd, inode, place)
            return
        count = min(count, PLACES - place)
        wanted = range(off, off + count)
        offset = off * self.huge.pool.huge.frames
        where = self.huge.map(pgd, inode, count, at=self.at(place), page=offset)
        space, pages = self.spaces[pgd], self.files[inode]
        for n in range(count):
            space.pop(place + n, None)
        # What was mapped there is gone first, and that may have freed what is needed now.
        for index in wanted:
            if index not in pages:
                if self.charged >= QUOTA or len(self.cells()) >= self.total:
                    assert where == ENOMEM
                    return
                pages[index] = [0]
        assert where == self.at(place)
        self.sizes[inode] = max(self.sizes[inode], off + count)
        for n, index in enumerate(wanted):
            space[place + n] = inode, index, pages[index], True
            if how == "to fill":
                self._write(pgd, place + n, pages[index])

    def map_read_only(self, pgd: int, inode: int, place: int) -> None:
        """Page 0 of the file."""
        where = self.huge.map(pgd, inode, 1, at=self.at(place), prot=READ)
        self.spaces[pgd].pop(place, None)
        if not self.sizes[inode]:
            assert where == ENOMEM
            return
        pages = self.files[inode]
        if 0 not in pages:
            if self.charged >= QUOTA or len(self.cells()) >= self.total:
                assert where == ENOMEM
                return
            pages[0] = [0]
        assert where == self.at(place)
        self.spaces[pgd][place] = inode, 0, pages[0], False

    @rule(number=which, place=places, count=counts)
    def unmap(self, number: int, place: int, count: int) -> None:
        pgd = self.process(number)
        assert self.huge.unmap(pgd, self.at(place), count * self.huge.size) == 0
        for n in range(count):
            self.spaces[pgd].pop(place + n, None)

    # -- processes -----------------------------------------------------------------------------

    @rule(number=which, fork=st.booleans())
    def change_processes(self, number: int, fork: bool) -> None:
        pgd = self.process(number)
        if fork and len(self.spaces) < MOST_PROCESSES:
            self.spaces[self.huge.processes.fork(pgd)] = dict(self.spaces[pgd])
        elif len(self.spaces) > 1:
            self.huge.processes.exit(pgd)
            del self.spaces[pgd]

    @rule(number=st.integers(0, 30))
    def write(self, number: int) -> None:
        """To one of those that may be written to, if there is any."""
        writable = [
            (pgd, place, page[2])
            for pgd, space in self.spaces.items()
            for place, page in space.items()
            if page and page[3]
        ]
        if writable:
            self._write(*writable[number % len(writable)])

    def _write(self, pgd: int, place: int, cell: list[int]) -> None:
        self.value += 1
        cell[0] = self.value
        self.huge.kernel.ram.write32(self._word(pgd, place), self.value)

    def _word(self, pgd: int, place: int) -> int:
        return (self.huge.frame(pgd, self.at(place)) << 12) + self.huge.size - 4

    # -- the pool ------------------------------------------------------------------------------

    @rule(count=st.integers(2, MOST_PAGES))
    def resize(self, count: int) -> None:
        """Those in use stay; a growing pool gets what it asks for, for there is memory."""
        used = len(self.cells())
        self.huge.pool.hugetlb_sysctl_handler(count)
        self.total = max(count, used) if count < self.total else count

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def the_pool_says_the_same(self) -> None:
        assert (self.huge.total, self.huge.free) == (self.total, self.total - len(self.cells()))
        sb = self.huge.fs.super_block(self.huge.mount)
        assert sb.free_blocks == QUOTA - self.charged
        self.huge.check()

    @invariant()
    def files_have_their_pages(self) -> None:
        for inode, pages in self.files.items():
            assert self.huge.pages(inode) == sorted(pages)
            size = int(self.huge.kernel.files.inode(inode).i_size)
            assert size == self.sizes[inode] * self.huge.size

    @invariant()
    def processes_have_theirs(self) -> None:
        frames: dict[int, int] = {}
        for pgd, space in self.spaces.items():
            for place in range(PLACES):
                page, frame = space.get(place), self.huge.frame(pgd, self.at(place))
                assert bool(page) == bool(frame), place
                meant, rights = self.ledger.meaning(pgd, (self.at(place) >> 12) + 5)
                if not page:
                    assert meant == -1
                    continue
                assert meant == frame + 5
                assert bool(rights & 2) == bool(self.huge.entry(pgd, self.at(place)) & 2) == page[3]
                assert frames.setdefault(id(page[2]), frame) == frame
                assert self.huge.kernel.ram.read32(self._word(pgd, place)) == page[2][0]
        assert len(set(frames.values())) == len(frames)

    def teardown(self) -> None:
        for pgd in list(self.spaces):
            self.huge.processes.exit(pgd)
        for inode in list(self.files):
            self.huge.unlink(inode)
        assert self.huge.free == self.huge.total
        self.huge.pool.set_max_huge_pages(0)
        assert "huge page" not in self.ledger._owners.values()


class TwoLevel(HugeUsers):
    kind = "2-level"


MACHINES = {"PAE": HugeUsers, "2-level": TwoLevel}
RUN = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)


@pytest.mark.book("3.10", release="2.6")
@pytest.mark.parametrize("kind", MACHINES)
def test_state_machine(kind: str) -> None:
    run_state_machine_as_test(MACHINES[kind], settings=RUN)  # type: ignore[no-untyped-call]


def _wrong_index(self: HugePageTables, vma: int, address: int) -> int:
    start, _ = self._pages.span(vma)
    return address - start >> self.huge.shift


def _not_large(self: HugePageTables, *arguments: Any) -> None:
    REAL["_set_huge_pte"](self, *arguments)
    self._entries.set_pte(arguments[-1], self._entries.entry(arguments[-1]) & ~0x80)


def _not_zeroed(self: HugePagePool) -> int:
    page = self._dequeue_huge_page()
    if page:
        self._memmap.set_count(page, 1)
        self._set_destructor(page, self._destructor)
    return page


REAL: dict[str, Callable[..., Any]] = {"_set_huge_pte": HugePageTables._set_huge_pte}
FAULTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "the offset of a mapping is forgotten": (HugePageTables, "huge_index", _wrong_index),
    "the entry is no large page's": (HugePageTables, "_set_huge_pte", _not_large),
    "a page is not zeroed": (HugePagePool, "alloc_huge_page", _not_zeroed),
    "quota is not given back": (HugetlbFs, "_hugetlb_put_quota", lambda fs, mapping: None),
    "truncation does not unmap": (HugetlbFs, "_hugetlb_vmtruncate_list", lambda *a: None),
    "unmapping is not announced": (HugePageTables, "_announce", lambda *a: None),
    "a freed one is not counted": (
        HugePagePool,
        "_enqueue_huge_page",
        lambda pool, page: pool._lists.add(page + pool._link, pool._head(0)),
    ),
}


FOUND_LATE = ("a page is not zeroed", "truncation does not unmap")


@pytest.mark.parametrize("fault", slowly(FAULTS, *FOUND_LATE))
def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    owner, name, wrong = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    run = settings(RUN, max_examples=400, report_multiple_bugs=False, phases=[Phase.generate])
    with pytest.raises((MmucheckError, AssertionError)):
        run_state_machine_as_test(HugeUsers, settings=run)  # type: ignore[no-untyped-call]
