# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays of free objects, one for each CPU, in front of the slabs.

Models linux-2.4.22 ``mm/slab.c`` under CONFIG_SMP: ``cpucache_t``, ``kmem_cache_alloc_batch()``,
``kmem_tune_cpucache()``, ``enable_cpucache()``, ``drain_cpu_caches()`` (book 8.5). In RAM: the
arrays, objects of the general caches, named by ``cpudata[]`` of their cache.
"""

import errno
from collections.abc import Callable
from typing import Any

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE
from kernel_model.image import KernelImage
from kernel_model.mm.slab.arrays import ObjectArrays
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.flags import SLAB_KERNEL
from kernel_model.mm.slab.linux_2_4.objects import Objects24


class CpuCaches(ObjectArrays):
    """The per-CPU arrays of all caches.

    ``kmalloc`` and ``kfree`` are the allocator's own: an array is an object like any other.
    """

    def __init__(
        self,
        image: KernelImage,
        objects: Objects24,
        kmalloc: Callable[[int, int], int],
        kfree: Callable[[int], None],
        online: int,
    ) -> None:
        super().__init__(image, objects, "cpudata", image.structs.cpucache_t, online)
        self._objects = objects
        self._kmalloc = kmalloc
        self._kfree = kfree
        self._batchcount = image.structs.kmem_cache_t.word("batchcount")

    # -- objects -----------------------------------------------------------------------------

    def alloc(self, cache: Cache, array: int) -> int:
        """From the array, filled up by a batch when it is empty; 0: the slabs have none."""
        words, at = self._words, array - PAGE_OFFSET >> 2
        avail = words[at]
        if not avail:
            self._count(cache, "allocmiss")
            take, batch = self._objects.take, words[cache.base + self._batchcount]
            while avail < batch and (objp := take(cache)):
                words[at + 2 + avail] = objp
                avail += 1
            if not avail:
                return 0
        else:
            self._count(cache, "allochit")
        words[at] = avail - 1
        return words[at + 1 + avail]

    def free(self, cache: Cache, array: int, objp: int) -> None:
        """Into the array; when it is full, its latest batch goes back to the slabs first."""
        words, at = self._words, array - PAGE_OFFSET >> 2
        avail = words[at]
        if avail < words[at + 1]:
            self._count(cache, "freehit")
        else:
            self._count(cache, "freemiss")
            avail -= words[cache.base + self._batchcount]
            words[at] = avail
            self._free_block(cache, at + 2 + avail, words[cache.base + self._batchcount])
        words[at + 2 + avail] = objp
        words[at] = avail + 1

    def _free_block(self, cache: Cache, first: int, count: int) -> None:
        for objp in self._words[first : first + count].tolist():
            self._objects.put(cache, objp)

    def flush(self, cache: Cache, array: int) -> None:
        """All objects of an array go back to their slabs."""
        at = array - PAGE_OFFSET >> 2
        self._free_block(cache, at + 2, self._words[at])
        self._words[at] = 0

    # -- arrays ----------------------------------------------------------------------------------

    def drain_cpu_caches(self, cache: Cache) -> None:
        """Empty the arrays of all CPUs."""
        for cpu in range(self.online):
            array = self.array(cache, cpu)
            if array and self._words[array - PAGE_OFFSET >> 2]:
                self.flush(cache, array)

    def tune(self, cache: Cache, numbers: list[int]) -> int:
        """``LIMIT BATCHCOUNT``; a number that is not given is 0."""
        limit, batchcount = [*numbers, 0, 0][:2]
        return self.kmem_tune_cpucache(cache, limit, batchcount)

    def kmem_tune_cpucache(self, cache: Cache, limit: int, batchcount: int) -> int:
        """Give a cache new arrays, or with limit 0 none. 0, or -errno."""
        if limit < 0 or not 0 <= batchcount <= limit or (limit and not batchcount):
            return -errno.EINVAL
        arrays = [0] * self.online
        if limit:
            for cpu in range(self.online):
                array = self._kmalloc(4 * limit + self._image.structs.cpucache_t.size, SLAB_KERNEL)
                if not array:
                    for made in reversed(arrays[:cpu]):
                        self._kfree(made)
                    return -errno.ENOMEM
                view: Any = self._image.at(self._image.structs.cpucache_t, array)
                view.limit, view.avail = limit, 0
                arrays[cpu] = array
        cache.view.batchcount = batchcount
        old = [self.array(cache, cpu) for cpu in range(self.online)]
        for cpu, array in enumerate(arrays):
            self._point(cache, cpu, array)
        for array in old:
            if array:
                at = array - PAGE_OFFSET >> 2
                self._free_block(cache, at + 2, self._words[at])
                self._kfree(array)
        return 0

    def enable_cpucache(self, cache: Cache) -> None:
        """Arrays whose length depends on the size of the objects; none for large ones."""
        if cache.objsize > PAGE_SIZE:
            return
        limit = 60 if cache.objsize > 1024 else 124 if cache.objsize > 256 else 252
        error = self.kmem_tune_cpucache(cache, limit, limit // 2)
        if error:
            self._image.printk(f"<3>enable_cpucache failed for {cache.name}, error {-error}.\n")

    def release(self, cache: Cache) -> None:
        """A cache goes: so do its arrays, of all configured CPUs."""
        for array in self.all_arrays(cache):
            self._kfree(array)
