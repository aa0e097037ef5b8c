# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of the slab allocator, and its start.

Models linux-2.4.22 ``mm/slab.c``: ``kmem_cache_init()``, ``kmem_cache_sizes_init()``,
``kmem_cpucache_init()``, ``kmem_cache_create()``, ``kmem_cache_alloc()``, ``kmalloc()`` and their
opposites (book 8.1.9, 8.3, 8.4, 8.6). In RAM: ``cache_cache``, the static first cache, whose
``next`` is the head of the chain of all caches; ``cache_sizes[]``; ``clock_searchp``. The
kernel's ``cache_chain_sem`` guards the chain; nothing sleeps here, so it is only named.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.slab.cache import Cache, kmem_cache_estimate
from kernel_model.mm.slab.cpucache import CpuCaches
from kernel_model.mm.slab.create import (
    Geometry,
    Limits,
    cache_geometry,
    check_request,
    debug_flags,
)
from kernel_model.mm.slab.flags import (
    BREAK_GFP_ORDER_HI,
    BREAK_GFP_ORDER_LO,
    CFLGS_OFF_SLAB,
    SLAB_CACHE_DMA,
    SLAB_DMA,
    SLAB_HWCACHE_ALIGN,
    SLAB_KERNEL,
    SLAB_NO_REAP,
)
from kernel_model.mm.slab.objects import Constructor, Objects, PageSource
from kernel_model.mm.slab.reap import Reaper
from kernel_model.structs.slab import CACHE_NAMELEN, CACHE_SIZES

MOST_CACHES: Final = 1 << 16
"""A longer chain of caches is none: a link was overwritten, and it runs in a ring."""


