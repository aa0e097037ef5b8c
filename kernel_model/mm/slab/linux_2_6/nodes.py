# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects of a node's own memory.

Models linux-2.6.11 ``mm/slab.c: kmem_cache_alloc_node()`` as CONFIG_NUMA builds it (book 8.8).
Lists of slabs and arrays of CPUs know no nodes in this release. So an object that shall lie on a
node is looked for on the lists, past the arrays: the first slab with room whose frames are of the
node. When there is none the cache grows by a slab of that node. A node that has nothing left gets
its slabs from another one; after three of these any slab will do. In RAM: ``node_allocs`` of a
cache.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26, PagesOfNode
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.linux_2_6.allocator import Slab26

_SLABS_ELSEWHERE: Final = 3
"""How often a cache grows for one object before the object may be of any node."""


class NodeSlab26(Slab26):
    """The slab allocator of a machine with nodes."""

    def __init__(
        self, image: KernelImage, allocator: NodePageAllocator26, online_cpus: int = 1
    ) -> None:
        super().__init__(image, allocator.memmap, allocator, online_cpus)
        self._allocator = allocator

    def cpu_to_node(self, cpu: int) -> int:
        return self._allocator.cpu_to_node(cpu)

    def kmem_cache_alloc_node(self, cachep: int, nodeid: int) -> int:
        cache = self.objects.cache(cachep)
        pages = PagesOfNode(self._allocator, nodeid)
        for grown in count():
            known = self._with_room(cache)
            fitting = known if grown >= _SLABS_ELSEWHERE else self._of_node(known, cache, nodeid)
            if slab := next(fitting, 0):
                return self._take(cache, slab)
            if not self.objects.kmem_cache_grow(cache, self._kernel, self.cache_alloc, pages):
                break
        return 0

    def _with_room(self, cache: Cache) -> Iterator[int]:
        """Slabs that have free objects, those that have others in use first."""
        for head in (cache.slabs_partial, cache.slabs_free):
            yield from self._lists.entries(head)

    def _of_node(self, slabs: Iterator[int], cache: Cache, nodeid: int) -> Iterator[int]:
        """Those whose frames are of a node. Their descriptors may lie elsewhere."""
        memmap = self._allocator.memmap
        for slab in slabs:
            page = memmap.page(virt_to_phys(cache.s_mem(slab)) >> PAGE_SHIFT)
            if memmap.page_to_nid(page) == nodeid:
                yield slab

    def _take(self, cache: Cache, slab: int) -> int:
        """An object of this slab, which is filed anew."""
        objects = self.objects
        if objects.debug is not None:
            cache.view.node_allocs += 1
        objp = objects.take_from(cache, slab)
        objects.file(cache, slab)
        self._words[cache.base + objects.free_objects_word] -= 1
        return self._checked(cache, objp, self._kernel)
