# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``zones``: nodes, zones, zonelists and ``mem_map`` after boot; and zones as JSON.

The functions that describe zones serve the other topics that end in a state of zones.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from harness.replay.setup import compare_boot_log
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER, NR_ZONELISTS

_NOTHING = {"present": 0}


def replay(trace: Trace, comparison: Comparison) -> None:
    kernel = Kernel(trace.kernel_config())
    kernel.start_kernel(until="mem_init")
    observed = observe(kernel)
    known = {"topic", "config", "abi", "mem_mb", "highmem", "pse", "pge", "register_memory_called"}
    for name, value in trace.data.items():
        if name == "boot_log":
            compare_boot_log(value, kernel, comparison)
        elif name not in known:
            comparison.equal(name, value, observed[name])


def zones_of(kernel: Kernel, pgdat: int) -> list[Zone]:
    """The three zones of a node, empty ones included."""
    size = kernel.image.structs.zone_t.size
    return [Zone(kernel.image, pgdat + index * size) for index in range(MAX_NR_ZONES)]


def free_lists(kernel: Kernel, zone: Zone) -> list[list[int]]:
    """The first frame of each free block, by order, head of the list first."""
    if not zone.size:
        return []
    pfn = kernel.allocator.memmap.pfn
    return [[pfn(page) for page in zone.free_blocks(order)] for order in range(MAX_ORDER)]


def bitmap_bytes(zone: Zone, order: int) -> int:
    """Bytes of boot memory that the pair bits of ``order`` take."""
    return ((zone.size - 1 >> (order + 4)) + 1 + 3) & ~3


def zone_state(kernel: Kernel, zone: Zone, *, bitmaps: bool) -> dict[str, Any]:
    """A zone as traces have it."""
    state: dict[str, Any] = {
        "name": zone.name,
        "size": zone.size,
        "free_pages": zone.free_pages,
        "need_balance": int(zone.view.need_balance),
        "free_lists": free_lists(kernel, zone),
    }
    if bitmaps:
        state["bitmaps_hex"] = list(_bitmaps(kernel, zone)) if zone.size else []
    return state


def _bitmaps(kernel: Kernel, zone: Zone) -> Iterable[str | None]:
    for order in range(MAX_ORDER - 1):
        paddr = virt_to_phys(int(zone.view.free_area[order].map))
        yield kernel.ram.read(paddr, bitmap_bytes(zone, order)).hex()
    yield None


def _zone_facts(kernel: Kernel, index: int, zone: Zone) -> dict[str, Any]:
    facts: dict[str, Any] = {"index": index, "name": zone.name, "size": zone.size}
    if not zone.size:
        return facts | _NOTHING
    view, structs = zone.view, kernel.image.structs
    maps = [int(area.map) for area in view.free_area]
    fields = ("zone_start_mapnr", "zone_start_paddr", "pages_min", "pages_low", "pages_high")
    facts |= {name: int(getattr(view, name)) for name in fields}
    return facts | {
        "present": 1,
        "zone_mem_map_index": kernel.allocator.memmap.pfn(int(view.zone_mem_map)),
        "need_balance": int(view.need_balance),
        "free_pages": zone.free_pages,
        "wait_table_size": int(view.wait_table_size),
        "wait_table_shift": int(view.wait_table_shift),
        "wait_table_bits": 32 - int(view.wait_table_shift),
        "wait_table_bytes": int(view.wait_table_size) * structs.wait_queue_head_t.size,
        "wait_table_phys": virt_to_phys(int(view.wait_table)),
        "free_area_map_phys": [virt_to_phys(vaddr) if vaddr else None for vaddr in maps],
        "free_area_map_bytes": [bitmap_bytes(zone, order) for order in range(MAX_ORDER - 1)],
        "free_blocks_per_order": zone.free_counts(),
    }


def zonelists(kernel: Kernel, pgdat: int) -> list[list[str]]:
    """For each zone modifier, the names of the zones to try."""
    node = kernel.image.at(kernel.image.structs.pg_data_t, pgdat)
    return [
        [Zone(kernel.image, int(vaddr)).name for vaddr in node.node_zonelists[i].zones if vaddr]
        for i in range(NR_ZONELISTS)
    ]


def page_runs(kernel: Kernel, frames: int) -> list[list[int]]:
    """``mem_map`` as runs of equal entries: [first PFN, frames, flags, count]."""
    memmap = kernel.allocator.memmap
    rows = memmap.rows(memmap.page(0), frames)[:, [memmap.flags_word, memmap.count_word]]
    starts = np.flatnonzero(np.any(rows[1:] != rows[:-1], axis=1)) + 1
    edges = [0, *starts.tolist(), frames]
    return [
        [first, last - first, *map(int, rows[first])] for first, last in itertools.pairwise(edges)
    ]


def observe(kernel: Kernel) -> dict[str, Any]:
    """All that a ``zones`` trace may ask."""
    statics, structs = kernel.statics, kernel.image.structs
    pgdat = kernel.image.symbol("contig_page_data")
    node = statics.contig_page_data
    names = (
        *("min_low_pfn", "max_low_pfn", "max_pfn", "num_physpages", "max_mapnr"),
        *("num_mappedpages", "totalram_pages", "totalhigh_pages"),
    )
    kinds = ("page", "zone_t", "pg_data_t", "wait_queue_head_t", "free_area_t", "bootmem_data_t")
    mem_map_calls = [c for c in kernel.bootmem.calls if c.function == "__alloc_bootmem_node"]
    facts = {name: int(getattr(statics, name)) for name in names}
    return facts | {
        "sizeof": {getattr(structs, kind).spelling: getattr(structs, kind).size for kind in kinds}
        | {"spinlock_t": structs.spinlock_t.size},
        "MAX_ORDER": MAX_ORDER,
        "SMP_CACHE_BYTES": kernel.config.l1_cache_bytes,
        "nr_free_pages": kernel.allocator.nr_free_pages(),
        "nr_free_buffer_pages": kernel.allocator.nr_free_buffer_pages(),
        "mem_map_phys": virt_to_phys(int(statics.mem_map)),
        "mem_map_bytes_requested": mem_map_calls[0].arguments[0],
        "zones": [_zone_facts(kernel, i, z) for i, z in enumerate(zones_of(kernel, pgdat))],
        "zonelists": zonelists(kernel, pgdat),
        "node": {
            **{name: int(getattr(node, name)) for name in ("nr_zones", "node_id", "node_size")},
            "node_start_paddr": int(node.node_start_paddr),
            "node_start_mapnr": int(node.node_start_mapnr),
            "node_mem_map_phys": virt_to_phys(int(node.node_mem_map)),
        },
        "page_runs": page_runs(kernel, int(statics.max_mapnr)),
    }
