# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own walk through nodes, zones and ``mem_map``.

``walk_mm()`` of the ring-0 image (``guest/kernel/mm_walk.c``) counts, sums, and checks what must
hold in itself (:class:`~harness.mm_walk_layout.WalkFault`). How its report is held against the
model: :mod:`harness.monitors.walk_report`.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine import Machine
from harness.mm_walk_layout import MM_WALK, NOTHING, ZONELIST_PLACES, WalkFault
from harness.monitors.walk_report import Finding, GuestWalk, weighted_sum
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import ZONE_NAMES, Zone
from kernel_model.mm.page_flags import PG_RESERVED
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER, NR_ZONELISTS
from kernel_model.structs.statics import MAX_MODELLED_NODES

__all__ = ["Finding", "check", "model_walk", "run_walk"]


def check(machine: Machine) -> list[Finding]:
    """Let the guest walk and compare; the guest's complaints come first."""
    return _WALK.check(machine)


def run_walk(machine: Machine) -> Any:
    """Run ``walk_mm()``; returns a copy of its ``struct mm_walk``."""
    return _WALK.run(machine)


def _zone_place(number: int) -> str:
    if number == NOTHING:
        return "pgdat_list"
    return f"node {number // MAX_NR_ZONES}, zone {ZONE_NAMES[number % MAX_NR_ZONES]}"


def _complaint(_report: Any, entry: Any) -> Finding:
    fault = WalkFault(entry.kind)
    frame = "" if entry.pfn == NOTHING else f", frame {entry.pfn:#x}"
    what = f"{fault.name.lower().replace('_', ' ')}, order {entry.order}{frame}"
    return Finding(_zone_place(entry.zone), f"the guest finds: {what}", fault)


# -- the model's view ----------------------------------------------------------------------


def model_walk(kernel: Kernel) -> Any:
    """A ``struct mm_walk`` as the model would fill it."""
    result = MM_WALK.ctype()
    structs = kernel.image.structs
    result.statics_bytes = structs.kernel_statics.size
    for pgdat in _nodes(kernel):
        slot, node = result.nodes[result.nr_nodes], kernel.image.at(structs.pg_data_t, pgdat)
        result.nr_nodes += 1
        slot.id, slot.size = node.node_id, node.node_size
        slot.start_pfn = node.node_start_paddr >> PAGE_SHIFT
        for index in range(MAX_NR_ZONES):
            zone = Zone(kernel.image, pgdat + index * structs.zone_t.size)
            name = ZONE_NAMES[index].encode()
            slot.zones[index].name[: len(name)] = list(name)
            if zone.size:
                _describe_zone(kernel, zone, slot.zones[index])
                result.free_pages += zone.free_pages
        for number in range(NR_ZONELISTS):
            for place, chosen in enumerate(_zonelist(kernel, node, number)):
                slot.zonelists[number * ZONELIST_PLACES + place] = chosen
    return result


def _nodes(kernel: Kernel) -> Iterator[int]:
    """The nodes on ``pgdat_list``; no more than there can be, up to where it leaves RAM."""
    pgdat, kind = int(kernel.statics.pgdat_list), kernel.image.structs.pg_data_t
    for _ in range(MAX_MODELLED_NODES):
        if not pgdat or not kernel.ram.contains(virt_to_phys(pgdat), kind.size):
            return
        yield pgdat
        pgdat = int(kernel.image.at(kind, pgdat).node_next)


def _zonelist(kernel: Kernel, node: Any, number: int) -> list[int]:
    """The numbers of the zones on a zonelist, filled up to its full length."""
    table = list(kernel.statics.zone_table)
    zones = [int(vaddr) for vaddr in node.node_zonelists[number].zones]
    used = zones[: zones.index(0)] if 0 in zones else zones
    numbers = [table.index(vaddr) if vaddr in table else NOTHING for vaddr in used]
    return numbers + [NOTHING] * (ZONELIST_PLACES - len(numbers))


def _describe_zone(kernel: Kernel, zone: Zone, result: Any) -> None:
    memmap = kernel.allocator.memmap
    result.size, result.start_pfn = zone.size, zone.start_pfn
    result.free_pages = zone.free_pages
    rows = memmap.rows(memmap.page(zone.start_pfn), zone.size)
    flags, counts = rows[:, memmap.flags_word], rows[:, memmap.count_word]
    result.flags_sum, result.count_sum = weighted_sum(flags), weighted_sum(counts)
    result.reserved = np.count_nonzero(flags >> PG_RESERVED & 1)
    result.in_use = np.count_nonzero(counts)
    for order in range(MAX_ORDER):
        pfns, slot = _listed(kernel, zone, order), result.orders[order]
        slot.blocks, slot.list_sum = len(pfns), weighted_sum(pfns)
        slot.first_pfn = pfns[0] if pfns else NOTHING
        result.listed_pages += len(pfns) << order
        if order < MAX_ORDER - 1:
            slot.map_sum = weighted_sum(_bitmap(zone, order))


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


_WALK: Final = GuestWalk("walk_mm", MM_WALK, _complaint, model_walk)
