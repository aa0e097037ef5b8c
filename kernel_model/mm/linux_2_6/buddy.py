# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks of 2**order frames without bitmaps: a free block says itself that it is one.

Models linux-2.6.11 ``mm/page_alloc.c``: ``__rmqueue()``, ``expand()``, ``__free_pages_bulk()``,
``rmqueue_bulk()``, ``free_pages_bulk()`` (book 6.7). In RAM: ``zone.free_area`` with the number of
its blocks, ``zone.free_pages``; the first ``struct page`` of a free block has PG_private set and
its order in ``private``. A buddy is joined when it has both, no users, and is not reserved. Of a
block that is cut the lower half is handed out: 2.4 does the reverse.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.linux_2_6.mmzone import MemMap26, PerCpuPages, Zone26

NOBODY: Final = 0xFFFFFFFF
"""``_count`` of a frame without users: -1."""


class Buddy26(Zone26):
    """A zone whose free areas have been set up, with what its inner loops need at hand."""

    def __init__(self, image: KernelImage, vaddr: int, memmap: MemMap26) -> None:
        super().__init__(image, vaddr)
        kind, flags = image.structs.zone_t, image.constants.page_flags
        self._lists = Lists(image.ram)
        self._memmap = memmap
        self._page_bytes = memmap.page_bytes
        self._flags_word, self._count_word = memmap.flags_word, memmap.count_word
        self._private_word = memmap.buffers_word
        self.mem_map = int(self.view.zone_mem_map)
        self.frames = self.size
        self.classzone_idx = self.index
        self._heads = [self.free_list(order) for order in range(self._orders)]
        self._pg_private = 1 << flags.private
        self._buddy_flags = self._pg_private | 1 << flags.reserved
        self.pages_min_word = self._base + kind.word("pages_min")
        self.pages_low_word = self._base + kind.word("pages_low")
        self.pages_high_word = self._base + kind.word("pages_high")
        self._reserve_word = self._base + kind.word("lowmem_reserve")
        self._all_unreclaimable = self._base + kind.word("all_unreclaimable")
        self._pages_scanned = self._base + kind.word("pages_scanned")

    def watermark_ok(
        self,
        order: int,
        mark: int,
        classzone_idx: int,
        *,
        try_harder: bool = False,
        high: bool = False,
    ) -> bool:
        """``zone_watermark_ok()``: whether the zone keeps more than it must, in blocks that serve.

        Behind each order below the wanted one, half as much must remain in larger blocks.
        """
        words = self._words
        free = words[self.free_pages_word] - (1 << order) + 1
        if high:
            mark -= mark // 2
        if try_harder:
            mark -= mark // 4
        if free <= mark + words[self._reserve_word + classzone_idx]:
            return False
        for below in range(order):
            free -= self.nr_free(below) << below
            mark >>= 1
            if free <= mark:
                return False
        return True

    # -- taking blocks ---------------------------------------------------------------------------

    def rmqueue(self, order: int) -> int:
        """``__rmqueue()``: the first block of the smallest order that serves, cut to ``order``.

        0 when there is none.
        """
        words = self._words
        for current in range(order, self._orders):
            head = self._heads[current]
            entry = words[head - PAGE_OFFSET >> 2]
            if entry == head:
                continue
            self._lists.delete(entry)
            page = entry - self._link
            self._forget_order(page, current)
            words[self.free_pages_word] -= 1 << order
            while current > order:
                current -= 1
                self._put(page + (self._page_bytes << current), current)
            return page
        return 0

    def _forget_order(self, page: int, order: int) -> None:
        """``rmv_page_order()``: a block leaves its list."""
        words, at = self._words, page - PAGE_OFFSET >> 2
        words[at + self._flags_word] &= ~self._pg_private
        words[at + self._private_word] = 0
        words[self._free_area + order * self._area_words + 2] -= 1

    def _put(self, page: int, order: int) -> None:
        """Put a block at the head of its list (``set_page_order()``)."""
        words, at = self._words, page - PAGE_OFFSET >> 2
        words[at + self._private_word] = order
        words[at + self._flags_word] |= self._pg_private
        self._lists.add(page + self._link, self._heads[order])
        words[self._free_area + order * self._area_words + 2] += 1

    def rmqueue_bulk(self, pcp: PerCpuPages, count: int) -> int:
        """Fill a CPU's list with up to ``count`` frames, at its end. Returns how many came."""
        for taken in range(count):
            page = self.rmqueue(0)
            if not page:
                return taken
            self._lists.add_tail(page + self._link, pcp.list)
        return count

    # -- giving back -----------------------------------------------------------------------------

    def merge(self, page: int, order: int) -> None:
        """``__free_pages_bulk()``: put a block back, joined with its buddy while that is free."""
        words, base, size = self._words, self.mem_map, self._page_bytes
        words[self.free_pages_word] += 1 << order
        index = (page - base) // size
        while order < self._orders - 1:
            buddy = index ^ 1 << order
            if buddy >= self.frames:
                break
            at = base + buddy * size - PAGE_OFFSET >> 2
            if (
                words[at + self._flags_word] & self._buddy_flags != self._pg_private
                or words[at + self._private_word] != order
                or words[at + self._count_word] != NOBODY
            ):
                break
            entry = base + buddy * size
            self._lists.delete(entry + self._link)
            self._forget_order(entry, order)
            index &= buddy
            order += 1
        self._put(base + index * size, order)

    def freed(self) -> None:
        """What every ``free_pages_bulk()`` begins with: reclaim has hope again."""
        self._words[self._all_unreclaimable] = self._words[self._pages_scanned] = 0

    def free_pages_bulk(self, pcp: PerCpuPages, count: int) -> int:
        """Give back up to ``count`` frames of a CPU's list, from its end. Returns how many."""
        self.freed()
        for done in range(count):
            entry = self._lists.last(pcp.list)
            if entry == pcp.list:
                return done
            self._lists.delete(entry)
            self.merge(entry - self._link, 0)
        return count
