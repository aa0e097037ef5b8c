# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes, zones, per-CPU page lists and frames in C, as 2.6 has them (book 2.8, 6.7, 7.4).

Models linux-2.6.11 ``include/linux/mmzone.h``, ``include/linux/mm.h: struct page``,
``include/linux/page-flags.h: struct page_state``, ``include/linux/bootmem.h`` and
``include/linux/vmalloc.h``. On SMP a zone is cut into parts that lie in cache lines of their own
(``ZONE_PADDING``): what allocation writes shall not disturb what reclaim writes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import ATOMIC, INT, ULONG, CType, array, pointer, struct
from kernel_model.structs.mmzone import LIST_HEAD, MAX_NR_ZONES, spinlock_t, wait_queue_head_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi

MAX_ORDER: Final = 11
GFP_ZONETYPES: Final = 3
"""Zonelists of a node: for any, for DMA, for high memory."""
L1_CACHE_BYTES: Final = 32
MAX_CACHE_BYTES: Final = 128
"""``1 << L1_CACHE_SHIFT_MAX``: the largest cache line that this kernel may meet."""


def page(abi: "Abi") -> CType:
    """``_count`` and ``_mapcount`` begin at -1. There is no ``virtual``: with high memory a hash
    table knows where a frame is mapped.

    With chains of PTEs, the reverse map of 2.6.0, the word of ``_mapcount`` is a union: the one
    PTE that maps the frame (``PG_direct``), or a ``struct pte_chain``.
    """
    chained = abi.rmap == "pte_chain"
    return struct(
        "struct page",
        [
            ("flags", ULONG),
            ("_count", ATOMIC),
            ("pte", pointer("void")) if chained else ("_mapcount", ATOMIC),
            ("private", ULONG),
            ("mapping", pointer("struct address_space")),
            ("index", ULONG),
            ("lru", LIST_HEAD),
        ],
    )


NRPTE: Final = L1_CACHE_BYTES // 4 - 1
"""PTEs that one ``struct pte_chain`` names."""
PTE_CHAIN: Final = struct(
    "struct pte_chain", [("next_and_idx", ULONG), ("ptes", array(ULONG, NRPTE))]
)
"""A cache line. ``next_and_idx`` is the address of the next one, with the index of its own first
used slot in the bits below :data:`NRPTE`."""

FREE_AREA: Final = struct("struct free_area", [("free_list", LIST_HEAD), ("nr_free", ULONG)])

MAX_NUMNODES: Final = 4
"""Nodes of a kernel that is built for several."""


def zonelist(abi: "Abi") -> CType:
    """The zones to try, of every node, with a NULL behind them."""
    places = MAX_NR_ZONES * (MAX_NUMNODES if abi.discontig else 1) + 1
    return struct("struct zonelist", [("zones", array(pointer("struct zone"), places))])


BOOTMEM_DATA: Final = struct(
    "bootmem_data_t",
    [
        ("node_boot_start", ULONG),
        ("node_low_pfn", ULONG),
        ("node_bootmem_map", pointer("void")),
        ("last_offset", ULONG),
        ("last_pos", ULONG),
        ("last_success", ULONG),
    ],
)

VM_IOREMAP: Final = 1
VM_ALLOC: Final = 2
VM_MAP: Final = 4

VM_STRUCT: Final = struct(
    "struct vm_struct",
    [
        ("addr", pointer("void")),
        ("size", ULONG),
        ("flags", ULONG),
        ("pages", pointer("struct page *")),
        ("nr_pages", ULONG),
        ("phys_addr", ULONG),
        ("next", pointer("struct vm_struct")),
    ],
)

PER_CPU_PAGES: Final = struct(
    "struct per_cpu_pages",
    [("count", INT), ("low", INT), ("high", INT), ("batch", INT), ("list", LIST_HEAD)],
)

PAGE_STATE: Final = struct(
    "struct page_state",
    [
        (name, ULONG)
        for name in (
            *("nr_dirty", "nr_writeback", "nr_unstable", "nr_page_table_pages", "nr_mapped"),
            *("nr_slab", "pgpgin", "pgpgout", "pswpin", "pswpout"),
            *("pgalloc_high", "pgalloc_normal", "pgalloc_dma", "pgfree", "pgactivate"),
            *("pgdeactivate", "pgfault", "pgmajfault"),
            *("pgrefill_high", "pgrefill_normal", "pgrefill_dma"),
            *("pgsteal_high", "pgsteal_normal", "pgsteal_dma"),
            *("pgscan_kswapd_high", "pgscan_kswapd_normal", "pgscan_kswapd_dma"),
            *("pgscan_direct_high", "pgscan_direct_normal", "pgscan_direct_dma"),
            *("pginodesteal", "slabs_scanned", "kswapd_steal", "kswapd_inodesteal"),
            *("pageoutrun", "allocstall", "pgrotated"),
        )
    ],
)
"""What each CPU counts for ``/proc/vmstat``."""


