# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest's walk through nodes, zones and ``mem_map`` reports: declared once.

``guest/kernel/mm_walk.c`` fills a ``struct mm_walk`` and :mod:`harness.monitors.guest_walk`
reads it; this module gives Python its layout and C the header ``mm_walk_layout.h``. Sums are
taken modulo 2**32 over the values in order, each times its weight 1, 3, 5, ...: an odd weight
loses no bit, and values that trade places show. Nothing here can fail.
"""

import enum
from typing import Final

from kernel_model.mm.page_flags import NAMES, ZONE_SHIFT
from kernel_model.structs.declare import UCHAR, UINT, CType, array, struct
from kernel_model.structs.header import checks, definition
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER, NR_ZONELISTS
from kernel_model.structs.statics import MAX_MODELLED_NODES

NOTHING: Final = 0xFFFFFFFF
"""The frame of a free list that is empty, a zonelist's place behind its end."""
MAX_FAULTS: Final = 128
"""How many faults are reported in detail; all are counted."""
ZONE_NAME_BYTES: Final = 8
ZONELIST_PLACES: Final = MAX_NR_ZONES + 1


class WalkFault(enum.IntEnum):
    """What the guest can find wrong by itself, without knowing what the model believes."""

    NODE_POINTER = 1
    """``pgdat_list`` leaves low memory, or has more nodes than there can be."""
    ZONE_TABLE = 2
    """``zone_table`` does not name the zone at its number."""
    MEM_MAP_POINTER = 3
    """``zone_mem_map`` leaves low memory, or is not its part of ``node_mem_map``."""
    BITMAP_POINTER = 4
    """The pair bitmap lies outside low memory."""
    ZONELIST = 5
    """A zonelist names something that is no zone; the order is the zonelist's number."""
    LIST_LEAVES_MEM_MAP = 6
    """A link of a free list does not point to a frame of its zone."""
    LIST_ASYMMETRIC = 7
    """``prev`` of an entry is not the entry before it."""
    LIST_TOO_LONG = 8
    """More blocks than the zone has room for: the list never ends."""
    BLOCK_MISPLACED = 9
    """A free block is not aligned to its size, or reaches beyond its zone."""
    BLOCK_IN_USE = 10
    """A frame of a free block has a count, or flags that no free frame has."""
    PAIR_BIT = 11
    """The bit of a pair is not the exclusive or of "this half stands on the list"."""
    FREE_PAGES = 12
    """``free_pages`` is not the number of frames on the lists."""
    ZONE_BITS = 13
    """The top byte of a frame's flags is not the number of its zone."""


MM_WALK_FAULT: Final = struct(
    "struct mm_walk_fault",
    [("kind", UINT), ("zone", UINT), ("order", UINT), ("pfn", UINT)],
)

MM_WALK_ORDER: Final = struct(
    "struct mm_walk_order",
    [("blocks", UINT), ("first_pfn", UINT), ("list_sum", UINT), ("map_sum", UINT)],
)

MM_WALK_ZONE: Final = struct(
    "struct mm_walk_zone",
    [
        ("name", array(UCHAR, ZONE_NAME_BYTES)),
        ("size", UINT),
        ("start_pfn", UINT),
        ("free_pages", UINT),
        ("listed_pages", UINT),
        ("reserved", UINT),
        ("in_use", UINT),
        ("flags_sum", UINT),
        ("count_sum", UINT),
        ("orders", array(MM_WALK_ORDER, MAX_ORDER)),
    ],
)

MM_WALK_NODE: Final = struct(
    "struct mm_walk_node",
    [
        ("id", UINT),
        ("start_pfn", UINT),
        ("size", UINT),
        ("zonelists", array(UINT, NR_ZONELISTS * ZONELIST_PLACES)),
        ("zones", array(MM_WALK_ZONE, MAX_NR_ZONES)),
    ],
)

MM_WALK: Final = struct(
    "struct mm_walk",
    [
        ("statics_bytes", UINT),
        ("nr_faults", UINT),
        ("faults", array(MM_WALK_FAULT, MAX_FAULTS)),
        ("free_pages", UINT),
        ("nr_nodes", UINT),
        ("nodes", array(MM_WALK_NODE, MAX_MODELLED_NODES)),
    ],
)
"""``zonelists`` and ``mm_walk_fault.zone`` hold numbers of ``zone_table``."""

_STRUCTS: Final[tuple[CType, ...]] = (
    *(MM_WALK_FAULT, MM_WALK_ORDER, MM_WALK_ZONE, MM_WALK_NODE, MM_WALK),
)


def header_text() -> str:
    """The C header ``mm_walk_layout.h``."""
    constants = {
        "MAX_ORDER": MAX_ORDER,
        "MAX_NR_ZONES": MAX_NR_ZONES,
        "NR_ZONELISTS": NR_ZONELISTS,
        "ZONELIST_PLACES": ZONELIST_PLACES,
        "ZONE_SHIFT": ZONE_SHIFT,
        "NOTHING": f"{NOTHING:#x}u",
    }
    constants |= {name: bit for bit, name in NAMES.items()}
    constants |= {f"WALK_{fault.name}": fault.value for fault in WalkFault}
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Made from harness/mm_walk_layout.py. */",
        "#pragma once",
        *(f"#define {name} {value}" for name, value in constants.items()),
        *(f"\n{definition(kind)}{checks(kind)}" for kind in _STRUCTS),
    ]
    return "\n".join(lines)
