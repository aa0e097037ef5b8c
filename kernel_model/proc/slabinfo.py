# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/slabinfo``: a line for each cache, and what may be written to it.

Models linux-2.4.22 ``mm/slab.c: s_show()``, ``slabinfo_write()`` (book 8.1).
"""

import errno
import re
from typing import Any

from kernel_model.kernel import Kernel
from kernel_model.mm.slab import Cache, Slab


def text(kernel: Kernel) -> str:
    """The file of a whole machine."""
    return slabinfo(kernel.slab)


def data(kernel: Kernel) -> list[dict[str, Any]]:
    """For each cache the numbers of its line, by their meaning."""
    return [facts(kernel.slab, cache) for cache in kernel.slab.chain()]


def facts(slab: Slab, cache: Cache) -> dict[str, Any]:
    """What a line tells of ``cache``; statistics and limits only where the build has them."""
    full = len(cache.slabs(cache.slabs_full))
    partial = cache.slabs(cache.slabs_partial)
    free = len(cache.slabs(cache.slabs_free))
    slabs = full + len(partial)
    told: dict[str, Any] = {
        "name": cache.name,
        "active_objects": full * cache.num + sum(cache.inuse(one) for one in partial),
        "objects": (slabs + free) * cache.num,
        "objsize": cache.objsize,
        "active_slabs": slabs,
        "slabs": slabs + free,
        "pages_per_slab": 1 << cache.gfporder,
    }
    debug, arrays = slab.objects.debug is not None, slab.cpu_caches
    if debug:
        told |= {name: int(getattr(cache.view, name)) for name in _STATISTICS}
    if arrays is not None:
        array = arrays.array(cache)
        limit = arrays.limit(array) if array else 0
        told |= {"limit": limit, "batchcount": int(cache.view.batchcount)}
    if debug and arrays is not None:
        told |= {name: int(getattr(cache.view, name)) for name in _HITS}
    return told


_STATISTICS = ("high_mark", "num_allocations", "grown", "reaped", "errors")
_HITS = ("allochit", "allocmiss", "freehit", "freemiss")
_COLUMNS = (
    (
        *(("name", -17), ("active_objects", 6), ("objects", 6), ("objsize", 6)),
        *(("active_slabs", 4), ("slabs", 4), ("pages_per_slab", 4)),
    ),
    tuple(zip(_STATISTICS, (6, 7, 5, 4, 4), strict=True)),
    (("limit", 4), ("batchcount", 4)),
    tuple((name, 6) for name in _HITS),
)
"""Groups of columns with their widths; groups stand between colons. Negative: to the left."""


def slabinfo(slab: Slab) -> str:
    """The whole text, version 1.1."""
    header = "slabinfo - version: 1.1"
    if slab.objects.debug is not None:
        header += " (statistics)"
    if slab.cpu_caches is not None:
        header += " (SMP)"
    return "\n".join([header, *(_line(slab, cache) for cache in slab.chain())]) + "\n"


def _line(slab: Slab, cache: Cache) -> str:
    told = facts(slab, cache)
    groups = [group for group in _COLUMNS if group[0][0] in told]
    return " : ".join(
        " ".join(
            f"{told[name]:<{-width}}" if width < 0 else f"{told[name]:>{width}}"
            for name, width in group
        )
        for group in groups
    )


def slabinfo_write(slab: Slab, text: str) -> int:
    """``NAME LIMIT BATCHCOUNT``: tune a cache's per-CPU arrays. Bytes taken, or -errno.

    On a uniprocessor there is nothing to tune: -EINVAL.
    """
    name, space, rest = text.partition(" ")
    if slab.cpu_caches is None or not space:
        return -errno.EINVAL
    numbers = [int(number) for number in re.findall(r"-?\d+", rest)[:2]]
    cache = slab.find(name)
    if cache is None:
        return -errno.EINVAL
    return slab.cpu_caches.tune(cache, numbers) or len(text)
