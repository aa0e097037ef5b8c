# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator of 2.4: its start, and per-CPU arrays on SMP only.

Models linux-2.4.22 ``mm/slab.c``: ``kmem_cache_init()``, ``kmem_cache_sizes_init()``,
``kmem_cpucache_init()``, ``kmem_cache_shrink()``, ``kmem_cache_reap()`` (book 8.1.7, 8.1.8, 8.5,
8.6). In RAM: ``cache_cache``, whose ``next`` is the head of the chain; ``cache_sizes[]``;
``clock_searchp``, the cache that is to be reaped next.
"""

from collections.abc import Iterator

from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.slab.allocator import Slab
from kernel_model.mm.slab.cache import Cache, kmem_cache_estimate
from kernel_model.mm.slab.create import Geometry
from kernel_model.mm.slab.flags import SLAB_NO_REAP
from kernel_model.mm.slab.linux_2_4.constants import LINUX_2_4
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.mm.slab.linux_2_4.create import cache_geometry, check_request, debug_flags
from kernel_model.mm.slab.linux_2_4.objects import Objects24
from kernel_model.mm.slab.linux_2_4.reap import Reaper
from kernel_model.mm.slab.objects import Constructor, Frames, PageSource
from kernel_model.structs.slab import CACHE_NAMELEN, CACHE_SIZES


class Slab24(Slab):
    """The slab allocator of a machine with 2.4."""

    objects: Objects24
    cpu_caches: CpuCaches | None

    def __init__(
        self, image: KernelImage, frames: Frames, pages: PageSource, online_cpus: int = 1
    ) -> None:
        objects = Objects24(image, frames, pages)
        head = image.symbol("cache_cache") + image.structs.kmem_cache_t.offset("next")
        super().__init__(image, objects, head, CACHE_SIZES)
        self.cpu_caches = (
            CpuCaches(image, objects, self.kmalloc, self.kfree, online_cpus)
            if image.config.smp
            else None
        )
        self._reaper = Reaper(image, objects, self.cpu_caches, self.cache_free)

    # -- starting ----------------------------------------------------------------------------

    def start(self, num_physpages: int) -> None:
        self.kmem_cache_init()
        self.kmem_cache_sizes_init(num_physpages)

    def kmem_cache_init(self) -> None:
        """Set up the cache of caches (book 8.6)."""
        view, line = self.cache_cache.view, self._image.config.l1_cache_bytes
        self._lists.init(self._chain_head)
        self._init_lists(self.cache_cache)
        size = self._image.structs.kmem_cache_t.size
        view.objsize, view.flags, view.colour_off = size, SLAB_NO_REAP, line
        view.gfporder = 0
        self._name(self.cache_cache, "kmem_cache")
        descriptor, bufctl = self._image.structs.slab_t.size, LINUX_2_4.bufctl_bytes
        view.num, left_over = kmem_cache_estimate(0, size, line, descriptor, bufctl)
        view.colour = left_over // line
        self._statics.clock_searchp = self.cache_cache.vaddr
        self._choose_break_order(0)

    def kmem_cache_sizes_init(self, num_physpages: int) -> None:
        """Create the general caches."""
        self._choose_break_order(num_physpages)
        self._general_caches_init(0)

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
        yield from super().chain()

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
        debug, has_ctor, has_dtor = self.objects.debug is not None, bool(ctor), bool(dtor)
        check_request(name, size, offset, flags, ctor=has_ctor, dtor=has_dtor, debug=debug)
        if debug:
            return debug_flags(name, size, flags, ctor=has_ctor, printk=self._image.printk)
        return flags

    def _geometry(
        self, cache: Cache, name: str, size: int, offset: int, flags: int
    ) -> Geometry | None:
        return cache_geometry(name, size, offset, flags, self._limits(), self._image.printk)

    def _give_arrays(self, cache: Cache) -> None:
        if self.cpu_caches is not None and self._statics.g_cpucache_up:
            self.cpu_caches.enable_cpucache(cache)

    def _name(self, cache: Cache, name: str) -> None:
        cache.view.name[:] = list(name.encode("latin-1").ljust(CACHE_NAMELEN, b"\0"))

    def kmem_cache_shrink(self, cachep: int) -> int:
        """Destroy every free slab; per-CPU arrays are left alone. Returns pages freed."""
        cache = self.objects.cache(cachep)
        if all(cachep != known.vaddr for known in self.chain()):
            raise KernelBug("slab.c", 0, f"{cachep:#x} is no cache of the chain")
        return self._shrink(cache) << cache.gfporder

    def _shrink(self, cache: Cache) -> int:
        return self._reaper.shrink_locked(cache)

    def _unlink(self, cache: Cache) -> None:
        if cache.view.growing:
            raise KernelBug("slab.c", 0, f"cache {cache.name} is growing")
        if self._statics.clock_searchp == cache.vaddr:
            following = self._lists.first(cache.vaddr + self._next)
            self._statics.clock_searchp = following - self._next
        super()._unlink(cache)

    def _objects_left(self, cache: Cache) -> None:
        self._image.printk(f"<3>kmem_cache_destroy: Can't free all objects {cache.vaddr:#010x}\n")

    def _dismantle(self, cache: Cache) -> None:
        if self.cpu_caches is not None:
            self.cpu_caches.release(cache)

    def kmem_cache_reap(self, gfp_mask: int) -> int:
        """Free slabs of some cache, for the page allocator's sake. Returns pages."""
        return self._reaper.kmem_cache_reap()

    # -- objects -----------------------------------------------------------------------------------

    def cache_alloc(self, cache: Cache, flags: int) -> int:
        self.objects.check_dma(cache, flags)
        cpu_caches, take = self.cpu_caches, self.objects.take
        while True:
            array = cpu_caches.array(cache) if cpu_caches is not None else 0
            if array:
                assert cpu_caches is not None
                objp = cpu_caches.alloc(cache, array)
            else:
                objp = take(cache)
            if objp or not self.objects.kmem_cache_grow(cache, flags, self.cache_alloc):
                return objp

    def cache_free(self, cache: Cache, objp: int) -> None:
        cpu_caches = self.cpu_caches
        if cpu_caches is not None and (array := cpu_caches.array(cache)):
            cpu_caches.free(cache, array, objp)
        else:
            self.objects.put(cache, objp)
