# SPDX-License-Identifier: GPL-2.0-or-later
"""Getting frames back: from the page cache, from processes, by kswapd and in one's own name.

Models linux-2.4.22 ``mm/vmscan.c``: ``try_to_free_pages_zone()``, ``shrink_caches()``,
``shrink_cache()``, ``refill_inactive()``, ``kswapd_balance()`` (book 2.2.1, 6.2). In RAM: the
LRU lists, the page cache, the zones' watermarks and ``need_balance``. A dirty frame is written
by the ``writepage`` of its own address space: to a file, to a swap slot, or from a file of
shmem into the swap cache. Everything happens at once here: a frame that is written is clean
when the call returns.

What can fail: a frame on the wrong list is a :class:`KernelBug`; a kernel that finds nothing to
reclaim calls ``out_of_memory()``.
"""

from collections.abc import Callable
from itertools import groupby
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.gfp import GFP_BIT_FS, GFP_KSWAPD, PF_MEMALLOC
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.mmzone import Zone, for_each_zone
from kernel_model.mm.page_flags import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LAUNDER,
    PG_LOCKED,
    PG_LRU,
    PG_REFERENCED,
)
from kernel_model.mm.swap_state import SwapCache

DEF_PRIORITY: Final = 6
SWAP_CLUSTER_MAX: Final = 32
_FRUITLESS_YIELDS: Final = 4
"""Yields in a row without one more free frame or page on its way to swap, after which nothing
will ever change."""

SwapOut = Callable[[Zone], bool]
"""``swap_out()``: unmap frames of the class zone from processes; whether it got enough."""


