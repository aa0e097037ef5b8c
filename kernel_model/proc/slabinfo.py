# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/slabinfo``: a line for each cache, and what may be written to it.

Models ``mm/slab.c: s_show()``, ``slabinfo_write()``: version 1.1 of linux-2.4.22 (book 8.1),
version 2.1 of linux-2.6.11 (book 8.8).
"""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kernel_model.kernel import Kernel
from kernel_model.mm.slab import Cache, Slab

MAX_SLABINFO_WRITE: Final = 128
STATISTICS: Final = ("high_mark", "num_allocations", "grown", "reaped", "errors")
HITS: Final = ("allochit", "allocmiss", "freehit", "freemiss")

Columns = tuple[tuple[str, int], ...]
"""Names of numbers, with the width of each; negative: to the left."""


@dataclass(frozen=True, slots=True)
class Version:
    """How the file of one release looks. Groups of columns stand between colons."""

    header: Callable[[Slab], str]
    facts: Callable[[Slab, Cache], dict[str, Any]]
    groups: tuple[tuple[str, Columns], ...]
    """What a group is called, and its columns; it is left out where the build lacks them."""


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
    return told | _version(slab).facts(slab, cache)


def _named(cache: Cache, names: tuple[str, ...]) -> dict[str, int]:
    return {name: int(getattr(cache.view, name)) for name in names}


# -- 2.4 -------------------------------------------------------------------------------------------


def _header_1_1(slab: Slab) -> str:
    statistics = " (statistics)" if slab.objects.debug is not None else ""
    return f"slabinfo - version: 1.1{statistics}{' (SMP)' if slab.cpu_caches is not None else ''}"


def _facts_1_1(slab: Slab, cache: Cache) -> dict[str, Any]:
    told: dict[str, Any] = {}
    debug, arrays = slab.objects.debug is not None, slab.cpu_caches
    if debug:
        told |= _named(cache, STATISTICS)
    if arrays is not None:
        array = arrays.array(cache)
        limit = arrays.limit(array) if array else 0
        told |= {"limit": limit, "batchcount": arrays.batchcount(cache)}
    if debug and arrays is not None:
        told |= _named(cache, HITS)
    return told


# -- 2.6 -------------------------------------------------------------------------------------------


def _header_2_1(slab: Slab) -> str:
    statistics = slab.objects.debug is not None
    columns = [
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>",
        "tunables <limit> <batchcount> <sharedfactor>",
        "slabdata <active_slabs> <num_slabs> <sharedavail>",
    ]
    if statistics:
        columns += [
            "globalstat <listallocs> <maxobjs> <grown> <reaped> <error> <maxfreeable> "
            "<freelimit> <nodeallocs>",
            "cpustat <allochit> <allocmiss> <freehit> <freemiss>",
        ]
    first = f"slabinfo - version: 2.1{' (statistics)' if statistics else ''}"
    return f"{first}\n{' : '.join(columns)}"


def _facts_2_1(slab: Slab, cache: Cache) -> dict[str, Any]:
    """A cache without a shared array shows 0, where the kernel would follow NULL."""
    view, image = cache.view, slab.image
    limit, batchcount, shared = int(view.limit), int(view.batchcount), int(view.lists.shared)
    array = image.at(image.structs.array_cache, shared) if shared else None
    told: dict[str, Any] = {
        "objects_per_slab": cache.num,
        "limit": limit,
        "batchcount": batchcount,
        "shared_factor": array.limit // batchcount if array and batchcount else 0,
        "shared_objects": int(array.avail) if array else 0,
    }
    if slab.objects.debug is not None:
        told |= _named(cache, (*STATISTICS, "max_freeable", "free_limit", "node_allocs", *HITS))
    return told


# -- both ------------------------------------------------------------------------------------------

VERSIONS: Final = {
    "2.4": Version(
        _header_1_1,
        _facts_1_1,
        (
            (
                "",
                (
                    *(("name", -17), ("active_objects", 6), ("objects", 6), ("objsize", 6)),
                    *(("active_slabs", 4), ("slabs", 4), ("pages_per_slab", 4)),
                ),
            ),
            ("", tuple(zip(STATISTICS, (6, 7, 5, 4, 4), strict=True))),
            ("", (("limit", 4), ("batchcount", 4))),
            ("", tuple((name, 6) for name in HITS)),
        ),
    ),
    "2.6": Version(
        _header_2_1,
        _facts_2_1,
        (
            (
                "",
                (
                    *(("name", -17), ("active_objects", 6), ("objects", 6), ("objsize", 6)),
                    *(("objects_per_slab", 4), ("pages_per_slab", 4)),
                ),
            ),
            ("tunables ", (("limit", 4), ("batchcount", 4), ("shared_factor", 4))),
            ("slabdata ", (("active_slabs", 6), ("slabs", 6), ("shared_objects", 6))),
            (
                "globalstat ",
                (
                    *(("num_allocations", 7), ("high_mark", 6), ("grown", 5), ("reaped", 4)),
                    *(("errors", 4), ("max_freeable", 4), ("free_limit", 4), ("node_allocs", 4)),
                ),
            ),
            ("cpustat ", tuple((name, 6) for name in HITS)),
        ),
    ),
}
"""By release."""


def _version(slab: Slab) -> Version:
    return VERSIONS[slab.image.config.release]


def slabinfo(slab: Slab) -> str:
    """The whole text."""
    header = _version(slab).header(slab)
    return "\n".join([header, *(_line(slab, cache) for cache in slab.chain())]) + "\n"


def _line(slab: Slab, cache: Cache) -> str:
    told = facts(slab, cache)
    return " : ".join(
        label
        + " ".join(
            f"{told[name]:<{-width}}" if width < 0 else f"{told[name]:>{width}}"
            for name, width in columns
        )
        for label, columns in _version(slab).groups
        if columns[0][0] in told
    )


def slabinfo_write(slab: Slab, text: str) -> int:
    """``NAME NUMBERS``: tune a cache's per-CPU arrays. Bytes taken, or -errno.

    2.4 takes limit and batchcount, and on a uniprocessor has nothing to tune: -EINVAL. 2.6 takes
    the factor of the shared array, too.
    """
    name, space, rest = text.partition(" ")
    if slab.cpu_caches is None or not space or len(text) > MAX_SLABINFO_WRITE:
        return -errno.EINVAL
    cache = slab.find(name)
    if cache is None:
        return -errno.EINVAL
    numbers = [int(number) for number in re.findall(r"-?\d+", rest)]
    return slab.cpu_caches.tune(cache, numbers) or len(text)
