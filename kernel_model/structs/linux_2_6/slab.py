# SPDX-License-Identifier: GPL-2.0-or-later
"""Caches, slabs and per-CPU object arrays in C, as 2.6 has them (book 8.8).

Models linux-2.6.11 ``mm/slab.c`` and ``include/linux/slab.h``. The per-CPU array exists on
uniprocessors, too; a cache without high numbers of CPUs fits a few cache lines. Objects of the
array follow its four words.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import (
    ATOMIC,
    INT,
    UINT,
    ULONG,
    USHORT,
    CType,
    array,
    pointer,
    struct,
)
from kernel_model.structs.mmzone import LIST_HEAD, spinlock_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi

MALLOC_SIZES: Final = (32, 64, 96, 128, 192, *(1 << shift for shift in range(8, 18)))
"""Object sizes of the general caches, 32 to 131,072 bytes."""
NOMMU_SIZES: Final = (*MALLOC_SIZES, *(1 << shift for shift in range(18, 21)))
"""Without an MMU whole mappings come from them, so they go up to 1 MiB."""

SLAB: Final = struct(
    "struct slab",
    [
        ("list", LIST_HEAD),
        ("colouroff", ULONG),
        ("s_mem", pointer("void")),
        ("inuse", UINT),
        ("free", USHORT),
        ("padding", USHORT),
    ],
)
"""The bufctl array, of 16-bit ``kmem_bufctl_t``, begins behind it."""

RCU_HEAD: Final = struct(
    "struct rcu_head", [("next", pointer("struct rcu_head")), ("func", pointer("void"))]
)

SLAB_RCU: Final = struct(
    "struct slab_rcu",
    [
        ("head", RCU_HEAD),
        ("cachep", pointer("kmem_cache_t")),
        ("addr", pointer("void")),
    ],
)

ARRAY_CACHE: Final = struct(
    "struct array_cache",
    [("avail", UINT), ("limit", UINT), ("batchcount", UINT), ("touched", UINT)],
)

BOOT_CPUCACHE_ENTRIES: Final = 1
ARRAYCACHE_INIT: Final = struct(
    "struct arraycache_init",
    [("cache", ARRAY_CACHE), ("entries", array(pointer("void"), BOOT_CPUCACHE_ENTRIES))],
)
"""What stands in for an array before there are general caches to take one from."""

MAX_CACHE_NAMES: Final = 256
CACHE_NAME_BYTES: Final = 32
"""A cache of 2.6 points to its name; the names lie in the image, in so many places of this size."""

KMEM_LIST3: Final = struct(
    "struct kmem_list3",
    [
        ("slabs_partial", LIST_HEAD),
        ("slabs_full", LIST_HEAD),
        ("slabs_free", LIST_HEAD),
        ("free_objects", ULONG),
        ("free_touched", INT),
        ("next_reap", ULONG),
        ("shared", pointer("struct array_cache")),
    ],
)

CACHE_SIZES: Final = struct(
    "struct cache_sizes",
    [
        ("cs_size", ULONG),
        ("cs_cachep", pointer("kmem_cache_t")),
        ("cs_dmacachep", pointer("kmem_cache_t")),
    ],
)


def work_struct(abi: "Abi") -> CType:
    """Work to be done by keventd, later: ``include/linux/workqueue.h`` and ``linux/timer.h``."""
    return struct(
        "struct work_struct",
        [
            ("pending", ULONG),
            ("entry", LIST_HEAD),
            ("func", pointer("void")),
            ("data", pointer("void")),
            ("wq_data", pointer("void")),
            ("timer_entry", LIST_HEAD),
            ("expires", ULONG),
            ("timer_lock", spinlock_t(abi)),
            ("timer_magic", ULONG),
            ("timer_function", pointer("void")),
            ("timer_data", ULONG),
            ("timer_base", pointer("void")),
        ],
    )


def kmem_cache_t(abi: "Abi") -> CType:
    fields = [
        ("array", array(pointer("struct array_cache"), abi.nr_cpus)),
        ("batchcount", UINT),
        ("limit", UINT),
        ("lists", KMEM_LIST3),
        ("objsize", UINT),
        ("flags", UINT),
        ("num", UINT),
        ("free_limit", UINT),
        ("spinlock", spinlock_t(abi)),
        ("gfporder", UINT),
        ("gfpflags", UINT),
        ("colour", ULONG),
        ("colour_off", UINT),
        ("colour_next", UINT),
        ("slabp_cache", pointer("kmem_cache_t")),
        ("slab_size", UINT),
        ("dflags", UINT),
        ("ctor", pointer("void")),
        ("dtor", pointer("void")),
        ("name", pointer("const char")),
        ("next", LIST_HEAD),
    ]
    if abi.debug_slab:
        counts = ("num_active", "num_allocations", "high_mark", "grown", "reaped", "errors")
        fields += [(name, ULONG) for name in (*counts, "max_freeable", "node_allocs")]
        fields += [(name, ATOMIC) for name in ("allochit", "allocmiss", "freehit", "freemiss")]
        fields += [("dbghead", INT), ("reallen", INT)]
    return struct("kmem_cache_t", fields)
