# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that takes frames, mixed: after each step each frame has exactly one owner.

Four machines: uniform memory, two nodes, high memory with two levels and with PAE.
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
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.pgtable import PAGE_SHARED
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import EndlessLoop, MmucheckError
from kernel_model.events import Announcer
from kernel_model.kernel import Kernel
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.filemap import PageCache
from kernel_model.mm.gfp import (
    GFP_ATOMIC,
    GFP_BIT_HIGHMEM,
    GFP_BIT_WAIT,
    GFP_DMA,
    GFP_HIGHUSER,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_ZONEMASK,
)
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.vmscan import Vmscan
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.cached_pages import cache_page, new_space
from tests.kernel_model.mm.user_spaces import UserSpaces

USER_BASE, USER_FAR = 0x08000000, 0x7FC00000
MACHINES = {
    "uniform": KernelConfig(ram=16 * MIB, swap_pages=300),
    "nodes": KernelConfig(ram=32 * MIB, nodes=2, swap_pages=300),
    "round robin": KernelConfig(ram=32 * MIB, nodes=2, swap_pages=300, round_robin=True),
    "highmem": KernelConfig(
        ram=70 * MIB, highmem=Highmem.GB4, highmem_pages=6 << 8, swap_pages=300
    ),
    "PAE": KernelConfig(ram=70 * MIB, highmem=Highmem.GB64, highmem_pages=6 << 8, swap_pages=300),
}
MASKS = st.sampled_from(
    [GFP_ATOMIC, GFP_ATOMIC | GFP_DMA, GFP_ATOMIC | GFP_BIT_HIGHMEM, GFP_NOFS, GFP_KERNEL]
)
TABLE = 4 << 20


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that nothing can help gives up soon: it costs a round over all pages a try."""
    monkeypatch.setattr("kernel_model.mm.vmscan._FRUITLESS_YIELDS", 3)


class FrameMachine(RuleBasedStateMachine):
    """What a kernel does with frames. ``blocks``, ``spaces`` and the rest are what it holds."""

    @initialize(name=st.sampled_from(sorted(MACHINES)), room=st.sampled_from([200, 500, 100_000]))
    def boot(self, name: str, room: int) -> None:
        """A machine with about ``room`` free frames: where little is free, much is reclaimed."""
        self.kernel = Kernel(MACHINES[name])
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        self.allocator, self.memmap = self.kernel.allocator, self.kernel.allocator.memmap
        self.blocks: list[tuple[int, int]] = []
        self.programs = UserSpaces(self.kernel)
        self.spaces: dict[int, int] = {}
        self.file = new_space(self.kernel)
        self.index = 0
        self.kmapped: list[int] = []
        self.start_program()
        self.grow_program(0, 50)
        for order in range(9, -1, -1):
            while self.allocator.nr_free_pages() - (1 << order) >= room:
                if not self.allocator.alloc_pages(GFP_ATOMIC | GFP_BIT_HIGHMEM, order, "ballast"):
                    break

    # -- blocks ----------------------------------------------------------------------------

    def _zonelists(self, gfp: int) -> list[list[Buddy]]:
        return [
            self.allocator.zones_of(pgdat + self.allocator._zonelists + (gfp & GFP_ZONEMASK) * 16)
            for pgdat in self.allocator.pgdats()
        ]

    @rule(
        gfp=MASKS, order=st.one_of(st.integers(0, 3), st.integers(0, 9)), times=st.integers(1, 40)
    )
    def take(self, gfp: int, order: int, times: int) -> None:
        for _ in range(times):
            lists = self._zonelists(gfp)
            before = {zone.vaddr: zone.free_pages for zones in lists for zone in zones}
            try:
                page = self.allocator.alloc_pages(gfp, order, "test block")
            except EndlessLoop:
                return
            if not gfp & GFP_BIT_WAIT:
                self._watermarks_were_kept(page, order, lists, before)
            if not page:
                return
            self.blocks.append((page, order))

    def _watermarks_were_kept(
        self, page: int, order: int, lists: list[list[Buddy]], before: dict[int, int]
    ) -> None:
        """Without waiting a zone gives what lies above a quarter of pages_min of all before it;
        and NULL is right only if no zone has that, or none has a block."""
        for zones in lists:
            least = 1 << order
            for zone in zones:
                least += zone.pages_min // 4
                enough = before[zone.vaddr] > least
                if page and self.allocator.page_zone(page).vaddr == zone.vaddr:
                    assert enough, f"{zone.name} had {before[zone.vaddr]}, needed > {least}"
                elif not page and enough:
                    assert not any(zone.free_counts()[order:]), f"{zone.name} has a block"

    @precondition(lambda self: self.blocks)
    @rule(start=st.integers(0, 1000), count=st.integers(1, 60), step=st.sampled_from([1, 2, 3, -1]))
    def give_back(self, start: int, count: int, step: int) -> None:
        first = start % len(self.blocks)
        chosen = self.blocks[first : first + count][::step]
        self.blocks = [block for block in self.blocks if block not in chosen]
        for page, order in chosen:
            self.allocator.free_pages(page, order)

    @precondition(lambda self: self.blocks)
    @rule(which=st.integers(0, 1000))
    def use_twice(self, which: int) -> None:
        """One more user: the first free is not the last."""
        page, order = self.blocks[which % len(self.blocks)]
        self.memmap.set_count(page, self.memmap.count(page) + 1)
        free = self.allocator.nr_free_pages()
        self.allocator.free_pages(page, order)
        assert self.allocator.nr_free_pages() == free

    # -- user pages --------------------------------------------------------------------------

    @precondition(lambda self: len(self.spaces) < 4)
    @rule()
    def start_program(self) -> None:
        try:
            pgd = self.programs.start()
        except EndlessLoop:
            return
        if pgd:
            self.spaces[pgd] = 0

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3), count=st.integers(1, 120))
    def grow_program(self, which: int, count: int) -> None:
        pgd = sorted(self.spaces)[which % len(self.spaces)]
        for _ in range(count):
            base = USER_FAR if self.spaces[pgd] % 5 == 0 else USER_BASE
            vaddr = base + self.spaces[pgd] * 4096
            try:
                pfn = self.programs.new_page(pgd, vaddr, PAGE_SHARED)
            except EndlessLoop:
                return
            if pfn < 0:
                return
            assert self.ledger.owner(pfn) == "user page"
            self.spaces[pgd] += 1

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3), start=st.integers(0, 400), write=st.booleans())
    def touch(self, which: int, start: int, write: bool) -> None:
        pgd = sorted(self.spaces)[which % len(self.spaces)]
        numbers = self.programs.page_numbers(pgd)
        first = start % len(numbers) if numbers else 0
        for number in numbers[first : first + 40]:
            try:
                self.programs.handle_fault(pgd, number << 12, write=write)
            except EndlessLoop:
                return

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3))
    def exit_program(self, which: int) -> None:
        pgd = sorted(self.spaces)[which % len(self.spaces)]
        del self.spaces[pgd]
        self.programs.exit(pgd)

    @rule()
    def trim_page_tables(self) -> None:
        self.kernel.page_tables.check_pgt_cache(0, 0)

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3), table=st.integers(0, 20))
    def add_and_drop_a_page_table(self, which: int, table: int) -> None:
        pgd, tables = sorted(self.spaces)[which % len(self.spaces)], self.kernel.tables
        vaddr = 0x40000000 + table * TABLE
        pmdp = tables.pmd_offset(tables.pgd_offset(pgd, vaddr), vaddr)
        try:
            if self.kernel.page_tables.pte_alloc(pmdp, vaddr):
                self.kernel.page_tables.pte_free(pmdp)
        except EndlessLoop:
            return

    # -- reclaim ---------------------------------------------------------------------------------

    @rule(count=st.integers(1, 40), gfp=st.sampled_from([GFP_ATOMIC, GFP_HIGHUSER]))
    def read_a_file(self, count: int, gfp: int) -> None:
        for _ in range(count):
            self.index += 1
            try:
                if not cache_page(self.kernel, self.file, self.index, gfp):
                    return
            except EndlessLoop:
                return

    @rule(gfp=st.sampled_from([GFP_KERNEL, GFP_NOFS]), wanted=st.integers(1, 64))
    def reclaim(self, gfp: int, wanted: int) -> None:
        for zone in for_each_zone(self.kernel.image):
            self.kernel.vmscan.shrink_caches(self.allocator.zone(zone.vaddr), 1, gfp, wanted)

    @precondition(lambda self: any(self.spaces.values()))
    @rule(write=st.booleans(), back=st.booleans())
    def swap_out(self, write: bool, back: bool) -> None:
        """Pages lose their frames, which stay in the swap cache; then those may be written and
        go, and some of the pages may come back."""
        for zone in list(for_each_zone(self.kernel.image)) * 2:
            classzone = self.allocator.zone(zone.vaddr)
            self.kernel.vmscan.refill_inactive(100)
            self.programs.swap_out(classzone)
            if write:
                self.kernel.vmscan.shrink_cache(20, classzone, GFP_KERNEL, 1)
        if back:
            self.touch(0, 0, write=False)

    @rule()
    def kswapd(self) -> None:
        self.kernel.vmscan.wake_kswapd()
        self.kernel.vmscan.kswapd()
        assert not any(zone.view.need_balance for zone in for_each_zone(self.kernel.image))

    # -- high memory -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 30))
    def kmap(self, count: int) -> None:
        for _ in range(count):
            try:
                page = self.allocator.alloc_page(GFP_HIGHUSER, "kmapped")
            except EndlessLoop:
                return
            assert self.kernel.highmem.kmap(page)
            self.kmapped.append(page)

    @precondition(lambda self: self.kmapped)
    @rule(count=st.integers(1, 40))
    def kunmap(self, count: int) -> None:
        for page in self.kmapped[:count]:
            self.kernel.highmem.kunmap(page)
            self.allocator.free_page(page)
        del self.kmapped[:count]

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def each_frame_has_one_owner(self) -> None:
        if hasattr(self, "kmapped"):
            check_machine(self.kernel, self.ledger)

    @invariant()
    def nothing_is_left_of_reclaim_in_the_task(self) -> None:
        if hasattr(self, "kmapped"):
            current = self.allocator.current
            assert (current.flags, current.nr_local_pages) == (0, 0)

    def teardown(self) -> None:
        if not hasattr(self, "kmapped"):
            return
        for pgd in list(self.spaces):
            self.programs.exit(pgd)
        assert not any(self.kernel.swap_areas.counts(0)[1:])
        assert self.kernel.swap_cache.swapper_space
        self.each_frame_has_one_owner()
        owners = set(self.ledger._owners.values())
        assert "user page" not in owners


TestFrames = pytest.mark.book("2.6", "6.1", "6.2", "6.3", "6.4", "6.5")(FrameMachine.TestCase)


# -- planted faults ------------------------------------------------------------------------------


class ScarceMachine(FrameMachine):
    """The smallest machine, with so little free that watermarks decide many an answer."""

    @initialize()
    def boot(self) -> None:  # type: ignore[override]
        FrameMachine.boot(self, name="uniform", room=20)


def a_single_frame_comes_back_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Announcer.frame_given_back

    def silent(self: Any, pfn: int, order: int) -> None:
        if order:
            real(self, pfn, order)

    monkeypatch.setattr(Announcer, "frame_given_back", silent)


def a_wrong_frame_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Announcer.frame_taken
    monkeypatch.setattr(
        Announcer,
        "frame_taken",
        lambda self, pfn, order, purpose: real(self, pfn ^ (1 << order), order, purpose),
    )


def a_block_is_taken_as_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Announcer.frame_taken
    monkeypatch.setattr(
        Announcer, "frame_taken", lambda self, pfn, order, purpose: real(self, pfn, 0, purpose)
    )


def the_bit_of_the_neighbour_is_flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy._toggle
    monkeypatch.setattr(
        Buddy,
        "_toggle",
        lambda self, order, index: real(self, order, index ^ (2 << order if order == 2 else 0)),
    )


def large_blocks_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy.merge

    def merge(self: Any, index: int, order: int) -> None:
        if order < 3:
            real(self, index, order)
            return
        self.free_pages += 1 << order
        self._toggle(order, index)
        self._lists.add(self.mem_map + index * self._page_bytes, self._heads[order])

    monkeypatch.setattr(Buddy, "merge", merge)


def the_wrong_half_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy._expand

    def lower(self: Any, page: int, index: int, low: int, high: int) -> int:
        upper = real(self, page, index, low, high)
        return page if high > low else upper

    monkeypatch.setattr(Buddy, "_expand", lower)


def free_pages_counts_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy.merge

    def miscounting(self: Any, index: int, order: int) -> None:
        real(self, index, order)
        self.free_pages += 1

    monkeypatch.setattr(Buddy, "merge", miscounting)


def a_freed_frame_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buddy, "merge", lambda self, index, order: None)


def watermarks_are_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageAllocator24._take

    def stingy(self: Any, zones: list[Buddy], order: int, marks: list[int]) -> int:
        return real(self, zones, order, [4 * mark for mark in marks])

    monkeypatch.setattr(PageAllocator24, "_take", stingy)


def watermarks_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageAllocator24._take

    def lavish(self: Any, zones: list[Buddy], order: int, marks: list[int]) -> int:
        page = real(self, zones, order, marks)
        return page or next((page for zone in zones if (page := zone.rmqueue(order))), 0)

    monkeypatch.setattr(PageAllocator24, "_take", lavish)


def a_mapped_page_loses_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reclaim forgets that a process has the frame, too."""

    def freeable(self: Any, page: int) -> bool:
        if self._swap_cache.entry(page):
            self._memmap.set_count(page, 1)
            return True
        return real(self, page)

    real = Vmscan._freeable
    monkeypatch.setattr(Vmscan, "_freeable", freeable)


