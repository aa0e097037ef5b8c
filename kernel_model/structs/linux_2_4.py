# SPDX-License-Identifier: GPL-2.0-or-later
"""The structures of Linux 2.4.22, put together in an order in which each follows its parts."""

from typing import TYPE_CHECKING

from kernel_model.structs import fs, ipc, mm, mmzone, ptrace, sched, slab, statics, swap

if TYPE_CHECKING:
    from kernel_model.structs import Structs


def declare(structs: "Structs") -> None:
    """Give ``structs`` all structures of its build."""
    abi = structs.abi
    structs.list_head = mmzone.LIST_HEAD
    structs.spinlock_t = mmzone.spinlock_t(abi)
    structs.rwlock_t = mmzone.rwlock_t(abi)
    structs.wait_queue_head_t = mmzone.wait_queue_head_t(abi)
    structs.page = mmzone.page(abi)
    structs.free_area_t = mmzone.FREE_AREA
    structs.zonelist_t = mmzone.ZONELIST
    structs.bootmem_data_t = mmzone.BOOTMEM_DATA
    structs.vm_struct = mmzone.VM_STRUCT
    structs.resource = mmzone.RESOURCE
    structs.rlimit = sched.RLIMIT
    structs.task_struct = sched.TASK_STRUCT
    structs.kmem_cache_t = slab.kmem_cache_t(abi)
    structs.slab_t = slab.SLAB_T
    structs.cpucache_t = slab.CPUCACHE_T
    structs.cache_sizes_t = slab.CACHE_SIZES_T
    structs.swap_info_struct = swap.SWAP_INFO_STRUCT
    structs.rb_node_t = mm.RB_NODE
    structs.rb_root_t = mm.RB_ROOT
    structs.rw_semaphore = mm.rw_semaphore(abi)
    structs.mm_context_t = mm.MM_CONTEXT
    structs.vm_operations_struct = mm.VM_OPERATIONS_STRUCT
    structs.vm_area_struct = mm.VM_AREA_STRUCT
    structs.mm_struct = mm.mm_struct(abi)
    structs.address_space_operations = fs.ADDRESS_SPACE_OPERATIONS
    structs.address_space = fs.address_space(abi)
    structs.semaphore = fs.semaphore(abi)
    structs.inode_operations = fs.INODE_OPERATIONS
    structs.shmem_inode_info = fs.shmem_inode_info(abi)
    structs.shmem_sb_info = fs.shmem_sb_info(abi)
    structs.file_operations = fs.FILE_OPERATIONS
    structs.file = fs.FILE
    structs.qstr = fs.QSTR
    structs.dentry = fs.DENTRY
    structs.inode = fs.inode(abi)
    structs.shmem_info = structs.inode.offset("u")
    structs.dentry_stat_t = fs.DENTRY_STAT
    structs.inodes_stat_t = fs.INODES_STAT
    structs.kern_ipc_perm = ipc.kern_ipc_perm(abi)
    structs.shmid_kernel = ipc.shmid_kernel(abi)
    structs.ipc_ids = ipc.IPC_IDS
    structs.page_waiter = swap.PAGE_WAITER
    structs.pt_regs = ptrace.PT_REGS
    structs.zone_t = mmzone.zone_t(abi)
    structs.pg_data_t = mmzone.pg_data_t(structs.zone_t)
    structs.cpuinfo_x86 = statics.CPUINFO_X86
    structs.kernel_statics = statics.kernel_statics(structs)
