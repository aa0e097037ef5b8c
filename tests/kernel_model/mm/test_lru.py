# SPDX-License-Identifier: GPL-2.0-or-later
"""The active and the inactive list against two Python lists."""

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.gfp import GFP_ATOMIC
from kernel_model.mm.linux_2_4.lru import GlobalLru
from kernel_model.mm.page_flags import PG_ACTIVE, PG_LRU, PG_REFERENCED

PAGE_OFFSET = 0xC0000000
FRAMES = 6


def list_in_ram(kernel: Kernel, name: str) -> list[int]:
    """The frames of a list, walked forwards through RAM; checks the way back."""
    ram, offset = kernel.ram, kernel.image.structs.page.offset("lru")
    head = previous = kernel.image.symbol(name)
    pages: list[int] = []
    while (entry := ram.read32(previous - PAGE_OFFSET)) != head:
        assert ram.read32(entry + 4 - PAGE_OFFSET) == previous
        pages.append(entry - offset)
        previous = entry
        assert len(pages) <= FRAMES
    assert ram.read32(head + 4 - PAGE_OFFSET) == previous
    return pages


class LruMachine(RuleBasedStateMachine):
    """Everything that moves a frame between the lists, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = boot(KernelConfig(ram=6 * MIB))
        self.lru, self.memmap = self.kernel.allocator.lru, self.kernel.allocator.memmap
        self.pages = [self.kernel.allocator.alloc_page(GFP_ATOMIC) for _ in range(FRAMES)]
        self.active: list[int] = []
        self.inactive: list[int] = []
        self.referenced: set[int] = set()

    @rule(which=st.integers(0, FRAMES - 1))
    def add(self, which: int) -> None:
        page = self.pages[which]
        self.lru.add(page)
        if page not in self.active and page not in self.inactive:
            self.inactive.insert(0, page)

    @rule(which=st.integers(0, FRAMES - 1))
    def delete(self, which: int) -> None:
        page = self.pages[which]
        self.lru.delete(page)
        for pages in (self.active, self.inactive):
            if page in pages:
                pages.remove(page)

    def _activated(self, page: int) -> None:
        if page in self.inactive:
            self.inactive.remove(page)
            self.active.insert(0, page)

    @rule(which=st.integers(0, FRAMES - 1))
    def activate(self, which: int) -> None:
        self.lru.activate_page(self.pages[which])
        self._activated(self.pages[which])

    @rule(which=st.integers(0, FRAMES - 1))
    def use(self, which: int) -> None:
        page = self.pages[which]
        self.lru.mark_page_accessed(page)
        if page in self.active or page not in self.referenced:
            self.referenced.add(page)
        else:
            self._activated(page)
            self.referenced.remove(page)

    @rule(which=st.integers(0, FRAMES - 1))
    def free_and_take_again(self, which: int) -> None:
        """An inactive frame leaves its list when it is freed; an active one may not be freed."""
        page = self.pages[which]
        if page in self.active:
            return
        self.kernel.allocator.free_page(page)
        assert self.kernel.allocator.alloc_page(GFP_ATOMIC) == page
        if page in self.inactive:
            self.inactive.remove(page)
        self.referenced.discard(page)

    @invariant()
    def ram_says_the_same(self) -> None:
        statics = self.kernel.statics
        assert list_in_ram(self.kernel, "active_list") == self.active
        assert list_in_ram(self.kernel, "inactive_list") == self.inactive
        assert list(self.lru.pages(self.lru.active_list)) == self.active
        assert statics.nr_active_pages == len(self.active)
        assert statics.nr_inactive_pages == len(self.inactive)
        for page in self.pages:
            assert self.memmap.test(page, PG_ACTIVE) == (page in self.active)
            assert self.memmap.test(page, PG_LRU) == (page in self.active + self.inactive)
            assert self.memmap.test(page, PG_REFERENCED) == (page in self.referenced)


TestLru = pytest.mark.book("2.5")(LruMachine.TestCase)


@pytest.mark.parametrize("fault", ["order", "count", "flag", "one use is enough"])
def test_the_state_machine_finds_planted_faults(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GlobalLru.add_page_to_active_list

    def at_the_tail(self: GlobalLru, page: int) -> None:
        real(self, page)
        self._lists.delete(page + self._offset)
        self._lists.add_tail(page + self._offset, self.active_list)

    def uncounted(self: GlobalLru, page: int) -> None:
        real(self, page)
        self._words[self._nr_active] -= 1

    def unmarked(self: GlobalLru, page: int) -> None:
        real(self, page)
        self._memmap.clear_bit(page, PG_ACTIVE)

    name, replacement = {
        "order": ("add_page_to_active_list", at_the_tail),
        "count": ("add_page_to_active_list", uncounted),
        "flag": ("add_page_to_active_list", unmarked),
        "one use is enough": ("mark_page_accessed", GlobalLru.activate_page),
    }[fault]
    monkeypatch.setattr(GlobalLru, name, replacement)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            LruMachine,
            settings=settings(
                max_examples=100, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


@pytest.mark.book("2.5")
def test_a_frame_is_active_from_its_second_use_on() -> None:
    kernel = boot(KernelConfig(ram=6 * MIB))
    lru, memmap = kernel.allocator.lru, kernel.allocator.memmap
    page = kernel.allocator.alloc_page(GFP_ATOMIC)
    lru.add(page)
    seen = []
    for _ in range(4):
        lru.mark_page_accessed(page)
        seen.append((memmap.test(page, PG_ACTIVE), memmap.test(page, PG_REFERENCED)))
    assert seen == [(False, True), (True, False), (True, True), (True, True)]


def test_a_stranger_on_a_list_is_named() -> None:
    kernel = boot(KernelConfig(ram=6 * MIB))
    lru, memmap = kernel.allocator.lru, kernel.allocator.memmap
    page = kernel.allocator.alloc_page(GFP_ATOMIC)
    lru.add(page)
    memmap.clear_bit(page, PG_LRU)
    with pytest.raises(KernelBug, match=f"frame {memmap.pfn(page):#x} .* without PG_lru"):
        list(lru.pages(lru.inactive_list))
