# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator's numbers in 2.6.

Models linux-2.6.11 ``include/linux/slab.h`` and the head of ``mm/slab.c`` (book 8.8).
"""

from typing import Final

from kernel_model.mm.slab.flags import CREATE_MASK, DEBUG_MASK, SlabConstants
from kernel_model.structs.linux_2_6.slab import MALLOC_SIZES, NOMMU_SIZES

SLAB_STORE_USER: Final = 0x10000
"""Behind each object stands who asked for it, or gave it back."""
SLAB_RECLAIM_ACCOUNT: Final = 0x20000
"""Slabs count as pages that can be had back; they are of one page where objects allow it."""
SLAB_PANIC: Final = 0x40000
"""Without this cache the kernel cannot go on."""
SLAB_DESTROY_BY_RCU: Final = 0x80000
"""The pages of a slab go after a grace period only."""

_CREATE_MASK: Final = CREATE_MASK | SLAB_RECLAIM_ACCOUNT | SLAB_PANIC | SLAB_DESTROY_BY_RCU

LINUX_2_6: Final = SlabConstants(
    bufctl_bytes=2,
    off_slab=0x80000000,
    create_mask=_CREATE_MASK,
    debug_create_mask=_CREATE_MASK | DEBUG_MASK | SLAB_STORE_USER,
    level_mask=0x7FF0,
    no_grow=0x2000,
    break_gfp_order=(0, 1),
    lists="lists",
    page_list="lru",
    general_caches="malloc_sizes",
    poison=0x6B,
)

POISON_INUSE: Final = 0x5A
"""What an object is filled with when it is given out: nobody wrote it yet."""
BUFCTL_FREE: Final = 0xFFFE
"""With debugging: in the chain of free objects, the place of one that is out of its slab."""
BATCHREFILL_LIMIT: Final = 16
"""So many objects at most go into an array that was not used of late."""
HZ: Final = 1000
INITIAL_JIFFIES: Final = -300 * HZ & 0xFFFFFFFF
"""Five minutes before they wrap, so that who compares them wrongly is found."""
REAPTIMEOUT_CPUC: Final = 2 * HZ
REAPTIMEOUT_LIST3: Final = 4 * HZ

NONE, PARTIAL, FULL = range(3)
"""``g_cpucache_up``: how far the start has come."""


def malloc_sizes(cache_line: int, *, mmu: bool = True) -> tuple[int, ...]:
    """The sizes of the general caches (``include/linux/kmalloc_sizes.h``).

    96 and 192 are worth a cache only where an object of that size fills whole cache lines.
    """
    return tuple(
        size
        for size in (MALLOC_SIZES if mmu else NOMMU_SIZES)
        if size not in (96, 192) or cache_line < size // 3 * 2
    )
