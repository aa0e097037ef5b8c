# SPDX-License-Identifier: GPL-2.0-or-later
"""The swap cache of 2.6: a frame in it keeps its object, and notes its slot besides.

Models linux-2.6.11 ``mm/swap_state.c``: ``__add_to_swap_cache()``, ``add_to_swap()``,
``__delete_from_swap_cache()`` (book 3.10). In RAM: the radix tree of ``swapper_space``, whose index
is the ``swp_entry_t``; PG_swapcache; the entry in ``page->private``. ``mapping`` and ``index`` stay
those of the ``anon_vma``, by which the frame's PTEs are found.

What can fail: no free slot, no memory for a node of the tree.
"""

from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapfile import SwapAreas


class SwapCache26(SwapCache):
    """The swap cache of one 2.6 machine."""

    cache: RadixPageCache

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator26,
        cache: RadixPageCache,
        areas: SwapAreas,
        tlb: Tlb,
    ) -> None:
        super().__init__(image, allocator, cache, areas, tlb)
        self._lru = allocator.lru
        self._tree = cache.tree(self.swapper_space)
        flags = image.constants.page_flags
        self._in_cache = flags.mask("swapcache")
        self._locked = flags.mask("locked")
        self._uptodate, self._dirty = flags.uptodate, flags.dirty
        self._private = self._memmap.buffers_word
        image.statics.swap_aops.set_page_dirty = image.functions.address(cache.set_page_dirty)

    def entry(self, page: int) -> int:
        if not self._memmap.flags(page) & self._in_cache:
            return 0
        return self._words[self._memmap.word(page, self._private)]

    def _find(self, entry: int) -> int:
        return self.cache.trees.lookup(self._tree, entry)

    def _insert(self, page: int, entry: int) -> bool:
        if self.cache.trees.insert(self._tree, entry, page):
            return False
        memmap = self._memmap
        self._allocator.get_page(page)
        memmap.set_flags(page, memmap.flags(page) | self._in_cache | self._locked)
        self._words[memmap.word(page, self._private)] = entry
        self._statics.total_swapcache_pages += 1
        self._statics.nr_pagecache += 1
        return True

    def _take_out(self, page: int) -> None:
        memmap = self._memmap
        self.cache.trees.delete(self._tree, self.entry(page))
        self._words[memmap.word(page, self._private)] = 0
        memmap.set_flags(page, memmap.flags(page) & ~self._in_cache)
        self._statics.total_swapcache_pages -= 1
        self._statics.nr_pagecache -= 1

    def insert(self, page: int, entry: int) -> bool:
        """``__add_to_swap_cache()``: cache a frame, locked, under a slot that is its own. False:
        no memory."""
        return self._insert(page, entry)

    def move_to_swap_cache(self, page: int, entry: int) -> bool:
        """The kernel adds before it removes; what the frame leaves in the one tree puts it back."""
        mapping, index = self.cache.mapping(page), self.cache.index(page)
        self.cache.remove_inode_page(page)
        self._allocator.put_page(page)
        if self.add(page, entry):
            return True
        if self.cache.find_page(self.swapper_space, entry):
            raise KernelBug("swap_state.c", 0, f"a fresh slot, {entry:#x}, is in the swap cache")
        self.cache.add_off_lru(page, mapping, index)
        return False

    def _enter_lru(self, page: int) -> None:
        self._lru.add_active(page)

    def add_to_swap(self, page: int) -> bool:
        """A slot for a locked frame that has none; what it holds must be written there. False:
        there is no slot, or no memory."""
        entry = self.areas.get_swap_page()
        if not entry:
            return False
        if not self._insert(page, entry):
            self.areas.swap_free(entry)
            return False
        self._memmap.set_bit(page, self._uptodate)
        self._memmap.set_bit(page, self._dirty)
        return True
