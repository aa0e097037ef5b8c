# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's global variables in 2.6, declared as one structure as those of 2.4 are.

Models the data segment of linux-2.6.11. LRU lists and their lengths stand in the zones, pages of
files in the radix tree of their address space.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.arch_i386.fixmap import last_pkmap
from kernel_model.structs.declare import INT, UCHAR, UINT, ULONG, CType, array, pointer, struct
from kernel_model.structs.ipc import shm_statics
from kernel_model.structs.linux_2_6.hugetlb import hugetlb_statics
from kernel_model.structs.linux_2_6.slab import (
    CACHE_NAME_BYTES,
    MALLOC_SIZES,
    MAX_CACHE_NAMES,
    NOMMU_SIZES,
)
from kernel_model.structs.mmzone import LIST_HEAD, MAX_NR_ZONES, spinlock_t
from kernel_model.structs.statics import (
    file_statics,
    highmem_statics,
    machine_statics,
    node_statics,
    resource_statics,
)

if TYPE_CHECKING:
    from kernel_model.structs import Abi, Structs


PA_HASH_ORDER: Final = 7
PAGE_ADDRESS_MAP: Final = struct(
    "struct page_address_map",
    [("page", pointer("struct page")), ("virtual", pointer("void")), ("list", LIST_HEAD)],
)


def page_address_slot(abi: "Abi") -> CType:
    """A chain of the hash table with its lock."""
    return struct("struct page_address_slot", [("lh", LIST_HEAD), ("lock", spinlock_t(abi))])


def page_address_statics(structs: "Structs") -> list[tuple[str, CType]]:
    """The variables of mm/highmem.c, among them who has which address."""
    return [
        *highmem_statics(structs),
        ("page_address_pool", LIST_HEAD),
        ("page_address_maps", array(PAGE_ADDRESS_MAP, last_pkmap(structs.abi.pae))),
        ("page_address_htable", array(structs.page_address_slot, 1 << PA_HASH_ORDER)),
    ]


def kernel_statics(structs: "Structs") -> CType:
    """The structure of all static objects of 2.6, for the layouts in ``structs``."""
    sizes = MALLOC_SIZES if structs.abi.mmu else NOMMU_SIZES
    return struct(
        "struct kernel_statics",
        [
            *machine_statics(structs),
            ("nr_kernel_pages", ULONG),
            ("nr_all_pages", ULONG),
            ("min_free_kbytes", INT),
            ("sysctl_lowmem_reserve_ratio", array(INT, MAX_NR_ZONES - 1)),
            ("page_states", array(structs.page_state, structs.abi.nr_cpus)),
            ("nr_pagecache", INT),
            ("jiffies", ULONG),
            ("preempt_count", array(INT, structs.abi.nr_cpus)),
            ("radix_tree_node_cachep", pointer("kmem_cache_t")),
            ("total_swapcache_pages", ULONG),
            ("pgd_cache", pointer("kmem_cache_t")),
            ("pmd_cache", pointer("kmem_cache_t")),
            ("pte_chain_cache", pointer("kmem_cache_t")),
            ("local_pte_chain", array(pointer("struct pte_chain"), structs.abi.nr_cpus)),
            ("nommu_vma_tree", structs.rb_root_t),
            ("vm_committed_space", INT),
            ("sysctl_overcommit_ratio", INT),
            ("sysctl_legacy_va_layout", INT),
            ("total_swap_pages", ULONG),
            ("anon_vma_cachep", pointer("kmem_cache_t")),
            ("mmlist", LIST_HEAD),
            *file_statics(structs),
            ("shmem_backing_dev_info", structs.backing_dev_info),
            ("shmem_inode_cachep", pointer("kmem_cache_t")),
            *resource_statics(),
            ("cache_cache", structs.kmem_cache_t),
            ("malloc_sizes", array(structs.cache_sizes_t, len(sizes) + 1)),
            ("cache_chain", LIST_HEAD),
            ("offslab_limit", UINT),
            ("slab_break_gfp_order", UINT),
            ("slab_reclaim_pages", INT),
            ("g_cpucache_up", UINT),
            ("initarray_cache", structs.arraycache_init),
            ("initarray_generic", structs.arraycache_init),
            ("reap_work", array(structs.work_struct, structs.abi.nr_cpus)),
            ("rcu_callbacks", pointer("struct rcu_head")),
            ("cache_names", array(UCHAR, MAX_CACHE_NAMES * CACHE_NAME_BYTES)),
            *node_statics(structs),
            *([("cpu_2_node", array(INT, structs.abi.nr_cpus))] if structs.abi.discontig else ()),
            *hugetlb_statics(structs),
            *shm_statics(structs),
            *(page_address_statics(structs) if structs.abi.highmem else ()),
        ],
    )
