# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects and the slabs they live in, as both releases have them.

Models ``mm/slab.c``: the chain of free objects, ``kmem_cache_grow()``, ``kmem_slab_destroy()``
(book 8.2.2, 8.2.3-8.2.6, 8.2.8). In RAM: slabs, the list links of each of their frames (cache and
slab), red zones and poison around and in the objects. Constructors and destructors are
callables, registered under the address that the cache's ``ctor`` and ``dtor`` fields hold. On
which list a slab stands is :mod:`.linux_2_4.objects` and :mod:`.linux_2_6.objects`.

What can fail: a :class:`~kernel_model.mm.slab.debug.BadObject` where the kernel's debugging calls
``BUG()``, naming cache, slab, object, offset and bytes.
"""

from collections.abc import Callable
from typing import Final, Protocol

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.slab.cache import Cache, CacheWords
from kernel_model.mm.slab.debug import SlabDebug
from kernel_model.mm.slab.flags import (
    SLAB_CTOR_ATOMIC,
    SLAB_CTOR_CONSTRUCTOR,
    SLAB_DMA,
    SlabConstants,
)

Constructor = Callable[[int, int, int], None]
"""``(object, cache, flags)``, the first two as kernel virtual addresses."""
_PURPOSES: Final = {"pgd": "page directory", "pmd": "page middle directory"}
"""What frames are announced for, where that says more than that they are slabs."""


class PageSource(Protocol):
    """Where slabs come from: the buddy allocator, or what stands in for it (book 8.7)."""

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str) -> int:
        """Kernel virtual address of ``2**order`` frames of low memory; 0 when there are none."""

    def free_pages_at(self, vaddr: int, order: int) -> None:
        """Give them back."""


class Frames(Protocol):
    """The ``struct page`` of a frame, and the bits of its ``flags``: ``mem_map``."""

    def page(self, pfn: int) -> int:
        """Kernel virtual address of the ``struct page`` of a frame."""

    def set_bit(self, page: int, bit: int) -> None:
        """Set a bit of ``flags``."""

    def clear_bit(self, page: int, bit: int) -> None:
        """Clear a bit of ``flags``."""


class Objects:
    """What happens to objects and slabs of every cache of a machine."""

    cache_type: type[Cache] = Cache

    def __init__(
        self,
        image: KernelImage,
        frames: Frames,
        pages: PageSource,
        constants: SlabConstants,
        checks: SlabDebug,
    ) -> None:
        self._image = image
        self._frames = frames
        self._words = image.ram.words
        self._lists = Lists(image.ram)
        self._where = where = CacheWords(image, constants)
        self._links, self._link_shift = where.links, where.link_shift
        self._pg_slab = image.constants.page_flags.slab
        self._page_flags = image.structs.page.word("flags")
        self._page_list = image.structs.page.word(constants.page_list)
        self._high_memory = virt_to_phys(image.symbol("high_memory")) >> 2
        self._caches: dict[int, Cache] = {}
        self.constants = constants
        self.pages = pages
        self.functions: dict[int, Constructor] = image.functions.by_address
        """Constructors and destructors by the address under which caches name them."""
        self.checks = checks
        """Looks at red zones and poison; on a build without there are none to look at."""
        self.debug = checks if image.config.debug_slab else None

    def cache(self, vaddr: int) -> Cache:
        """The view of the ``kmem_cache_t`` at ``vaddr``."""
        cache = self._caches.get(vaddr)
        if cache is None:
            cache = self.cache_type(self._image, self._where, self._lists, vaddr)
            self._caches[vaddr] = cache
        return cache

    def page_cache_of(self, objp: int) -> int:
        """``GET_PAGE_CACHE``: the cache of the frame that an object lies in.

        A frame of no slab is a :class:`KernelBug`, as ``CHECK_PAGE`` has it. Without
        CONFIG_DEBUG_SLAB the kernel checks nothing, and takes what the links hold for a cache.
        """
        if not PAGE_OFFSET <= objp < self._words[self._high_memory]:
            raise KernelBug("slab.c", 0, f"out of range ptr {objp:#x}")
        cachep = self.cache_at(objp)
        if not cachep:
            raise KernelBug("slab.c", 0, f"{objp:#x} lies in no slab: it was never allocated")
        return cachep

    def cache_at(self, vaddr: int) -> int:
        """The cache of the frame of an address in low memory; 0 for a frame of no slab."""
        at = self._frames.page(vaddr - PAGE_OFFSET >> PAGE_SHIFT) - PAGE_OFFSET >> 2
        if not self._words[at + self._page_flags] >> self._pg_slab & 1:
            return 0
        return self._words[at + self._page_list]

    def page_slab_of(self, objp: int) -> int:
        """``GET_PAGE_SLAB``."""
        page = self._frames.page(objp - PAGE_OFFSET >> PAGE_SHIFT)
        return self._words[(page - PAGE_OFFSET >> 2) + self._page_list + 1]

    def check_dma(self, cache: Cache, flags: int) -> None:
        """Only a cache of memory for DMA may be asked for such, and for no other."""
        if (flags ^ self._words[cache.base + self._where.gfpflags]) & SLAB_DMA:
            raise KernelBug("slab.c", 0, f"flags {flags:#x} do not fit cache {cache.name}")

    # -- one object --------------------------------------------------------------------------

    def take_from(self, cache: Cache, slab: int) -> int:
        """The first free object of a slab that has one; no list is touched."""
        where, words, links = self._where, self._words, self._links
        slab -= PAGE_OFFSET
        at, link = slab >> 2, slab >> self._link_shift
        free = link + where.free
        index = links[free]
        links[free] = links[link + where.bufctl + index]
        words[at + where.inuse] += 1
        return words[at + where.s_mem] + index * words[cache.base + where.objsize]

    def put_into(self, cache: Cache, slab: int, objp: int) -> int:
        """Back into its slab, at the head of its free objects. Returns how many are in use."""
        where, words, links = self._where, self._words, self._links
        slab -= PAGE_OFFSET
        at, link = slab >> 2, slab >> self._link_shift
        free = link + where.free
        index = (objp - words[at + where.s_mem]) // words[cache.base + where.objsize]
        links[link + where.bufctl + index] = links[free]
        links[free] = index
        at += where.inuse
        words[at] = inuse = words[at] - 1
        return inuse

    # -- one slab ------------------------------------------------------------------------------

    def kmem_cache_grow(
        self,
        cache: Cache,
        flags: int,
        alloc: Callable[[Cache, int], int],
        pages: PageSource | None = None,
    ) -> bool:
        """Add a slab, with all its objects constructed. ``alloc`` gives off-slab descriptors;
        ``pages`` are taken instead of any."""
        constants = self.constants
        if flags & ~(SLAB_DMA | constants.level_mask | constants.no_grow):
            raise KernelBug("slab.c", 0, f"allocation flags {flags:#x} for {cache.name}")
        if flags & constants.no_grow:
            return False
        atomic = self._is_atomic(flags & constants.level_mask)
        ctor_flags = SLAB_CTOR_CONSTRUCTOR | (SLAB_CTOR_ATOMIC if atomic else 0)
        view = cache.view
        colour = int(view.colour_next)
        view.colour_next = colour + 1 if colour + 1 < view.colour else 0
        colour_off = colour * int(view.colour_off)
        return self._add_slab(cache, flags, colour_off, ctor_flags, alloc, pages or self.pages)

    def _is_atomic(self, level: int) -> bool:
        """Whether a constructor is told that it may not sleep."""
        return not level & self._image.constants.gfp.wait

    def _add_slab(
        self,
        cache: Cache,
        flags: int,
        colour_off: int,
        ctor_flags: int,
        alloc: Callable[[Cache, int], int],
        pages: PageSource,
    ) -> bool:
        memory = self.kmem_getpages(cache, flags, pages)
        if not memory:
            return False
        if cache.off_slab:
            level = flags & self.constants.level_mask
            slab = alloc(self.cache(int(cache.view.slabp_cache)), level)
            if not slab:
                self.kmem_freepages(cache, memory)
                return False
        else:
            slab = memory + colour_off
            colour_off += self._slab_size(cache)
        view = self._image.at(self._image.structs.slab_t, slab)
        view.inuse, view.colouroff, view.s_mem = 0, colour_off, memory + colour_off
        for page in self._pages(cache, memory):
            index = (page - PAGE_OFFSET >> 2) + self._page_list
            self._words[index], self._words[index + 1] = cache.vaddr, slab
        self._init_objects(cache, slab, ctor_flags)
        self._lists.add_tail(slab, cache.slabs_free)
        if self.debug is not None:
            cache.view.grown += 1
        return True

    def _slab_size(self, cache: Cache) -> int:
        """Bytes of a descriptor on the slab with its ``kmem_bufctl_t`` array."""
        raise NotImplementedError

    def _pages(self, cache: Cache, memory: int) -> list[int]:
        """The ``struct page`` of each frame of a slab."""
        first, count = memory - PAGE_OFFSET >> PAGE_SHIFT, 1 << cache.gfporder
        return [self._frames.page(pfn) for pfn in range(first, first + count)]

    def kmem_getpages(self, cache: Cache, flags: int, pages: PageSource) -> int:
        """The frames of a new slab, marked as such; 0: there are none."""
        gfp_mask = flags | int(cache.view.gfpflags)
        purpose = _PURPOSES.get(cache.name, "slab")
        memory = pages.get_free_pages(gfp_mask, cache.gfporder, purpose)
        if memory:
            for page in self._pages(cache, memory):
                self._frames.set_bit(page, self._pg_slab)
        return memory

    def kmem_freepages(self, cache: Cache, memory: int) -> None:
        """Give the frames of a slab back."""
        for page in self._pages(cache, memory):
            self._frames.clear_bit(page, self._pg_slab)
        self.pages.free_pages_at(memory, cache.gfporder)

    def _init_objects(self, cache: Cache, slab: int, ctor_flags: int) -> None:
        """``kmem_cache_init_objs()``: construct each object, chain all of them."""
        ctor = self.functions.get(int(cache.view.ctor))
        where, count = self._where, cache.num
        if ctor is not None or self.debug is not None:
            for objp in self._all_objects(cache, slab):
                if self.debug is not None:
                    self.debug.construct(cache, slab, objp, ctor, ctor_flags)
                elif ctor is not None:
                    ctor(objp, cache.vaddr, ctor_flags)
        link = slab - PAGE_OFFSET >> where.link_shift
        for index in range(count - 1):
            where.links[link + where.bufctl + index] = index + 1
        where.links[link + where.bufctl + count - 1] = where.bufctl_end
        where.links[link + where.free] = 0

    @staticmethod
    def _all_objects(cache: Cache, slab: int) -> range:
        first, size = cache.s_mem(slab), cache.objsize
        return range(first, first + size * cache.num, size)

    def kmem_slab_destroy(
        self, cache: Cache, slab: int, free: Callable[[Cache, int], None]
    ) -> None:
        """Destruct the objects of an empty slab that is on no list, and free its frames."""
        dtor = self.functions.get(int(cache.view.dtor))
        if self.debug is not None:
            for objp in self._all_objects(cache, slab):
                self.debug.destruct(cache, slab, objp, dtor)
        elif dtor is not None:
            for objp in self._all_objects(cache, slab):
                dtor(objp, cache.vaddr, 0)
        view = self._image.at(self._image.structs.slab_t, slab)
        self._release(cache, slab, int(view.s_mem) - int(view.colouroff), free)

    def _release(
        self, cache: Cache, slab: int, memory: int, free: Callable[[Cache, int], None]
    ) -> None:
        """The frames of a slab go, then its descriptor."""
        self.kmem_freepages(cache, memory)
        if cache.off_slab:
            free(self.cache(int(cache.view.slabp_cache)), slab)

    def bytes_of(self, cache: Cache, objp: int) -> bytes:
        """The bytes of an object, red zones included."""
        return self._image.ram.read(virt_to_phys(objp), cache.objsize)
