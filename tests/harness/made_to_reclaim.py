# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a machine of either release reclaim what can be had, on demand."""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from harness.monitors.reverse_map import reverse_map_census
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.linux_2_6.shrink import ScanControl, Shrinker
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.linux_2_6.vmscan import Vmscan26
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.rmap.interface import SwapResult
from kernel_model.mm.vmscan import Vmscan
from tests.harness.slab_worlds import end_grace_period
from tests.kernel_model.mm.slab_settling import settle


class MadeToReclaim(ABC):
    """What must be asked of a kernel."""

    cached: ClassVar[str]
    """The static that counts the frames of the page cache."""

    @abstractmethod
    def unmap_all(self, kernel: Kernel) -> None:
        """Unmap every page that can be had again; its frame stays."""

    @abstractmethod
    def unmap_one(self, kernel: Kernel, mm: int, vaddr: int) -> None:
        """Unmap the page at one address as well as can be; its frame stays."""

    @abstractmethod
    def free_all(self, kernel: Kernel) -> None:
        """Free the frames of what was unmapped."""

    @abstractmethod
    def press(self, kernel: Kernel, *, write: bool) -> None:
        """Take frames from processes, those of pages that were not used since the last time first;
        with ``write`` the frames are written out and given back."""

    @abstractmethod
    def prepare(self, kernel: Kernel) -> None:
        """Programs find their mappings where those of 2.4 lie."""

    def committed(self, kernel: Kernel) -> int:
        """Pages that are promised to somebody; 2.4 counts none."""
        return 0

    def settle(self, kernel: Kernel) -> None:
        """No cache of objects keeps one that is free."""
        settle(kernel.slab)

    @abstractmethod
    def check(self, kernel: Kernel, mms: list[int]) -> None:
        """What is known of who maps a frame is so."""


class Walking24(MadeToReclaim):
    """2.4 walks page tables, and shrinks one list."""

    cached = "page_cache_size"

    def prepare(self, kernel: Kernel) -> None:
        """They do."""

    def unmap_all(self, kernel: Kernel) -> None:
        """The first rounds find the pages young and active."""
        assert isinstance(kernel.vmscan, Vmscan)
        for zone in list(for_each_zone(kernel.image)) * 4:
            kernel.vmscan.refill_inactive(10_000)
            while kernel.swapper.swap_out(kernel.allocator.zone(zone.vaddr)):
                pass

    def unmap_one(self, kernel: Kernel, mm: int, vaddr: int) -> None:
        assert isinstance(kernel.vmscan, Vmscan)
        vma, highest = kernel.spaces.find_vma(mm, vaddr), list(for_each_zone(kernel.image))[-1]
        for _ in range(4):
            kernel.vmscan.refill_inactive(10_000)
            kernel.swapper._swap_out_vma(mm, vma, vaddr, 1, kernel.allocator.zone(highest.vaddr))

    def free_all(self, kernel: Kernel) -> None:
        assert isinstance(kernel.vmscan, Vmscan)
        for zone in list(for_each_zone(kernel.image)) * 2:
            classzone = kernel.allocator.zone(zone.vaddr)
            kernel.vmscan.shrink_cache(10_000, classzone, GFP_KERNEL, 1)

    def press(self, kernel: Kernel, *, write: bool) -> None:
        assert isinstance(kernel.vmscan, Vmscan)
        for zone in list(for_each_zone(kernel.image)) * 2:
            classzone = kernel.allocator.zone(zone.vaddr)
            kernel.vmscan.refill_inactive(200)
            kernel.swapper.swap_out(classzone)
            if write:
                kernel.vmscan.shrink_cache(100, classzone, GFP_KERNEL, 1)

    def check(self, kernel: Kernel, mms: list[int]) -> None:
        """Nothing is."""


