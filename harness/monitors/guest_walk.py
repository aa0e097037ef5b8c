# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own walk through nodes, zones and ``mem_map``.

``walk_mm()`` of the ring-0 image (``guest/kernel/mm_walk.c``) counts, sums, and checks what must
hold in itself (:class:`~harness.mm_walk_layout.WalkFault`). How its report is held against the
model: :mod:`harness.monitors.walk_report`.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.machine import Machine
from harness.mm_walk_layout import NOTHING, WalkFault, WalkShape, walk_shape, walk_structs
from harness.monitors.walk_report import Finding, GuestWalk, weighted_sum
from harness.monitors.zonelists import NodeZones, zonelist
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.mmzone import Zone26
from kernel_model.mm.mmzone import ZONE_NAMES, Zone
from kernel_model.structs.mmzone import MAX_NR_ZONES
from kernel_model.structs.statics import MAX_MODELLED_NODES

__all__ = ["Finding", "check", "model_walk", "run_walk"]


def check(machine: Machine) -> list[Finding]:
    """Let the guest walk and compare; the guest's complaints come first."""
    return _walk(machine).check(machine)


def run_walk(machine: Machine) -> Any:
    """Run ``walk_mm()``; returns a copy of its ``struct mm_walk``."""
    return _walk(machine).run(machine)


def _zone_place(number: int, zones_per_node: int) -> str:
    if number == NOTHING:
        return "pgdat_list"
    node, zone = divmod(number, zones_per_node)
    return f"node {node}, zone {ZONE_NAMES[zone] if zone < MAX_NR_ZONES else number}"


def _complaint(zones_per_node: int, _report: Any, entry: Any) -> Finding:
    fault = WalkFault(entry.kind)
    frame = "" if entry.pfn == NOTHING else f", frame {entry.pfn:#x}"
    what = f"{fault.name.lower().replace('_', ' ')}, order {entry.order}{frame}"
    return Finding(_zone_place(entry.zone, zones_per_node), f"the guest finds: {what}", fault)


# -- the model's view ----------------------------------------------------------------------


def model_walk(kernel: Kernel) -> Any:
    """A ``struct mm_walk`` as the model would fill it."""
    shape = _shape(kernel)
    result = walk_structs(shape)[-1].ctype()
    structs, names = kernel.image.structs, kernel.image.constants.fields
    result.statics_bytes = structs.kernel_statics.size
    every = [_zones_of_node(kernel, pgdat) for pgdat in _nodes(kernel)]
    for pgdat, here in zip(_nodes(kernel), every, strict=True):
        slot, node = result.nodes[result.nr_nodes], kernel.image.at(structs.pg_data_t, pgdat)
        result.nr_nodes += 1
        slot.id, slot.size = node.node_id, getattr(node, names.node_size)
        slot.start_pfn = getattr(node, names.node_start) >> names.node_start_shift
        for index in range(MAX_NR_ZONES):
            zone = Zone(kernel.image, pgdat + index * structs.zone_t.size)
            name = ZONE_NAMES[index].encode()
            slot.zones[index].name[: len(name)] = list(name)
            if zone.size:
                _describe_zone(kernel, zone, slot.zones[index])
                result.free_pages += zone.free_pages
        for number in range(shape.zonelists):
            listed = zonelist(every if shape.lists_all_nodes else [here], here, number)
            numbers = [nid * shape.zones_per_node + index for nid, index in listed]
            numbers += [NOTHING] * (shape.zonelist_places - len(numbers))
            first = number * shape.zonelist_places
            slot.zonelists[first : first + shape.zonelist_places] = numbers
    return result


def _shape(kernel: Kernel) -> WalkShape:
    return walk_shape(kernel.image.structs.abi)


def _zones_of_node(kernel: Kernel, pgdat: int) -> NodeZones:
    """The zones of a node that have frames."""
    structs, names = kernel.image.structs, kernel.image.constants.fields
    node = kernel.image.at(structs.pg_data_t, pgdat)
    present = [getattr(zone, names.zone_present) for zone in node.node_zones]
    return NodeZones(node.node_id, [index for index, frames in enumerate(present) if frames])


