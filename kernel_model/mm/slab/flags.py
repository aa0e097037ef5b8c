# SPDX-License-Identifier: GPL-2.0-or-later
"""Flags, limits and magic numbers of the slab allocator.

Models linux-2.4.22 ``include/linux/slab.h`` and the head of ``mm/slab.c`` (book 8.1.2-8.1.5).
"""

from typing import Final

SLAB_DEBUG_FREE: Final = 0x0100
SLAB_DEBUG_INITIAL: Final = 0x0200
SLAB_RED_ZONE: Final = 0x0400
SLAB_POISON: Final = 0x0800
SLAB_NO_REAP: Final = 0x1000
SLAB_HWCACHE_ALIGN: Final = 0x2000
SLAB_CACHE_DMA: Final = 0x4000
SLAB_MUST_HWCACHE_ALIGN: Final = 0x8000
CFLGS_OFF_SLAB: Final = 0x10000
CFLGS_OPTIMIZE: Final = 0x20000

DFLGS_GROWN: Final = 1
"""The cache grew since it was last looked at for reaping."""

SLAB_DMA: Final = 0x01
SLAB_LEVEL_MASK: Final = 0x1F0
SLAB_NO_GROW: Final = 0x1000
SLAB_ATOMIC: Final = 0x20
SLAB_KERNEL: Final = 0x1F0

SLAB_CTOR_CONSTRUCTOR: Final = 1
SLAB_CTOR_ATOMIC: Final = 2
SLAB_CTOR_VERIFY: Final = 4

CREATE_MASK: Final = SLAB_HWCACHE_ALIGN | SLAB_NO_REAP | SLAB_CACHE_DMA | SLAB_MUST_HWCACHE_ALIGN
DEBUG_CREATE_MASK: Final = CREATE_MASK | SLAB_DEBUG_INITIAL | SLAB_RED_ZONE | SLAB_POISON

BYTES_PER_WORD: Final = 4
MAX_OBJ_ORDER: Final = 5
MAX_GFP_ORDER: Final = 5
BREAK_GFP_ORDER_LO: Final = 1
BREAK_GFP_ORDER_HI: Final = 2
REAP_SCANLEN: Final = 10
REAP_PERFECT: Final = 10
BUFCTL_END: Final = 0xFFFFFFFF
SLAB_LIMIT: Final = 0xFFFFFFFE

RED_MAGIC1: Final = 0x5A2CF071
"""Around an object that is free."""
RED_MAGIC2: Final = 0x170FC2A5
"""Around an object that is in use."""
POISON_BYTE: Final = 0x5A
POISON_END: Final = 0xA5
