# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of boot memory: what is free goes to the buddy allocator.

Models linux-2.4.22 ``mm/bootmem.c: free_all_bootmem_core()`` (book 5.6). It stands apart from
:mod:`kernel_model.mm.bootmem` because it needs ``mem_map`` and zones, which were themselves
made from boot memory.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.image import KernelImage
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.free_area import free_frames
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.structs.mmzone import MAX_NR_ZONES

__all__ = ["clear_frames", "free_all_bootmem"]


def clear_frames(bootmem: Bootmem, bdata: Any) -> npt.NDArray[np.bool_]:
    """One flag for each frame of a node: whether its boot map has it free."""
    frames = int(bdata.node_low_pfn) - (int(bdata.node_boot_start) >> PAGE_SHIFT)
    bitmap = bootmem.bitmap(bdata)
    bits = np.frombuffer(bitmap.value().to_bytes((frames + 7) // 8, "little"), np.uint8)
    return np.equal(np.unpackbits(bits, count=frames, bitorder="little"), 0)


def free_all_bootmem(
    image: KernelImage, bootmem: Bootmem, allocator: PageAllocator, pgdat: int
) -> int:
    """Hand a node's free frames, and then its boot map, to the buddy allocator (book 5.6).

    Returns the number of frames freed. The boot allocator is no more after this.
    """
    bdata, memmap = bootmem.node(pgdat), allocator.memmap
    clear = clear_frames(bootmem, bdata)
    frames, total = len(clear), 0
    node = image.at(image.structs.pg_data_t, pgdat)
    first = node.node_start_mapnr
    for index in range(MAX_NR_ZONES):
        zone = Zone(image, pgdat + index * image.structs.zone_t.size)
        start = int(zone.view.zone_start_mapnr) - first
        if zone.size and start < frames:
            free = np.zeros(zone.size, dtype=np.bool_)
            part = clear[start : start + zone.size]
            free[: len(part)] = part
            total += free_frames(memmap, zone, free)
    map_frames = bootmem.map_frames(bdata)
    for pfn in map_frames:
        page = memmap.page(pfn)
        memmap.clear_bit(page, image.constants.page_flags.reserved)
        memmap.set_count(page, 1)
        allocator.free_page(page)
    bdata.node_bootmem_map = 0
    bootmem.record_free_all(total + len(map_frames))
    return total + len(map_frames)