class Slab:
    """The slab allocator of one machine. Caches and objects are kernel virtual addresses."""

    def __init__(
        self, image: KernelImage, memmap: MemMap, pages: PageSource, online_cpus: int = 1
    ) -> None:
        self.image = self._image = image
        self._statics = image.statics
        self._lists = Lists(image.ram)
        self._words = image.ram.words
        self._sizes = virt_to_phys(image.symbol("cache_sizes")) >> 2
        self._next = image.structs.kmem_cache_t.offset("next")
        self.objects = Objects(image, memmap, pages)
        self.cache_cache = self.objects.cache(image.symbol("cache_cache"))
        self.cpu_caches = (
            CpuCaches(image, self.objects, self.kmalloc, self.kfree, online_cpus)
            if image.config.smp
            else None
        )
        self._reaper = Reaper(image, self.objects, self.cpu_caches, self._free)

    # -- starting ----------------------------------------------------------------------------

    def kmem_cache_init(self) -> None:
        """Set up the cache of caches (book 8.6)."""
        view, config = self.cache_cache.view, self._image.config
        for head in ("slabs_full", "slabs_partial", "slabs_free", "next"):
            kind = self._image.structs.kmem_cache_t
            self._lists.init(self.cache_cache.vaddr + kind.offset(head))
        size = self._image.structs.kmem_cache_t.size
        view.objsize, view.flags, view.colour_off = size, SLAB_NO_REAP, config.l1_cache_bytes
        view.gfporder = 0
        self._name(self.cache_cache, "kmem_cache")
        view.num, left_over = kmem_cache_estimate(
            0, size, 0, config.l1_cache_bytes, self._image.structs.slab_t.size
        )
        view.colour = left_over // config.l1_cache_bytes
        self._statics.clock_searchp = self.cache_cache.vaddr
        self._statics.slab_break_gfp_order = BREAK_GFP_ORDER_LO

    def kmem_cache_sizes_init(self, num_physpages: int) -> None:
        """Create the general caches; what fits a descriptor off the slab grows with them."""
        if num_physpages > 32 << 20 >> PAGE_SHIFT:
            self._statics.slab_break_gfp_order = BREAK_GFP_ORDER_HI
        for index, size in enumerate(CACHE_SIZES):
            entry = self._statics.cache_sizes[index]
            entry.cs_size = size
            entry.cs_cachep = self._general_cache(f"size-{size}", size, 0)
            if not self.objects.cache(entry.cs_cachep).off_slab:
                self._statics.offslab_limit = (size - self._image.structs.slab_t.size) // 2
            entry.cs_dmacachep = self._general_cache(f"size-{size}(DMA)", size, SLAB_CACHE_DMA)

    def _general_cache(self, name: str, size: int, flags: int) -> int:
        cache = self.kmem_cache_create(name, size, 0, flags | SLAB_HWCACHE_ALIGN)
        if not cache:
            raise KernelBug("slab.c", 0, f"no memory for the general cache {name}")
        return cache

    def kmem_cpucache_init(self) -> None:
        """Per-CPU arrays for every cache there is, and for each that comes."""
        if self.cpu_caches is None:
            return
        self._statics.g_cpucache_up = 1
        for cache in self.chain():
            self.cpu_caches.enable_cpucache(cache)

    # -- caches ------------------------------------------------------------------------------------

    def chain(self) -> Iterator[Cache]:
        """``cache_cache``, then every other cache, newest first."""
        yield self.cache_cache
        head = self.cache_cache.vaddr + self._next
        for number, link in enumerate(self._lists.entries(head)):
            if number == MOST_CACHES:
                raise EndlessLoop("cache_chain never comes back to cache_cache")
            yield self.objects.cache(link - self._next)

    def find(self, name: str) -> Cache | None:
        """The cache called ``name``."""
        return next((cache for cache in self.chain() if cache.name == name), None)

    def register(self, function: Constructor | None) -> int:
        """The address under which a constructor or destructor is known; 0 for none."""
        return self._image.functions.address(function)

    def kmem_cache_create(
        self,
        name: str,
        size: int,
        offset: int,
        flags: int,
        ctor: Constructor | None = None,
        dtor: Constructor | None = None,
    ) -> int:
        """A new cache for objects of ``size`` bytes; 0 when memory is out (book 8.1.6)."""
        debug, printk = self.objects.debug is not None, self._image.printk
        has_ctor, has_dtor = ctor is not None, dtor is not None
        check_request(name, size, offset, flags, ctor=has_ctor, dtor=has_dtor, debug=debug)
        if debug:
            flags = debug_flags(name, size, flags, ctor=has_ctor, printk=printk)
        vaddr = self.kmem_cache_alloc(self.cache_cache.vaddr, SLAB_KERNEL)
        if not vaddr:
            return 0
        self._image.ram.fill(virt_to_phys(vaddr), self._image.structs.kmem_cache_t.size)
        limits = Limits(
            self._image.config.l1_cache_bytes,
            self._image.structs.slab_t.size,
            int(self._statics.offslab_limit),
            int(self._statics.slab_break_gfp_order),
            debug,
        )
        geometry = cache_geometry(name, size, offset, flags, limits, printk)
        if geometry is None:
            self.kmem_cache_free(self.cache_cache.vaddr, vaddr)
            return 0
        cache = self.objects.cache(vaddr)
        self._fill(cache, name, geometry)
        cache.view.ctor, cache.view.dtor = self.register(ctor), self.register(dtor)
        if self.cpu_caches is not None and self._statics.g_cpucache_up:
            self.cpu_caches.enable_cpucache(cache)
        if self.find(name) is not None:
            raise KernelBug("slab.c", 0, f"a cache called {name!r} exists already")
        self._lists.add(vaddr + self._next, self.cache_cache.vaddr + self._next)
        return vaddr

    def _fill(self, cache: Cache, name: str, geometry: Geometry) -> None:
        view = cache.view
        view.objsize, view.num, view.gfporder = geometry.objsize, geometry.num, geometry.gfporder
        view.flags, view.colour = geometry.flags, geometry.colour
        view.colour_off = geometry.colour_off
        view.gfpflags = SLAB_DMA if geometry.flags & SLAB_CACHE_DMA else 0
        for head in (cache.slabs_full, cache.slabs_partial, cache.slabs_free):
            self._lists.init(head)
        if geometry.flags & CFLGS_OFF_SLAB:
            view.slabp_cache = self.kmem_find_general_cachep(geometry.slab_size, 0)
        self._name(cache, name)

    @staticmethod
    def _name(cache: Cache, name: str) -> None:
        cache.view.name[:] = list(name.encode("latin-1").ljust(CACHE_NAMELEN, b"\0"))

    def kmem_cache_shrink(self, cachep: int) -> int:
        """Destroy every free slab; per-CPU arrays are left alone. Returns pages freed."""
        cache = self.objects.cache(cachep)
        if all(cachep != known.vaddr for known in self.chain()):
            raise KernelBug("slab.c", 0, f"{cachep:#x} is no cache of the chain")
        return self._reaper.shrink_locked(cache) << cache.gfporder

    def kmem_cache_destroy(self, cachep: int) -> int:
        """Remove a cache; 1 and a message when objects of it are in use (book 8.1.9)."""
        cache = self.objects.cache(cachep)
        if cache.view.growing:
            raise KernelBug("slab.c", 0, f"cache {cache.name} is growing")
        head = self.cache_cache.vaddr + self._next
        if self._statics.clock_searchp == cachep:
            following = self._lists.first(cachep + self._next)
            self._statics.clock_searchp = following - self._next
        self._lists.delete(cachep + self._next)
        if self.cpu_caches is not None:
            self.cpu_caches.drain_cpu_caches(cache)
        self._reaper.shrink_locked(cache)
        if any(not self._lists.empty(list_) for list_ in (cache.slabs_full, cache.slabs_partial)):
            self._image.printk(f"<3>kmem_cache_destroy: Can't free all objects {cachep:#010x}\n")
            self._lists.add(cachep + self._next, head)
            return 1
        if self.cpu_caches is not None:
            self.cpu_caches.release(cache)
        self.kmem_cache_free(self.cache_cache.vaddr, cachep)
        return 0

    def kmem_cache_reap(self, gfp_mask: int) -> int:
        """Free slabs of some cache, for the page allocator's sake. Returns pages."""
        return self._reaper.kmem_cache_reap()

    # -- objects -----------------------------------------------------------------------------------

    def kmem_cache_alloc(self, cachep: int, flags: int) -> int:
        """An object; 0 when memory is out."""
        return self._alloc(self.objects.cache(cachep), flags)

    def _alloc(self, cache: Cache, flags: int) -> int:
        self._check_dma(cache, flags)
        cpu_caches, take = self.cpu_caches, self.objects.take
        while True:
            array = cpu_caches.array(cache) if cpu_caches is not None else 0
            if array:
                assert cpu_caches is not None
                objp = cpu_caches.alloc(cache, array)
            else:
                objp = take(cache)
            if objp or not self.objects.kmem_cache_grow(cache, flags, self._alloc):
                return objp

    def _check_dma(self, cache: Cache, flags: int) -> None:
        if bool(flags & SLAB_DMA) != bool(
            cache.words[cache.base + cache.where.gfpflags] & SLAB_DMA
        ):
            raise KernelBug("slab.c", 0, f"flags {flags:#x} do not fit cache {cache.name}")

    def kmem_cache_free(self, cachep: int, objp: int) -> None:
        """Give an object back to its cache."""
        owner = self.objects.page_cache_of(objp)
        if owner != cachep:
            name, other = self.objects.cache(cachep).name, self.objects.cache(owner).name
            raise KernelBug(
                "slab.c", 0, f"{objp:#x} is no object of cache {name}: it lies in cache {other}"
            )
        self._free(self.objects.cache(cachep), objp)

    def _free(self, cache: Cache, objp: int) -> None:
        cpu_caches = self.cpu_caches
        if cpu_caches is not None and (array := cpu_caches.array(cache)):
            cpu_caches.free(cache, array, objp)
        else:
            self.objects.put(cache, objp)

    # -- sizes -----------------------------------------------------------------------------------

    def kmem_find_general_cachep(self, size: int, gfpflags: int) -> int:
        """The general cache for ``size`` bytes; 0 above 131,072 (book 8.4)."""
        index = bisect_left(CACHE_SIZES, size)
        if index == len(CACHE_SIZES):
            return 0
        return self._words[self._sizes + 3 * index + (2 if gfpflags & SLAB_DMA else 1)]

    def kmalloc(self, size: int, flags: int) -> int:
        """``size`` bytes of low memory, physically contiguous; 0 when there are none."""
        cachep = self.kmem_find_general_cachep(size, flags)
        return self.kmem_cache_alloc(cachep, flags) if cachep else 0

    def kfree(self, objp: int) -> None:
        """Give back what ``kmalloc()`` gave; NULL is allowed."""
        if objp:
            self._free(self.objects.cache(self.objects.page_cache_of(objp)), objp)
