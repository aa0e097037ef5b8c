# SPDX-License-Identifier: GPL-2.0-or-later
"""How memory is laid out: in one piece, or in nodes.

Models what linux-2.4.22 decides by CONFIG_DISCONTIGMEM: who describes memory to the boot
allocator, who makes the zones, whose boot maps retire (book 2.1, 2.2.2, 2.4, 5.3, 5.6). The
kernel takes one :class:`Layout` when it boots and asks no more.
"""

from collections.abc import Iterator
from typing import Protocol

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, pfn_up, virt_to_phys
from kernel_model.arch_i386.setup import (
    HIGH_MEMORY,
    kernel_end,
    ram_frames,
    set_limits,
    setup_memory,
)
from kernel_model.image import KernelImage
from kernel_model.mm.bootmem import MAX_DMA_ADDRESS, Bootmem
from kernel_model.mm.free_area import free_area_init, name_zones
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.mmzone import ZONE_DMA, ZONE_HIGHMEM, ZONE_NORMAL
from kernel_model.mm.numa import (
    NumaPageAllocator,
    free_area_init_node,
    node_bootmem_data,
    node_data,
)
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.retire_bootmem import free_all_bootmem
from kernel_model.structs.mmzone import MAX_NR_ZONES

MAX_DMA_PFN = virt_to_phys(MAX_DMA_ADDRESS) >> PAGE_SHIFT


def zone_sizes(low: int, high: int) -> list[int]:
    """Frames of DMA, Normal and HighMem, when low memory ends at frame ``low`` and high memory
    at ``high`` (book 2.2.2). A machine with less than 16 MiB of low memory has no HighMem."""
    sizes = [0] * MAX_NR_ZONES
    sizes[ZONE_DMA] = min(low, MAX_DMA_PFN)
    if low >= MAX_DMA_PFN:
        sizes[ZONE_NORMAL] = low - MAX_DMA_PFN
        sizes[ZONE_HIGHMEM] = max(high - low, 0)
    return sizes


def node_zone_sizes(start: int, end: int) -> list[int]:
    """The same for a node of the frames ``start`` to ``end - 1`` of low memory."""
    sizes = [0] * MAX_NR_ZONES
    sizes[ZONE_DMA] = max(min(end, MAX_DMA_PFN) - start, 0)
    sizes[ZONE_NORMAL] = max(end - max(start, MAX_DMA_PFN), 0)
    return sizes


class Layout(Protocol):
    """What depends on whether memory is uniform."""

    @property
    def allocator(self) -> PageAllocator:
        """The allocator for this layout."""

    def setup_memory(self) -> None:
        """Describe memory to the boot allocator."""

    def zone_sizes_init(self) -> None:
        """Make the zones."""

    def free_all_bootmem(self, allocator: PageAllocator) -> int:
        """Retire every boot map. Returns the number of frames freed."""

    def low_spans(self) -> Iterator[tuple[int, int]]:
        """[first, end) PFNs of low memory that ``mem_map`` describes."""


class UniformMemory:
    """One node, ``contig_page_data``, from frame 0 to the end."""

    def __init__(self, image: KernelImage, bootmem: Bootmem) -> None:
        self._image = image
        self._bootmem = bootmem
        self.allocator = self.page_allocator(image)

    def page_allocator(self, image: KernelImage) -> PageAllocator:
        """The allocator over the zones of this node."""
        return PageAllocator24(image)

    def setup_memory(self) -> None:
        setup_memory(self._image, self._bootmem)

    def zone_sizes_init(self) -> None:
        statics = self._image.statics
        sizes = zone_sizes(statics.max_low_pfn, statics.highend_pfn)
        free_area_init(self._image, self._bootmem, sizes)

    def free_all_bootmem(self, allocator: PageAllocator) -> int:
        pgdat = self._image.symbol("contig_page_data")
        return free_all_bootmem(self._image, self._bootmem, allocator, pgdat)

    def low_spans(self) -> Iterator[tuple[int, int]]:
        yield 0, int(self._image.statics.max_low_pfn)


class NodeMemory:
    """Several nodes, each with its boot map, its ``mem_map`` and its zones in its own memory."""

    def __init__(self, image: KernelImage, bootmem: Bootmem) -> None:
        self._image = image
        self._bootmem = bootmem
        self._spans = image.config.node_spans
        self.allocator = self.page_allocator(image)

    def page_allocator(self, image: KernelImage) -> PageAllocator:
        """The allocator over the zones of all nodes."""
        return NumaPageAllocator(image)

    def setup_memory(self) -> None:
        statics = self._image.statics
        statics.max_low_pfn = set_limits(self._image)
        statics.min_low_pfn = pfn_up(self._image.boot_end)
        for nid, (start, end) in enumerate(self._spans):
            self.setup_node(nid, start, end)

    def setup_node(self, nid: int, start: int, end: int) -> None:
        """The boot map of one node: all RAM free but the map and, in node 0, the kernel."""
        bootmem, pgdat = self._bootmem, node_data(self._image, nid)
        node = self._image.at(self._image.structs.pg_data_t, pgdat)
        node.bdata = node_bootmem_data(self._image, nid)
        map_pfn = pfn_up(self._image.boot_end) if nid == 0 else start
        bootmap_size = bootmem.init_bootmem_node(pgdat, map_pfn, start, end)
        for frames in map(ram_frames, self._image.config.e820):
            first, last = max(frames.start, start), min(frames.stop, end)
            if first < last:
                size = (last - first) << PAGE_SHIFT
                bootmem.free_bootmem_node(pgdat, first << PAGE_SHIFT, size)
        if nid == 0:
            bootmem.reserve_bootmem_node(pgdat, HIGH_MEMORY, kernel_end(map_pfn, bootmap_size))
            bootmem.reserve_bootmem_node(pgdat, 0, PAGE_SIZE)
        else:
            bootmem.reserve_bootmem_node(pgdat, map_pfn << PAGE_SHIFT, bootmap_size)

    def zone_sizes_init(self) -> None:
        name_zones(self._image)
        for nid, (start, end) in enumerate(self._spans):
            sizes = node_zone_sizes(start, end)
            free_area_init_node(self._image, self._bootmem, nid, sizes, start << PAGE_SHIFT)

    def free_all_bootmem(self, allocator: PageAllocator) -> int:
        nodes = range(len(self._spans))
        return sum(self.free_all_bootmem_node(allocator, nid) for nid in nodes)

    def free_all_bootmem_node(self, allocator: PageAllocator, nid: int) -> int:
        """Retire the boot map of one node."""
        pgdat = node_data(self._image, nid)
        return free_all_bootmem(self._image, self._bootmem, allocator, pgdat)

    def low_spans(self) -> Iterator[tuple[int, int]]:
        yield from self._spans
