# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``zones`` of 2.6: zones with their per-CPU lists after boot, and what two sysctls change.

The functions that describe zones serve the other topics that end in a state of zones.
"""

import itertools
from typing import Any, cast

import numpy as np

from harness.replay.setup import describe_call
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.fixmap import VMALLOC_OFFSET, fixed_addresses, last_pkmap
from kernel_model.arch_i386.page import MAXMEM, PAGE_OFFSET, virt_to_phys
from kernel_model.arch_i386.pgtable import PAGE_PSE
from kernel_model.config import Highmem
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.mm.bootmem import MAX_DMA_ADDRESS
from kernel_model.mm.linux_2_6.mmzone import MemMap26, PerCpuPages, Zone26, for_each_zone
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.system_hash import SYSTEM_HASHES, alloc_large_system_hash
from kernel_model.mm.linux_2_6.watermarks import set_lowmem_reserve_ratio, set_min_free_kbytes
from kernel_model.structs.linux_2_6.mmzone import GFP_ZONETYPES

_FIELDS = {
    "page": ("flags", "_count", "_mapcount", "private", "mapping", "index", "lru"),
    "zone_t": (
        *("free_pages", "pages_min", "pages_low", "pages_high", "lowmem_reserve", "pageset"),
        *("lock", "free_area", "lru_lock", "active_list", "wait_table", "zone_pgdat"),
        *("zone_mem_map", "zone_start_pfn", "spanned_pages", "name"),
    ),
    "vm_struct": ("addr", "size", "flags", "pages", "nr_pages", "phys_addr", "next"),
}
_STRUCTS = {
    "struct page": "page",
    "struct zone": "zone_t",
    "struct pglist_data": "pg_data_t",
    "wait_queue_head_t": "wait_queue_head_t",
    "struct free_area": "free_area_t",
    "bootmem_data_t": "bootmem_data_t",
    "spinlock_t": "spinlock_t",
    "struct per_cpu_pages": "per_cpu_pages",
    "struct per_cpu_pageset": "per_cpu_pageset",
    "struct zonelist": "zonelist_t",
    "struct page_state": "page_state",
    "struct vm_struct": "vm_struct",
}


def allocator_of(kernel: Kernel) -> PageAllocator26:
    """The page allocator of a 2.6 kernel."""
    return cast(PageAllocator26, kernel.allocator)


def boot_to_initcalls(trace: Trace) -> Kernel:
    """A kernel as the recorded runs had it: without slab, and with its watermarks set."""
    kernel = Kernel(trace.kernel_config())
    kernel.start_kernel(until="mem_init")
    kernel.release.do_initcalls(kernel)
    return kernel


# -- zones as JSON -----------------------------------------------------------------------------


def zone_state(kernel: Kernel, zone: Zone26, online_cpus: int) -> dict[str, Any]:
    """What changes while a kernel runs: free blocks, and what CPUs hold; an empty zone has none."""
    pfn = allocator_of(kernel).memmap.pfn

    def pfns(pcp: PerCpuPages) -> list[int]:
        return [pfn(page) for page in pcp.pages()]

    orders = range(kernel.image.constants.max_order if zone.size else 0)
    sets = zone.pagesets[:online_cpus] if zone.size else []
    return {
        "name": zone.name,
        "size": zone.size,
        "free_pages": zone.free_pages,
        "all_unreclaimable": int(zone.view.all_unreclaimable),
        "pages_scanned": int(zone.view.pages_scanned),
        "free_lists": [[pfn(page) for page in zone.free_blocks(order)] for order in orders],
        "pcp": [{"hot": pfns(hot), "cold": pfns(cold)} for hot, cold in sets],
    }


def inconsistencies(kernel: Kernel) -> int:
    """Counts and marks that do not fit the lists they belong to."""
    memmap, found = allocator_of(kernel).memmap, 0
    private = kernel.image.constants.page_flags.mask("private")
    for zone in for_each_zone(kernel.image):
        if not zone.size:
            continue
        blocks = [list(zone.free_blocks(o)) for o in range(kernel.image.constants.max_order)]
        for order, pages in enumerate(blocks):
            found += len(pages) != zone.nr_free(order)
            marked = (memmap.flags(p) & private and memmap.private(p) == order for p in pages)
            found += sum(not fits for fits in marked)
        found += sum(len(pages) << order for order, pages in enumerate(blocks)) != zone.free_pages
        for pcp in itertools.chain.from_iterable(zone.pagesets):
            found += sum(1 for _ in pcp.pages()) != pcp.count
    return found


def state(kernel: Kernel, online_cpus: int) -> dict[str, Any]:
    """The state of all zones."""
    return {
        "cpu": int(kernel.image.current_task.processor),
        "kswapd_max_order": int(kernel.statics.contig_page_data.kswapd_max_order),
        "zones": [zone_state(kernel, zone, online_cpus) for zone in for_each_zone(kernel.image)],
        "nr_free_pages": kernel.allocator.nr_free_pages(),
        "inconsistencies": inconsistencies(kernel),
    }


def _limits(pcp: PerCpuPages) -> dict[str, int]:
    return {"low": pcp.low, "high": pcp.high, "batch": pcp.batch, "count_cpu0": pcp.count}


def _zone_facts(kernel: Kernel, zone: Zone26) -> dict[str, Any]:
    view, memmap = zone.view, allocator_of(kernel).memmap
    names = (
        *("spanned_pages", "present_pages", "pages_min", "pages_low", "pages_high"),
        *("free_pages", "temp_priority", "prev_priority"),
    )
    hot, cold = zone.pagesets[0]
    facts: dict[str, Any] = {"index": zone.index, "name": zone.name, "size": zone.size}
    facts |= {name: int(getattr(view, name)) for name in names}
    facts |= {"lowmem_reserve": [int(pages) for pages in view.lowmem_reserve]}
    facts |= {"pcp_hot": _limits(hot), "pcp_cold": _limits(cold)}
    if not zone.size:
        return facts
    queue = kernel.image.structs.wait_queue_head_t.size
    return facts | {
        "zone_start_pfn": zone.start_pfn,
        "zone_mem_map_index": memmap.pfn(int(view.zone_mem_map)),
        "wait_table_size": int(view.wait_table_size),
        "wait_table_bits": int(view.wait_table_bits),
        "wait_table_bytes": int(view.wait_table_size) * queue,
        "wait_table_phys": virt_to_phys(int(view.wait_table)),
        "nr_free_per_order": zone.free_counts(),
    }


def page_runs(kernel: Kernel) -> list[list[int]]:
    """``mem_map`` as runs of equal entries: [first PFN, frames, flags, page_count()]."""
    memmap: MemMap26 = allocator_of(kernel).memmap
    frames = int(kernel.statics.max_mapnr)
    rows = memmap.rows(memmap.page(0), frames)[:, [memmap.flags_word, memmap.count_word]].copy()
    rows[:, 1] += np.uint32(1)
    starts = np.flatnonzero(np.any(rows[1:] != rows[:-1], axis=1)) + 1
    edges = [0, *starts.tolist(), frames]
    return [
        [first, last - first, *map(int, rows[first])] for first, last in itertools.pairwise(edges)
    ]


# -- the topic -----------------------------------------------------------------------------------


def _constants(kernel: Kernel) -> dict[str, int]:
    config, constants = kernel.config, kernel.image.constants
    gfp, fixed = constants.gfp, fixed_addresses(config)
    start, end = kernel.vmalloc_range
    bits = ("cold", "nowarn", "repeat", "nofail", "noretry", "no_grow", "comp", "zero")
    found = {
        "MAX_ORDER": constants.max_order,
        "SMP_CACHE_BYTES": config.l1_cache_bytes,
        "GFP_ZONETYPES": GFP_ZONETYPES,
        **{f"GFP_{name.upper()}": getattr(gfp, name) for name in ("atomic", "noio", "nofs")},
        **{f"GFP_{name.upper()}": getattr(gfp, name) for name in ("kernel", "user", "highuser")},
        **{f"__GFP_{name.upper()}": getattr(gfp, name) for name in bits},
        "PAGE_OFFSET": PAGE_OFFSET,
        "MAXMEM": MAXMEM,
        "VMALLOC_OFFSET": VMALLOC_OFFSET,
        "VMALLOC_START": start,
        "VMALLOC_END": end,
        "FIXADDR_TOP": fixed.plan.top,
        "FIXADDR_START": fixed.start,
        "end_of_permanent_fixed_addresses": fixed.end_of_permanent,
        "end_of_fixed_addresses": fixed.end,
        "MAX_DMA_ADDRESS": MAX_DMA_ADDRESS,
        **{f"PG_{n}": getattr(constants.page_flags, n) for n in ("reserved", "private", "highmem")},
    }
    if config.highmem is Highmem.NONE:
        return found
    slots = fixed.plan.km_type_nr * config.nr_cpus
    return found | {
        "PKMAP_BASE": fixed.pkmap_base,
        "LAST_PKMAP": last_pkmap(config.pae),
        "FIX_KMAP_BEGIN": fixed.slots["FIX_KMAP_BEGIN"],
        "FIX_KMAP_END": fixed.slots["FIX_KMAP_BEGIN"] + slots - 1,
        "KM_TYPE_NR": fixed.plan.km_type_nr,
    }


def _sizes(kernel: Kernel) -> dict[str, int]:
    structs = kernel.image.structs
    sizes = {said: getattr(structs, kind).size for said, kind in _STRUCTS.items()}
    names = {kind: said for said, kind in _STRUCTS.items()}
    offsets = {
        f"{names[kind]}.{field}": getattr(structs, kind).offset(field)
        for kind, fields in _FIELDS.items()
        for field in fields
    }
    return sizes | offsets


def _sysctls(kernel: Kernel, recorded: dict[str, Any]) -> dict[str, Any]:
    """What the zones look like after each of the recorded writes."""
    marks, reserves = [], []
    zones = list(for_each_zone(kernel.image))
    for kbytes, *_ in recorded["min_free_kbytes_sysctl"]:
        set_min_free_kbytes(kernel.image, kbytes)
        names = ("pages_min", "pages_low", "pages_high")
        marks.append([kbytes, *([int(getattr(z.view, n)) for n in names] for z in zones)])
    for first, second, *_ in recorded["lowmem_reserve_ratio_sysctl"]:
        set_lowmem_reserve_ratio(kernel.image, (first, second))
        reserves.append([first, second, *([int(r) for r in z.view.lowmem_reserve] for z in zones)])
    return {"min_free_kbytes_sysctl": marks, "lowmem_reserve_ratio_sysctl": reserves}


def _system_hashes(trace: Trace) -> list[list[Any]]:
    """The large hash tables that boot memory is asked for behind the zones."""
    kernel = Kernel(trace.kernel_config())
    kernel.start_kernel(until="finish_zones")
    found = []
    for hashed in SYSTEM_HASHES:
        table = alloc_large_system_hash(kernel.image, kernel.bootmem, hashed)
        found.append([hashed.name, table.shift, table.mask, virt_to_phys(table.vaddr)])
    return found


def directory(kernel: Kernel) -> list[list[int]]:
    """``swapper_pg_dir`` as traces have it: of the large pages of the direct map its first two and
    the one that ends where low memory may end; those between must go on as they began."""
    entries = [int(entry) for entry in kernel.ram.table(SWAPPER_PG_DIR)]
    first, last = PAGE_OFFSET >> 22, (PAGE_OFFSET + MAXMEM >> 22) - 1
    between = range(first + 2, last)

    def goes_on(index: int) -> bool:
        step = (index - first - 1) << 22
        return bool(entries[index] & PAGE_PSE) and entries[index] == entries[first + 1] + step

    return [
        [index, entry]
        for index, entry in enumerate(entries)
        if entry and not (index in between and goes_on(index))
    ]


def observe(kernel: Kernel, online_cpus: int) -> dict[str, Any]:
    """All that a ``zones`` trace may ask of a kernel that has just booted."""
    statics, allocator = kernel.statics, allocator_of(kernel)
    node = statics.contig_page_data
    names = (
        *("nr_kernel_pages", "nr_all_pages", "min_low_pfn", "max_low_pfn", "max_pfn"),
        *("num_physpages", "max_mapnr", "totalram_pages", "totalhigh_pages", "min_free_kbytes"),
        "high_memory",
    )
    mem_map_calls = [c for c in kernel.bootmem.calls if c.function == "__alloc_bootmem_node"]
    zonelists = [
        [allocator.zone(int(vaddr)).name for vaddr in zonelist.zones if vaddr]
        for zonelist in node.node_zonelists
    ]
    node_names = (
        *("nr_zones", "node_id", "node_spanned_pages", "node_present_pages", "node_start_pfn"),
    )
    pgalloc = [allocator.page_state.of_cpu(0, f"pgalloc_{z}") for z in ("dma", "normal", "high")]
    return {name: int(getattr(statics, name)) for name in names} | {
        "sizeof": _sizes(kernel),
        "constants": _constants(kernel),
        "nr_free_pages": allocator.nr_free_pages(),
        "nr_free_buffer_pages": allocator.nr_free_buffer_pages(),
        "nr_free_pagecache_pages": allocator.nr_free_pagecache_pages(),
        "mem_map_phys": virt_to_phys(int(statics.mem_map)),
        "mem_map_bytes_requested": mem_map_calls[0].arguments[0],
        "zones": [_zone_facts(kernel, zone) for zone in for_each_zone(kernel.image)],
        "zonelists": zonelists,
        "node": {name: int(getattr(node, name)) for name in node_names}
        | {"node_mem_map_phys": virt_to_phys(int(node.node_mem_map))},
        "page_state_cpu0": {"pgalloc": pgalloc, "pgfree": allocator.page_state.of_cpu(0, "pgfree")},
        "state": state(kernel, online_cpus),
        "page_runs": page_runs(kernel),
        "boot_log": [describe_call(call) for call in kernel.bootmem.calls],
        "printk": kernel.log,
        "pgd": directory(kernel),
    }


def replay(trace: Trace, comparison: Comparison) -> None:
    data = trace.data
    kernel = boot_to_initcalls(trace)
    seen = observe(kernel, int(data["online_cpus"]))
    seen |= _sysctls(kernel, data) | {"system_hash": _system_hashes(trace)}
    seen |= {"smp": int(kernel.config.smp), "NR_CPUS": kernel.config.nr_cpus}
    given = ("release", "topic", "config", "mem_mb", "highmem", "online_cpus", "pse", "pge")
    recorded = {name: value for name, value in data.items() if name not in given}
    comparison.equal("zones", recorded, seen)
