# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's C structures, one layout per build of the kernel.

``Structs.of(abi)`` gives the structures of a build; each is a
:class:`~kernel_model.structs.declare.CType` whose ``at(ram, paddr)`` is a view over RAM.
:mod:`.linux_2_4` and :mod:`.linux_2_6` say which structures their release has.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kernel_model.config import Highmem, KernelConfig
from kernel_model.structs import linux_2_4, linux_2_6
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
    discontig: bool = False
    """A 2.6 for memory in several nodes: CONFIG_DISCONTIGMEM, and with it CONFIG_NUMA."""
    release: str = "2.4"
    mmu: bool = True
    rmap: str = "object"

    @classmethod
    def of(cls, config: KernelConfig) -> "Abi":
        return cls(
            highmem=config.highmem is not Highmem.NONE,
            pae=config.pae,
            smp=config.smp,
            spinlock_bytes=4 if config.smp else config.spinlock_bytes,
            nr_cpus=config.nr_cpus,
            debug_slab=config.debug_slab,
            discontig=config.release == "2.6" and config.nodes > 1,
            release=config.release,
            mmu=config.mmu,
            rmap=config.rmap,
        )


_DECLARATIONS: Final[dict[str, Callable[["Structs"], None]]] = {
    "2.4": linux_2_4.declare,
    "2.6": linux_2_6.declare,
}


class Structs:
    """The structures of one build. Make it with :meth:`of`, which keeps one per build.

    What both releases have is called here as in 2.4, whatever 2.6 calls it in C. A structure that
    a release does not have is no attribute.
    """

    abi: Abi
    list_head: CType
    spinlock_t: CType
    rwlock_t: CType
    wait_queue_head_t: CType
    page: CType
    free_area_t: CType
    zonelist_t: CType
    bootmem_data_t: CType
    vm_struct: CType
    resource: CType
    rlimit: CType
    task_struct: CType
    kmem_cache_t: CType
    slab_t: CType
    cpucache_t: CType
    cache_sizes_t: CType
    swap_info_struct: CType
    rb_node_t: CType
    rb_root_t: CType
    rw_semaphore: CType
    mm_context_t: CType
    vm_operations_struct: CType
    vm_area_struct: CType
    mm_struct: CType
    address_space_operations: CType
    address_space: CType
    semaphore: CType
    inode_operations: CType
    shmem_inode_info: CType
    shmem_info: int
    """How many bytes behind a shmem inode its ``shmem_inode_info`` begins."""
    shmem_sb_info: CType
    file_operations: CType
    file: CType
    qstr: CType
    dentry: CType
    inode: CType
    dentry_stat_t: CType
    inodes_stat_t: CType
    page_waiter: CType
    pt_regs: CType
    zone_t: CType
    pg_data_t: CType
    cpuinfo_x86: CType
    kernel_statics: CType

    per_cpu_pages: CType
    per_cpu_pageset: CType
    page_state: CType
    kmem_list3: CType
    array_cache: CType
    arraycache_init: CType
    rcu_head: CType
    slab_rcu: CType
    work_struct: CType
    prio_tree_root: CType
    raw_prio_tree_node: CType
    prio_tree_node: CType
    anon_vma: CType
    pte_chain: CType
    vm_area_shared: CType
    radix_tree_root: CType
    backing_dev_info: CType
    radix_tree_node: CType
    page_address_map: CType
    page_address_slot: CType
    vm_list_struct: CType
    hugetlbfs_sb_info: CType
    kern_ipc_perm: CType
    shmid_kernel: CType
    ipc_ids: CType

    def __init__(self, abi: Abi) -> None:
        self.abi = abi
        _DECLARATIONS[abi.release](self)

    @classmethod
    @functools.cache
    def of(cls, abi: Abi) -> "Structs":
        return cls(abi)

    def all(self) -> list[CType]:
        """Every structure, each after those it contains."""
        return [kind for kind in vars(self).values() if isinstance(kind, CType)]
