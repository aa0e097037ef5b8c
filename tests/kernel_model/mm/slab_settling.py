# SPDX-License-Identifier: GPL-2.0-or-later
"""Bring the slab allocator to rest, so that two moments can be compared."""

from kernel_model.mm.slab import Slab


def settle(slab: Slab, undrained: int = 0) -> None:
    """Empty the arrays of every CPU, but those of one cache, then give back all free slabs.

    A descriptor off the slab, or an array, may be the last object of another slab: what frees
    it comes first, until a round finds nothing.
    """
    freed = 1
    while freed:
        for cache in slab.chain():
            if slab.cpu_caches is not None and cache.vaddr != undrained:
                slab.cpu_caches.drain_cpu_caches(cache)
        freed = sum(slab.kmem_cache_shrink(cache.vaddr) for cache in slab.chain())
