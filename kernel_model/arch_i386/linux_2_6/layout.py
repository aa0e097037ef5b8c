# SPDX-License-Identifier: GPL-2.0-or-later
"""Uniform memory and nodes: how 2.6 makes zones and retires boot maps (book 2.8, 5.7)."""

import numpy as np

from kernel_model.arch_i386.layout import NodeMemory, UniformMemory, node_zone_sizes, zone_sizes
from kernel_model.image import KernelImage
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.free_area import name_zones
from kernel_model.mm.linux_2_6.free_area import free_area_init_node
from kernel_model.mm.linux_2_6.free_frames import free_frames
from kernel_model.mm.linux_2_6.mmzone import Zone26
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.watermarks import init_statics
from kernel_model.mm.numa import node_data
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.retire_bootmem import clear_frames
from kernel_model.ram import PAGE_SHIFT
from kernel_model.structs.mmzone import MAX_NR_ZONES


def free_all_bootmem(
    image: KernelImage, bootmem: Bootmem, allocator: PageAllocator26, pgdat: int
) -> int:
    """Hand a node's free frames, and behind them those of its boot map, to the page allocator.

    Returns the number of frames freed. The boot allocator is no more after this.
    """
    bdata = bootmem.node(pgdat)
    clear = clear_frames(bootmem, bdata)
    first = int(bdata.node_boot_start) >> PAGE_SHIFT
    map_frames = bootmem.map_frames(bdata)
    total = 0
    for index in range(MAX_NR_ZONES):
        zone = Zone26(image, pgdat + index * image.structs.zone_t.size)
        start = zone.start_pfn - first
        if not zone.size or start >= len(clear):
            continue
        free = np.zeros(zone.size, dtype=np.bool_)
        part = clear[start : start + zone.size]
        free[: len(part)] = part
        late = np.array(map_frames, np.int64) - zone.start_pfn
        late = late[(late >= 0) & (late < zone.size)]
        total += free_frames(image, allocator.memmap, zone, free, late, by_word=True)
    for pfn in map_frames:
        image.events.frame_given_back(pfn, 0)
    allocator.page_state.add("pgfree", total)
    bdata.node_bootmem_map = 0
    bootmem.record_free_all(total)
    return total


class UniformMemory26(UniformMemory):
    """One node, ``contig_page_data``, from frame 0 to the end."""

    allocator: PageAllocator26

    def page_allocator(self, image: KernelImage) -> PageAllocator26:
        init_statics(image)
        return PageAllocator26(image)

    def zone_sizes_init(self) -> None:
        image, statics = self._image, self._image.statics
        sizes = zone_sizes(statics.max_low_pfn, statics.highend_pfn)
        pgdat = image.symbol("contig_page_data")
        name_zones(image)
        free_area_init_node(image, self._bootmem, self.allocator.memmap, 0, pgdat, sizes)

    def free_all_bootmem(self, allocator: PageAllocator) -> int:
        pgdat = self._image.symbol("contig_page_data")
        return free_all_bootmem(self._image, self._bootmem, self.allocator, pgdat)


class NodeMemory26(NodeMemory):
    """Several nodes, each with its boot map, its ``mem_map`` and its zones in its own memory."""

    allocator: NodePageAllocator26

    def page_allocator(self, image: KernelImage) -> NodePageAllocator26:
        init_statics(image)
        return NodePageAllocator26(image)

    def zone_sizes_init(self) -> None:
        image = self._image
        name_zones(image)
        # The nodes were put before each other; from now on the first stands first.
        image.statics.pgdat_list = 0
        for nid in reversed(range(len(self._spans))):
            pgdat = node_data(image, nid)
            image.at(image.structs.pg_data_t, pgdat).pgdat_next = image.statics.pgdat_list
            image.statics.pgdat_list = pgdat
        for nid, (start, end) in enumerate(self._spans):
            sizes = node_zone_sizes(start, end)
            pgdat, memmap = node_data(image, nid), self.allocator.memmap
            free_area_init_node(image, self._bootmem, memmap, nid, pgdat, sizes, start)

    def free_all_bootmem_node(self, allocator: PageAllocator, nid: int) -> int:
        pgdat = node_data(self._image, nid)
        return free_all_bootmem(self._image, self._bootmem, self.allocator, pgdat)
