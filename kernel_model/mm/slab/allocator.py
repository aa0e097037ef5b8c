# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface of the slab allocator, as far as both releases have the same.

Models ``mm/slab.c``: ``kmem_cache_create()``, ``kmem_cache_destroy()``, ``kmem_cache_alloc()``,
``kmalloc()`` and their opposites (book 8.1.6, 8.1.9, 8.3, 8.4). In RAM: ``cache_cache``, the static
first cache; the chain of all caches; the table of general caches. The kernel's
``cache_chain_sem`` guards the chain; nothing sleeps here, so it is only named. How it starts,
and what stands between a user and the slabs, is :mod:`.linux_2_4.allocator` and
:mod:`.linux_2_6.allocator`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.slab.arrays import ObjectArrays
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.create import Geometry, Limits
from kernel_model.mm.slab.flags import (
    MAX_GFP_ORDER,
    NOMMU_MAX_ORDER,
    SLAB_CACHE_DMA,
    SLAB_DMA,
    SLAB_HWCACHE_ALIGN,
)
from kernel_model.mm.slab.objects import Constructor, Objects

MOST_CACHES: Final = 1 << 16
"""A longer chain of caches is none: a link was overwritten, and it runs in a ring."""


class Slab:
    """The slab allocator of one machine. Caches and objects are kernel virtual addresses."""

    cpu_caches: ObjectArrays | None
    """Arrays of objects in front of the slabs; None on a build that has none."""

    def __init__(
        self, image: KernelImage, objects: Objects, chain_head: int, sizes: Sequence[int]
    ) -> None:
        self.image = self._image = image
        self.objects = objects
        self._statics = image.statics
        self._lists = Lists(image.ram)
        self._words = image.ram.words
        self._next = image.structs.kmem_cache_t.offset("next")
        self._chain_head = chain_head
        self._sizes = sizes
        general_caches = image.symbol(objects.constants.general_caches)
        self._general_caches = virt_to_phys(general_caches) >> 2
        self._kernel = image.constants.gfp.kernel
        self.cache_cache = objects.cache(image.symbol("cache_cache"))

    # -- starting ----------------------------------------------------------------------------

    def start(self, num_physpages: int) -> None:
        """The cache of caches and the general caches, on a machine of so many frames."""
        raise NotImplementedError

    def kmem_cpucache_init(self) -> None:
        """What the allocator does when all CPUs run."""
        raise NotImplementedError

    def _choose_break_order(self, num_physpages: int) -> None:
        low, high = self.objects.constants.break_gfp_order
        large = num_physpages > 32 << 20 >> PAGE_SHIFT
        self._statics.slab_break_gfp_order = high if large else low

    def _general_caches_init(self, flags: int) -> None:
        """Create the general caches; what fits a descriptor off the slab grows with them."""
        descriptor = self._image.structs.slab_t.size
        entries = getattr(self._statics, self.objects.constants.general_caches)
        for entry, size in zip(entries, self._sizes, strict=False):
            entry.cs_size = size
            entry.cs_cachep = self._general_cache(f"size-{size}", size, flags)
            if not self.objects.cache(entry.cs_cachep).off_slab:
                # Half words, whatever a kmem_bufctl_t is.
                self._statics.offslab_limit = (size - descriptor) // 2
            entry.cs_dmacachep = self._general_cache(
                f"size-{size}(DMA)", size, flags | SLAB_CACHE_DMA
            )

    def _general_cache(self, name: str, size: int, flags: int) -> int:
        cache = self.kmem_cache_create(name, size, 0, flags | SLAB_HWCACHE_ALIGN)
        if not cache:
            raise KernelBug("slab.c", 0, f"no memory for the general cache {name}")
        return cache

    def pass_time(self, milliseconds: int) -> None:
        """So much time went by: 2.6 reaps by it, 2.4 does nothing."""

    # -- caches ------------------------------------------------------------------------------------

    def chain(self) -> Iterator[Cache]:
        """Every cache on the chain, newest first."""
        for number, link in enumerate(self._lists.entries(self._chain_head)):
            if number == MOST_CACHES:
                raise EndlessLoop("cache_chain never comes back to its head")
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
        """A new cache for objects of ``size`` bytes; 0 when memory is out (book 8.1.6).

        ``offset`` is the distance of two colours in 2.4, the alignment of an object in 2.6.
        """
        flags = self._checked_flags(name, size, offset, flags, ctor=ctor, dtor=dtor)
        vaddr = self.kmem_cache_alloc(self.cache_cache.vaddr, self._kernel)
        if not vaddr:
            return self._no_cache(name, flags)
        self._image.ram.fill(virt_to_phys(vaddr), self._image.structs.kmem_cache_t.size)
        cache = self.objects.cache(vaddr)
        geometry = self._geometry(cache, name, size, offset, flags)
        if geometry is None:
            self.kmem_cache_free(self.cache_cache.vaddr, vaddr)
            return self._no_cache(name, flags)
        self._fill(cache, name, geometry)
        cache.view.ctor, cache.view.dtor = self.register(ctor), self.register(dtor)
        self._give_arrays(cache)
        if self.find(name) is not None:
            raise KernelBug("slab.c", 0, f"a cache called {name!r} exists already")
        self._lists.add(vaddr + self._next, self._chain_head)
        return vaddr

    def _checked_flags(
        self,
        name: str,
        size: int,
        offset: int,
        flags: int,
        *,
        ctor: Constructor | None,
        dtor: Constructor | None,
    ) -> int:
        """Refuse a request that is none; the flags that the cache is to have."""
        raise NotImplementedError

    def _geometry(
        self, cache: Cache, name: str, size: int, offset: int, flags: int
    ) -> Geometry | None:
        """How objects lie in the slabs of a new cache; None when not even one fits."""
        raise NotImplementedError

    def _give_arrays(self, cache: Cache) -> None:
        """A new cache gets what stands before its slabs."""
        raise NotImplementedError

    def _no_cache(self, name: str, flags: int) -> int:
        """A cache could not be made."""
        return 0

    def _limits(self) -> Limits:
        constants = self.objects.constants
        return Limits(
            self._image.config.l1_cache_bytes,
            self._image.structs.slab_t.size,
            constants.bufctl_bytes,
            constants.off_slab,
            int(self._statics.offslab_limit),
            int(self._statics.slab_break_gfp_order),
            self.objects.debug is not None,
            MAX_GFP_ORDER if self._image.config.mmu else NOMMU_MAX_ORDER,
        )

    def _fill(self, cache: Cache, name: str, geometry: Geometry) -> None:
        view = cache.view
        view.objsize, view.num, view.gfporder = geometry.objsize, geometry.num, geometry.gfporder
        view.flags, view.colour = geometry.flags, geometry.colour
        view.colour_off = geometry.colour_off
        view.gfpflags = SLAB_DMA if geometry.flags & SLAB_CACHE_DMA else 0
        self._init_lists(cache)
        if cache.off_slab:
            view.slabp_cache = self.kmem_find_general_cachep(geometry.slab_size, 0)
        self._name(cache, name)

    def _init_lists(self, cache: Cache) -> None:
        for head in (cache.slabs_full, cache.slabs_partial, cache.slabs_free):
            self._lists.init(head)

    def _name(self, cache: Cache, name: str) -> None:
        """Write down how a cache is called."""
        raise NotImplementedError

    def kmem_cache_shrink(self, cachep: int) -> int:
        """Destroy the free slabs of a cache."""
        raise NotImplementedError

    def kmem_cache_reap(self, gfp_mask: int) -> int:
        """Free slabs for the page allocator's sake. Returns pages: none where time does it."""
        return 0

    def _shrink(self, cache: Cache) -> int:
        """Destroy every free slab, the last first. Returns how many."""
        count = 0
        while (slab := self._lists.last(cache.slabs_free)) != cache.slabs_free:
            self._lists.delete(slab)
            self.objects.kmem_slab_destroy(cache, slab, self.cache_free)
            count += 1
        return count

    def kmem_cache_destroy(self, cachep: int) -> int:
        """Remove a cache; 1 and a message when objects of it are in use (book 8.1.9)."""
        cache = self.objects.cache(cachep)
        self._unlink(cache)
        if self.cpu_caches is not None:
            self.cpu_caches.drain_cpu_caches(cache)
        self._shrink(cache)
        if self._has_objects(cache):
            self._objects_left(cache)
            self._lists.add(cachep + self._next, self._chain_head)
            return 1
        self._dismantle(cache)
        self.kmem_cache_free(self.cache_cache.vaddr, cachep)
        return 0

    def _has_objects(self, cache: Cache) -> bool:
        """Whether objects are out of their slabs."""
        heads = (cache.slabs_full, cache.slabs_partial)
        return any(not self._lists.empty(head) for head in heads)

    def _unlink(self, cache: Cache) -> None:
        """Take a cache off the chain."""
        self._lists.delete(cache.vaddr + self._next)

    def _objects_left(self, cache: Cache) -> None:
        """A cache was to be destroyed, and objects of it are in use."""
        raise NotImplementedError

    def _dismantle(self, cache: Cache) -> None:
        """Give back what a cache without slabs still has."""
        raise NotImplementedError

    # -- objects -----------------------------------------------------------------------------------

    def kmem_cache_alloc(self, cachep: int, flags: int) -> int:
        """An object; 0 when memory is out."""
        return self.cache_alloc(self.objects.cache(cachep), flags)

    def cache_alloc(self, cache: Cache, flags: int) -> int:
        """``kmem_cache_alloc()``, for who has the view of the cache."""
        raise NotImplementedError

    def kmem_cache_free(self, cachep: int, objp: int) -> None:
        """Give an object back to its cache."""
        owner = self.objects.page_cache_of(objp)
        if owner != cachep:
            name, other = self.objects.cache(cachep).name, self.objects.cache(owner).name
            raise KernelBug(
                "slab.c", 0, f"{objp:#x} is no object of cache {name}: it lies in cache {other}"
            )
        self.cache_free(self.objects.cache(cachep), objp)

    def cache_free(self, cache: Cache, objp: int) -> None:
        """``kmem_cache_free()``, for who knows the cache of the object."""
        raise NotImplementedError

    # -- sizes -----------------------------------------------------------------------------------

    def kmem_find_general_cachep(self, size: int, gfpflags: int) -> int:
        """The general cache for ``size`` bytes; 0 above 131,072 (book 8.4)."""
        index = bisect_left(self._sizes, size)
        if index == len(self._sizes):
            return 0
        return self._words[self._general_caches + 3 * index + (2 if gfpflags & SLAB_DMA else 1)]

    def kmalloc(self, size: int, flags: int) -> int:
        """``size`` bytes of low memory, physically contiguous; 0 when there are none."""
        cachep = self.kmem_find_general_cachep(size, flags)
        return self.kmem_cache_alloc(cachep, flags) if cachep else 0

    def kfree(self, objp: int) -> None:
        """Give back what ``kmalloc()`` gave; NULL is allowed."""
        if objp:
            self.cache_free(self.objects.cache(self.objects.page_cache_of(objp)), objp)
