# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/slabinfo``: a line for each cache, and what may be written to it.

Models linux-2.4.22 ``mm/slab.c: s_show()``, ``slabinfo_write()`` (book 8.1).
"""

import errno
import re

from kernel_model.mm.slab import Cache, Slab


def slabinfo(slab: Slab) -> str:
    """The whole text, version 1.1."""
    header = "slabinfo - version: 1.1"
    if slab.objects.debug is not None:
        header += " (statistics)"
    if slab.cpu_caches is not None:
        header += " (SMP)"
    return "\n".join([header, *(_line(slab, cache) for cache in slab.chain())]) + "\n"


def _line(slab: Slab, cache: Cache) -> str:
    full = len(cache.slabs(cache.slabs_full))
    partial = cache.slabs(cache.slabs_partial)
    free = len(cache.slabs(cache.slabs_free))
    active = full * cache.num + sum(cache.inuse(one) for one in partial)
    slabs = full + len(partial)
    line = (
        f"{cache.name:<17} {active:>6} {(slabs + free) * cache.num:>6} {cache.objsize:>6} "
        f"{slabs:>4} {slabs + free:>4} {1 << cache.gfporder:>4}"
    )
    view = cache.view
    if slab.objects.debug is not None:
        line += (
            f" : {view.high_mark:>6} {view.num_allocations:>7} {view.grown:>5} "
            f"{view.reaped:>4} {view.errors:>4}"
        )
    if slab.cpu_caches is not None:
        array = slab.cpu_caches.array(cache)
        limit = slab.cpu_caches.limit(array) if array else 0
        line += f" : {limit:>4} {view.batchcount:>4}"
    if slab.objects.debug is not None and slab.cpu_caches is not None:
        line += f" : {view.allochit:>6} {view.allocmiss:>6} {view.freehit:>6} {view.freemiss:>6}"
    return line


def slabinfo_write(slab: Slab, text: str) -> int:
    """``NAME LIMIT BATCHCOUNT``: tune a cache's per-CPU arrays. Bytes taken, or -errno.

    On a uniprocessor there is nothing to tune: -EINVAL.
    """
    name, space, rest = text.partition(" ")
    if slab.cpu_caches is None or not space:
        return -errno.EINVAL
    numbers = [int(number) for number in re.findall(r"-?\d+", rest)[:2]]
    limit, batchcount = [*numbers, 0, 0][:2]
    cache = slab.find(name)
    if cache is None:
        return -errno.EINVAL
    return slab.cpu_caches.kmem_tune_cpucache(cache, limit, batchcount) or len(text)