def _nodes(kernel: Kernel) -> Iterator[int]:
    """The nodes on ``pgdat_list``; no more than there can be, up to where it leaves RAM."""
    pgdat, kind = int(kernel.statics.pgdat_list), kernel.image.structs.pg_data_t
    for _ in range(MAX_MODELLED_NODES):
        if not pgdat or not kernel.ram.contains(virt_to_phys(pgdat), kind.size):
            return
        yield pgdat
        node = kernel.image.at(kind, pgdat)
        pgdat = int(getattr(node, kernel.image.constants.fields.node_next))


def _describe_zone(kernel: Kernel, zone: Zone, result: Any) -> None:
    memmap = kernel.allocator.memmap
    result.size, result.start_pfn = zone.size, zone.start_pfn
    result.free_pages = zone.free_pages
    rows = memmap.rows(memmap.page(zone.start_pfn), zone.size)
    flags, counts = rows[:, memmap.flags_word], rows[:, memmap.count_word]
    unused = kernel.image.constants.unused_count
    counts = counts - np.uint32(unused)
    result.flags_sum, result.count_sum = weighted_sum(flags), weighted_sum(counts)
    result.reserved = np.count_nonzero(flags >> kernel.image.constants.page_flags.reserved & 1)
    result.in_use = np.count_nonzero(counts)
    orders = kernel.image.constants.max_order
    for order in range(orders):
        pfns, slot = _listed(kernel, zone, order), result.orders[order]
        slot.blocks, slot.list_sum = len(pfns), weighted_sum(pfns)
        slot.first_pfn = pfns[0] if pfns else NOTHING
        result.listed_pages += len(pfns) << order
        if not kernel.image.constants.has_bitmaps:
            slot.map_sum = zone.view.free_area[order].nr_free
        elif order < orders - 1:
            slot.map_sum = weighted_sum(_bitmap(zone, order))
    if _shape(kernel).cpu_lists:
        _describe_cpu_lists(kernel, zone, result)


def _describe_cpu_lists(kernel: Kernel, zone: Zone, result: Any) -> None:
    """The lists of single free frames that CPUs keep; up to where a broken one leaves RAM."""
    pagesets = Zone26(kernel.image, zone.vaddr).pagesets
    lists = [pcp for hot_and_cold in pagesets for pcp in hot_and_cold]
    for pcp, slot in zip(lists, result.cpu_lists, strict=False):
        slot.count = pcp.count
        try:
            pages = list(islice(pcp.pages(), pcp.count))
        except (IndexError, ValueError):
            continue
        slot.list_sum = weighted_sum([kernel.allocator.memmap.pfn(page) for page in pages])


def _listed(kernel: Kernel, zone: Zone, order: int) -> list[int]:
    """First frames of the free blocks, head first; up to where a broken list leaves RAM."""
    pfns: list[int] = []
    try:
        for page in islice(zone.free_blocks(order), zone.size >> order):
            pfns.append(kernel.allocator.memmap.pfn(page) & 0xFFFFFFFF)
    except (IndexError, ValueError):
        pass
    return pfns


def _bitmap(zone: Zone, order: int) -> npt.NDArray[np.uint32]:
    """The pair bits as words; the last one filled up with zeros."""
    pairs = -(-zone.size // (2 << order))
    words = -(-pairs // 32)
    return np.frombuffer(zone.bitmap(order).read(0, pairs).to_bytes(words * 4, "little"), "<u4")


def _walk(machine: Machine) -> GuestWalk:
    """The walk through a kernel of the machine's build."""
    shape = _shape(machine.kernel)
    complaint = partial(_complaint, shape.zones_per_node)
    return GuestWalk("walk_mm", walk_structs(shape)[-1], complaint, model_walk)