class Vmscan:
    """Reclaim of one machine. It answers the page allocator as its ``MemoryPressure``."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator24,
        swap_cache: SwapCache,
        swap_out: SwapOut,
        out_of_memory: Callable[[], bool],
        kmem_cache_reap: Callable[[int], int] = lambda gfp_mask: 0,
    ) -> None:
        self._kmem_cache_reap = kmem_cache_reap
        self._image = image
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._lru = allocator.lru
        self._lists = Lists(image.ram)
        self._swap_cache = swap_cache
        self._swap_out = swap_out
        self._out_of_memory = out_of_memory
        self._lru_offset = image.structs.page.offset("lru")
        self._words = image.ram.words
        self._a_ops = image.structs.address_space.word("a_ops")
        self._writepage_word = image.structs.address_space_operations.word("writepage")
        self._fruitless = 0
        self._free_at_last_yield = -1
        self._slots_at_last_yield = 0
        self.kswapd_awake = False

    # -- what the page allocator asks --------------------------------------------------------

    def wake_kswapd(self) -> None:
        """It runs when the allocation yields, or when :meth:`kswapd` is called."""
        self.kswapd_awake = True

    def yield_cpu(self) -> None:
        """Others run: kswapd, and whoever the out-of-memory killer chose dies."""
        self.kswapd()
        free, slots = self._allocator.nr_free_pages(), int(self._statics.nr_swap_pages)
        fruitless = free <= self._free_at_last_yield and slots >= self._slots_at_last_yield
        self._fruitless = self._fruitless + 1 if fruitless else 0
        self._free_at_last_yield, self._slots_at_last_yield = free, slots
        if self._fruitless >= _FRUITLESS_YIELDS:
            self._fruitless = 0
            raise EndlessLoop("__alloc_pages: nothing can be reclaimed and nobody will free any")

    def try_to_free_pages_zone(self, classzone: int, gfp_mask: int) -> int:
        """Look for 32 frames with ever more effort; 0 and the killer if they are not there."""
        zone = self._allocator.zone(classzone)
        wanted = SWAP_CLUSTER_MAX
        for priority in range(DEF_PRIORITY, 0, -1):
            wanted = self.shrink_caches(zone, priority, gfp_mask, wanted)
            if wanted <= 0:
                return 1
        if self._out_of_memory():
            self._fruitless = 0
        return 0

    # -- shrinking -----------------------------------------------------------------------------

    def shrink_caches(self, classzone: Zone, priority: int, gfp_mask: int, wanted: int) -> int:
        """Free up to ``wanted`` frames, slabs first. Returns how many are still wanted."""
        if wanted <= self._kmem_cache_reap(gfp_mask):
            return 0
        active = int(self._statics.nr_active_pages)
        inactive = int(self._statics.nr_inactive_pages)
        self.refill_inactive(wanted * active // ((inactive + 1) * 2))
        return max(self.shrink_cache(wanted, classzone, gfp_mask, priority), 0)

    def refill_inactive(self, count: int) -> None:
        """Move ``count`` frames that were not used lately from the active to the inactive list.

        One that was used goes round once more, its mark taken away.
        """
        memmap, lru = self._memmap, self._lru
        entry = self._lists.last(lru.active_list)
        while count > 0 and entry != lru.active_list:
            page = entry - self._lru_offset
            entry = self._previous(entry)
            if memmap.test(page, PG_REFERENCED):
                memmap.clear_bit(page, PG_REFERENCED)
                self._lists.delete(page + self._lru_offset)
                self._lists.add(page + self._lru_offset, lru.active_list)
                continue
            count -= 1
            lru.del_page_from_active_list(page)
            lru.add_page_to_inactive_list(page)
            memmap.set_bit(page, PG_REFERENCED)

    def _previous(self, entry: int) -> int:
        return self._lists.last(entry)

    def shrink_cache(self, wanted: int, classzone: Zone, gfp_mask: int, priority: int) -> int:
        """Free unused cached frames from the tail of the inactive list.

        Too many frames that processes map make it swap out instead. Returns how many frames
        are still wanted.
        """
        lru = self._lru
        max_scan = int(self._statics.nr_inactive_pages) // priority
        max_mapped = min(wanted << (10 - priority), max_scan // 10)
        while max_scan > 0 and not self._lists.empty(lru.inactive_list):
            max_scan -= 1
            entry = self._lists.last(lru.inactive_list)
            page = entry - self._lru_offset
            self._check_inactive(page)
            self._lists.delete(entry)
            self._lists.add(entry, lru.inactive_list)
            if not self._memmap.count(page) or not self._in_class(page, classzone):
                continue
            if not self._freeable(page):
                max_mapped -= 1
                if max_mapped >= 0:
                    continue
                self._swap_out(classzone)
                return wanted
            if self._reclaim(page, gfp_mask):
                wanted -= 1
                if not wanted:
                    break
        return wanted

    def _check_inactive(self, page: int) -> None:
        flags = self._memmap.flags(page)
        if not flags & 1 << PG_LRU or flags & 1 << PG_ACTIVE:
            pfn = self._memmap.pfn(page)
            raise KernelBug("vmscan.c", 0, f"frame {pfn:#x} is on the wrong LRU list")

    def _in_class(self, page: int, classzone: Zone) -> bool:
        """``memclass()``: freeing this frame helps an allocation from the class zone."""
        zone = self._allocator.page_zone(page)
        same_node = zone.view.zone_pgdat == classzone.view.zone_pgdat
        return bool(same_node and zone.vaddr <= classzone.vaddr)

    def _freeable(self, page: int) -> bool:
        """In a page cache, and nobody but the cache has it."""
        mapping = self._words[self._memmap.word(page, self._memmap.mapping_word)]
        return bool(mapping) and self._memmap.count(page) == 1

    def _reclaim(self, page: int, gfp_mask: int) -> bool:
        """Write the frame if it is dirty, else free it. True when it was freed."""
        memmap = self._memmap
        if memmap.test(page, PG_LOCKED):
            return False
        memmap.set_bit(page, PG_LOCKED)
        if memmap.test(page, PG_DIRTY):
            writepage = self._writepage(page)
            if gfp_mask & GFP_BIT_FS and writepage:
                self._write(page, writepage)
            else:
                memmap.clear_bit(page, PG_LOCKED)
            return False
        self._remove_from_cache(page)
        self._lru.delete(page)
        memmap.clear_bit(page, PG_LOCKED)
        self._allocator.free_page(page)
        return True

    def _writepage(self, page: int) -> int:
        """The address of ``page->mapping->a_ops->writepage``; 0 when there is none."""
        mapping = self._words[self._memmap.word(page, self._memmap.mapping_word)]
        a_ops = self._words[(mapping - PAGE_OFFSET >> 2) + self._a_ops]
        return self._words[(a_ops - PAGE_OFFSET >> 2) + self._writepage_word] if a_ops else 0

    def _write(self, page: int, writepage: int) -> None:
        memmap = self._memmap
        memmap.clear_bit(page, PG_DIRTY)
        memmap.set_bit(page, PG_LAUNDER)
        memmap.set_count(page, memmap.count(page) + 1)
        self._image.functions.call(writepage, page)
        self._allocator.free_page(page)

    def _remove_from_cache(self, page: int) -> None:
        if self._swap_cache.entry(page):
            self._swap_cache.remove(page)
        else:
            self._swap_cache.cache.remove_inode_page(page)

    # -- kswapd ----------------------------------------------------------------------------------

    def kswapd(self) -> None:
        """Let kswapd run, if it was woken: until some zone of each class has more than
        ``pages_high``."""
        if not self.kswapd_awake:
            return
        current = self._allocator.current
        had = current.flags & PF_MEMALLOC
        current.flags |= PF_MEMALLOC
        try:
            while self.kswapd_balance():
                pass
        finally:
            current.flags = current.flags & ~PF_MEMALLOC & 0xFFFFFFFF | had
        self.kswapd_awake = False

    def kswapd_balance(self) -> bool:
        """One round over the zones that need it, each node's highest first. Whether one still
        does."""
        again = False
        for zones in self._zones_by_node():
            for number, zone in reversed(list(enumerate(zones))):
                if not zone.view.need_balance:
                    continue
                freed = self.try_to_free_pages_zone(zone.vaddr, GFP_KSWAPD)
                if freed and self._needs_balance(zones[: number + 1]):
                    again = True
                else:
                    zone.view.need_balance = 0
        return again

    def _zones_by_node(self) -> list[list[Zone]]:
        """The zones that have frames, lowest first; nodes as on ``pgdat_list``."""
        zones = for_each_zone(self._image)
        return [list(node) for _, node in groupby(zones, lambda zone: int(zone.view.zone_pgdat))]

    def _needs_balance(self, zones: list[Zone]) -> bool:
        """``check_classzone_need_balance()``: no zone that serves the class has plenty."""
        return not any(zone.free_pages > int(zone.view.pages_high) for zone in zones)
