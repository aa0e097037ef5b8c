# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator's numbers in 2.4.

Models linux-2.4.22 ``include/linux/slab.h`` and the head of ``mm/slab.c`` (book 8.1.2-8.1.4).
"""

from typing import Final

from kernel_model.mm.slab.flags import CREATE_MASK, DEBUG_MASK, SLAB_NO_GROW, SlabConstants

LINUX_2_4: Final = SlabConstants(
    bufctl_bytes=4,
    off_slab=0x10000,
    create_mask=CREATE_MASK,
    debug_create_mask=CREATE_MASK | DEBUG_MASK,
    level_mask=0x1F0,
    no_grow=SLAB_NO_GROW,
    break_gfp_order=(1, 2),
    lists="",
    page_list="list",
    general_caches="cache_sizes",
    poison=0x5A,
)

CFLGS_OPTIMIZE: Final = 0x20000
DFLGS_GROWN: Final = 1
"""The cache grew since it was last looked at for reaping."""
REAP_SCANLEN: Final = 10
REAP_PERFECT: Final = 10
