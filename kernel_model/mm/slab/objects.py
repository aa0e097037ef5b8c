# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects: taking one from a slab, giving one back, and the slabs they live in.

Models linux-2.4.22 ``mm/slab.c``: ``kmem_cache_alloc_one_tail()``, ``kmem_cache_free_one()``,
``kmem_cache_grow()``, ``kmem_slab_destroy()`` (book 8.2.2, 8.2.8, 8.3). In RAM: slabs,
``page->list`` of each of their frames (cache and slab), red zones and poison around and in the
objects. Constructors and destructors are callables, registered under the address that the
cache's ``ctor`` and ``dtor`` fields hold.

What can fail: a :class:`BadObject` where the kernel's debugging calls ``BUG()``, naming cache,
slab, object, offset and bytes.
"""

from collections.abc import Callable
from typing import Protocol

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.page_flags import PG_SLAB
from kernel_model.mm.slab.cache import Cache, CacheWords, l1_cache_align
from kernel_model.mm.slab.debug import SlabDebug
from kernel_model.mm.slab.flags import (
    BUFCTL_END,
    DFLGS_GROWN,
    SLAB_ATOMIC,
    SLAB_CTOR_ATOMIC,
    SLAB_CTOR_CONSTRUCTOR,
    SLAB_DMA,
    SLAB_LEVEL_MASK,
    SLAB_NO_GROW,
)

Constructor = Callable[[int, int, int], None]
"""``(object, cache, flags)``, the first two as kernel virtual addresses."""


class PageSource(Protocol):
    """Where slabs come from: the buddy allocator, or what stands in for it (book 8.7)."""

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str) -> int:
        """Kernel virtual address of ``2**order`` frames of low memory; 0 when there are none."""

    def free_pages_at(self, vaddr: int, order: int) -> None:
        """Give them back."""


class Objects:
    """What happens to objects and slabs of every cache of a machine."""

    def __init__(self, image: KernelImage, memmap: MemMap, pages: PageSource) -> None:
        self._image = image
        self._memmap = memmap
        self._words = image.ram.words
        self._lists = Lists(image.ram)
        self._where = CacheWords(image)
        self._line = image.config.l1_cache_bytes
        self._high_memory = virt_to_phys(image.symbol("high_memory")) >> 2
        self._caches: dict[int, Cache] = {}
        self.pages = pages
        self.functions: dict[int, Constructor] = image.functions.by_address
        """Constructors and destructors by the address under which caches name them."""
        self.debug = SlabDebug(image) if image.config.debug_slab else None

    def cache(self, vaddr: int) -> Cache:
        """The view of the ``kmem_cache_t`` at ``vaddr``."""
        cache = self._caches.get(vaddr)
        if cache is None:
            cache = self._caches[vaddr] = Cache(self._image, self._where, self._lists, vaddr)
        return cache

    def _page(self, vaddr: int) -> int:
        return self._memmap.page(vaddr - PAGE_OFFSET >> PAGE_SHIFT)

    def page_cache_of(self, objp: int) -> int:
        """``GET_PAGE_CACHE``: the cache of the frame that an object lies in.

        A frame of no slab is a :class:`KernelBug`, as ``CHECK_PAGE`` has it. Without
        CONFIG_DEBUG_SLAB the kernel checks nothing, and takes what ``page->list`` holds for a
        cache.
        """
        if not PAGE_OFFSET <= objp < self._words[self._high_memory]:
            raise KernelBug("slab.c", 0, f"out of range ptr {objp:#x}")
        page = self._page(objp)
        if not self._memmap.test(page, PG_SLAB):
            raise KernelBug("slab.c", 0, f"{objp:#x} lies in no slab: it was never allocated")
        return self._words[self._memmap.word(page, self._memmap.list_word)]

    def page_slab_of(self, objp: int) -> int:
        """``GET_PAGE_SLAB``."""
        return self._words[self._memmap.word(self._page(objp), self._memmap.list_word) + 1]

    # -- one object --------------------------------------------------------------------------

    def take(self, cache: Cache) -> int:
        """``kmem_cache_alloc_one()``: from a partial slab, else a free one; 0: none has any."""
        where, words = self._where, self._words
        slabs_partial = cache.vaddr + where.slabs_partial
        slab = words[slabs_partial - PAGE_OFFSET >> 2]
        if slab == slabs_partial:
            slabs_free = cache.vaddr + where.slabs_free
            slab = words[slabs_free - PAGE_OFFSET >> 2]
            if slab == slabs_free:
                return 0
            self._lists.delete(slab)
            self._lists.add(slab, slabs_partial)
        at = slab - PAGE_OFFSET >> 2
        index = words[at + where.free]
        objp = words[at + where.s_mem] + index * words[cache.base + where.objsize]
        words[at + where.inuse] += 1
        following = words[at + where.bufctl + index]
        words[at + where.free] = following
        if following == BUFCTL_END:
            self._lists.delete(slab)
            self._lists.add(slab, cache.vaddr + where.slabs_full)
        if self.debug is not None:
            return self.debug.allocated(cache, slab, objp)
        return objp

    def put(self, cache: Cache, objp: int) -> None:
        """``kmem_cache_free_one()``: back into its slab, at the head of its free objects."""
        where, words = self._where, self._words
        slab = self.page_slab_of(objp)
        if self.debug is not None:
            objp = self.debug.freed(cache, slab, objp, self.functions)
        at = slab - PAGE_OFFSET >> 2
        index = (objp - words[at + where.s_mem]) // words[cache.base + where.objsize]
        words[at + where.bufctl + index] = words[at + where.free]
        words[at + where.free] = index
        inuse = words[at + where.inuse]
        words[at + where.inuse] = inuse - 1
        if inuse == 1:
            self._lists.delete(slab)
            self._lists.add(slab, cache.vaddr + where.slabs_free)
        elif inuse == words[cache.base + where.num]:
            self._lists.delete(slab)
            self._lists.add(slab, cache.vaddr + where.slabs_partial)

    # -- one slab ------------------------------------------------------------------------------

    def kmem_cache_grow(self, cache: Cache, flags: int, alloc: Callable[[Cache, int], int]) -> bool:
        """Add a slab, with all its objects constructed. ``alloc`` gives off-slab descriptors."""
        if flags & ~(SLAB_DMA | SLAB_LEVEL_MASK | SLAB_NO_GROW):
            raise KernelBug("slab.c", 0, f"allocation flags {flags:#x} for {cache.name}")
        if flags & SLAB_NO_GROW:
            return False
        level = flags & SLAB_LEVEL_MASK
        ctor_flags = SLAB_CTOR_CONSTRUCTOR | (SLAB_CTOR_ATOMIC if level == SLAB_ATOMIC else 0)
        view = cache.view
        colour = int(view.colour_next)
        view.colour_next = colour + 1 if colour + 1 < view.colour else 0
        view.dflags |= DFLGS_GROWN
        view.growing += 1
        try:
            return self._add_slab(cache, flags, colour * int(view.colour_off), ctor_flags, alloc)
        finally:
            view.growing -= 1

    def _add_slab(
        self,
        cache: Cache,
        flags: int,
        colour_off: int,
        ctor_flags: int,
        alloc: Callable[[Cache, int], int],
    ) -> bool:
        order = cache.gfporder
        memory = self.pages.get_free_pages(flags | int(cache.view.gfpflags), order, "slab")
        if not memory:
            return False
        if cache.off_slab:
            slab = alloc(self.cache(int(cache.view.slabp_cache)), flags & SLAB_LEVEL_MASK)
            if not slab:
                self.pages.free_pages_at(memory, order)
                return False
        else:
            slab = memory + colour_off
            colour_off += l1_cache_align(
                cache.num * 4 + self._image.structs.slab_t.size, self._line
            )
        view = self._image.at(self._image.structs.slab_t, slab)
        view.inuse, view.colouroff, view.s_mem = 0, colour_off, memory + colour_off
        for vaddr in range(memory, memory + (PAGE_SIZE << order), PAGE_SIZE):
            page = self._page(vaddr)
            index = self._memmap.word(page, self._memmap.list_word)
            self._words[index], self._words[index + 1] = cache.vaddr, slab
            self._memmap.set_bit(page, PG_SLAB)
        self._init_objects(cache, slab, ctor_flags)
        self._lists.add_tail(slab, cache.slabs_free)
        if self.debug is not None:
            view_cache = cache.view
            view_cache.grown += 1
        cache.view.failures = 0
        return True

    def _init_objects(self, cache: Cache, slab: int, ctor_flags: int) -> None:
        """``kmem_cache_init_objs()``: construct each object, chain all of them."""
        ctor = self.functions.get(int(cache.view.ctor))
        first, size, count = cache.s_mem(slab), cache.objsize, cache.num
        if ctor is not None or self.debug is not None:
            for objp in range(first, first + size * count, size):
                if self.debug is not None:
                    self.debug.construct(cache, slab, objp, ctor, ctor_flags)
                elif ctor is not None:
                    ctor(objp, cache.vaddr, ctor_flags)
        at = (slab - PAGE_OFFSET >> 2) + self._where.bufctl
        for index in range(count - 1):
            self._words[at + index] = index + 1
        self._words[at + count - 1] = BUFCTL_END
        self._words[(slab - PAGE_OFFSET >> 2) + self._where.free] = 0

    def kmem_slab_destroy(
        self, cache: Cache, slab: int, free: Callable[[Cache, int], None]
    ) -> None:
        """Destruct the objects of an empty slab that is on no list, and free its frames."""
        dtor = self.functions.get(int(cache.view.dtor))
        first, size, count = cache.s_mem(slab), cache.objsize, cache.num
        if self.debug is not None:
            for objp in range(first, first + size * count, size):
                self.debug.destruct(cache, slab, objp, dtor)
        elif dtor is not None:
            for objp in range(first, first + size * count, size):
                dtor(objp, cache.vaddr, 0)
        view = self._image.at(self._image.structs.slab_t, slab)
        memory = int(view.s_mem) - int(view.colouroff)
        for vaddr in range(memory, memory + (PAGE_SIZE << cache.gfporder), PAGE_SIZE):
            self._memmap.clear_bit(self._page(vaddr), PG_SLAB)
        self.pages.free_pages_at(memory, cache.gfporder)
        if cache.off_slab:
            free(self.cache(int(cache.view.slabp_cache)), slab)

    def bytes_of(self, cache: Cache, objp: int) -> bytes:
        """The bytes of an object, red zones included."""
        return self._image.ram.read(virt_to_phys(objp), cache.objsize)
