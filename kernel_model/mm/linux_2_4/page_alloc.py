# SPDX-License-Identifier: GPL-2.0-or-later
"""The page allocator of 2.4: zones and watermarks on the way in, checks on the way out.

Models linux-2.4.22 ``mm/page_alloc.c``: ``__alloc_pages()``, ``balance_classzone()`` and
``__free_pages_ok()`` (book 6.2-6.5). In RAM: zones, ``mem_map``, and the ``local_pages`` of the
current process. What the allocator asks of the rest of the kernel (waking kswapd, reclaiming,
yielding) goes through :class:`MemoryPressure`.

What can fail: as in :mod:`kernel_model.mm.page_alloc`; an allocation that the real kernel would
retry for ever raises :class:`~kernel_model.errors.EndlessLoop`.
"""

from typing import Final, Protocol

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.errors import EndlessLoop
from kernel_model.image import KernelImage
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.gfp import GFP_BIT_WAIT, PF_FREE_PAGES, PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.linux_2_4.lru import GlobalLru
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LOCKED,
    PG_LRU,
    PG_REFERENCED,
    PG_RESERVED,
    ZONE_SHIFT,
)
from kernel_model.structs.mmzone import MAX_ORDER

_HIGHEST_RETRIED_ORDER: Final = 3


class MemoryPressure(Protocol):
    """The rest of the kernel, as an allocation that finds little memory sees it."""

    def wake_kswapd(self) -> None:
        """A zone fell below ``pages_low``."""

    def try_to_free_pages_zone(self, classzone: int, gfp_mask: int) -> int:
        """Reclaim for the allocation; nonzero if something was freed."""

    def yield_cpu(self) -> None:
        """Let others run before trying again."""


class NoRelief:
    """Nothing can be reclaimed and nobody else runs: a second try finds what the first found."""

    def wake_kswapd(self) -> None:
        """Nobody is there."""

    def try_to_free_pages_zone(self, classzone: int, gfp_mask: int) -> int:
        return 0

    def yield_cpu(self) -> None:
        raise EndlessLoop("__alloc_pages: memory is out and nobody is left to free any")


