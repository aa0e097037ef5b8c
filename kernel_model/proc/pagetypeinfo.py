# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/pagetypeinfo: the frames of each zone by what they are used for.

Linux 2.4 has no such file, and the one of later kernels speaks of migrate types, which 2.4 does
not know. So this is a table of its own. Each frame has one kind, told from the free lists and
from ``page->flags``; the kinds add up to the size of the zone:

* free: in a block of a free list, or on a list of a CPU, whatever its flags;
* reserved: PG_reserved, which includes holes;
* slab: PG_slab;
* active, inactive: on one of the two LRU lists;
* other: taken for anything else, such as page tables, or kmalloc's pages behind the first.

The last column is no kind but a mark, which every usable frame of high memory carries.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone
from kernel_model.proc.zones import NodeZone, node_zones

KINDS: Final = ("free", "reserved", "slab", "active", "inactive", "other")
_MARK: Final = "PG_highmem"


def frame_kinds(kernel: Kernel, zone: Zone) -> npt.NDArray[np.uint8]:
    """For each frame of ``zone`` the index of its kind in :data:`KINDS`."""
    memmap, bits = kernel.allocator.memmap, kernel.image.constants.page_flags
    first = int(zone.view.zone_mem_map)
    flags = memmap.rows(first, zone.size)[:, memmap.flags_word]
    on_lru, active = flags >> bits.lru & 1 == 1, flags >> bits.active & 1 == 1
    marks = {
        "reserved": flags >> bits.reserved & 1 == 1,
        "slab": flags >> bits.slab & 1 == 1,
        "active": on_lru & active,
        "inactive": on_lru & ~active,
    }
    numbers = [KINDS.index(kind) for kind in marks]
    kinds = np.select(list(marks.values()), numbers, KINDS.index("other")).astype(np.uint8)
    for order in range(kernel.image.constants.max_order):
        for page in zone.free_blocks(order):
            start = (page - first) // memmap.page_bytes
            kinds[start : start + (1 << order)] = KINDS.index("free")
    for page in kernel.allocator.cpu_free_pages(zone):
        kinds[(page - first) // memmap.page_bytes] = KINDS.index("free")
    return kinds


def count_kinds(kernel: Kernel, zone: Zone) -> dict[str, int]:
    """Frames of ``zone`` of each of :data:`KINDS`, and those with PG_highmem."""
    memmap, highmem = kernel.allocator.memmap, kernel.image.constants.page_flags.highmem
    flags = memmap.rows(int(zone.view.zone_mem_map), zone.size)[:, memmap.flags_word]
    counted = np.bincount(frame_kinds(kernel, zone), minlength=len(KINDS)).tolist()
    counts = dict(zip(KINDS, counted, strict=True))
    return counts | {_MARK: int(np.count_nonzero(flags >> highmem & 1))}


def text(kernel: Kernel) -> str:
    """A line for each zone below a line of titles."""
    columns = (*KINDS, _MARK)
    title = f"{'Frames by kind':<21} " + " ".join(f"{name:>10}" for name in columns)

    def line(place: NodeZone) -> str:
        counts = count_kinds(kernel, place.zone)
        return f"{place.title} " + " ".join(f"{counts[name]:>10}" for name in columns)

    return "\n".join([title, *map(line, node_zones(kernel))]) + "\n"


def data(kernel: Kernel) -> list[dict[str, Any]]:
    """For each zone the number of frames by kind."""
    return [place.names | count_kinds(kernel, place.zone) for place in node_zones(kernel)]
