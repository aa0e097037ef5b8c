# SPDX-License-Identifier: GPL-2.0-or-later
"""Bring the slab allocator to rest, so that two moments can be compared."""

from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.linux_2_6 import Slab26


def settle(slab: Slab, undrained: int = 0) -> None:
    """Empty the arrays of every CPU, but those of one cache, then give back all free slabs.

    A descriptor off the slab, or an array, may be the last object of another slab: what frees
    it comes first, until a round changes nothing.
    """
    before = -1
    while (now := _slabs(slab)) != before:
        before = now
        for cache in slab.chain():
            if slab.cpu_caches is not None and cache.vaddr != undrained:
                slab.cpu_caches.drain_cpu_caches(cache)
        for cache in slab.chain():
            slab.kmem_cache_shrink(cache.vaddr)
        if isinstance(slab, Slab26):
            slab.objects.rcu.end_grace_period()


def _slabs(slab: Slab) -> int:
    """How many slabs all caches have."""
    return sum(1 for cache in slab.chain() for _ in cache.all_slabs())