class PageAllocator24(PageAllocator):
    """The allocator of 2.4 over all zones of the machine."""

    pressure: MemoryPressure
    lru: GlobalLru

    def __init__(self, image: KernelImage, memmap: MemMap | None = None) -> None:
        memmap = memmap or MemMap(image)
        super().__init__(image, memmap, GlobalLru(image, memmap))
        self.pressure = NoRelief()
        self._zones: dict[int, Buddy] = {}
        self._local_pages_offset = image.structs.task_struct.offset("local_pages")

    def zone(self, vaddr: int) -> Buddy:
        zone = self._zones.get(vaddr)
        if zone is None:
            zone = self._zones[vaddr] = Buddy(self._image, vaddr)
        return zone

    def page_zone(self, page: int) -> Buddy:
        return self.zone(self._words[self._zone_table + self.memmap.zone_number(page)])

    @property
    def _local_pages(self) -> int:
        """``current->local_pages``."""
        return self._image.current + self._local_pages_offset

    # -- allocating ------------------------------------------------------------------------

    def _buddies(self, zonelist: int) -> list[Buddy]:
        """The zones of a ``zonelist_t``, best first."""
        zones = []
        words, known = self._words, self._zones
        index = virt_to_phys(zonelist) >> 2
        while vaddr := words[index]:
            zones.append(known.get(vaddr) or self.zone(vaddr))
            index += 1
        return zones

    def _take(self, zones: list[Buddy], order: int, marks: list[int]) -> int:
        """From the first zone with more free frames than the request and all marks so far."""
        least, words = 1 << order, self._words
        for zone, mark in zip(zones, marks, strict=True):
            least += mark
            if words[zone.free_pages_word] > least and (page := zone.rmqueue(order)):
                return page
        return 0

    def alloc_pages_zonelist(self, gfp_mask: int, order: int, zonelist: int) -> int:
        """``__alloc_pages()``: from plenty to need, one rule after the other."""
        zones, words = self._buddies(zonelist), self._words
        if not zones:
            return 0
        if page := self._take(zones, order, [words[zone.pages_low_word] for zone in zones]):
            return page
        zones[0].view.need_balance = 1
        self.pressure.wake_kswapd()
        reserve = 0 if gfp_mask & GFP_BIT_WAIT else 2
        if page := self._take(zones, order, [zone.pages_min >> reserve for zone in zones]):
            return page
        while True:
            if self._current_flags() & (PF_MEMALLOC | PF_MEMDIE):
                return next((page for zone in zones if (page := zone.rmqueue(order))), 0)
            if not gfp_mask & GFP_BIT_WAIT:
                return 0
            if page := self.balance_classzone(zones[0], gfp_mask, order):
                return page
            if page := self._take(zones, order, [zone.pages_min for zone in zones]):
                return page
            if order > _HIGHEST_RETRIED_ORDER:
                return 0
            self.pressure.yield_cpu()

    def balance_classzone(self, classzone: Buddy, gfp_mask: int, order: int) -> int:
        """Reclaim in the process's own name; it may keep the first block that it frees."""
        current = self.current
        current.allocation_order = order
        current.flags |= PF_MEMALLOC | PF_FREE_PAGES
        try:
            freed = self.pressure.try_to_free_pages_zone(classzone.vaddr, gfp_mask)
        finally:
            current.flags &= ~(PF_MEMALLOC | PF_FREE_PAGES) & 0xFFFFFFFF
        page = 0
        if not current.nr_local_pages:
            return page
        if freed:
            page = self._claim_local_page(classzone, order)
        while not self._lists.empty(self._local_pages):
            entry = self._lists.last(self._local_pages)
            self._lists.delete(entry)
            self.free_pages_ok(entry, self._words[self.memmap.word(entry, self.memmap.index_word)])
        current.nr_local_pages = 0
        return page

    def _claim_local_page(self, classzone: Buddy, order: int) -> int:
        """A held-back block of just this order, in the class zone or one below it."""
        memmap = self.memmap
        for page in self._lists.entries(self._local_pages):
            zone = self.page_zone(page)
            same_node = zone.view.zone_pgdat == classzone.view.zone_pgdat
            held_order = self._words[memmap.word(page, memmap.index_word)]
            if held_order == order and same_node and zone.vaddr <= classzone.vaddr:
                self._events.frame_given_back(memmap.pfn(page), order)
                self._lists.delete(page)
                self.current.nr_local_pages -= 1
                memmap.set_count(page, 1)
                return page
        return 0

    # -- freeing -----------------------------------------------------------------------------

    def _check_free(self, page: int, flags: int) -> None:
        memmap, at = self.memmap, page - PAGE_OFFSET >> 2
        if self._words[at + memmap.buffers_word]:
            raise self._refuse("freed with buffers", page)
        if self._words[at + memmap.mapping_word]:
            raise self._refuse("freed while in a page cache", page)
        if flags & (1 << PG_LOCKED):
            raise self._refuse("freed while locked", page)
        if flags & (1 << PG_ACTIVE):
            raise self._refuse("freed while active", page)

    def free_pages_ok(self, page: int, order: int) -> None:
        """``__free_pages_ok()``: the block has no user left (book 6.3)."""
        memmap, words = self.memmap, self._words
        flags_at = (page - PAGE_OFFSET >> 2) + memmap.flags_word
        if words[flags_at] & (1 << PG_LRU):
            self.lru.delete(page)
        flags = words[flags_at]
        self._check_free(page, flags)
        words[flags_at] = flags & ~(1 << PG_REFERENCED | 1 << PG_DIRTY)
        if self._current_flags() & PF_FREE_PAGES and not self.current.nr_local_pages:
            self._lists.add(page, self._local_pages)
            words[memmap.word(page, memmap.index_word)] = order
            self.current.nr_local_pages += 1
            return
        zone = self.zone(words[self._zone_table + (flags >> ZONE_SHIFT)])
        index = (page - zone.mem_map) // memmap.page_bytes
        if index & ((1 << order) - 1):
            raise self._refuse(f"a block of order {order} must be aligned to it", page)
        self._events.frame_given_back(memmap.pfn(page), order)
        zone.merge(index, order)

    def free_pages(self, page: int, order: int) -> None:
        """``__free_pages()``: drop one reference; the last one frees the block.

        A reserved frame is left alone, as in the kernel. A frame that is free already has no
        reference to drop: its count would wrap, which the kernel does not notice.
        """
        memmap, words, at = self.memmap, self._words, page - PAGE_OFFSET >> 2
        if order >= MAX_ORDER:
            raise self._refuse(f"order {order} is too large", page)
        if words[at + memmap.flags_word] & (1 << PG_RESERVED):
            return
        count = words[at + memmap.count_word]
        if not count:
            raise self._refuse("freed twice", page)
        words[at + memmap.count_word] = count - 1
        if count == 1:
            self.free_pages_ok(page, order)

    def get_page(self, page: int) -> None:
        self._words[(page - PAGE_OFFSET >> 2) + self.memmap.count_word] += 1
