# SPDX-License-Identifier: GPL-2.0-or-later
"""The structures of Linux 2.6.11, put together in an order in which each follows its parts.

What 2.6 left alone is declared with 2.4's structures, what it changed in the modules here.
"""

from typing import TYPE_CHECKING

from kernel_model.structs import fs as fs_2_4
from kernel_model.structs import ipc, ptrace, sched, swap
from kernel_model.structs import mm as mm_2_4
from kernel_model.structs import mmzone as mmzone_2_4
from kernel_model.structs import statics as statics_2_4
from kernel_model.structs.linux_2_6 import fs, hugetlb, mm, mmzone, nommu, slab, statics

if TYPE_CHECKING:
    from kernel_model.structs import Structs


def declare(structs: "Structs") -> None:
    """Give ``structs`` all structures of its build."""
    abi = structs.abi
    structs.list_head = mmzone_2_4.LIST_HEAD
    structs.spinlock_t = mmzone_2_4.spinlock_t(abi)
    structs.rwlock_t = mmzone_2_4.rwlock_t(abi)
    structs.wait_queue_head_t = mmzone_2_4.wait_queue_head_t(abi)
    structs.page = mmzone.page(abi)
    structs.pte_chain = mmzone.PTE_CHAIN
    structs.free_area_t = mmzone.FREE_AREA
    structs.zonelist_t = mmzone.zonelist(abi)
    structs.bootmem_data_t = mmzone.BOOTMEM_DATA
    structs.vm_struct = mmzone.VM_STRUCT
    structs.resource = mmzone_2_4.RESOURCE
    structs.rlimit = sched.RLIMIT
    structs.task_struct = sched.TASK_STRUCT
    structs.array_cache = slab.ARRAY_CACHE
    structs.arraycache_init = slab.ARRAYCACHE_INIT
    structs.kmem_list3 = slab.KMEM_LIST3
    structs.kmem_cache_t = slab.kmem_cache_t(abi)
    structs.slab_t = slab.SLAB
    structs.rcu_head = slab.RCU_HEAD
    structs.slab_rcu = slab.SLAB_RCU
    structs.work_struct = slab.work_struct(abi)
    structs.cache_sizes_t = slab.CACHE_SIZES
    structs.swap_info_struct = swap.SWAP_INFO_STRUCT
    structs.rb_node_t = mm.RB_NODE
    structs.rb_root_t = mm.RB_ROOT
    structs.raw_prio_tree_node = mm.RAW_PRIO_TREE_NODE
    structs.prio_tree_node = mm.PRIO_TREE_NODE
    structs.prio_tree_root = mm.PRIO_TREE_ROOT
    structs.anon_vma = mm.anon_vma(abi)
    structs.rw_semaphore = mm_2_4.rw_semaphore(abi)
    structs.semaphore = fs_2_4.semaphore(abi)
    structs.mm_context_t = mm.mm_context_t(abi)
    structs.vm_operations_struct = mm.VM_OPERATIONS_STRUCT
    structs.vm_area_shared = mm.VM_AREA_SHARED
    structs.vm_area_struct = mm.vm_area_struct(abi)
    structs.vm_list_struct = nommu.VM_LIST_STRUCT
    structs.mm_struct = mm.mm_struct(abi)
    structs.address_space_operations = fs.ADDRESS_SPACE_OPERATIONS
    structs.radix_tree_root = fs.RADIX_TREE_ROOT
    structs.radix_tree_node = fs.RADIX_TREE_NODE
    structs.address_space = fs.address_space(abi)
    structs.inode_operations = fs_2_4.INODE_OPERATIONS
    structs.shmem_sb_info = fs_2_4.shmem_sb_info(abi)
    structs.hugetlbfs_sb_info = hugetlb.hugetlbfs_sb_info(abi)
    structs.file_operations = fs.FILE_OPERATIONS
    structs.file = fs.file(abi)
    structs.qstr = fs.QSTR
    structs.dentry = fs.dentry(abi)
    structs.inode = fs.inode(abi)
    structs.shmem_inode_info = fs.shmem_inode_info(abi)
    structs.shmem_info = -structs.shmem_inode_info.offset("vfs_inode")
    structs.backing_dev_info = fs.BACKING_DEV_INFO
    structs.dentry_stat_t = fs_2_4.DENTRY_STAT
    structs.inodes_stat_t = fs_2_4.INODES_STAT
    structs.kern_ipc_perm = ipc.kern_ipc_perm(abi)
    structs.shmid_kernel = ipc.shmid_kernel(abi)
    structs.ipc_ids = ipc.IPC_IDS
    structs.page_waiter = swap.PAGE_WAITER
    structs.pt_regs = ptrace.PT_REGS
    structs.page_state = mmzone.PAGE_STATE
    structs.per_cpu_pages = mmzone.PER_CPU_PAGES
    structs.per_cpu_pageset = mmzone.per_cpu_pageset(abi)
    structs.zone_t = mmzone.zone(abi)
    structs.pg_data_t = mmzone.pg_data_t(abi)
    structs.page_address_map = statics.PAGE_ADDRESS_MAP
    structs.page_address_slot = statics.page_address_slot(abi)
    structs.cpuinfo_x86 = statics_2_4.CPUINFO_X86
    structs.kernel_statics = statics.kernel_statics(structs)