class Asking26(MadeToReclaim):
    """2.6 asks for each frame who maps it."""

    cached = "nr_pagecache"

    def unmap_all(self, kernel: Kernel) -> None:
        """What ``shrink_list()`` does to a frame first. Asked once, a page is no longer young."""
        allocator, walk = kernel.allocator, kernel.reverse_walk
        for page in [page for head in self._lists(kernel) for page in allocator.lru.pages(head)]:
            if walk.mapped(page):
                self._unmap_locked(kernel, page)

    def unmap_one(self, kernel: Kernel, mm: int, vaddr: int) -> None:
        self._unmap_locked(kernel, kernel.memory.follow_page(mm, vaddr))

    def _unmap_locked(self, kernel: Kernel, page: int) -> None:
        allocator, lock = kernel.allocator, 1 << kernel.image.constants.page_flags.locked
        memmap = allocator.memmap
        allocator.get_page(page)
        memmap.set_flags(page, memmap.flags(page) | lock)
        kernel.reverse_walk.page_referenced(page, is_locked=True)
        self.unmap(kernel, page)
        memmap.set_flags(page, memmap.flags(page) & ~lock)
        allocator.put_page(page)

    def unmap(self, kernel: Kernel, page: int) -> None:
        """Of a locked frame. A page that stays, because somebody locked it, gives its slot back."""
        memmap, swap = kernel.allocator.memmap, kernel.swap_cache
        assert isinstance(swap, SwapCache26)
        anonymous = memmap.words[memmap.word(page, memmap.mapping_word)] & 1
        added = anonymous and not swap.entry(page) and swap.add_to_swap(page)
        if anonymous and not swap.entry(page):
            return  # No slot, or no memory for its place in the swap cache.
        if kernel.reverse_walk.try_to_unmap(page) is not SwapResult.SUCCESS and added:
            swap.remove(page)
            memmap.set_bit(page, kernel.image.constants.page_flags.dirty)
            kernel.allocator.put_page(page)

    def _lists(self, kernel: Kernel) -> list[int]:
        kind = kernel.image.structs.zone_t
        names = ("active_list", "inactive_list")
        zones = for_each_zone(kernel.image)
        return [zone.vaddr + kind.offset(name) for zone in zones for name in names]

    def _shrinker(self, kernel: Kernel) -> Shrinker:
        assert isinstance(kernel.vmscan, Vmscan26)
        return kernel.vmscan.shrinker

    def free_all(self, kernel: Kernel) -> None:
        """Those that are mapped still, because somebody locked them, are not looked at."""
        shrinker, allocator = self._shrinker(kernel), kernel.allocator
        control = ScanControl(0, kernel.image.constants.gfp.kernel, 0, kswapd=False)
        for page in [page for head in self._lists(kernel) for page in allocator.lru.pages(head)]:
            if not kernel.reverse_walk.mapped(page):
                allocator.get_page(page)
                allocator.lru.delete(page)
                shrinker.shrink_list([page], control)

    def prepare(self, kernel: Kernel) -> None:
        kernel.statics.sysctl_legacy_va_layout = 1

    def committed(self, kernel: Kernel) -> int:
        return int(kernel.statics.vm_committed_space)

    def settle(self, kernel: Kernel) -> None:
        """Nor does RCU, nor the CPU a chain of PTEs for the next page."""
        statics = kernel.statics
        if statics.local_pte_chain[0]:
            kernel.slab.kmem_cache_free(int(statics.pte_chain_cache), statics.local_pte_chain[0])
            statics.local_pte_chain[0] = 0
        end_grace_period(kernel.slab)
        super().settle(kernel)

    def press(self, kernel: Kernel, *, write: bool) -> None:
        """Without ``write``, pages that are not in use come to the list from which others go.

        A zone that had no trouble lately would spare what processes map.
        """
        shrinker, gfp = self._shrinker(kernel), kernel.image.constants.gfp.kernel
        for zone in [kernel.allocator.zone(each.vaddr) for each in for_each_zone(kernel.image)] * 2:
            zone.view.prev_priority = 0
            control = ScanControl(0, gfp, 0, kswapd=False)
            shrinker.refill_inactive_zone(zone, control, 200)
            if write:
                shrinker.shrink_cache(zone, control, 100)

    def check(self, kernel: Kernel, mms: list[int]) -> None:
        allocator = kernel.allocator
        reverse_map_census(kernel.image, allocator.memmap, kernel.reverse_walk, mms)


MADE_TO_RECLAIM: Final[dict[str, MadeToReclaim]] = {"2.4": Walking24(), "2.6": Asking26()}
