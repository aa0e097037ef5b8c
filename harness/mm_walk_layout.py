# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest's walk through nodes, zones and ``mem_map`` reports: declared once.

``guest/kernel/mm_walk.c`` fills a ``struct mm_walk`` and :mod:`harness.monitors.guest_walk`
reads it; this module gives Python its layout and C the header ``mm_walk_layout.h``. Sums are
taken modulo 2**32 over the values in order, each times its weight 1, 3, 5, ...: an odd weight
loses no bit, and values that trade places show. Nothing here can fail.
"""

import enum
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from kernel_model.mm.linux_2_6.mmzone import ZONES_SHIFT
from kernel_model.mm.linux_2_6.numa import NODEZONE_SHIFT
from kernel_model.mm.page_flags import NAMES
from kernel_model.release.constants import CONSTANTS
from kernel_model.structs import Abi, Structs
from kernel_model.structs.declare import UCHAR, UINT, CType, array, struct
from kernel_model.structs.header import checks, definition
from kernel_model.structs.linux_2_6.mmzone import GFP_ZONETYPES
from kernel_model.structs.mmzone import MAX_NR_ZONES, NR_ZONELISTS
from kernel_model.structs.statics import MAX_MODELLED_NODES

NOTHING: Final = 0xFFFFFFFF
"""The frame of a free list that is empty, a zonelist's place behind its end."""
MAX_FAULTS: Final = 128
"""How many faults are reported in detail; all are counted."""
MAX_CPUS: Final = 8
"""CPUs whose lists are walked."""
ZONE_NAME_BYTES: Final = 8


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
    """The top bits of a frame's flags are not the number of its zone."""
    NR_FREE = 14
    """``nr_free`` is not the number of blocks on the list."""
    ORDER_MARK = 15
    """A free block does not say its order, or a frame inside of it says one."""
    CPU_LIST = 16
    """A list of a CPU is none, or has another number of frames than its ``count``."""
    CPU_FRAME = 17
    """A frame on the list of a CPU has a user, or flags that no free frame has."""
    NODE_SPAN = 18
    """A node does not begin, end and count its frames as its zones do, or another node has some of
    them, or its number."""
    ZONELIST_ORDER = 19
    """A zonelist does not name once each zone that may serve it: the node's own first, those of a
    node together, from the best downwards. The order is the zonelist's number."""


ONLY_IN_2_6: Final = frozenset(
    {WalkFault.NR_FREE, WalkFault.ORDER_MARK, WalkFault.CPU_LIST, WalkFault.CPU_FRAME}
)
"""What 2.4 has nothing for."""


MM_WALK_FAULT: Final = struct(
    "struct mm_walk_fault",
    [("kind", UINT), ("zone", UINT), ("order", UINT), ("pfn", UINT)],
)

MM_WALK_ORDER: Final = struct(
    "struct mm_walk_order",
    [("blocks", UINT), ("first_pfn", UINT), ("list_sum", UINT), ("map_sum", UINT)],
)
"""``map_sum`` is of the pair bits; in 2.6 it is ``nr_free``."""

MM_WALK_CPU_LIST: Final = struct("struct mm_walk_cpu_list", [("count", UINT), ("list_sum", UINT)])


@dataclass(frozen=True, slots=True)
class WalkShape:
    """What a walk through a kernel of one build meets."""

    orders: int
    zonelists: int
    zones_per_node: int
    """How far the numbers of one zone in two nodes are apart."""
    lists_all_nodes: bool
    """Whether a zonelist goes on with the zones of other nodes."""
    cpu_lists: int
    """Lists of free frames that CPUs may have in a zone: hot and cold ones."""
    zone_shift: int
    """Above this bit of a frame's flags stands the number of its zone."""
    zonelist_places: int = MAX_NR_ZONES + 1


_SHAPES: Final = {
    "2.4": WalkShape(
        *(CONSTANTS["2.4"].max_order, NR_ZONELISTS, MAX_NR_ZONES),
        lists_all_nodes=False,
        cpu_lists=0,
        zone_shift=CONSTANTS["2.4"].page_flags.zone_shift,
    ),
    "2.6": WalkShape(
        *(CONSTANTS["2.6"].max_order, GFP_ZONETYPES, 1 << ZONES_SHIFT),
        lists_all_nodes=True,
        cpu_lists=2 * MAX_CPUS,
        zone_shift=CONSTANTS["2.6"].page_flags.zone_shift,
    ),
}


def walk_shape(abi: Abi) -> WalkShape:
    """That of a build."""
    shape = _SHAPES[abi.release]
    if not abi.discontig:
        return shape
    places = Structs.of(abi).zonelist_t.size // 4
    return replace(shape, zone_shift=NODEZONE_SHIFT, zonelist_places=places)


@cache
def walk_structs(shape: WalkShape) -> tuple[CType, ...]:
    """The structures of a report, each after its parts; the last is ``struct mm_walk``, the whole.

    ``zonelists`` and ``mm_walk_fault.zone`` hold numbers of ``zone_table``.
    """
    lists = [("cpu_lists", array(MM_WALK_CPU_LIST, shape.cpu_lists))] if shape.cpu_lists else []
    zone = struct(
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
            ("orders", array(MM_WALK_ORDER, shape.orders)),
            *lists,
        ],
    )
    node = struct(
        "struct mm_walk_node",
        [
            ("id", UINT),
            ("start_pfn", UINT),
            ("size", UINT),
            ("zonelists", array(UINT, shape.zonelists * shape.zonelist_places)),
            ("zones", array(zone, MAX_NR_ZONES)),
        ],
    )
    walk = struct(
        "struct mm_walk",
        [
            ("statics_bytes", UINT),
            ("nr_faults", UINT),
            ("faults", array(MM_WALK_FAULT, MAX_FAULTS)),
            ("free_pages", UINT),
            ("nr_nodes", UINT),
            ("nodes", array(node, MAX_MODELLED_NODES)),
        ],
    )
    parts = (MM_WALK_FAULT, MM_WALK_ORDER)
    return (*parts, *((MM_WALK_CPU_LIST,) if lists else ()), zone, node, walk)


def header_text(abi: Abi) -> str:
    """The C header ``mm_walk_layout.h`` of a build."""
    shape, flags = walk_shape(abi), CONSTANTS[abi.release].page_flags
    constants = {
        "MAX_ORDER": shape.orders,
        "MAX_NR_ZONES": MAX_NR_ZONES,
        "ZONES_PER_NODE": shape.zones_per_node,
        "NR_ZONELISTS": shape.zonelists,
        "ZONELIST_PLACES": shape.zonelist_places,
        "LISTS_ALL_NODES": int(shape.lists_all_nodes),
        "ZONE_SHIFT": shape.zone_shift,
        "NOTHING": f"{NOTHING:#x}u",
    }
    named = NAMES if abi.release == "2.4" else flags.names()
    constants |= {f"PG_{name[3:].upper()}": bit for bit, name in named.items()}
    constants |= {f"WALK_{fault.name}": fault.value for fault in WalkFault}
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Made from harness/mm_walk_layout.py. */",
        "#pragma once",
        *(f"#define {name} {value}" for name, value in constants.items()),
        *(f"\n{definition(kind)}{checks(kind)}" for kind in walk_structs(shape)),
    ]
    return "\n".join(lines)
