# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's C structures, one layout per build of the kernel.

``Structs.of(abi)`` gives the structures of a build; each is a
:class:`~kernel_model.structs.declare.CType` whose ``at(ram, paddr)`` is a view over RAM.
"""

import functools
from dataclasses import dataclass

from kernel_model.config import Highmem, KernelConfig
from kernel_model.structs import fs, mm, mmzone, ptrace, sched, slab, statics, swap
from kernel_model.structs.declare import CType

__all__ = ["Abi", "CType", "Structs"]


@dataclass(frozen=True, slots=True)
class Abi:
    """What of the kernel's build shows in its structures."""

    highmem: bool = False
    pae: bool = False
    smp: bool = False
    spinlock_bytes: int = 0
    nr_cpus: int = 1
    debug_slab: bool = False

    @classmethod
    def of(cls, config: KernelConfig) -> "Abi":
        return cls(
            highmem=config.highmem is not Highmem.NONE,
            pae=config.pae,
            smp=config.smp,
            spinlock_bytes=4 if config.smp else config.spinlock_bytes,
            nr_cpus=config.nr_cpus,
            debug_slab=config.debug_slab,
        )


class Structs:
    """The structures of one build. Make it with :meth:`of`, which keeps one per build."""

    def __init__(self, abi: Abi) -> None:
        self.abi = abi
        self.list_head = mmzone.LIST_HEAD
        self.spinlock_t = mmzone.spinlock_t(abi)
        self.rwlock_t = mmzone.rwlock_t(abi)
        self.wait_queue_head_t = mmzone.wait_queue_head_t(abi)
        self.page = mmzone.page(abi)
        self.free_area_t = mmzone.FREE_AREA
        self.zonelist_t = mmzone.ZONELIST
        self.bootmem_data_t = mmzone.BOOTMEM_DATA
        self.vm_struct = mmzone.VM_STRUCT
        self.resource = mmzone.RESOURCE
        self.rlimit = sched.RLIMIT
        self.task_struct = sched.TASK_STRUCT
        self.kmem_cache_t = slab.kmem_cache_t(abi)
        self.slab_t = slab.SLAB_T
        self.cpucache_t = slab.CPUCACHE_T
        self.cache_sizes_t = slab.CACHE_SIZES_T
        self.swap_info_struct = swap.SWAP_INFO_STRUCT
        self.rb_node_t = mm.RB_NODE
        self.rb_root_t = mm.RB_ROOT
        self.rw_semaphore = mm.rw_semaphore(abi)
        self.mm_context_t = mm.MM_CONTEXT
        self.vm_operations_struct = mm.VM_OPERATIONS_STRUCT
        self.vm_area_struct = mm.VM_AREA_STRUCT
        self.mm_struct = mm.mm_struct(abi)
        self.address_space_operations = fs.ADDRESS_SPACE_OPERATIONS
        self.address_space = fs.address_space(abi)
        self.semaphore = fs.semaphore(abi)
        self.inode_operations = fs.INODE_OPERATIONS
        self.shmem_inode_info = fs.shmem_inode_info(abi)
        self.shmem_sb_info = fs.shmem_sb_info(abi)
        self.file_operations = fs.FILE_OPERATIONS
        self.file = fs.FILE
        self.qstr = fs.QSTR
        self.dentry = fs.DENTRY
        self.inode = fs.inode(abi)
        self.dentry_stat_t = fs.DENTRY_STAT
        self.inodes_stat_t = fs.INODES_STAT
        self.page_waiter = swap.PAGE_WAITER
        self.pt_regs = ptrace.PT_REGS
        self.zone_t = mmzone.zone_t(abi)
        self.pg_data_t = mmzone.pg_data_t(self.zone_t)
        self.cpuinfo_x86 = statics.CPUINFO_X86
        self.kernel_statics = statics.kernel_statics(self)

    @classmethod
    @functools.cache
    def of(cls, abi: Abi) -> "Structs":
        return cls(abi)

    def all(self) -> list[CType]:
        """Every structure, each after those it contains."""
        return [kind for kind in vars(self).values() if isinstance(kind, CType)]
