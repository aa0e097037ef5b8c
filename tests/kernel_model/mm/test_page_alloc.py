# SPDX-License-Identifier: GPL-2.0-or-later
"""The buddy allocator under random use, and its refusal of bad use."""

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

from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.gfp import GFP_ATOMIC, GFP_BIT_HIGHMEM, GFP_DMA
from kernel_model.mm.page_alloc import BadFrame
from kernel_model.mm.page_flags import PG_ACTIVE, PG_DIRTY, PG_LOCKED, PG_REFERENCED, PG_RESERVED
from tests.kernel_model.mm.free_lists import check_zone, free_blocks, zones

MACHINES = (
    KernelConfig(ram=6 * MIB),
    KernelConfig(ram=18 * MIB),
    KernelConfig(ram=70 * MIB, highmem=Highmem.GB4, highmem_pages=6 << 8),
)


class BuddyMachine(RuleBasedStateMachine):
    """Blocks taken and given back in any order; each frame is free or held, never both."""

    @initialize(config=st.sampled_from(MACHINES))
    def boot(self, config: KernelConfig) -> None:
        self.kernel = boot(config)
        self.allocator = self.kernel.allocator
        self.held: dict[int, tuple[int, int]] = {}
        self.all_frames = {pfn for zone in zones(self.kernel) for pfn in self.free_in(zone)}

    def free_in(self, zone: Any) -> set[int]:
        return {
            pfn
            for order, blocks in enumerate(free_blocks(self.kernel, zone))
            for first in blocks
            for pfn in range(first, first + (1 << order))
        }

    @rule(
        order=st.integers(0, 11),
        gfp=st.sampled_from([GFP_ATOMIC, GFP_ATOMIC | GFP_DMA, GFP_ATOMIC | GFP_BIT_HIGHMEM]),
        times=st.integers(1, 12),
    )
    def alloc(self, order: int, gfp: int, times: int) -> None:
        for _ in range(times):
            page = self.allocator.alloc_pages(gfp, order)
            if not page:
                return
            pfn = self.allocator.memmap.pfn(page)
            if gfp & GFP_DMA:
                assert pfn + (1 << order) <= 4096
            if not gfp & GFP_BIT_HIGHMEM:
                assert pfn + (1 << order) <= self.kernel.statics.max_low_pfn
            assert self.allocator.memmap.count(page) == 1
            assert pfn not in self.held
            self.held[pfn] = (order, 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.integers(1, 100))
    def free(self, data: st.DataObject, share: int) -> None:
        pfns = sorted(self.held)
        if data.draw(st.booleans()):
            pfns.reverse()
        start = data.draw(st.integers(0, len(pfns) - 1))
        for pfn in pfns[start : start + 1 + len(pfns) * share // 200]:
            order, users = self.held.pop(pfn)
            page = self.allocator.memmap.page(pfn)
            self.allocator.memmap.set_bit(page, PG_DIRTY)
            self.allocator.memmap.set_bit(page, PG_REFERENCED)
            self.allocator.free_pages(page, order)
            if users > 1:
                self.held[pfn] = (order, users - 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def get_page(self, data: st.DataObject) -> None:
        pfn = data.draw(st.sampled_from(sorted(self.held)))
        order, users = self.held[pfn]
        memmap = self.allocator.memmap
        memmap.set_count(memmap.page(pfn), users + 1)
        self.held[pfn] = (order, users + 1)

    @precondition(lambda self: self.all_frames)
    @rule(data=st.data())
    def free_what_is_free(self, data: st.DataObject) -> None:
        frames = sorted(self.all_frames)
        pfn = frames[data.draw(st.integers(0, len(frames) - 1))]
        memmap = self.allocator.memmap
        page = memmap.page(pfn)
        if memmap.count(page):
            return
        with pytest.raises(BadFrame) as caught:
            self.allocator.free_page(page)
        assert (caught.value.pfn, caught.value.count) == (pfn, 0)

    @invariant()
    def every_frame_is_free_or_held(self) -> None:
        if not hasattr(self, "held"):
            return
        free: set[int] = set()
        for zone in zones(self.kernel):
            free |= check_zone(self.kernel, zone)
        held: set[int] = set()
        for pfn, (order, _) in self.held.items():
            block = range(pfn, pfn + (1 << order))
            assert held.isdisjoint(block)
            held.update(block)
        assert free.isdisjoint(held)
        assert free | held == self.all_frames
        assert self.allocator.nr_free_pages() == len(free)

    @invariant()
    def free_frames_are_clean(self) -> None:
        memmap = getattr(self, "allocator", None) and self.allocator.memmap
        if not memmap:
            return
        for zone in zones(self.kernel):
            for blocks in free_blocks(self.kernel, zone):
                for pfn in blocks:
                    page = memmap.page(pfn)
                    assert memmap.count(page) == 0
                    assert not memmap.flags(page) & (1 << PG_DIRTY | 1 << PG_REFERENCED)


TestBuddy = pytest.mark.book("6.1", "6.2", "6.3")(BuddyMachine.TestCase)


@pytest.mark.parametrize("fault", ["toggle", "count", "half", "merge"])
def test_the_state_machine_finds_planted_faults(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_merge, real_expand = Buddy.merge, Buddy._expand

    def forgets_a_bit(self: Buddy, index: int, order: int) -> None:
        real_merge(self, index, order)
        self.bitmap(order % 9).toggle(index >> 1 + order % 9)

    def counts_wrong(self: Buddy, index: int, order: int) -> None:
        real_merge(self, index, order)
        self.free_pages -= order == 2

    def lower_half(self: Buddy, page: int, index: int, low: int, high: int) -> int:
        upper = real_expand(self, page, index, low, high)
        return page if high > low else upper

    def never_merges(self: Buddy, index: int, order: int) -> None:
        self.free_pages += 1 << order
        self._lists.add(self.mem_map + index * self._page_bytes, self.free_list(order))

    name, replacement = {
        "toggle": ("merge", forgets_a_bit),
        "count": ("merge", counts_wrong),
        "half": ("_expand", lower_half),
        "merge": ("merge", never_merges),
    }[fault]
    monkeypatch.setattr(Buddy, name, replacement)
    # A block given out twice may meet a check of the kernel itself, as early as at boot.
    with pytest.raises((AssertionError, KernelBug)):
        run_state_machine_as_test(
            BuddyMachine,
            settings=settings(
                max_examples=100, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


@pytest.fixture
def kernel() -> Kernel:
    return boot(KernelConfig(ram=16 * MIB))


def snapshot(kernel: Kernel) -> object:
    found = zones(kernel)
    return [free_blocks(kernel, zone) for zone in found], [zone.free_pages for zone in found]


def lock(kernel: Kernel, page: int) -> None:
    kernel.allocator.memmap.set_bit(page, PG_LOCKED)


def activate(kernel: Kernel, page: int) -> None:
    kernel.allocator.memmap.set_bit(page, PG_ACTIVE)


def into_a_page_cache(kernel: Kernel, page: int) -> None:
    kernel.image.at(kernel.image.structs.page, page).mapping = 0xC0380000


def give_buffers(kernel: Kernel, page: int) -> None:
    kernel.image.at(kernel.image.structs.page, page).buffers = 0xC0380000


@pytest.mark.book("6.3")
@pytest.mark.parametrize(
    ("spoil", "words", "flag"),
    [
        (lock, "locked", "PG_locked"),
        (activate, "active", "PG_active"),
        (into_a_page_cache, "page cache", "flags 0x0 (-)"),
        (give_buffers, "buffers", "flags 0x0 (-)"),
    ],
)
def test_a_frame_in_use_is_not_freed(spoil: Any, words: str, flag: str, kernel: Kernel) -> None:
    allocator = kernel.allocator
    page = allocator.alloc_pages(GFP_ATOMIC, 1)
    spoil(kernel, page)
    before, pfn = snapshot(kernel), allocator.memmap.pfn(page)
    with pytest.raises(BadFrame) as caught:
        allocator.free_pages(page, 1)
    message = str(caught.value)
    assert isinstance(caught.value, KernelBug)
    assert words in message
    assert flag in message
    assert f"frame {pfn:#x}" in message
    assert "count " in message
    assert (caught.value.pfn, caught.value.flags) == (pfn, allocator.memmap.flags(page))
    assert snapshot(kernel) == before


def test_a_double_free_names_the_frame_and_changes_nothing(kernel: Kernel) -> None:
    allocator = kernel.allocator
    page = allocator.alloc_pages(GFP_ATOMIC, 3)
    allocator.free_pages(page, 3)
    before, pfn = snapshot(kernel), allocator.memmap.pfn(page)
    with pytest.raises(BadFrame, match=f"twice: frame {pfn:#x}, flags 0x0 .*, count 0"):
        allocator.free_pages(page, 3)
    assert snapshot(kernel) == before


def test_a_misaligned_block_and_an_order_too_large_are_refused(kernel: Kernel) -> None:
    allocator = kernel.allocator
    page = allocator.alloc_pages(GFP_ATOMIC, 1) + allocator.memmap.page_bytes
    allocator.memmap.set_count(page, 1)
    before = snapshot(kernel)
    with pytest.raises(BadFrame, match="aligned"):
        allocator.free_pages(page, 1)
    allocator.memmap.set_count(page, 1)
    with pytest.raises(BadFrame, match="order 10 is too large"):
        allocator.free_pages(page, 10)
    assert snapshot(kernel) == before


def test_a_reserved_frame_is_left_alone_as_the_kernel_does(kernel: Kernel) -> None:
    memmap = kernel.allocator.memmap
    page = memmap.page(0x400)
    memmap.set_bit(page, PG_RESERVED)
    memmap.set_count(page, 1)
    before = snapshot(kernel)
    kernel.allocator.free_page(page)
    assert (memmap.count(page), snapshot(kernel)) == (1, before)


@pytest.mark.book("6.2")
def test_an_order_that_no_list_has_is_refused_with_null(kernel: Kernel) -> None:
    assert kernel.allocator.alloc_pages(GFP_ATOMIC, 10) == 0
    assert kernel.allocator.alloc_pages(GFP_ATOMIC, 9)


@pytest.mark.book("6.2")
def test_a_large_block_is_cut_and_grows_together_again(kernel: Kernel) -> None:
    allocator, (zone,) = kernel.allocator, zones(kernel)
    held = []
    while any(zone.free_counts()[:9]):
        held.append(allocator.alloc_pages(GFP_ATOMIC, 0))
    before = snapshot(kernel)
    pages = [allocator.alloc_pages(GFP_ATOMIC, 0) for _ in range(512)]
    pfns = sorted(map(allocator.memmap.pfn, pages))
    assert pfns == list(range(pfns[0], pfns[0] + 512))
    for page in pages:
        allocator.free_page(page)
    assert snapshot(kernel) == before
    assert all(held)


def test_get_free_pages_gives_the_direct_maps_address(kernel: Kernel) -> None:
    vaddr = kernel.allocator.get_free_pages(GFP_ATOMIC, 2)
    assert vaddr % 0x4000 == 0
    assert 0xC0000000 < vaddr < 0xC0000000 + 16 * MIB
