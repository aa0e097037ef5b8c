# SPDX-License-Identifier: GPL-2.0-or-later
"""The page allocator: zones and watermarks on the way in, checks on the way out.

Models linux-2.4.22 ``mm/page_alloc.c``: ``__alloc_pages()``, ``balance_classzone()``,
``__free_pages_ok()`` and the counts of free frames (book 6.2-6.5). In RAM: zones, ``mem_map``,
and the ``local_pages`` of the current process. What the allocator asks of the rest of the
kernel (waking kswapd, reclaiming, yielding) goes through :class:`MemoryPressure`.

What can fail: a bad free raises :class:`BadFrame`, a KernelBug that names frame, flags and
count; an allocation that cannot be served returns 0, the kernel's NULL; one that the real
kernel would retry for ever raises :class:`EndlessLoop`.
"""

from typing import Any, Final, Protocol

from kernel_model.arch_i386.page import (
    PAGE_OFFSET,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.gfp import (
    GFP_BIT_DMA,
    GFP_BIT_WAIT,
    GFP_USER,
    GFP_ZONEMASK,
    PF_FREE_PAGES,
    PF_MEMALLOC,
    PF_MEMDIE,
)
from kernel_model.mm.lru import Lru
from kernel_model.mm.mmzone import ZONE_HIGHMEM, MemMap, for_each_zone
from kernel_model.mm.page_flags import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LOCKED,
    PG_LRU,
    PG_REFERENCED,
    PG_RESERVED,
    ZONE_SHIFT,
    flag_names,
)
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER

_FILE: Final = "page_alloc.c"
_HIGHEST_RETRIED_ORDER: Final = 3
_ZONELIST_BYTES: Final = 4 * (MAX_NR_ZONES + 1)


class BadFrame(KernelBug):
    """A frame is not in the state that the operation demands."""

    def __init__(self, reason: str, pfn: int, flags: int, count: int) -> None:
        super().__init__(
            _FILE,
            0,
            f"{reason}: frame {pfn:#x}, flags {flags:#x} ({flag_names(flags)}), count {count}",
        )
        self.pfn = pfn
        self.flags = flags
        self.count = count


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