def padded(name: str, fields: Sequence[tuple[str, CType]], alignment: int) -> CType:
    """A structure whose size is rounded up to ``alignment`` bytes."""
    missing = -struct(name, fields).size % alignment
    return struct(name, [*fields, *([("padding", array(ULONG, missing >> 2))] if missing else [])])


NUMA_COUNTERS: Final = (
    *("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node"),
)
"""What a kernel for several nodes counts of each CPU and zone, for ``numastat``."""


def per_cpu_pageset(abi: "Abi") -> CType:
    """One CPU's lists of a zone, hot and cold; on SMP in cache lines of their own."""
    fields = [("pcp", array(PER_CPU_PAGES, 2))]
    if abi.discontig:
        fields += [(name, ULONG) for name in NUMA_COUNTERS]
    return padded("struct per_cpu_pageset", fields, L1_CACHE_BYTES if abi.smp else 4)


def zone(abi: "Abi") -> CType:
    padding = MAX_CACHE_BYTES if abi.smp else 4
    watermarks = [(name, ULONG) for name in ("free_pages", "pages_min", "pages_low", "pages_high")]
    watermarks.append(("lowmem_reserve", array(ULONG, MAX_NR_ZONES)))
    before_pageset = -4 * len(watermarks) - 4 * (MAX_NR_ZONES - 1)
    if abi.smp and before_pageset % L1_CACHE_BYTES:
        watermarks.append(("pageset_padding", array(ULONG, before_pageset % L1_CACHE_BYTES >> 2)))
    allocation = [
        *watermarks,
        ("pageset", array(per_cpu_pageset(abi), abi.nr_cpus)),
        ("lock", spinlock_t(abi)),
        ("free_area", array(FREE_AREA, MAX_ORDER)),
    ]
    reclaim = [
        ("lru_lock", spinlock_t(abi)),
        ("active_list", LIST_HEAD),
        ("inactive_list", LIST_HEAD),
        ("nr_scan_active", ULONG),
        ("nr_scan_inactive", ULONG),
        ("nr_active", ULONG),
        ("nr_inactive", ULONG),
        ("pages_scanned", ULONG),
        ("all_unreclaimable", INT),
        ("temp_priority", INT),
        ("prev_priority", INT),
    ]
    rarely_written = [
        ("wait_table", pointer("wait_queue_head_t")),
        ("wait_table_size", ULONG),
        ("wait_table_bits", ULONG),
        ("zone_pgdat", pointer("struct pglist_data")),
        ("zone_mem_map", pointer("struct page")),
        ("zone_start_pfn", ULONG),
        ("spanned_pages", ULONG),
        ("present_pages", ULONG),
        ("name", pointer("char")),
    ]
    fields: list[tuple[str, CType]] = []
    for number, part in enumerate((allocation, reclaim, rarely_written), 1):
        fields += part
        missing = -struct("struct zone", fields).size % padding
        if missing:
            fields.append((f"_pad{number}_", array(ULONG, missing >> 2)))
    return struct("struct zone", fields)


def pg_data_t(abi: "Abi") -> CType:
    return padded(
        "pg_data_t",
        [
            ("node_zones", array(zone(abi), MAX_NR_ZONES)),
            ("node_zonelists", array(zonelist(abi), GFP_ZONETYPES)),
            ("nr_zones", INT),
            ("node_mem_map", pointer("struct page")),
            ("bdata", pointer("bootmem_data_t")),
            ("node_start_pfn", ULONG),
            ("node_present_pages", ULONG),
            ("node_spanned_pages", ULONG),
            ("node_id", INT),
            ("pgdat_next", pointer("struct pglist_data")),
            ("kswapd_wait", wait_queue_head_t(abi)),
            ("kswapd", pointer("struct task_struct")),
            ("kswapd_max_order", INT),
        ],
        MAX_CACHE_BYTES if abi.smp else 4,
    )