def a_frame_read_back_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The swap cache hands out its own reference."""
    real = SwapCache.read

    def borrowed(self: Any, entry: int) -> int:
        page = real(self, entry)
        if page:
            self._memmap.set_count(page, self._memmap.count(page) - 1)
        return page

    monkeypatch.setattr(SwapCache, "read", borrowed)


def a_frame_stays_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_off_the_chain(self: Any, page: int) -> None:
        self._remove_from_hash(page)

    monkeypatch.setattr(PageCache, "remove_inode_page", only_off_the_chain)


def check_that_it_is_found(machine: type[FrameMachine]) -> None:
    with pytest.raises((AssertionError, MmucheckError)):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=600, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


@pytest.mark.parametrize(
    "fault",
    [
        a_single_frame_comes_back_unsaid,
        a_wrong_frame_is_named,
        a_block_is_taken_as_one_frame,
        the_bit_of_the_neighbour_is_flipped,
        pytest.param(large_blocks_are_not_merged, marks=pytest.mark.slow),
        the_wrong_half_is_kept,
        free_pages_counts_one_too_many,
        a_freed_frame_is_lost,
        pytest.param(a_mapped_page_loses_its_frame, marks=pytest.mark.slow),
        a_frame_read_back_is_not_held,
        a_frame_stays_in_the_cache,
    ],
)
def test_planted_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    check_that_it_is_found(FrameMachine)


@pytest.mark.parametrize("fault", [watermarks_are_too_high, watermarks_are_ignored])
def test_faults_of_the_watermarks_are_found_where_little_is_free(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    check_that_it_is_found(ScarceMachine)
