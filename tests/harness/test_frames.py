# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame ledger against a naive book, and the contradictions it must notice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from harness.mappings import RIGHT_NX, RIGHT_PRESENT, RIGHT_USER, RIGHT_WRITE
from harness.monitors.frames import (
    FrameHasNoOwner,
    FrameHasOwner,
    FrameLedger,
    FrameStillMapped,
    LedgerError,
    PageNotMapped,
    rights_bits,
)
from kernel_model.events import Announcer, Rights
from kernel_model.image import SWAPPER_PG_DIR
from tests.harness.planting import DATA, planted_machine

PFNS = st.integers(0, 12)
SPACES = st.sampled_from([0x1000, 0x2000])
PAGES = st.integers(0, 5)
RIGHTS = st.builds(Rights, st.booleans(), st.booleans(), st.booleans())
RW = Rights(write=True, user=True)


class NaiveBook(RuleBasedStateMachine):
    """Every event is tried on the ledger; one triple for each fact says what must come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = FrameLedger()
        self.owned: list[tuple[int, str]] = []
        self.means: list[tuple[int, int, int, Rights, bool]] = []

    def _expect(self, error: type[LedgerError] | None, call: Callable[..., None], *a: Any) -> bool:
        if error is None:
            call(*a)
            return True
        with pytest.raises(error):
            call(*a)
        return False

    def _row(self, mm: int, page: int) -> tuple[int, int, int, Rights, bool] | None:
        return next((row for row in self.means if row[:2] == (mm, page)), None)

    @rule(pfn=PFNS, order=st.integers(0, 2), purpose=st.sampled_from("abc"))
    def take(self, pfn: int, order: int, purpose: str) -> None:
        block = [pfn + n for n in range(2**order)]
        clash = any(frame in block for frame, _ in self.owned)
        error = FrameHasOwner if clash else None
        if self._expect(error, self.ledger.frame_taken, pfn, order, purpose):
            self.owned += [(frame, purpose) for frame in block]

    @rule(pfn=PFNS, order=st.integers(0, 2))
    def give_back(self, pfn: int, order: int) -> None:
        block = [pfn + n for n in range(2**order)]
        frames = [frame for frame, _ in self.owned]
        error: type[LedgerError] | None = None
        for frame in block:
            if error is None and frame not in frames:
                error = FrameHasNoOwner
            if error is None and any(row[2] == frame and row[4] for row in self.means):
                error = FrameStillMapped
        if self._expect(error, self.ledger.frame_given_back, pfn, order):
            self.owned = [(frame, name) for frame, name in self.owned if frame not in block]

    @rule(mm=SPACES, page=PAGES, pfn=PFNS, rights=RIGHTS)
    def map(self, mm: int, page: int, pfn: int, rights: Rights) -> None:
        self.ledger.page_mapped(mm, page << 12 | 0x123, pfn, rights)
        self.means = [row for row in self.means if row[:2] != (mm, page)]
        self.means.append((mm, page, pfn, rights, True))

    @rule(mm=SPACES, page=PAGES)
    def unmap(self, mm: int, page: int) -> None:
        error = None if self._row(mm, page) else PageNotMapped
        if self._expect(error, self.ledger.page_unmapped, mm, page << 12):
            self.means = [row for row in self.means if row[:2] != (mm, page)]

    @rule(mm=SPACES, page=PAGES)
    def abandon(self, mm: int, page: int) -> None:
        row = self._row(mm, page)
        error = None if row else PageNotMapped
        if self._expect(error, self.ledger.page_abandoned, mm, page << 12):
            assert row is not None
            self.means.remove(row)
            self.means.append((*row[:4], False))

    @invariant()
    def same(self) -> None:
        for pfn in range(20):
            names = [name for frame, name in self.owned if frame == pfn]
            assert self.ledger.owner(pfn) == (names[0] if names else None)
        for mm in (0x1000, 0x2000):
            rows = sorted((row for row in self.means if row[0] == mm), key=lambda row: row[1])
            numbers, pfns, rights = self.ledger.pages(mm)
            assert numbers.tolist() == [row[1] for row in rows]
            assert pfns.tolist() == [row[2] for row in rows]
            assert rights.tolist() == [rights_bits(row[3]) for row in rows]


TestNaiveBook = NaiveBook.TestCase
TestNaiveBook.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_errors_name_frame_owners_and_page() -> None:
    ledger = FrameLedger()
    ledger.frame_taken(0x40, 3, "slab")
    with pytest.raises(FrameHasOwner, match=r"frame 0x47 was taken for 'user page', but 'slab'"):
        ledger.frame_taken(0x47, 0, "user page")
    ledger.page_mapped(0x3000, 0x08048123, 0x41, RW)
    with pytest.raises(
        FrameStillMapped, match=r"frame 0x41 .*'slab'.*0x08048000 .* 0x3000"
    ) as info:
        ledger.frame_given_back(0x40, 3)
    assert (info.value.pfn, info.value.mm, info.value.vaddr) == (0x41, 0x3000, 0x08048000)
    with pytest.raises(FrameHasNoOwner, match="frame 0x48"):
        ledger.frame_given_back(0x48, 0)
    with pytest.raises(PageNotMapped, match=r"0x09000000 of the address space 0x3000"):
        ledger.page_unmapped(0x3000, 0x09000000)
    assert ledger.owner(0x40) == "slab"


def test_an_abandoned_page_that_means_its_frame_again_keeps_it() -> None:
    ledger = FrameLedger()
    ledger.frame_taken(7, 0, "user page")
    ledger.page_mapped(0x3000, 0x5000, 7, RW)
    ledger.page_abandoned(0x3000, 0x5000)
    ledger.page_mapped(0x3000, 0x5000, 7, RW)
    with pytest.raises(FrameStillMapped):
        ledger.frame_given_back(7, 0)


def test_refused_events_change_nothing() -> None:
    ledger = FrameLedger()
    ledger.frame_taken(7, 0, "a")
    with pytest.raises(FrameHasOwner):
        ledger.frame_taken(4, 2, "b")
    assert [ledger.owner(pfn) for pfn in range(4, 8)] == [None, None, None, "a"]
    with pytest.raises(FrameHasNoOwner):
        ledger.frame_given_back(6, 1)
    assert ledger.owner(7) == "a"


def test_block_comes_back_in_pieces() -> None:
    ledger = FrameLedger()
    ledger.frame_taken(8, 2, "block")
    for pfn in (8, 9):
        ledger.frame_given_back(pfn, 0)
    ledger.frame_given_back(10, 1)
    assert not any(ledger.owner(pfn) for pfn in range(8, 12))


def test_rights_are_the_bits_of_dense_pages() -> None:
    assert rights_bits(Rights(write=False, user=False)) == RIGHT_PRESENT
    assert rights_bits(RW) == RIGHT_PRESENT | RIGHT_WRITE | RIGHT_USER
    assert rights_bits(Rights(False, True, execute=False)) == RIGHT_PRESENT | RIGHT_USER | RIGHT_NX


def test_changed_pages_are_told_once() -> None:
    ledger = FrameLedger()
    for page in (5, 3, 5):
        ledger.page_mapped(0x1000, page << 12, 9, RW)
    ledger.page_unmapped(0x1000, 3 << 12)
    assert ledger.take_changed(0x1000).tolist() == [3, 5]
    assert ledger.take_changed(0x1000).tolist() == []
    assert ledger.take_changed(0x2000).dtype == np.int64


@pytest.mark.book("7.2")
def test_entries_that_a_directory_waits_for() -> None:
    """What is made after a directory was filled is awaited there until it is shared."""
    table, ledger = 4 << 20, FrameLedger()

    def awaited(mm: int) -> list[int]:
        return [pages.start << 12 for pages in ledger.awaited_tables(mm)]

    ledger.frame_taken(7, 0, "page directory")
    ledger.kernel_table_made(0xF0000000, table)
    ledger.kernel_tables_shared(7 << 12, 0xC0000000, 0x40000000)
    for va in (0xF0400000, 0xFFC00000):
        ledger.kernel_table_made(va, table)
    assert awaited(7 << 12) == [0xF0400000, 0xFFC00000]
    assert awaited(0x9000) == [0xF0000000, 0xF0400000, 0xFFC00000], "nobody filled it"
    assert awaited(SWAPPER_PG_DIR) == []
    assert [len(pages) for pages in ledger.awaited_tables(7 << 12)] == [1024, 1024]
    ledger.kernel_tables_shared(7 << 12, 0xFFC00000, table)
    assert awaited(7 << 12) == [0xF0400000]
    assert len(awaited(0x9000)) == 3
    ledger.frame_given_back(7, 0)
    assert len(awaited(7 << 12)) == 3, "another directory in the same frame has none of them"


def test_listens() -> None:
    events = Announcer()
    assert FrameLedger.of(events) is None
    ledger = FrameLedger().listen(events)
    events.frame_taken(3, 0, "page table")
    assert FrameLedger.of(events) is ledger
    assert ledger.owner(3) == "page table"


@pytest.mark.book("3.4")
def test_model_announces_a_process_from_beginning_to_end() -> None:
    planted = planted_machine()
    kernel, ledger = planted.machine.kernel, planted.ledger
    numbers, pfns, _ = ledger.pages(planted.mm)
    assert DATA >> 12 in numbers
    assert all(ledger.owner(pfn) is not None for pfn in pfns.tolist())
    assert ledger.owner(planted.mm >> 12) is not None
    planted.machine.cpu.load_cr3(0x101000)
    kernel.memory.zap_page_range(planted.spaces.mm(planted.mm), 0, 0xC0000000)
    assert not len(ledger.pages(planted.mm)[0])
    assert not any(ledger.owner(pfn) for pfn in pfns.tolist())


def test_model_that_frees_a_mapped_frame_is_caught() -> None:
    """The planted bug: a user page's frame goes back to the buddy allocator too early."""
    planted = planted_machine()
    allocator = planted.machine.kernel.allocator
    with pytest.raises(FrameStillMapped, match=f"{DATA:#010x}"):
        allocator.free_page(allocator.memmap.page(planted.entry(DATA) >> 12))
