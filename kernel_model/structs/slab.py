# SPDX-License-Identifier: GPL-2.0-or-later
"""Caches, slabs and per-CPU object arrays in C.

Models linux-2.4.22 ``mm/slab.c``: ``struct kmem_cache_s``, ``slab_t``, ``cpucache_t``,
``cache_sizes_t`` (book 8.1.1, 8.2, 8.4, 8.5). A ``kmem_cache_t`` grows with the build: SMP adds
``batchcount`` and a pointer for each configured CPU, CONFIG_DEBUG_SLAB its statistics.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import (
    ATOMIC,
    UCHAR,
    UINT,
    ULONG,
    CType,
    array,
    pointer,
    struct,
)
from kernel_model.structs.mmzone import LIST_HEAD, spinlock_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi

CACHE_NAMELEN: Final = 20
CACHE_SIZES: Final = tuple(1 << shift for shift in range(5, 18))
"""Object sizes of the general caches, 32 to 131,072 bytes."""

SLAB_T: Final = struct(
    "slab_t",
    [
        ("list", LIST_HEAD),
        ("colouroff", ULONG),
        ("s_mem", pointer("void")),
        ("inuse", UINT),
        ("free", UINT),
    ],
)

CPUCACHE_T: Final = struct("cpucache_t", [("avail", UINT), ("limit", UINT)])

CACHE_SIZES_T: Final = struct(
    "cache_sizes_t",
    [
        ("cs_size", ULONG),
        ("cs_cachep", pointer("kmem_cache_t")),
        ("cs_dmacachep", pointer("kmem_cache_t")),
    ],
)


def kmem_cache_t(abi: "Abi") -> CType:
    fields = [
        ("slabs_full", LIST_HEAD),
        ("slabs_partial", LIST_HEAD),
        ("slabs_free", LIST_HEAD),
        ("objsize", UINT),
        ("flags", UINT),
        ("num", UINT),
        ("spinlock", spinlock_t(abi)),
    ]
    if abi.smp:
        fields.append(("batchcount", UINT))
    fields += [
        ("gfporder", UINT),
        ("gfpflags", UINT),
        ("colour", ULONG),
        ("colour_off", UINT),
        ("colour_next", UINT),
        ("slabp_cache", pointer("kmem_cache_t")),
        ("growing", UINT),
        ("dflags", UINT),
        ("ctor", pointer("void")),
        ("dtor", pointer("void")),
        ("failures", ULONG),
        ("name", array(UCHAR, CACHE_NAMELEN)),
        ("next", LIST_HEAD),
    ]
    if abi.smp:
        fields.append(("cpudata", array(pointer("cpucache_t"), abi.nr_cpus)))
    if abi.debug_slab:
        names = ("num_active", "num_allocations", "high_mark", "grown", "reaped", "errors")
        fields += [(name, ULONG) for name in names]
    if abi.debug_slab and abi.smp:
        fields += [(name, ATOMIC) for name in ("allochit", "allocmiss", "freehit", "freemiss")]
    return struct("kmem_cache_t", fields)
