# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks of 2**order frames: taking one off a zone's lists, and merging one back in.

Models linux-2.4.22 ``mm/page_alloc.c``: ``rmqueue()``, ``expand()`` and the second half of
``__free_pages_ok()`` (book 6.1-6.3). In RAM: ``zone_t.free_area``, ``zone_t.free_pages``,
``struct page.list``. A pair's bit is the exclusive or of its two halves: set when exactly one
of them is free. Nothing here checks its callers; that is :mod:`kernel_model.mm.page_alloc`.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import Zone
from kernel_model.structs.mmzone import MAX_ORDER


class Buddy(Zone):
    """A zone whose free areas have been set up, with what its inner loops need at hand."""

    def __init__(self, image: KernelImage, vaddr: int) -> None:
        super().__init__(image, vaddr)
        self._lists = Lists(image.ram)
        self._bytes = image.ram.bytes
        self._page_bytes = image.structs.page.size
        self._count_word = image.structs.page.word("count")
        self.mem_map = int(self.view.zone_mem_map)
        self.frames = self.size
        self._heads = [self.free_list(order) for order in range(MAX_ORDER)]
        self._head_words = [head - PAGE_OFFSET >> 2 for head in self._heads]
        self._maps = [
            virt_to_phys(int(self.view.free_area[order].map)) for order in range(MAX_ORDER - 1)
        ]
        kind = image.structs.zone_t
        self.pages_low_word = self._base + kind.word("pages_low")
        self._min_word = self._base + kind.word("pages_min")

    @property
    def pages_min(self) -> int:
        return self._words[self._min_word]

    def _toggle(self, order: int, index: int) -> int:
        """Flip the bit of the pair that frame ``index`` lies in (``MARK_USED``); what it was."""
        bit = index >> 1 + order
        at = self._maps[order] + (bit >> 3)
        old = self._bytes[at]
        self._bytes[at] = old ^ 1 << (bit & 7)
        return old >> (bit & 7) & 1

    def rmqueue(self, order: int) -> int:
        """The first block of the smallest order that serves, cut down to ``order``; 0 if none."""
        words = self._words
        for current in range(order, MAX_ORDER):
            page = words[self._head_words[current]]
            if page == self._heads[current]:
                continue
            self._lists.delete(page)
            index = (page - self.mem_map) // self._page_bytes
            if current != MAX_ORDER - 1:
                self._toggle(current, index)
            words[self.free_pages_word] -= 1 << order
            if current > order:
                page = self._expand(page, index, order, current)
            words[(page - PAGE_OFFSET >> 2) + self._count_word] = 1
            return page
        return 0

    def _expand(self, page: int, index: int, low: int, high: int) -> int:
        """Give back lower halves until a block of order ``low`` remains: the upper one.

        ``list_add()`` and the flip of the pair's bit stand here in full, as in :meth:`merge`: a
        frame cut from a whole block of 512 passes nine of each.
        """
        words, ram, maps = self._words, self._bytes, self._maps
        size = self._page_bytes << high
        while high > low:
            high -= 1
            size >>= 1
            head, first = self._heads[high], self._head_words[high]
            following = words[first]
            words[(following - PAGE_OFFSET >> 2) + 1] = page
            at = page - PAGE_OFFSET >> 2
            words[at] = following
            words[at + 1] = head
            words[first] = page
            bit = index >> 1 + high
            ram[maps[high] + (bit >> 3)] ^= 1 << (bit & 7)
            index += 1 << high
            page += size
        return page

    def merge(self, index: int, order: int) -> None:
        """Put the block at frame ``index`` of the zone back, joined with its buddy while free."""
        words, ram, maps, base = self._words, self._bytes, self._maps, self.mem_map
        words[self.free_pages_word] += 1 << order
        while order < MAX_ORDER - 1:
            bit = index >> 1 + order
            at = maps[order] + (bit >> 3)
            old = ram[at]
            ram[at] = old ^ 1 << (bit & 7)
            if not old >> (bit & 7) & 1:
                break
            entry = base + (index ^ 1 << order) * self._page_bytes - PAGE_OFFSET >> 2
            following, previous = words[entry], words[entry + 1]
            words[(following - PAGE_OFFSET >> 2) + 1] = previous
            words[previous - PAGE_OFFSET >> 2] = following
            words[entry] = words[entry + 1] = 0
            order += 1
            index &= -1 << order
        self._lists.add(base + index * self._page_bytes, self._heads[order])
