# SPDX-License-Identifier: GPL-2.0-or-later
"""Arrays of free objects, one for each CPU, in front of the slabs: what can be asked of them.

Models the common part of linux-2.4.22 ``cpucache_t`` (book 8.5) and linux-2.6.11 ``struct
array_cache`` (book 8.8). In RAM: the arrays, named by their cache, each with its ``avail`` objects
behind a head of a few words; the one to be given out next stands last.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.objects import Objects
from kernel_model.structs import CType


class ObjectArrays:
    """The per-CPU arrays of all caches; ``processor`` is ``smp_processor_id()``.

    ``field`` of a ``kmem_cache_t`` has a pointer to a ``head`` for each CPU.
    """

    def __init__(
        self, image: KernelImage, objects: Objects, field: str, head: CType, online: int
    ) -> None:
        self._image = image
        self._words = image.ram.words
        self._pointers = image.structs.kmem_cache_t.word(field)
        self._field = field
        self._head = head
        self._entries = head.size >> 2
        self._counting = objects.debug is not None
        self.online = online
        """How many CPUs run: the first so many."""
        self.processor = 0

    def array(self, cache: Cache, cpu: int | None = None) -> int:
        """The array of a cache for a CPU, this one if not given; 0 when it has none."""
        number = self.processor if cpu is None else cpu
        return self._words[cache.base + self._pointers + number]

    def all_arrays(self, cache: Cache) -> list[int]:
        """The arrays that a cache has."""
        arrays = [self.array(cache, cpu) for cpu in range(self._image.config.nr_cpus)]
        return [array for array in arrays if array]

    def entries(self, array: int) -> list[int]:
        """The objects in an array, the one to be given out next last."""
        at = array - PAGE_OFFSET >> 2
        first = at + self._entries
        return self._words[first : first + self._words[at]].tolist()

    def limit(self, array: int) -> int:
        return self._words[(array - PAGE_OFFSET >> 2) + 1]

    def batchcount(self, cache: Cache) -> int:
        """How many objects move between an array and the slabs at a time."""
        return int(cache.view.batchcount)

    def drain_cpu_caches(self, cache: Cache) -> None:
        """Empty the arrays of a cache."""
        raise NotImplementedError

    def tune(self, cache: Cache, numbers: list[int]) -> int:
        """Give a cache arrays of another size, as ``/proc/slabinfo`` is told. 0, or -errno."""
        raise NotImplementedError

    def _point(self, cache: Cache, cpu: int, array: int) -> None:
        self._words[cache.base + self._pointers + cpu] = array

    def _count(self, cache: Cache, what: str) -> None:
        if self._counting:
            setattr(cache.view, what, getattr(cache.view, what) + 1)
