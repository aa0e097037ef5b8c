# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be spoilt in nodes, zones and ``mem_map`` of any release, and what the guest says then.

Each plant gets the kernel and one of its zones, the Normal zone of the last node.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness.machine import Machine
from harness.mm_walk_layout import WalkFault, walk_shape
from harness.monitors import guest_walk
from kernel_model.kernel import Kernel
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import Zone, for_each_zone

Plant = Callable[[Kernel, Zone], None]
WHOLE_MACHINE = (
    *(WalkFault.NODE_POINTER, WalkFault.ZONELIST, WalkFault.ZONELIST_ORDER, WalkFault.NODE_SPAN),
)
"""Faults of no single zone."""


class Spoilable:
    """A machine that is spoilt again and again, and put right each time."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._whole = bytes(machine.ram.bytes)

    @contextmanager
    def spoilt(self, plant: Plant) -> Iterator[list[guest_walk.Finding]]:
        """What is found after ``plant``."""
        plant(self.machine.kernel, last_zone(self.machine.kernel))
        try:
            yield guest_walk.check(self.machine)
        finally:
            self.machine.ram.bytes[:] = self._whole

    def must_find(self, plant: Plant, fault: WalkFault) -> None:
        """The guest names the fault, and the zone that has it."""
        with self.spoilt(plant) as findings:
            found = [finding for finding in findings if finding.fault is fault]
            assert found, [str(finding) for finding in findings]
            if fault not in WHOLE_MACHINE:
                place = f"node {self.machine.kernel.config.nodes - 1}, zone Normal"
                assert place in {finding.where for finding in found}


def last_zone(kernel: Kernel) -> Zone:
    """The Normal zone of the last node."""
    zones = {zone.number: zone for zone in for_each_zone(kernel.image) if zone.name == "Normal"}
    return zones[max(zones)]


def fullest(zone: Zone) -> int:
    """The order of the longest free list."""
    counts = zone.free_counts()
    return counts.index(max(counts))


def blocks(zone: Zone) -> list[int]:
    return list(zone.free_blocks(fullest(zone)))


def _link(kernel: Kernel) -> int:
    """Where in a ``struct page`` the links are."""
    return kernel.image.structs.page.offset(kernel.image.constants.fields.page_links)


def links(kernel: Kernel, zone: Zone) -> list[int]:
    """The entries of the longest free list."""
    return [page + _link(kernel) for page in blocks(zone)]


def write(kernel: Kernel, vaddr: int, value: int) -> None:
    kernel.ram.write32(vaddr - 0xC0000000, value)


def node_of(kernel: Kernel, zone: Zone) -> Any:
    return kernel.image.at(kernel.image.structs.pg_data_t, zone.view.zone_pgdat)


def add_to(view: Any, field: str, more: int) -> None:
    setattr(view, field, getattr(view, field) + more)


# -- free lists ----------------------------------------------------------------------------------


def next_points_nowhere(kernel: Kernel, zone: Zone) -> None:
    write(kernel, links(kernel, zone)[1], 0)


def next_points_between_pages(kernel: Kernel, zone: Zone) -> None:
    write(kernel, links(kernel, zone)[0], links(kernel, zone)[1] + 4)


def next_points_to_another_zone(kernel: Kernel, zone: Zone) -> None:
    write(kernel, zone.free_list(fullest(zone)), kernel.allocator.memmap.page(1) + _link(kernel))


def next_skips_a_block(kernel: Kernel, zone: Zone) -> None:
    write(kernel, links(kernel, zone)[0], links(kernel, zone)[2])


def next_points_back(kernel: Kernel, zone: Zone) -> None:
    write(kernel, links(kernel, zone)[2], links(kernel, zone)[1])


def prev_points_elsewhere(kernel: Kernel, zone: Zone) -> None:
    write(kernel, links(kernel, zone)[1] + 4, links(kernel, zone)[1])


def prev_of_the_head_points_elsewhere(kernel: Kernel, zone: Zone) -> None:
    write(kernel, zone.free_list(fullest(zone)) + 4, links(kernel, zone)[0])


def add_more_blocks_than_frames(kernel: Kernel, zone: Zone) -> None:
    orders, start = kernel.image.constants.max_order, int(zone.view.zone_mem_map)
    pages = [start + i * kernel.allocator.memmap.page_bytes for i in range(64)]
    for order in range(orders):
        Lists(kernel.ram).init(zone.free_list(order))
    for page in pages:
        Lists(kernel.ram).add(page + _link(kernel), zone.free_list(orders - 1))


def add_a_misplaced_block(kernel: Kernel, zone: Zone) -> None:
    page = kernel.allocator.memmap.page(zone.start_pfn + 1)
    Lists(kernel.ram).add(page + _link(kernel), zone.free_list(4))


def add_a_block_over_the_end(kernel: Kernel, zone: Zone) -> None:
    largest = kernel.image.constants.max_order - 1
    add_to(zone.view, kernel.image.constants.fields.zone_size, -1)
    block = next(iter(zone.free_blocks(largest)))
    Lists(kernel.ram).delete(block + _link(kernel))
    page = kernel.allocator.memmap.page(zone.start_pfn + zone.size + 1 - (1 << largest))
    Lists(kernel.ram).add(page + _link(kernel), zone.free_list(largest))


def count_a_free_frame(kernel: Kernel, zone: Zone) -> None:
    page = max(blocks(zone)) + ((1 << fullest(zone)) - 1) * kernel.allocator.memmap.page_bytes
    kernel.allocator.memmap.set_count(page, 1)


def reserve_a_free_frame(kernel: Kernel, zone: Zone) -> None:
    kernel.allocator.memmap.set_bit(blocks(zone)[0], kernel.image.constants.page_flags.reserved)


def put_a_free_frame_on_the_lru(kernel: Kernel, zone: Zone) -> None:
    kernel.allocator.memmap.set_bit(blocks(zone)[-1], kernel.image.constants.page_flags.lru)


def one_free_page_too_many(kernel: Kernel, zone: Zone) -> None:
    zone.free_pages += 1


def one_free_page_too_few(kernel: Kernel, zone: Zone) -> None:
    zone.free_pages -= 1


# -- zones ---------------------------------------------------------------------------------------


def wrong_zone_of_a_frame(kernel: Kernel, zone: Zone) -> None:
    memmap = kernel.allocator.memmap
    page = memmap.page(zone.start_pfn + zone.size - 1)
    memmap.set_flags(page, memmap.flags(page) ^ 1 << memmap.zone_shift)


def wrong_node_of_a_frame(kernel: Kernel, zone: Zone) -> None:
    memmap, shape = kernel.allocator.memmap, walk_shape(kernel.image.structs.abi)
    page = memmap.page(zone.start_pfn + 7)
    memmap.set_flags(page, memmap.flags(page) ^ shape.zones_per_node << memmap.zone_shift)


def mem_map_moved(kernel: Kernel, zone: Zone) -> None:
    zone.view.zone_mem_map += kernel.allocator.memmap.page_bytes


def zone_start_moved(kernel: Kernel, zone: Zone) -> None:
    names = kernel.image.constants.fields
    add_to(zone.view, names.zone_start, 1 << names.zone_start_shift)


def size_beyond_memory(kernel: Kernel, zone: Zone) -> None:
    setattr(zone.view, kernel.image.constants.fields.zone_size, 0x7FFFFFFF)


def zone_table_elsewhere(kernel: Kernel, zone: Zone) -> None:
    kernel.statics.zone_table[zone.number] += 4


# -- zonelists -----------------------------------------------------------------------------------


def zonelist_elsewhere(kernel: Kernel, zone: Zone) -> None:
    node_of(kernel, zone).node_zonelists[-1].zones[0] += 4


def zonelist_without_end(kernel: Kernel, zone: Zone) -> None:
    zones = node_of(kernel, zone).node_zonelists[2].zones
    for place in range(len(zones)):
        zones[place] = zone.vaddr


def zonelist_that_is_empty(kernel: Kernel, zone: Zone) -> None:
    node_of(kernel, zone).node_zonelists[0].zones[0] = 0


def zonelist_with_a_zone_twice(kernel: Kernel, zone: Zone) -> None:
    zones = node_of(kernel, zone).node_zonelists[0].zones
    zones[1] = zones[0]


def zonelist_for_dma_with_other_memory(kernel: Kernel, zone: Zone) -> None:
    node_of(kernel, zone).node_zonelists[1].zones[0] = zone.vaddr


# -- nodes ---------------------------------------------------------------------------------------


def node_nowhere(kernel: Kernel, zone: Zone) -> None:
    node = kernel.image.at(kernel.image.structs.pg_data_t, kernel.statics.pgdat_list)
    setattr(node, kernel.image.constants.fields.node_next, 0xF0000000)


def nodes_in_a_ring(kernel: Kernel, zone: Zone) -> None:
    # The list of 2.4 begins with the last node, so the end of it is sought.
    node, names = node_of(kernel, zone), kernel.image.constants.fields
    while behind := int(getattr(node, names.node_next)):
        node = kernel.image.at(kernel.image.structs.pg_data_t, behind)
    setattr(node, names.node_next, kernel.statics.pgdat_list)


def node_starts_later(kernel: Kernel, zone: Zone) -> None:
    names = kernel.image.constants.fields
    add_to(node_of(kernel, zone), names.node_start, 1 << names.node_start_shift)


def node_has_one_frame_more(kernel: Kernel, zone: Zone) -> None:
    add_to(node_of(kernel, zone), kernel.image.constants.fields.node_size, 1)


def node_has_one_zone_more(kernel: Kernel, zone: Zone) -> None:
    node_of(kernel, zone).nr_zones += 1


PLANTED: list[tuple[Plant, WalkFault]] = [
    (next_points_nowhere, WalkFault.LIST_LEAVES_MEM_MAP),
    (next_points_between_pages, WalkFault.LIST_LEAVES_MEM_MAP),
    (next_points_to_another_zone, WalkFault.LIST_LEAVES_MEM_MAP),
    (next_skips_a_block, WalkFault.LIST_ASYMMETRIC),
    (next_points_back, WalkFault.LIST_ASYMMETRIC),
    (prev_points_elsewhere, WalkFault.LIST_ASYMMETRIC),
    (prev_of_the_head_points_elsewhere, WalkFault.LIST_ASYMMETRIC),
    (add_more_blocks_than_frames, WalkFault.LIST_TOO_LONG),
    (add_a_misplaced_block, WalkFault.BLOCK_MISPLACED),
    (add_a_block_over_the_end, WalkFault.BLOCK_MISPLACED),
    (count_a_free_frame, WalkFault.BLOCK_IN_USE),
    (reserve_a_free_frame, WalkFault.BLOCK_IN_USE),
    (put_a_free_frame_on_the_lru, WalkFault.BLOCK_IN_USE),
    (one_free_page_too_many, WalkFault.FREE_PAGES),
    (one_free_page_too_few, WalkFault.FREE_PAGES),
    (wrong_zone_of_a_frame, WalkFault.ZONE_BITS),
    (wrong_node_of_a_frame, WalkFault.ZONE_BITS),
    (mem_map_moved, WalkFault.MEM_MAP_POINTER),
    (zone_start_moved, WalkFault.MEM_MAP_POINTER),
    (size_beyond_memory, WalkFault.MEM_MAP_POINTER),
    (zone_table_elsewhere, WalkFault.ZONE_TABLE),
    (zonelist_elsewhere, WalkFault.ZONELIST),
    (zonelist_without_end, WalkFault.ZONELIST),
    (zonelist_that_is_empty, WalkFault.ZONELIST_ORDER),
    (zonelist_with_a_zone_twice, WalkFault.ZONELIST_ORDER),
    (zonelist_for_dma_with_other_memory, WalkFault.ZONELIST_ORDER),
    (node_nowhere, WalkFault.NODE_POINTER),
    (nodes_in_a_ring, WalkFault.NODE_POINTER),
    (node_starts_later, WalkFault.NODE_SPAN),
    (node_has_one_frame_more, WalkFault.NODE_SPAN),
    (node_has_one_zone_more, WalkFault.NODE_SPAN),
]


def names(planted: list[tuple[Plant, WalkFault]]) -> list[str]:
    """The plants, as pytest calls their tests."""
    return [plant.__name__ for plant, _ in planted]