class PageAllocator:
    """The allocator over all zones of the machine. Pages are ``struct page *``, 0 is NULL."""

    def __init__(self, image: KernelImage, memmap: MemMap | None = None) -> None:
        self._image = image
        self._events = image.events
        self.memmap = memmap or MemMap(image)
        self.lru = Lru(image, self.memmap)
        self.pressure: MemoryPressure = NoRelief()
        self._lists = Lists(image.ram)
        self._words = image.ram.words
        self._zones: dict[int, Buddy] = {}
        task, zone = image.structs.task_struct, image.structs.zone_t
        self._local_pages_offset = task.offset("local_pages")
        self._flags_word = task.word("flags")
        self._zone_table = virt_to_phys(image.symbol("zone_table")) >> 2
        self._contig_page_data = image.symbol("contig_page_data")
        self._zonelists = image.structs.pg_data_t.offset("node_zonelists")
        self._zone_bytes, self._zone_size = zone.size, zone.word("size")
        self._zone_free_pages = zone.word("free_pages")
        self._node_next = image.structs.pg_data_t.word("node_next")

    @property
    def current(self) -> Any:
        """The process that allocates, as a view."""
        return self._image.current_task

    def _current_flags(self) -> int:
        """``current->flags``."""
        return self._words[(self._image.current - PAGE_OFFSET >> 2) + self._flags_word]

    @property
    def _local_pages(self) -> int:
        """``current->local_pages``."""
        return self._image.current + self._local_pages_offset

    def zone(self, vaddr: int) -> Buddy:
        """The zone at ``vaddr``; its free areas must have been set up."""
        zone = self._zones.get(vaddr)
        if zone is None:
            zone = self._zones[vaddr] = Buddy(self._image, vaddr)
        return zone

    def page_zone(self, page: int) -> Buddy:
        """The zone of a frame, from the top byte of its flags (book 2.6)."""
        return self.zone(self._words[self._zone_table + self.memmap.zone_number(page)])

    # -- allocating ------------------------------------------------------------------------

    def alloc_pages(self, gfp_mask: int, order: int, purpose: str = "kernel") -> int:
        """``2**order`` frames, physically contiguous (book 6.2).

        ``purpose`` is what the frame ledger writes down as their owner.
        """
        page = self._alloc_pages(gfp_mask, order) if order < MAX_ORDER else 0
        if page:
            self._events.frame_taken(self.memmap.pfn(page), order, purpose)
        return page

    def _alloc_pages(self, gfp_mask: int, order: int) -> int:
        """Which node to ask; with uniform memory there is one."""
        return self.alloc_pages_pgdat(self._contig_page_data, gfp_mask, order)

    def alloc_pages_pgdat(self, pgdat: int, gfp_mask: int, order: int) -> int:
        """``alloc_pages_node()``: from this node's zones only."""
        zonelist = pgdat + self._zonelists + (gfp_mask & GFP_ZONEMASK) * _ZONELIST_BYTES
        return self.alloc_pages_zonelist(gfp_mask, order, zonelist)

    def _zones_of(self, zonelist: int) -> list[Buddy]:
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
        zones, words = self._zones_of(zonelist), self._words
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

    def alloc_page(self, gfp_mask: int, purpose: str = "kernel") -> int:
        """One frame."""
        return self.alloc_pages(gfp_mask, 0, purpose)

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str = "kernel") -> int:
        """``__get_free_pages()``: as kernel virtual address, so it must be low memory."""
        page = self.alloc_pages(gfp_mask, order, purpose)
        return phys_to_virt(self.memmap.pfn(page) << PAGE_SHIFT) if page else 0

    def get_free_page(self, gfp_mask: int, purpose: str = "kernel") -> int:
        """``__get_free_page()``."""
        return self.get_free_pages(gfp_mask, 0, purpose)

    def get_zeroed_page(self, gfp_mask: int, purpose: str = "kernel") -> int:
        """A frame of zeros, as kernel virtual address."""
        vaddr = self.get_free_page(gfp_mask, purpose)
        if vaddr:
            self._image.ram.fill(virt_to_phys(vaddr), PAGE_SIZE)
        return vaddr

    def get_dma_pages(self, gfp_mask: int, order: int) -> int:
        """``__get_dma_pages()``: below 16 MiB."""
        return self.get_free_pages(gfp_mask | GFP_BIT_DMA, order)

    # -- freeing -----------------------------------------------------------------------------

    def _refuse(self, reason: str, page: int) -> BadFrame:
        memmap = self.memmap
        return BadFrame(reason, memmap.pfn(page), memmap.flags(page), memmap.count(page))

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

    def free_page(self, page: int) -> None:
        """``__free_page()``."""
        self.free_pages(page, 0)

    def free_pages_at(self, vaddr: int, order: int) -> None:
        """``free_pages()``: the same for a kernel virtual address of low memory."""
        self.free_pages(self.memmap.page(virt_to_phys(vaddr) >> PAGE_SHIFT), order)

    def get_page(self, page: int) -> None:
        """One more user of a frame; ``page_cache_get()`` is the same."""
        self._words[(page - PAGE_OFFSET >> 2) + self.memmap.count_word] += 1

    def put_page(self, page: int) -> None:
        """One user less; the last one frees the frame. ``page_cache_release()`` is the same."""
        self.free_pages(page, 0)

    # -- counting ------------------------------------------------------------------------------

    def nr_free_pages(self) -> int:
        """Free frames of all zones."""
        words, total = self._words, 0
        for pgdat in self.pgdats():
            for number in range(MAX_NR_ZONES):
                at = pgdat + number * self._zone_bytes - PAGE_OFFSET >> 2
                if words[at + self._zone_size]:
                    total += words[at + self._zone_free_pages]
        return total

    def nr_free_buffer_pages(self) -> int:
        """Frames that buffers may use: those of the zones for GFP_USER, above their high mark."""
        return self._nr_free_zone_pages(GFP_USER & GFP_ZONEMASK)

    def _nr_free_zone_pages(self, modifier: int) -> int:
        total = 0
        for pgdat in self.pgdats():
            for zone in self._zones_of(pgdat + self._zonelists + modifier * _ZONELIST_BYTES):
                total += max(zone.size - int(zone.view.pages_high), 0)
        return total

    def pgdats(self) -> list[int]:
        """The nodes in the order of ``pgdat_list``."""
        nodes, pgdat = [], int(self._image.statics.pgdat_list)
        while pgdat:
            nodes.append(pgdat)
            pgdat = self._words[(pgdat - PAGE_OFFSET >> 2) + self._node_next]
        return nodes

    def nr_free_highpages(self) -> int:
        """Free frames of high memory."""
        zones = for_each_zone(self._image)
        return sum(z.free_pages for z in zones if z.number % MAX_NR_ZONES == ZONE_HIGHMEM)
