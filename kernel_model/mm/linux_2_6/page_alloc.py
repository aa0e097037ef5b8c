# SPDX-License-Identifier: GPL-2.0-or-later
"""The page allocator of 2.6: single frames come from lists of the CPU, blocks from the zone.

Models linux-2.6.11 ``mm/page_alloc.c``: ``__alloc_pages()``, ``buffered_rmqueue()``,
``free_hot_cold_page()``, ``__free_pages_ok()``, compound pages (book 2.8, 6.7). In RAM: zones with
their per-CPU lists, ``mem_map``, one ``struct page_state`` a CPU. What the allocator asks of the
rest of the kernel goes through :class:`Reclaim`.

What can fail: as in :mod:`kernel_model.mm.page_alloc`; an allocation that the real kernel would
retry for ever raises :class:`~kernel_model.errors.EndlessLoop`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, phys_to_virt
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.image import KernelImage
from kernel_model.linux_2_6.preempt import Preemption
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.linux_2_6.buddy import NOBODY, Buddy26
from kernel_model.mm.linux_2_6.lru import ZoneLru
from kernel_model.mm.linux_2_6.mmzone import COLD, HOT, MemMap26, Zone26
from kernel_model.mm.linux_2_6.page_state import ZONE_SUFFIXES, PageState
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.structs.linux_2_6.mm import PAGE_MAPPING_ANON

_HIGHEST_RETRIED_ORDER: Final = 3


class Reclaim(Protocol):
    """The rest of the kernel, as an allocation that finds little memory sees it."""

    def wake_kswapd(self, pgdat: int) -> None:
        """A zone of this node is below ``pages_low``."""

    def try_to_free_pages(self, zones: Sequence[int], gfp_mask: int, order: int) -> int:
        """Reclaim for the allocation; nonzero if that made progress."""

    def out_of_memory(self, gfp_mask: int) -> None:
        """Nothing can be reclaimed: kill somebody."""

    def congestion_wait(self) -> None:
        """Wait a little for writes to end, or for others, before trying again."""

    def yield_cpu(self) -> None:
        """Let others run."""


class NothingToReclaim:
    """Nothing can be reclaimed and nobody else runs: a second try finds what the first found."""

    def wake_kswapd(self, pgdat: int) -> None:
        """Nobody is there."""

    def try_to_free_pages(self, zones: Sequence[int], gfp_mask: int, order: int) -> int:
        return 0

    def out_of_memory(self, gfp_mask: int) -> None:
        raise EndlessLoop("__alloc_pages: memory is out and there is nobody to kill")

    def congestion_wait(self) -> None:
        raise EndlessLoop("__alloc_pages: memory is out and nobody is left to free any")

    def yield_cpu(self) -> None:
        raise EndlessLoop("memory is out and nobody is left to free any")


@dataclass(frozen=True, slots=True)
class Request:
    """What one call of ``__alloc_pages()`` asks for."""

    zones: list[Buddy26]
    gfp_mask: int
    order: int
    classzone_idx: int
    try_harder: bool
    """It cannot wait, or must not: it may go deeper into the reserve."""
    high: bool


class PageAllocator26(PageAllocator):
    """The allocator of 2.6 over all zones of the machine."""

    memmap: MemMap26
    lru: ZoneLru
    pressure: Reclaim

    def __init__(self, image: KernelImage, memmap: MemMap26 | None = None) -> None:
        memmap = memmap or MemMap26(image)
        super().__init__(image, memmap, ZoneLru(image, memmap, self._zone_of))
        self.pressure = NothingToReclaim()
        self.page_state = PageState(image)
        self._preemption = Preemption(image)
        self.realtime = False
        """``rt_task(current)``: the process has a real-time priority."""
        self._zones: dict[int, Buddy26] = {}
        flags = image.constants.page_flags
        self._flag_names = flags.names()
        self._link = image.structs.page.offset("lru")
        self._refused = flags.mask(
            *("lru", "private", "locked", "active", "reclaim", "slab", "swapcache", "writeback")
        )
        self._stale = flags.mask(
            *("private", "locked", "lru", "active", "dirty", "reclaim", "swapcache", "writeback")
        )
        self._cleared = flags.mask(
            *("uptodate", "error", "referenced", "arch_1", "checked", "mappedtodisk")
        )
        self._dirty, self._compound = flags.mask("dirty"), flags.mask("compound")
        self._pgalloc = tuple(f"pgalloc_{suffix}" for suffix in ZONE_SUFFIXES)

    @property
    def node_id(self) -> int:
        """``numa_node_id()``: with uniform memory there is one node."""
        return 0

    def zone(self, vaddr: int) -> Buddy26:
        zone = self._zones.get(vaddr)
        if zone is None:
            zone = self._zones[vaddr] = Buddy26(self._image, vaddr, self.memmap)
        return zone

    def _zone_of(self, page: int) -> int:
        return self._words[self._zone_table + self.memmap.zone_number(page)]

    def page_zone(self, page: int) -> Buddy26:
        return self.zone(self._zone_of(page))

    # -- allocating ------------------------------------------------------------------------------

    def alloc_pages_zonelist(self, gfp_mask: int, order: int, zonelist: int) -> int:
        zones = [self.zone(zone.vaddr) for zone in self.zones_of(zonelist)]
        if not zones:
            return 0
        wait = bool(gfp_mask & self._gfp.wait)
        if wait:
            self._preemption.might_sleep("alloc_pages()")
        request = Request(
            zones,
            gfp_mask,
            order,
            zones[0].classzone_idx,
            self.realtime or not wait,
            bool(gfp_mask & self._gfp.high),
        )
        while True:
            page, again = self._alloc_once(request, wait)
            if page or not again:
                break
        if not page and not gfp_mask & self._gfp.nowarn:
            self._image.printk(
                f"<4>{self._image.current_name}: page allocation failure. order:{order}, "
                f"mode:{gfp_mask:#x}\n"
            )
        return page

    def _alloc_once(self, request: Request, wait: bool) -> tuple[int, bool]:
        """From the first look at the zones to the end, or to a killed process, after which the
        kernel begins anew: the page, and whether that was so."""
        zones, order = request.zones, request.order
        if page := self._take(request, [self._words[zone.pages_low_word] for zone in zones]):
            return page, False
        for zone in zones:
            self.wakeup_kswapd(zone, order)
        if page := self._take_min(request):
            return page, False
        if self._current_flags() & (PF_MEMALLOC | PF_MEMDIE):
            pages = (self.buffered_rmqueue(zone, order, request.gfp_mask) for zone in zones)
            return next((page for page in pages if page), 0), False
        if not wait:
            return 0, False
        while True:
            if self._reclaim(request):
                if page := self._take_min(request):
                    return page, False
            elif request.gfp_mask & self._gfp.fs and not request.gfp_mask & self._gfp.noretry:
                marks = [self._words[zone.pages_high_word] for zone in zones]
                if page := self._take(request, marks):
                    return page, False
                self.pressure.out_of_memory(request.gfp_mask)
                return 0, True
            if not self._retried(request):
                return 0, False
            self.pressure.congestion_wait()

    def wakeup_kswapd(self, zone: Buddy26, order: int) -> None:
        """The daemon of the zone's node balances for the largest order that was asked for."""
        if not zone.present_pages or zone.watermark_ok(order, self._words[zone.pages_low_word], 0):
            return
        pgdat = int(zone.view.zone_pgdat)
        node = self._image.at(self._image.structs.pg_data_t, pgdat)
        node.kswapd_max_order = max(int(node.kswapd_max_order), order)
        self.pressure.wake_kswapd(pgdat)

    def _retried(self, request: Request) -> bool:
        """Whether to wait and reclaim once more, rather than to fail."""
        gfp, mask = self._gfp, request.gfp_mask
        if mask & gfp.noretry:
            return False
        return request.order <= _HIGHEST_RETRIED_ORDER or bool(mask & (gfp.repeat | gfp.nofail))

    def _take(self, request: Request, marks: list[int]) -> int:
        """From the first zone that is above its mark."""
        for zone, mark in zip(request.zones, marks, strict=True):
            if zone.watermark_ok(request.order, mark, request.classzone_idx) and (
                page := self.buffered_rmqueue(zone, request.order, request.gfp_mask)
            ):
                return page
        return 0

    def _take_min(self, request: Request) -> int:
        """From the first zone that is above ``pages_min``, or what this request may leave of it."""
        for zone in request.zones:
            if zone.watermark_ok(
                request.order,
                self._words[zone.pages_min_word],
                request.classzone_idx,
                try_harder=request.try_harder,
                high=request.high,
            ) and (page := self.buffered_rmqueue(zone, request.order, request.gfp_mask)):
                return page
        return 0

    def _reclaim(self, request: Request) -> int:
        """``try_to_free_pages()`` in the process's own name."""
        current = self.current
        current.flags |= PF_MEMALLOC
        try:
            zones = [zone.vaddr for zone in request.zones]
            return self.pressure.try_to_free_pages(zones, request.gfp_mask, request.order)
        finally:
            current.flags &= ~PF_MEMALLOC & 0xFFFFFFFF

    def buffered_rmqueue(self, zone: Buddy26, order: int, gfp_mask: int) -> int:
        """A single frame by way of this CPU's list, or a block; ready for its user."""
        page = 0
        if order == 0:
            cpu = int(self._image.current_task.processor)
            pcp = zone.pagesets[cpu][COLD if gfp_mask & self._gfp.cold else HOT]
            count = pcp.count
            if count <= pcp.low:
                count += zone.rmqueue_bulk(pcp, pcp.batch)
            if count:
                entry = self._lists.first(pcp.list)
                self._lists.delete(entry)
                page = entry - self._link
                count -= 1
            pcp.count = count
        if not page:
            page = zone.rmqueue(order)
        if page:
            self.page_state.add(self._pgalloc[zone.classzone_idx], 1 << order)
            self._prep_new_page(page)
            if gfp_mask & self._gfp.zero:
                self._prep_zero_page(page, order, gfp_mask)
            if order and gfp_mask & self._gfp.comp:
                self._prep_compound_page(page, order)
        return page

    def _prep_new_page(self, page: int) -> None:
        """The frame gets its first user; nothing may be left of the last one."""
        memmap, words, at = self.memmap, self._words, page - PAGE_OFFSET >> 2
        flags = words[at + memmap.flags_word]
        if (
            flags & self._stale
            or words[at + memmap.mapping_word]
            or words[at + memmap.mapped_word] != memmap.unmapped
        ):
            raise self._refuse("Bad page state at prep_new_page", page)
        words[at + memmap.flags_word] = flags & ~self._cleared
        words[at + memmap.buffers_word] = 0
        words[at + memmap.count_word] = 0

    def _prep_zero_page(self, page: int, order: int, gfp_mask: int) -> None:
        if gfp_mask & (self._gfp.wait | self._gfp.highmem) == self._gfp.highmem:
            raise KernelBug("page_alloc.c", 0, "zeros in high memory for one who cannot wait")
        pfn = self.memmap.pfn(page)
        self._image.ram.fill(pfn << PAGE_SHIFT, PAGE_SIZE << order)

    def _frames(self, page: int, order: int) -> range:
        """The ``struct page *`` of each frame of a block."""
        return range(page, page + (self.memmap.page_bytes << order), self.memmap.page_bytes)

    def _prep_compound_page(self, page: int, order: int) -> None:
        """Every frame of the block points to its head; the second one knows the order."""
        memmap = self.memmap
        second = memmap.word(page + memmap.page_bytes, 0)
        self._words[second + memmap.mapping_word] = 0
        self._words[second + memmap.index_word] = order
        for frame in self._frames(page, order):
            memmap.set_flags(frame, memmap.flags(frame) | self._compound)
            memmap.set_private(frame, page)

    def _destroy_compound_page(self, page: int, order: int) -> None:
        memmap = self.memmap
        if not memmap.flags(page) & self._compound:
            return
        second = memmap.word(page + memmap.page_bytes, 0)
        if self._words[second + memmap.index_word] != order:
            raise self._refuse(f"a compound page is not of order {order}", page)
        for frame in self._frames(page, order):
            if not memmap.flags(frame) & self._compound or memmap.private(frame) != page:
                raise self._refuse("a frame of a compound page has another head", frame)
            memmap.set_flags(frame, memmap.flags(frame) & ~self._compound)

    def get_zeroed_page(self, gfp_mask: int, purpose: str = "kernel") -> int:
        page = self.alloc_pages(gfp_mask | self._gfp.zero, 0, purpose)
        return phys_to_virt(self.memmap.pfn(page) << PAGE_SHIFT) if page else 0

    # -- freeing ---------------------------------------------------------------------------------

    def _free_pages_check(self, page: int) -> None:
        memmap, words, at = self.memmap, self._words, page - PAGE_OFFSET >> 2
        flags = words[at + memmap.flags_word]
        if (
            flags & self._refused
            or words[at + memmap.mapping_word]
            or words[at + memmap.mapped_word] != memmap.unmapped
            or words[at + memmap.count_word] != NOBODY
        ):
            raise self._refuse("Bad page state at free_pages_check", page)
        words[at + memmap.flags_word] = flags & ~self._dirty

    def _forget_object(self, page: int) -> None:
        """The ``anon_vma`` of a process's own page stays until the frame is free."""
        at = (page - PAGE_OFFSET >> 2) + self.memmap.mapping_word
        if self._words[at] & PAGE_MAPPING_ANON:
            self._words[at] = 0

    def free_hot_cold_page(self, page: int, cold: int) -> None:
        """A frame without users goes to this CPU's list; a full list first gives some back."""
        memmap, zone = self.memmap, self.page_zone(page)
        self.page_state.add("pgfree")
        self._forget_object(page)
        self._free_pages_check(page)
        self._events.frame_given_back(memmap.pfn(page), 0)
        pcp = zone.pagesets[int(self._image.current_task.processor)][cold]
        count = pcp.count
        if count >= pcp.high:
            count -= zone.free_pages_bulk(pcp, pcp.batch)
        self._lists.add(page + self._link, pcp.list)
        pcp.count = count + 1

    def free_hot_page(self, page: int) -> None:
        """The CPU's cache may still hold what is in the frame."""
        self.free_hot_cold_page(page, HOT)

    def free_cold_page(self, page: int) -> None:
        """A device filled the frame, or it has not been used for long."""
        self.free_hot_cold_page(page, COLD)

    def free_pages_ok(self, page: int, order: int) -> None:
        """``__free_pages_ok()``: a block without users goes back to its zone at once."""
        self.page_state.add("pgfree", 1 << order)
        for frame in self._frames(page, order):
            self._free_pages_check(frame)
        zone = self.page_zone(page)
        zone.freed()
        if order:
            self._destroy_compound_page(page, order)
        if (page - zone.mem_map) // self.memmap.page_bytes & ((1 << order) - 1):
            raise self._refuse(f"a block of order {order} must be aligned to it", page)
        self._events.frame_given_back(self.memmap.pfn(page), order)
        zone.merge(page, order)

    def free_pages(self, page: int, order: int) -> None:
        """``__free_pages()``: drop one reference; the last one frees the block.

        A reserved frame is left alone, as in the kernel.
        """
        if order >= self._max_order:
            raise self._refuse(f"order {order} is too large", page)
        if self.memmap.reserved(page) or not self._put_page_testzero(page):
            return
        if order == 0:
            self.free_hot_page(page)
        else:
            self.free_pages_ok(page, order)

    def _put_page_testzero(self, page: int) -> bool:
        """One user less; whether it was the last one."""
        at = (page - PAGE_OFFSET >> 2) + self.memmap.count_word
        count = self._words[at]
        if count == NOBODY:
            raise self._refuse("freed twice", page)
        self._words[at] = count - 1 & NOBODY
        return count == 0

    def get_page(self, page: int) -> None:
        """One more user of a frame, or of the block that it is a part of."""
        if self.memmap.flags(page) & self._compound:
            page = self.memmap.private(page)
        at = (page - PAGE_OFFSET >> 2) + self.memmap.count_word
        self._words[at] = self._words[at] + 1 & NOBODY

    def put_page(self, page: int) -> None:
        """One user less. The last one takes the frame off its LRU list and frees it.

        A compound page that names a destructor is handed to that.
        """
        if self.memmap.flags(page) & self._compound:
            page = self.memmap.private(page)
            if self._put_page_testzero(page):
                self._compound_page_unused(page)
            return
        if not self.memmap.reserved(page) and self._put_page_testzero(page):
            self.lru.delete(page)
            self.free_hot_page(page)

    def _compound_page_unused(self, page: int) -> None:
        """``page[1].mapping`` may say what to do with it, ``page[1].index`` says its order."""
        second = self.memmap.word(page + self.memmap.page_bytes, 0)
        if destructor := self._words[second + self.memmap.mapping_word]:
            self._image.functions.call(destructor, page)
        else:
            self.free_pages_ok(page, self._words[second + self.memmap.index_word])

    def pagevec_free(self, pages: Sequence[int], cold: int) -> None:
        """``__pagevec_free()``: free many frames without users, the last of them first."""
        for page in reversed(pages):
            self.free_hot_cold_page(page, cold)

    def drain_local_pages(self) -> None:
        """This CPU's lists go back to their zones."""
        cpu = int(self._image.current_task.processor)
        for pgdat in self.pgdats():
            for index in range(3):
                vaddr = pgdat + index * self._zone_bytes
                zone = self.zone(vaddr)
                for pcp in zone.pagesets[cpu]:
                    pcp.count -= zone.free_pages_bulk(pcp, pcp.count)

    def cpu_free_pages(self, zone: Zone) -> Iterator[int]:
        for lists in Zone26(self._image, zone.vaddr).pagesets:
            for pcp in lists:
                yield from pcp.pages()

    def nr_free_pagecache_pages(self) -> int:
        """Frames that the page cache may use, above the high marks of their zones."""
        highuser = self._gfp.highuser
        return self._nr_free_zone_pages(highuser & self._gfp.zonemask)
