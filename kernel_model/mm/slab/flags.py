# SPDX-License-Identifier: GPL-2.0-or-later
"""Flags, limits and magic numbers of the slab allocator.

Models ``include/linux/slab.h`` and the head of ``mm/slab.c`` (book 8.1.2-8.1.5). What 2.4 and 2.6
have in common stands here; where they differ, each fills in a :class:`SlabConstants`
(:mod:`.linux_2_4.constants`, :mod:`.linux_2_6.constants`).
"""

from dataclasses import dataclass
from typing import Final

SLAB_DEBUG_FREE: Final = 0x0100
SLAB_DEBUG_INITIAL: Final = 0x0200
SLAB_RED_ZONE: Final = 0x0400
SLAB_POISON: Final = 0x0800
SLAB_NO_REAP: Final = 0x1000
SLAB_HWCACHE_ALIGN: Final = 0x2000
SLAB_CACHE_DMA: Final = 0x4000
SLAB_MUST_HWCACHE_ALIGN: Final = 0x8000

SLAB_DMA: Final = 0x01
SLAB_NO_GROW: Final = 0x1000
SLAB_ATOMIC: Final = 0x20
SLAB_KERNEL: Final = 0x1F0
"""2.4's, as is ``SLAB_NO_GROW``; code for both releases takes ``image.constants.gfp``."""

SLAB_CTOR_CONSTRUCTOR: Final = 1
SLAB_CTOR_ATOMIC: Final = 2
SLAB_CTOR_VERIFY: Final = 4

CREATE_MASK: Final = SLAB_HWCACHE_ALIGN | SLAB_NO_REAP | SLAB_CACHE_DMA | SLAB_MUST_HWCACHE_ALIGN
"""What every build of both releases takes for flags of a cache."""
DEBUG_MASK: Final = SLAB_DEBUG_INITIAL | SLAB_RED_ZONE | SLAB_POISON
"""What a build with CONFIG_DEBUG_SLAB takes besides."""

BYTES_PER_WORD: Final = 4
MAX_OBJ_ORDER: Final = 5
MAX_GFP_ORDER: Final = 5
NOMMU_MAX_ORDER: Final = 8
"""Both, where there is no MMU: objects and slabs of up to 1 MiB."""

RED_INACTIVE: Final = 0x5A2CF071
"""Around an object that is free: 2.4's ``RED_MAGIC1``."""
RED_ACTIVE: Final = 0x170FC2A5
"""Around an object that is in use: 2.4's ``RED_MAGIC2``."""
POISON_END: Final = 0xA5
"""The last byte of an object that is poisoned."""


@dataclass(frozen=True, slots=True)
class SlabConstants:
    """The numbers and names of one release."""

    bufctl_bytes: int
    """``sizeof(kmem_bufctl_t)``, and of ``slab->free``."""
    off_slab: int
    """``CFLGS_OFF_SLAB``: the flag of a cache whose slab descriptors stand elsewhere."""
    create_mask: int
    debug_create_mask: int
    level_mask: int
    """The bits of a GFP mask that an allocation may have, zone and ``no_grow`` left aside."""
    no_grow: int
    break_gfp_order: tuple[int, int]
    """``slab_break_gfp_order`` of a machine with up to 32 MiB, and of a larger one."""
    lists: str
    """The field of ``kmem_cache_t`` that has the three lists; empty: it has them itself."""
    page_list: str
    """The ``struct list_head`` of ``struct page`` that names cache and slab of a frame."""
    general_caches: str
    """The static table of general caches."""
    poison: int
    """What a free object is filled with."""

    @property
    def bufctl_end(self) -> int:
        """``BUFCTL_END``: behind the last free object of a slab."""
        return (1 << 8 * self.bufctl_bytes) - 1
