# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects on their way: an array for each CPU, and one that all CPUs share.

Models linux-2.6.11 ``mm/slab.c: struct array_cache``, ``cache_alloc_refill()``,
``cache_flusharray()``, ``drain_array_locked()`` (book 8.8). In RAM: the arrays, each with its own
``batchcount`` and a mark that it was ``touched`` of late; ``array[]`` of a cache names those of the
CPUs, ``lists.shared`` the common one. A cache always has them, on uniprocessors, too.

What can fail: a cache whose arrays could not be had is broken; using it is a
:class:`~kernel_model.errors.KernelBug` where the kernel follows NULL.
"""

from collections.abc import Callable, Iterator

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.slab.arrays import ObjectArrays
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.linux_2_6.constants import BATCHREFILL_LIMIT
from kernel_model.mm.slab.linux_2_6.objects import Objects26

AVAIL, LIMIT, BATCHCOUNT, TOUCHED, ENTRIES = range(5)
"""Words of a ``struct array_cache``, and the first behind it."""


class ArrayCaches(ObjectArrays):
    """The arrays of all caches. ``alloc`` is ``kmem_cache_alloc()``, for off-slab descriptors."""

    def __init__(
        self, image: KernelImage, objects: Objects26, alloc: Callable[[Cache, int], int]
    ) -> None:
        super().__init__(image, objects, "array", image.structs.array_cache, 1)
        self._objects = objects
        self._alloc = alloc
        kind, lists = image.structs.kmem_cache_t, image.structs.kmem_list3
        self._free_touched = kind.word("lists") + lists.word("free_touched")
        self._shared = kind.word("lists") + lists.word("shared")
        self._num = kind.word("num")

    def shared(self, cache: Cache) -> int:
        """The array that all CPUs share; 0 while a cache has none."""
        return self._words[cache.base + self._shared]

    def all_arrays(self, cache: Cache) -> list[int]:
        shared = self.shared(cache)
        return [*super().all_arrays(cache), *((shared,) if shared else ())]

    def _of_this_cpu(self, cache: Cache) -> int:
        """Where the words of this CPU's array begin."""
        array = self._words[cache.base + self._pointers + self.processor]
        if not array:
            cpu = self.processor
            raise KernelBug("slab.c", 0, f"cache {cache.name} has no array for CPU {cpu}")
        return array - PAGE_OFFSET >> 2

    # -- objects -----------------------------------------------------------------------------

    def alloc(self, cache: Cache, flags: int) -> int:
        """The last object of this CPU's array, which is filled when it is empty; 0: no memory."""
        words = self._words
        array = words[cache.base + self._pointers + self.processor]
        at = array - PAGE_OFFSET >> 2 if array else self._of_this_cpu(cache)
        avail = words[at]
        if avail:
            if self._counting:
                self._count(cache, "allochit")
            words[at] = avail - 1
            words[at + TOUCHED] = 1
            return words[at + ENTRIES - 1 + avail]
        if self._counting:
            self._count(cache, "allocmiss")
        return self._cache_alloc_refill(cache, flags)

    def _cache_alloc_refill(self, cache: Cache, flags: int) -> int:
        """Fill the array: from the shared one, else from slabs, else from a new slab."""
        words = self._words
        while True:
            at = self._of_this_cpu(cache)
            batchcount = words[at + BATCHCOUNT]
            if not words[at + TOUCHED]:
                batchcount = min(batchcount, BATCHREFILL_LIMIT)
            if not self._take_from_shared(cache, at, batchcount):
                self._take_from_slabs(cache, at, batchcount)
            if not words[at]:
                grown = self._objects.kmem_cache_grow(cache, flags, self._alloc)
                # A constructor may have slept, and filled the array, or moved to another CPU.
                at = self._of_this_cpu(cache)
                if not grown and not words[at]:
                    return 0
            if words[at]:
                break
        words[at + TOUCHED] = 1
        words[at] = avail = words[at] - 1
        return words[at + ENTRIES + avail]

    def _take_from_shared(self, cache: Cache, at: int, batchcount: int) -> bool:
        words, shared = self._words, self.shared(cache)
        if not shared:
            return False
        source = shared - PAGE_OFFSET >> 2
        count = min(batchcount, words[source])
        if not count:
            return False
        words[source] = left = words[source] - count
        first = source + ENTRIES + left
        words[at + ENTRIES : at + ENTRIES + count] = words[first : first + count]
        words[at] = count
        words[source + TOUCHED] = 1
        return True

    def _take_from_slabs(self, cache: Cache, at: int, batchcount: int) -> None:
        """Partial slabs first; each is filed once, when it is empty or the batch complete."""
        words, objects, num = self._words, self._objects, cache.num
        where, avail = cache.where, 0
        while avail < batchcount:
            head = cache.slabs_partial
            slab = words[head - PAGE_OFFSET >> 2]
            if slab == head:
                words[cache.base + self._free_touched] = 1
                head = cache.slabs_free
                slab = words[head - PAGE_OFFSET >> 2]
                if slab == head:
                    break
            inuse = (slab - PAGE_OFFSET >> 2) + where.inuse
            while words[inuse] < num and avail < batchcount:
                words[at + ENTRIES + avail] = objects.take_from(cache, slab)
                avail += 1
            objects.file(cache, slab)
        words[at] = avail
        words[cache.base + objects.free_objects_word] -= avail

    def free(self, cache: Cache, objp: int) -> None:
        """Into this CPU's array; when it is full, its oldest batch goes first."""
        words = self._words
        array = words[cache.base + self._pointers + self.processor]
        at = array - PAGE_OFFSET >> 2 if array else self._of_this_cpu(cache)
        avail = words[at]
        if avail < words[at + LIMIT]:
            if self._counting:
                self._count(cache, "freehit")
        else:
            if self._counting:
                self._count(cache, "freemiss")
            self._cache_flusharray(cache, at)
            avail = words[at]
        words[at + ENTRIES + avail] = objp
        words[at] = avail + 1

    def _cache_flusharray(self, cache: Cache, at: int) -> None:
        """A batch moves to the shared array, as far as there is room, or to the slabs."""
        words, count = self._words, self._words[at + BATCHCOUNT]
        shared = self.shared(cache)
        target = shared - PAGE_OFFSET >> 2
        room = words[target + LIMIT] - words[target] if shared else 0
        if room:
            count = min(count, room)
            first = target + ENTRIES + words[target]
            words[first : first + count] = words[at + ENTRIES : at + ENTRIES + count]
            words[target] += count
        else:
            self._objects.free_block(cache, at + ENTRIES, count)
        if self._objects.debug is not None:
            self._objects.debug.count_freeable(cache)
        self._drop(at, count)

    def _drop(self, at: int, count: int) -> None:
        """The first ``count`` objects of an array are gone; the others move up."""
        words, first = self._words, at + ENTRIES
        words[at] = left = words[at] - count
        words[first : first + left] = words[first + count : first + count + left]

    def on_each_cpu(self) -> Iterator[int]:
        """``smp_call_function_all_cpus()``: be on each CPU in turn, on this one first."""
        here = self.processor
        for cpu in (here, *(cpu for cpu in range(self.online) if cpu != here)):
            self.processor = cpu
            yield cpu
        self.processor = here

    # -- draining ------------------------------------------------------------------------------

    def flush(self, cache: Cache, array: int) -> None:
        """All objects of an array go back to their slabs."""
        at = array - PAGE_OFFSET >> 2
        self._objects.free_block(cache, at + ENTRIES, self._words[at])

    def drain_cpu_caches(self, cache: Cache) -> None:
        """Empty the arrays of all CPUs, then the shared one."""
        for _ in self.on_each_cpu():
            if array := self.array(cache):
                self.flush(cache, array)
                self._words[array - PAGE_OFFSET >> 2] = 0
        if shared := self.shared(cache):
            self._free_first(cache, shared, self._words[shared - PAGE_OFFSET >> 2])

    def drain_array(self, cache: Cache, array: int) -> None:
        """``drain_array_locked()``: spare an array that was touched, else free a fifth of it."""
        at = array - PAGE_OFFSET >> 2
        words = self._words
        if words[at + TOUCHED]:
            words[at + TOUCHED] = 0
            return
        if avail := words[at]:
            count = (words[at + LIMIT] + 4) // 5
            self._free_first(cache, array, count if count <= avail else (avail + 1) // 2)

    def _free_first(self, cache: Cache, array: int, count: int) -> None:
        at = array - PAGE_OFFSET >> 2
        self._objects.free_block(cache, at + ENTRIES, count)
        self._drop(at, count)
