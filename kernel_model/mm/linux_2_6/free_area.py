# SPDX-License-Identifier: GPL-2.0-or-later
"""Building ``mem_map``, the zones and the zonelists of 2.6.

Models linux-2.6.11 ``mm/page_alloc.c``: ``free_area_init_node()``, ``free_area_init_core()``,
``build_all_zonelists()`` (book 2.8, 6.7). In RAM: a zone tells frames that it spans from those that
are present; each CPU has a list of hot and one of cold frames in it, whose limits follow from the
size of the zone. Free areas need no memory of their own. A zone without frames has limits, too.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.free_area import wait_table_size
from kernel_model.mm.linux_2_6.buddy import NOBODY
from kernel_model.mm.linux_2_6.mmzone import ZONES_SHIFT, MemMap26, Zone26, nodes
from kernel_model.mm.mmzone import ZONE_HIGHMEM, ZONE_NAMES
from kernel_model.ram import PAGE_SIZE
from kernel_model.structs.linux_2_6.mmzone import GFP_ZONETYPES

DEF_PRIORITY: Final = 12
MIN_WAITQUEUES: Final = 4
MAX_BATCH_BYTES: Final = 256 << 10
"""A CPU's lists shall not hold more than its cache does."""


def pcp_batch(present: int) -> int:
    """How many frames move at once between a CPU's list and a zone of ``present`` frames."""
    return max(min(present // 1024, MAX_BATCH_BYTES // PAGE_SIZE) // 4, 1)


def _init_zone(image: KernelImage, zone: Zone26, index: int, present: int) -> int:
    """What every zone gets, one without frames too. Returns the batch of its lists."""
    lists, view, kind = Lists(image.ram), zone.view, image.structs.zone_t
    view.name = image.symbol("zone_names") + index * 8
    view.free_pages = view.nr_scan_active = view.nr_scan_inactive = 0
    view.nr_active = view.nr_inactive = 0
    view.temp_priority = view.prev_priority = DEF_PRIORITY
    batch = pcp_batch(present)
    for hot, cold in zone.pagesets:
        hot.set_limits(low=2 * batch, high=6 * batch, batch=batch)
        cold.set_limits(low=0, high=2 * batch, batch=batch)
        for pcp in (hot, cold):
            pcp.count = 0
            lists.init(pcp.list)
    for name in ("active_list", "inactive_list"):
        lists.init(zone.vaddr + kind.offset(name))
    return batch


def _init_wait_table(image: KernelImage, bootmem: Bootmem, pgdat: int, zone: Zone26) -> None:
    view, kind = zone.view, image.structs.wait_queue_head_t
    queues = max(wait_table_size(zone.size), MIN_WAITQUEUES)
    view.wait_table_size = queues
    view.wait_table_bits = queues.bit_length() - 1
    view.wait_table = table = bootmem.alloc_bootmem_node(pgdat, queues * kind.size)
    lists = Lists(image.ram)
    for queue in range(queues):
        lists.init(table + queue * kind.size + kind.offset("task_list"))


def memmap_init_zone(memmap: MemMap26, zone: Zone26, number: int, reserved: int) -> None:
    """Every frame of the zone: reserved, nobody's, mapped by nobody, its list empty."""
    first = int(zone.view.zone_mem_map)
    rows = memmap.rows(first, zone.size)
    links = first + memmap.list_word * 4 + np.arange(zone.size, dtype=np.int64) * memmap.page_bytes
    rows[:, memmap.list_word] = links
    rows[:, memmap.list_word + 1] = links
    rows[:, memmap.count_word] = NOBODY
    rows[:, memmap.mapped_word] = memmap.unmapped
    rows[:, memmap.flags_word] = reserved | number << memmap.zone_shift


def free_area_init_node(
    image: KernelImage,
    bootmem: Bootmem,
    memmap: MemMap26,
    nid: int,
    pgdat: int,
    zones_size: Sequence[int],
    start_pfn: int = 0,
    zholes_size: Sequence[int] = (0, 0, 0),
) -> None:
    """Make the zones of node ``nid`` from their sizes in frames, and its ``mem_map``."""
    node: Any = image.at(image.structs.pg_data_t, pgdat)
    spanned = sum(zones_size)
    node.node_id, node.node_start_pfn = nid, start_pfn
    node.node_spanned_pages = spanned
    node.node_present_pages = spanned - sum(zholes_size)
    image.printk(f"<7>On node {nid} totalpages: {node.node_present_pages}\n")
    node.node_mem_map = bootmem.alloc_bootmem_node(pgdat, (spanned + 1) * image.structs.page.size)
    if not image.statics.mem_map:
        image.statics.mem_map = node.node_mem_map
    _free_area_init_core(image, bootmem, memmap, pgdat, zones_size, zholes_size)


def _free_area_init_core(
    image: KernelImage,
    bootmem: Bootmem,
    memmap: MemMap26,
    pgdat: int,
    zones_size: Sequence[int],
    zholes_size: Sequence[int],
) -> None:
    node: Any = image.at(image.structs.pg_data_t, pgdat)
    statics, lists = image.statics, Lists(image.ram)
    wait = image.structs.pg_data_t.offset("kswapd_wait")
    lists.init(pgdat + wait + image.structs.wait_queue_head_t.offset("task_list"))
    node.nr_zones = node.kswapd_max_order = 0
    pfn = int(node.node_start_pfn)
    for index, (size, holes) in enumerate(zip(zones_size, zholes_size, strict=True)):
        number = int(node.node_id) << ZONES_SHIFT | index
        vaddr = pgdat + index * image.structs.zone_t.size
        statics.zone_table[number] = vaddr
        zone = Zone26(image, vaddr)
        present = size - holes
        if index != ZONE_HIGHMEM:
            statics.nr_kernel_pages += present
        statics.nr_all_pages += present
        zone.view.spanned_pages, zone.view.present_pages = size, present
        zone.view.zone_pgdat = pgdat
        batch = _init_zone(image, zone, index, present)
        name = ZONE_NAMES[index]
        image.printk(f"<7>  {name} zone: {present} pages, LIFO batch:{batch}\n")
        if not size:
            continue
        _init_wait_table(image, bootmem, pgdat, zone)
        node.nr_zones = index + 1
        frames = pfn - int(node.node_start_pfn)
        zone.view.zone_mem_map = int(node.node_mem_map) + frames * memmap.page_bytes
        zone.view.zone_start_pfn = pfn
        if pfn & (1 << image.constants.max_order - 1) - 1:
            image.printk("<2>BUG: wrong zone alignment, it will crash\n")
        memmap_init_zone(memmap, zone, number, 1 << image.constants.page_flags.reserved)
        for order in range(image.constants.max_order):
            lists.init(zone.free_list(order))
            zone.view.free_area[order].nr_free = 0
        pfn += size


def build_all_zonelists(image: KernelImage) -> None:
    """For each zone type, the zones to try: a node's own, from the best downwards, then those of
    the nodes after it, in a ring."""
    ring = sorted(nodes(image), key=lambda node: int(node.node_id))
    for position, node in enumerate(ring):
        for modifier in range(GFP_ZONETYPES):
            if modifier & image.constants.gfp.dma:
                best = 0
            else:
                best = 2 if modifier & image.constants.gfp.highmem else 1
            usable = [
                int(image.statics.zone_table[int(other.node_id) << ZONES_SHIFT | index])
                for other in ring[position:] + ring[:position]
                for index in range(best, -1, -1)
                if other.node_zones[index].present_pages
            ]
            zones = node.node_zonelists[modifier].zones
            for slot in range(len(zones)):
                zones[slot] = usable[slot] if slot < len(usable) else 0
    image.printk(f"Built {len(ring)} zonelists\n")
