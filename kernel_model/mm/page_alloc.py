# SPDX-License-Identifier: GPL-2.0-or-later
"""The buddy allocator: blocks of 2**order frames, a list for each order, a bit for each pair.

Models linux-2.4.22 ``mm/page_alloc.c``: ``rmqueue()``, ``expand()``, ``__free_pages_ok()``
(book 6.1-6.3). In RAM: ``zone_t.free_area``, ``struct page.list``. A pair's bit is the
exclusive or of its two halves: set when exactly one of them is free.

What can fail: a bad free raises :class:`BadFrame`, a KernelBug that names frame, flags and
count; an allocation that cannot be served returns 0, the kernel's NULL.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, phys_to_virt
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.gfp import GFP_ZONEMASK
from kernel_model.mm.mmzone import MemMap, Zone, for_each_zone
from kernel_model.mm.page_flags import (
    PG_ACTIVE,
    PG_DIRTY,
    PG_LOCKED,
    PG_LRU,
    PG_REFERENCED,
    PG_RESERVED,
    flag_names,
)
from kernel_model.structs.mmzone import MAX_ORDER


class BadFrame(KernelBug):
    """A frame is not in the state that the operation demands."""

    def __init__(self, line: int, reason: str, pfn: int, flags: int, count: int) -> None:
        super().__init__(
            "page_alloc.c",
            line,
            f"{reason}: frame {pfn:#x}, flags {flags:#x} ({flag_names(flags)}), count {count}",
        )
        self.pfn = pfn
        self.flags = flags
        self.count = count


class PageAllocator:
    """The allocator over all zones of the machine. Pages are ``struct page *``, 0 is NULL."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self.memmap = MemMap(image)
        self._words = image.ram.words
        self._zones: dict[int, Zone] = {}

    def zone(self, vaddr: int) -> Zone:
        """The view of the ``zone_t`` at ``vaddr``."""
        zone = self._zones.get(vaddr)
        if zone is None:
            zone = self._zones[vaddr] = Zone(self._image, vaddr)
        return zone

    def page_zone(self, page: int) -> Zone:
        """The zone of a frame, from the top byte of its flags (book 2.6)."""
        return self.zone(self._image.statics.zone_table[self.memmap.zone_number(page)])

    def nr_free_pages(self) -> int:
        """Free frames of all zones."""
        return sum(zone.free_pages for zone in for_each_zone(self._image))

    # -- lists ---------------------------------------------------------------------------

    def _list_add(self, entry: int, head: int) -> None:
        words = self._words
        e, h = entry - PAGE_OFFSET >> 2, head - PAGE_OFFSET >> 2
        following = words[h]
        words[(following - PAGE_OFFSET >> 2) + 1] = entry
        words[e], words[e + 1] = following, head
        words[h] = entry

    def _list_del(self, entry: int) -> None:
        words = self._words
        e = entry - PAGE_OFFSET >> 2
        following, previous = words[e], words[e + 1]
        words[(following - PAGE_OFFSET >> 2) + 1] = previous
        words[previous - PAGE_OFFSET >> 2] = following
        words[e] = words[e + 1] = 0

    # -- allocating ------------------------------------------------------------------------

    def rmqueue(self, zone: Zone, order: int) -> int:
        """The first block of the smallest order that serves, cut down to ``order``."""
        for current in range(order, MAX_ORDER):
            head = zone.free_list(current)
            page = self._words[head - PAGE_OFFSET >> 2]
            if page == head:
                continue
            self._list_del(page)
            index = (page - int(zone.view.zone_mem_map)) // self.memmap.page_bytes
            if current != MAX_ORDER - 1:
                zone.bitmap(current).toggle(index >> (1 + current))
            zone.free_pages -= 1 << order
            page = self._expand(zone, page, index, order, current)
            self.memmap.set_count(page, 1)
            return page
        return 0

    def _expand(self, zone: Zone, page: int, index: int, low: int, high: int) -> int:
        """Give back lower halves until a block of order ``low`` remains: the upper one."""
        while high > low:
            high -= 1
            self._list_add(page, zone.free_list(high))
            zone.bitmap(high).toggle(index >> (1 + high))
            index += 1 << high
            page += (1 << high) * self.memmap.page_bytes
        return page

    def alloc_pages(self, gfp_mask: int, order: int) -> int:
        """``2**order`` frames from the first zone of the mask's zonelist that has them."""
        if order >= MAX_ORDER:
            return 0
        zonelist = self._image.statics.contig_page_data.node_zonelists[gfp_mask & GFP_ZONEMASK]
        for vaddr in zonelist.zones:
            if not vaddr:
                break
            if page := self.rmqueue(self.zone(vaddr), order):
                return page
        return 0

    def alloc_page(self, gfp_mask: int) -> int:
        return self.alloc_pages(gfp_mask, 0)

    def get_free_pages(self, gfp_mask: int, order: int) -> int:
        page = self.alloc_pages(gfp_mask, order)
        return phys_to_virt(self.memmap.pfn(page) << PAGE_SHIFT) if page else 0

    def get_free_page(self, gfp_mask: int) -> int:
        """``__get_free_page()``: one frame of low memory, as its kernel virtual address."""
        return self.get_free_pages(gfp_mask, 0)

    # -- freeing -----------------------------------------------------------------------------

    def _refuse(self, line: int, reason: str, page: int) -> BadFrame:
        memmap = self.memmap
        return BadFrame(line, reason, memmap.pfn(page), memmap.flags(page), memmap.count(page))

    def _check_free(self, page: int) -> None:
        page_struct = self._image.at(self._image.structs.page, page)
        if page_struct.buffers:
            raise self._refuse(93, "freed with buffers", page)
        if page_struct.mapping:
            raise self._refuse(95, "freed while in a page cache", page)
        for bit, line, reason in (
            (PG_LOCKED, 99, "freed while locked"),
            (PG_ACTIVE, 101, "freed while active"),
            (PG_LRU, 103, "freed while on the LRU"),
        ):
            if self.memmap.test(page, bit):
                raise self._refuse(line, reason, page)

    def free_pages_ok(self, page: int, order: int) -> None:
        """``__free_pages_ok()``: put the block back, merging with its buddy while that is free."""
        self._check_free(page)
        memmap, zone = self.memmap, self.page_zone(page)
        memmap.set_flags(page, memmap.flags(page) & ~(1 << PG_REFERENCED | 1 << PG_DIRTY))
        base = int(zone.view.zone_mem_map)
        index = (page - base) // memmap.page_bytes
        if index & ((1 << order) - 1):
            raise self._refuse(116, f"order {order} block is not aligned", page)
        zone.free_pages += 1 << order
        while order < MAX_ORDER - 1:
            if not zone.bitmap(order).toggle(index >> (1 + order)):
                break
            self._list_del(base + (index ^ 1 << order) * memmap.page_bytes)
            order += 1
            index &= -1 << order
        self._list_add(base + index * memmap.page_bytes, zone.free_list(order))

    def free_pages(self, page: int, order: int) -> None:
        """``__free_pages()``: drop one reference; the last one frees the block (book 6.3)."""
        memmap = self.memmap
        if memmap.test(page, PG_RESERVED):
            return
        count = memmap.count(page)
        memmap.set_count(page, (count - 1) & 0xFFFFFFFF)
        if count == 1:
            self.free_pages_ok(page, order)

    def free_page(self, page: int) -> None:
        """``__free_page()``."""
        self.free_pages(page, 0)
