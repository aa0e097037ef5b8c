# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving caches their arrays, and other ones.

Models linux-2.6.11 ``mm/slab.c: alloc_arraycache()``, ``do_tune_cpucache()``,
``enable_cpucache()``, ``cpuup_callback()`` (book 8.8). In RAM: arrays, which are objects of the
general caches; ``limit``, ``batchcount`` and ``free_limit`` of a cache.

What can fail: without memory for one array a cache keeps those it has; a new cache then has none.
"""

import errno
from typing import Any, Final, Protocol

from kernel_model.arch_i386.page import PAGE_SIZE, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.linux_2_6.array_cache import ArrayCaches
from kernel_model.mm.slab.linux_2_6.constants import FULL, NONE, PARTIAL
from kernel_model.mm.slab.linux_2_6.objects import Objects26
from kernel_model.structs.linux_2_6.slab import BOOT_CPUCACHE_ENTRIES

_NO_BATCH: Final = 0xBAADF00D
"""``batchcount`` of a shared array, which is never filled by itself."""
_LIMITS: Final = ((131072, 1), (PAGE_SIZE, 8), (1024, 24), (256, 54), (0, 120))
"""Objects larger than so many bytes -> how many of them an array takes."""
_DEBUG_LIMIT: Final = 32
_SHARED_FACTOR: Final = 8


class GeneralCaches(Protocol):
    """What arrays are made of."""

    def kmem_find_general_cachep(self, size: int, gfpflags: int) -> int:
        """The general cache for ``size`` bytes."""

    def kmem_cache_alloc(self, cachep: int, flags: int) -> int:
        """An object of a cache."""

    def kmem_cache_alloc_node(self, cachep: int, nodeid: int) -> int:
        """One whose memory is of a node."""

    def cpu_to_node(self, cpu: int) -> int:
        """The node of a CPU."""

    def kmalloc(self, size: int, flags: int) -> int:
        """``size`` bytes."""

    def kfree(self, objp: int) -> None:
        """Give them back."""


class TunedArrays(ArrayCaches):
    """The arrays of all caches, and how long they are."""

    def __init__(self, image: KernelImage, objects: Objects26, slab: GeneralCaches) -> None:
        super().__init__(
            image,
            objects,
            lambda cache, flags: slab.kmem_cache_alloc(cache.vaddr, flags),
        )
        self._slab = slab
        self._statics = image.statics
        self._kernel = image.constants.gfp.kernel

    # -- one array -------------------------------------------------------------------------------

    def _alloc_arraycache(self, cpu: int, entries: int, batchcount: int) -> int:
        """A new array, near its CPU; for no CPU (-1), one that is shared. A second attempt may
        succeed."""
        size = 4 * entries + self._head.size
        array = 0
        if cpu != -1:
            cachep = self._slab.kmem_find_general_cachep(size, self._kernel)
            if not cachep:
                raise KernelBug("slab.c", 0, f"an array of {entries} objects: no cache is for it")
            array = self._slab.kmem_cache_alloc_node(cachep, self._slab.cpu_to_node(cpu))
        array = array or self._slab.kmalloc(size, self._kernel)
        if array:
            self._init_array(array, entries, batchcount)
        return array

    def _init_array(self, array: int, entries: int, batchcount: int) -> None:
        view: Any = self._image.at(self._head, array)
        view.avail, view.limit, view.batchcount, view.touched = 0, entries, batchcount, 0

    # -- the arrays of a cache -------------------------------------------------------------------

    def boot_array(self, cache: Cache) -> None:
        """A new cache's first array, while the general caches are not all there."""
        if self._statics.g_cpucache_up == NONE:
            array = self._image.symbol("initarray_generic")
            self._statics.g_cpucache_up = PARTIAL
        else:
            array = self._slab.kmalloc(self._image.structs.arraycache_init.size, self._kernel)
        if not array:
            raise KernelBug("slab.c", 0, f"no memory for the array of cache {cache.name}")
        self._point(cache, self.processor, array)
        self._init_array(array, BOOT_CPUCACHE_ENTRIES, 1)
        cache.view.batchcount, cache.view.limit = 1, BOOT_CPUCACHE_ENTRIES
        self._set_free_limit(cache)

    def _set_free_limit(self, cache: Cache) -> None:
        """A batch for each CPU and one more, and a slab: so many objects may stay free."""
        view = cache.view
        view.free_limit = (1 + self.online) * view.batchcount + view.num

    def replace_boot_array(self, cache: Cache) -> None:
        """Move the static array of a cache into an object of a general cache."""
        size = self._image.structs.arraycache_init.size
        array = self._slab.kmalloc(size, self._kernel)
        old = self.array(cache)
        self._image.ram.copy(virt_to_phys(array), virt_to_phys(old), size)
        self._point(cache, self.processor, array)

    def tune(self, cache: Cache, numbers: list[int]) -> int:
        """``LIMIT BATCHCOUNT SHARED``, all three."""
        if len(numbers) < 3:
            return -errno.EINVAL
        limit, batchcount, shared = numbers[:3]
        if limit < 1 or not 1 <= batchcount <= limit or shared < 0:
            return -errno.EINVAL
        return self.do_tune_cpucache(cache, limit, batchcount, shared)

    def do_tune_cpucache(self, cache: Cache, limit: int, batchcount: int, shared: int) -> int:
        """New arrays for all CPUs, and a shared one for ``shared`` batches. 0, or -errno."""
        arrays: list[int] = []
        for cpu in range(self.online):
            array = self._alloc_arraycache(cpu, limit, batchcount)
            if not array:
                for made in reversed(arrays):
                    self._slab.kfree(made)
                return -errno.ENOMEM
            arrays.append(array)
        old = [self.array(cache, cpu) for cpu in range(self.online)]
        for cpu, array in enumerate(arrays):
            self._point(cache, cpu, array)
        cache.view.batchcount, cache.view.limit = batchcount, limit
        self._set_free_limit(cache)
        for array in old:
            if array:
                self.flush(cache, array)
                self._slab.kfree(array)
        self._share(cache, batchcount * shared)
        return 0

    def _share(self, cache: Cache, entries: int) -> None:
        """Another shared array; without memory for it the cache keeps the one it has."""
        array = self._alloc_arraycache(-1, entries, _NO_BATCH)
        if not array:
            return
        old = self.shared(cache)
        self._words[cache.base + self._shared] = array
        if old:
            self.flush(cache, old)
            self._slab.kfree(old)

    def enable_cpucache(self, cache: Cache) -> None:
        """Arrays whose length depends on the size of the objects."""
        limit = next(entries for size, entries in _LIMITS if cache.objsize > size)
        shared = _SHARED_FACTOR if self._image.config.smp and cache.objsize <= PAGE_SIZE else 0
        if self._counting:
            # With debugging, a long batch would keep interrupts off for too long.
            limit = min(limit, _DEBUG_LIMIT)
        error = self.do_tune_cpucache(cache, limit, (limit + 1) // 2, shared)
        if error:
            self._image.printk(f"<3>enable_cpucache failed for {cache.name}, error {-error}.\n")

    def give_arrays(self, cache: Cache) -> None:
        """What a new cache gets, as far as the start has come."""
        if self._statics.g_cpucache_up == FULL:
            self.enable_cpucache(cache)
        else:
            self.boot_array(cache)

    def cpu_up_prepare(self, cpu: int, caches: list[Cache]) -> bool:
        """A CPU is about to run: an array of each cache for it. False: no memory."""
        for cache in caches:
            view = cache.view
            array = self._alloc_arraycache(cpu, int(view.limit), int(view.batchcount))
            if not array:
                return False
            self._point(cache, cpu, array)
            self._set_free_limit(cache)
        return True

    def release(self, cache: Cache) -> None:
        """A cache goes: so do its arrays."""
        for array in self.all_arrays(cache):
            self._slab.kfree(array)
        self._words[cache.base + self._shared] = 0
