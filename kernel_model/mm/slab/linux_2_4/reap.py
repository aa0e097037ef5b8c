# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving memory back: shrinking one cache, reaping the best one.

Models linux-2.4.22 ``mm/slab.c: kmem_cache_shrink()``, ``kmem_cache_reap()`` (book 8.1.7,
8.1.8). Whole slabs go, from the tail of the list of free ones.
"""

from collections.abc import Callable

from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.flags import SLAB_NO_REAP
from kernel_model.mm.slab.linux_2_4.constants import DFLGS_GROWN, REAP_PERFECT, REAP_SCANLEN
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.mm.slab.objects import Objects


class Reaper:
    """Frees slabs of a machine's caches; ``free`` is ``kmem_cache_free()``."""

    def __init__(
        self,
        image: KernelImage,
        objects: Objects,
        cpu_caches: CpuCaches | None,
        free: Callable[[Cache, int], None],
    ) -> None:
        self._statics = image.statics
        self._objects = objects
        self._cpu_caches = cpu_caches
        self._free = free
        self._lists = Lists(image.ram)
        self._next = image.structs.kmem_cache_t.offset("next")

    def _destroy_last(self, cache: Cache) -> bool:
        """Destroy the free slab at the tail of the list; False: there is none."""
        slab = self._lists.last(cache.slabs_free)
        if slab == cache.slabs_free:
            return False
        self._lists.delete(slab)
        self._objects.kmem_slab_destroy(cache, slab, self._free)
        return True

    def shrink_locked(self, cache: Cache) -> int:
        """``__kmem_cache_shrink_locked()``: destroy every free slab. Returns how many."""
        count = 0
        while not cache.view.growing and self._destroy_last(cache):
            count += 1
        return count

    def _following(self, cache: Cache) -> Cache:
        """The next cache of the chain, which closes at ``cache_cache``."""
        return self._objects.cache(self._lists.first(cache.vaddr + self._next) - self._next)

    def kmem_cache_reap(self) -> int:
        """Free half of the free slabs of the best of the next ten caches. Returns pages.

        A cache that grew since the last look is spared once; one with a constructor, or with
        slabs of several pages, counts for a fifth less.
        """
        best, best_slabs, best_pages = None, 0, 0
        cache = start = self._objects.cache(int(self._statics.clock_searchp))
        for _ in range(REAP_SCANLEN):
            slabs, pages = self._reapable(cache)
            if pages > best_pages:
                best, best_slabs, best_pages = cache, slabs, pages
            cache = self._following(cache)
            if best_pages >= REAP_PERFECT or cache.vaddr == start.vaddr:
                break
        self._statics.clock_searchp = cache.vaddr
        if best is None:
            return 0
        count = 0
        while count < (best_slabs + 1) // 2 and not best.view.growing and self._destroy_last(best):
            count += 1
            if self._objects.debug is not None:
                best.view.reaped += 1
        return count << best.gfporder

    def _reapable(self, cache: Cache) -> tuple[int, int]:
        """(free slabs, pages as they count) of a cache; (0, 0) when it is spared."""
        if cache.flags & SLAB_NO_REAP or cache.view.growing:
            return 0, 0
        if cache.view.dflags & DFLGS_GROWN:
            cache.view.dflags &= ~DFLGS_GROWN & 0xFFFFFFFF
            return 0, 0
        if self._cpu_caches is not None and (array := self._cpu_caches.array(cache)):
            self._cpu_caches.flush(cache, array)
        slabs = len(cache.slabs(cache.slabs_free))
        pages = slabs << cache.gfporder
        if cache.view.ctor:
            pages = (pages * 4 + 1) // 5
        if cache.gfporder:
            pages = (pages * 4 + 1) // 5
        return slabs, pages
