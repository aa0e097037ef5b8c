# SPDX-License-Identifier: GPL-2.0-or-later
"""The swap cache: frames whose contents have a slot in a swap area.

Models linux-2.4.22 ``mm/swap_state.c`` and ``mm/swapfile.c: can_share_swap_page()``,
``remove_exclusive_swap_page()``. In RAM: the page cache with ``swapper_space`` as the address
space and the ``swp_entry_t`` as the index. Reading and writing a slot takes no time here, so a
frame is unlocked again when :meth:`SwapCache.writepage` returns.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.filemap import PageCache
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import PG_DIRTY, PG_LOCKED, PG_UPTODATE
from kernel_model.mm.swapfile import SwapAreas


class SwapCache:
    """The swap cache of one machine; pages are ``struct page *``."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        cache: PageCache,
        areas: SwapAreas,
        tlb: Tlb,
    ) -> None:
        self._tlb = tlb
        self._gfp_highuser = image.constants.gfp.highuser
        self._written = image.constants.page_flags.mask("launder", "locked")
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._words = image.ram.words
        self.cache = cache
        self.areas = areas
        self.swapper_space = image.symbol("swapper_space")
        image.statics.swap_aops.writepage = image.functions.address(self.writepage)
        image.statics.swapper_space.a_ops = image.symbol("swap_aops")

    # -- frames by slot ------------------------------------------------------------------------

    def _find(self, entry: int) -> int:
        """The frame that is cached under a slot; 0: none is."""
        return self.cache.find_page(self.swapper_space, entry)

    def _insert(self, page: int, entry: int) -> bool:
        """Cache a frame, locked, under a slot that has none. False: no memory."""
        self.cache.add_to_page_cache(page, self.swapper_space, entry)
        return True

    def _take_out(self, page: int) -> None:
        """A frame is in the cache no longer."""
        self.cache.remove_inode_page(page)

    def _enter_lru(self, page: int) -> None:
        """A new frame of the cache, which holds it already, is known to reclaim."""

    def entry(self, page: int) -> int:
        """The slot of a frame in the swap cache; 0 when it is not in it (``PageSwapCache``)."""
        memmap = self._memmap
        if self._words[memmap.word(page, memmap.mapping_word)] != self.swapper_space:
            return 0
        return self._words[memmap.word(page, memmap.index_word)]

    def lookup(self, entry: int) -> int:
        """The frame that holds a slot's contents, with one more reference; 0: none does."""
        page = self._find(entry)
        if page:
            self._memmap.set_count(page, self._memmap.count(page) + 1)
        return page

    def add(self, page: int, entry: int) -> bool:
        """Cache a frame under its slot, locked. False when the slot has been freed meanwhile."""
        if not self.areas.swap_duplicate(entry):
            return False
        if self._find(entry) or not self._insert(page, entry):
            self.areas.swap_free(entry)
            return False
        return True

    def move_to_swap_cache(self, page: int, entry: int) -> bool:
        """Cache a locked frame under a fresh slot of its own, no longer in the page cache. False:
        no memory, and nothing has changed."""
        self.cache.remove_inode_page(page)
        self._allocator.put_page(page)
        if not self.add(page, entry):
            raise KernelBug("swap_state.c", 0, f"a fresh slot, {entry:#x}, is in the swap cache")
        return True

    def remove(self, page: int) -> None:
        """``__delete_from_swap_cache()`` and the slot's reference that went with it."""
        entry = self.entry(page)
        if not entry or not self._memmap.test(page, PG_LOCKED):
            raise KernelBug("swap_state.c", 0, "not locked, or not in the swap cache")
        self._memmap.clear_bit(page, PG_DIRTY)
        self._take_out(page)
        self.areas.swap_free(entry)

    def remove_exclusive(self, page: int) -> bool:
        """Drop a locked frame from the cache if nobody but the caller and the cache has it."""
        if not self.entry(page) or not self._exclusive(page):
            return False
        self.remove(page)
        self._memmap.set_bit(page, PG_DIRTY)
        self._allocator.put_page(page)
        return True

    def _exclusive(self, page: int) -> bool:
        """``exclusive_swap_page()``: nobody but the cache and one user has frame or slot."""
        entry = self.entry(page)
        return self._memmap.count(page) == 2 and self.areas.swap_count(entry) == 1

    def can_share(self, page: int) -> bool:
        """Whether the one who maps a locked frame may write to it without a copy.

        A frame in the swap cache keeps its slot; what is written makes the slot's contents old.
        """
        count = self._memmap.count(page)
        return count == 1 or (count == 2 and bool(self.entry(page)) and self._exclusive(page))

    @property
    def full(self) -> bool:
        """``vm_swap_full()``: less than half of all slots is free."""
        return int(self._statics.nr_swap_pages) * 2 < self.areas.total_swap_pages

    def writepage(self, page: int) -> None:
        """``swap_writepage()``: write a locked frame to its slot, unless nobody wants it."""
        if not self.remove_exclusive(page):
            self.areas.write(self.entry(page), self._memmap.pfn(page) << PAGE_SHIFT)
        memmap = self._memmap
        memmap.set_flags(page, memmap.flags(page) & ~self._written)

    def read(self, entry: int) -> int:
        """``read_swap_cache_async()``: a frame with the slot's contents, with a reference.

        0 when memory is out or the slot was freed.
        """
        if page := self.lookup(entry):
            return page
        page = self._allocator.alloc_page(self._gfp_highuser, "user page")
        if not page:
            return 0
        if not self.add(page, entry):
            self._allocator.put_page(page)
            return 0
        self._enter_lru(page)
        paddr = self._memmap.pfn(page) << PAGE_SHIFT
        self.areas.read(entry, paddr)
        self._tlb.processor.snoop(paddr, PAGE_SIZE)
        self._memmap.set_bit(page, PG_UPTODATE)
        self._memmap.clear_bit(page, PG_LOCKED)
        return page

    def free_page_and_swap_cache(self, page: int) -> None:
        """A mapping of the frame ends: drop its reference, and the cache's if it was the last."""
        memmap = self._memmap
        if self.entry(page) and not memmap.test(page, PG_LOCKED):
            memmap.set_bit(page, PG_LOCKED)
            self.remove_exclusive(page)
            memmap.clear_bit(page, PG_LOCKED)
        self._allocator.put_page(page)

    def free_swap_and_cache(self, entry: int) -> None:
        """A PTE that held a slot ends: the slot has a user less, and may need its frame no more."""
        if self.areas.swap_free(entry) != 1:
            return
        memmap = self._memmap
        page = self._find(entry)
        if not page or memmap.test(page, PG_LOCKED):
            return
        if memmap.count(page) == 1 or self.full:
            memmap.set_bit(page, PG_LOCKED)
            self.remove(page)
            # Whoever still maps it has the only copy from now on.
            memmap.set_bit(page, PG_DIRTY)
            memmap.clear_bit(page, PG_LOCKED)
            self._allocator.put_page(page)
