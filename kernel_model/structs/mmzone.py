# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes, zones and frames in C.

Models linux-2.4.22 ``include/linux/mmzone.h``, ``include/linux/mm.h`` (``struct page``),
``include/linux/bootmem.h``, ``include/linux/vmalloc.h``, ``include/linux/ioport.h`` and
``include/linux/wait.h``. What a build option changes is a parameter of the
:class:`~kernel_model.structs.Abi`: ``page->virtual`` exists with highmem only, a spinlock
takes 0 or 4 bytes.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import (
    ATOMIC,
    INT,
    UINT,
    ULONG,
    CType,
    array,
    pointer,
    struct,
)

if TYPE_CHECKING:
    from kernel_model.structs import Abi

MAX_ORDER: Final = 10
MAX_NR_ZONES: Final = 3
MAX_NR_NODES: Final = 16
NR_ZONELISTS: Final = 16
"""One for each combination of the four zone bits in a GFP mask."""

LIST_HEAD: Final = struct(
    "struct list_head",
    [("next", pointer("struct list_head")), ("prev", pointer("struct list_head"))],
)


def spinlock_t(abi: "Abi") -> CType:
    """Empty on uniprocessors, except that gcc before 2.96 could not compile an empty struct."""
    return struct("spinlock_t", [("slock", UINT)] if abi.spinlock_bytes else [])


def rwlock_t(abi: "Abi") -> CType:
    return struct("rwlock_t", [("lock", UINT)] if abi.smp else [])


def page(abi: "Abi") -> CType:
    fields = [
        ("list", LIST_HEAD),
        ("mapping", pointer("struct address_space")),
        ("index", ULONG),
        ("next_hash", pointer("struct page")),
        ("count", ATOMIC),
        ("flags", ULONG),
        ("lru", LIST_HEAD),
        ("pprev_hash", pointer("struct page *")),
        ("buffers", pointer("struct buffer_head")),
    ]
    if abi.highmem:
        fields.append(("virtual", pointer("void")))
    return struct("struct page", fields)


FREE_AREA: Final = struct(
    "free_area_t", [("free_list", LIST_HEAD), ("map", pointer("unsigned long"))]
)

ZONELIST: Final = struct("zonelist_t", [("zones", array(pointer("zone_t"), MAX_NR_ZONES + 1))])

BOOTMEM_DATA: Final = struct(
    "bootmem_data_t",
    [
        ("node_boot_start", ULONG),
        ("node_low_pfn", ULONG),
        ("node_bootmem_map", pointer("void")),
        ("last_offset", ULONG),
        ("last_pos", ULONG),
    ],
)

VM_IOREMAP: Final = 1
VM_ALLOC: Final = 2

VM_STRUCT: Final = struct(
    "struct vm_struct",
    [
        ("flags", ULONG),
        ("addr", pointer("void")),
        ("size", ULONG),
        ("next", pointer("struct vm_struct")),
    ],
)

RESOURCE: Final = struct(
    "struct resource",
    [
        ("name", pointer("const char")),
        ("start", ULONG),
        ("end", ULONG),
        ("flags", ULONG),
        ("parent", pointer("struct resource")),
        ("sibling", pointer("struct resource")),
        ("child", pointer("struct resource")),
    ],
)


def wait_queue_head_t(abi: "Abi") -> CType:
    return struct("wait_queue_head_t", [("lock", spinlock_t(abi)), ("task_list", LIST_HEAD)])


def zone_t(abi: "Abi") -> CType:
    return struct(
        "zone_t",
        [
            ("lock", spinlock_t(abi)),
            ("free_pages", ULONG),
            ("pages_min", ULONG),
            ("pages_low", ULONG),
            ("pages_high", ULONG),
            ("need_balance", INT),
            ("free_area", array(FREE_AREA, MAX_ORDER)),
            ("wait_table", pointer("wait_queue_head_t")),
            ("wait_table_size", ULONG),
            ("wait_table_shift", ULONG),
            ("zone_pgdat", pointer("struct pglist_data")),
            ("zone_mem_map", pointer("struct page")),
            ("zone_start_paddr", ULONG),
            ("zone_start_mapnr", ULONG),
            ("name", pointer("char")),
            ("size", ULONG),
        ],
    )


def pg_data_t(zone: CType) -> CType:
    return struct(
        "pg_data_t",
        [
            ("node_zones", array(zone, MAX_NR_ZONES)),
            ("node_zonelists", array(ZONELIST, NR_ZONELISTS)),
            ("nr_zones", INT),
            ("node_mem_map", pointer("struct page")),
            ("valid_addr_bitmap", pointer("unsigned long")),
            ("bdata", pointer("bootmem_data_t")),
            ("node_start_paddr", ULONG),
            ("node_start_mapnr", ULONG),
            ("node_size", ULONG),
            ("node_id", INT),
            ("node_next", pointer("struct pglist_data")),
        ],
    )
