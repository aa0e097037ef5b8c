# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's global variables, declared as one structure at a fixed place in its image.

Models the data segment of linux-2.4.22: each field bears the name of the kernel's own symbol,
so the structure is this kernel's ``System.map``. It begins at physical
:data:`STATICS`; ``mmu_cr4_features`` stands first, because the boot code reads it before it
knows any structure.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.arch_i386.fixmap import last_pkmap
from kernel_model.structs.declare import INT, UCHAR, UINT, ULONG, CType, array, pointer, struct
from kernel_model.structs.fs import DENTRY_STAT, INODES_STAT
from kernel_model.structs.ipc import shm_statics
from kernel_model.structs.mmzone import LIST_HEAD, MAX_NR_NODES, MAX_NR_ZONES, RESOURCE
from kernel_model.structs.slab import CACHE_SIZES
from kernel_model.structs.swap import MAX_SWAPFILES

if TYPE_CHECKING:
    from kernel_model.structs import Structs

MAX_MODELLED_NODES: Final = 4
"""Node 0 has the ``contig_`` objects, each further node one of the ``discontig_`` ones."""
STATICS: Final = 0x380000
"""Physical address of the static objects, inside the image (0x100000 to 0x400000)."""
THREAD_SIZE: Final = 8192
"""Bytes of a kernel stack; the process's ``task_struct`` lies at its lower end."""
INIT_TASK_UNION: Final = STATICS - THREAD_SIZE
"""Physical address of the first process and of its kernel stack, the one of the boot."""

MAXROMS: Final = 6

CACHE_POINTERS: Final = (
    *("sigact_cachep", "files_cachep", "fs_cachep", "vm_area_cachep", "mm_cachep", "bh_cachep"),
    *("names_cachep", "filp_cachep", "dentry_cache", "inode_cachep", "sigqueue_cachep"),
)
"""The kernel's pointers to its own slab caches (:mod:`kernel_model.caches`)."""

CPUINFO_X86: Final = struct(
    "struct cpuinfo_x86",
    [
        ("wp_works_ok", INT),
        ("x86_capability", ULONG),
        ("pgd_quick", pointer("unsigned long")),
        ("pmd_quick", pointer("unsigned long")),
        ("pte_quick", pointer("unsigned long")),
        ("pgtable_cache_sz", ULONG),
    ],
)
"""The part of ``boot_cpu_data`` that memory management uses (asm-i386/processor.h)."""


def highmem_statics(structs: "Structs") -> list[tuple[str, CType]]:
    """The variables of mm/highmem.c, which is compiled with high memory only."""
    return [
        ("pkmap_count", array(INT, last_pkmap(structs.abi.pae))),
        ("last_pkmap_nr", UINT),
        ("pkmap_map_wait", structs.wait_queue_head_t),
    ]


def machine_statics(structs: "Structs") -> list[tuple[str, CType]]:
    """The extent of memory, its nodes and zones, kernel mappings, the CPU, the first ``mm``.

    ``mmu_cr4_features`` comes first in every kernel.
    """
    return [
        ("mmu_cr4_features", ULONG),
        *((name, ULONG) for name in ("min_low_pfn", "max_low_pfn", "max_pfn")),
        *((name, ULONG) for name in ("highstart_pfn", "highend_pfn", "max_mapnr")),
        ("num_physpages", ULONG),
        ("high_memory", pointer("void")),
        ("mem_map", pointer("struct page")),
        ("totalram_pages", ULONG),
        ("totalhigh_pages", ULONG),
        ("nr_swap_pages", INT),
        ("swapper_space", structs.address_space),
        ("nr_swapfiles", UINT),
        ("swap_info", array(structs.swap_info_struct, MAX_SWAPFILES)),
        ("kmap_pte", pointer("void")),
        ("kmap_prot", ULONG),
        ("pkmap_page_table", pointer("void")),
        ("vmlist", pointer("struct vm_struct")),
        ("pgdat_list", pointer("pg_data_t")),
        ("zone_table", array(pointer(structs.zone_t.spelling), MAX_NR_ZONES * MAX_NR_NODES)),
        ("boot_cpu_data", CPUINFO_X86),
        ("init_mm", structs.mm_struct),
        *((name, pointer("kmem_cache_t")) for name in CACHE_POINTERS),
        ("max_map_count", INT),
        ("sysctl_overcommit_memory", INT),
    ]


def file_statics(structs: "Structs") -> list[tuple[str, CType]]:
    """What file systems, shared memory and swap keep, and their tables of operations."""
    return [
        ("dentry_stat", DENTRY_STAT),
        ("inodes_stat", INODES_STAT),
        ("generic_file_vm_ops", structs.vm_operations_struct),
        ("shmem_vm_ops", structs.vm_operations_struct),
        ("shmem_file_operations", structs.file_operations),
        ("shmem_aops", structs.address_space_operations),
        ("shmem_inode_operations", structs.inode_operations),
        ("shmem_sb", structs.shmem_sb_info),
        ("hostfs_file_operations", structs.file_operations),
        ("hostfs_aops", structs.address_space_operations),
        ("hostfs_inode_operations", structs.inode_operations),
        ("swap_aops", structs.address_space_operations),
        ("page_cluster", INT),
    ]


def resource_statics() -> list[tuple[str, CType]]:
    """Names, and what ``/proc/iomem`` shows."""
    return [
        ("zone_names", array(UCHAR, 24)),
        ("resource_names", array(UCHAR, 128)),
        *((f"{name}_resource", RESOURCE) for name in ("iomem", "code", "data", "vram")),
        ("rom_resources", array(RESOURCE, MAXROMS)),
    ]


def node_statics(structs: "Structs") -> list[tuple[str, CType]]:
    """The nodes and their boot maps."""
    further, bootmem = MAX_MODELLED_NODES - 1, structs.bootmem_data_t
    return [
        ("contig_bootmem_data", bootmem),
        ("contig_page_data", structs.pg_data_t),
        ("discontig_bootmem_data", array(bootmem, further)),
        ("discontig_page_data", array(structs.pg_data_t, further)),
    ]


def kernel_statics(structs: "Structs") -> CType:
    """The structure of all static objects of 2.4, for the layouts in ``structs``."""
    return struct(
        "struct kernel_statics",
        [
            *machine_statics(structs),
            ("num_mappedpages", ULONG),
            ("highmem_start_page", pointer("struct page")),
            ("active_list", LIST_HEAD),
            ("inactive_list", LIST_HEAD),
            ("page_cache_size", ULONG),
            ("page_hash_table", pointer("struct page *")),
            ("page_hash_bits", UINT),
            ("nr_active_pages", ULONG),
            ("nr_inactive_pages", ULONG),
            ("mmlist_nr", INT),
            ("swap_mm", pointer("struct mm_struct")),
            *file_statics(structs),
            *resource_statics(),
            ("cache_cache", structs.kmem_cache_t),
            ("cache_sizes", array(structs.cache_sizes_t, len(CACHE_SIZES) + 1)),
            ("clock_searchp", pointer("kmem_cache_t")),
            ("offslab_limit", UINT),
            ("slab_break_gfp_order", UINT),
            ("g_cpucache_up", UINT),
            *node_statics(structs),
            *shm_statics(structs),
            *(highmem_statics(structs) if structs.abi.highmem else ()),
        ],
    )
