# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab caches that a 2.6 kernel makes for its own structures at boot.

Models what linux-2.6.11 ``mm/rmap.c: anon_vma_init()``, ``kernel/fork.c: proc_caches_init()``,
``fs/buffer.c: buffer_init()``, ``fs/dcache.c: vfs_caches_init()``, ``lib/radix-tree.c:
radix_tree_init()`` and ``kernel/signal.c: signals_init()`` create, in the order of
``start_kernel()`` (book 8.8). In RAM: the caches, and the kernel's pointers to them. As in 2.4 the
caches of what is not modelled are left out.
"""

from typing import Final

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.caches import KernelCache, construction
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.rmap.anon_vma import anon_vma_ctor
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN, SLAB_MUST_HWCACHE_ALIGN
from kernel_model.mm.slab.linux_2_6.constants import (
    SLAB_DESTROY_BY_RCU,
    SLAB_PANIC,
    SLAB_RECLAIM_ACCOUNT,
)
from kernel_model.mm.slab.objects import Constructor
from kernel_model.structs.linux_2_6.mmzone import PTE_CHAIN

PATH_MAX: Final = 4096
_SIGHAND: Final = 4 + 64 * 20
_FILES: Final = 412
_FS: Final = 32
_BUFFER_HEAD: Final = 48
_BUFFER_HEAD_ASSOC: Final = 40
_SIGQUEUE: Final = 148
_ALIGNED: Final = SLAB_HWCACHE_ALIGN | SLAB_PANIC


def init_buffer_head(image: KernelImage) -> Constructor:
    """A ``struct buffer_head`` that belongs to no other file's buffers."""

    def construct(objp: int, _cachep: int, flags: int) -> None:
        if construction(flags):
            image.ram.fill(virt_to_phys(objp), _BUFFER_HEAD)
            Lists(image.ram).init(objp + _BUFFER_HEAD_ASSOC)

    return construct


def radix_tree_node_ctor(image: KernelImage) -> Constructor:
    """A node without entries."""

    def construct(objp: int, _cachep: int, _flags: int) -> None:
        image.ram.fill(virt_to_phys(objp), image.structs.radix_tree_node.size)

    return construct


def inode_init_once(image: KernelImage) -> Constructor:
    """A ``struct inode`` that is on no list, has no pages, and is not locked."""
    structs, lists = image.structs, Lists(image.ram)
    kind, space = structs.inode, structs.address_space
    task_list = structs.wait_queue_head_t.offset("task_list")
    sleepers = structs.semaphore.offset("wait") + task_list
    heads = [kind.offset(name) for name in ("i_hash", "i_dentry", "i_devices")]
    heads += [kind.offset("i_data") + space.offset(n) for n in ("i_mmap_nonlinear", "private_list")]
    heads.append(kind.offset("i_sem") + sleepers)
    heads.append(kind.offset("i_alloc_sem") + structs.rw_semaphore.offset("wait_list"))

    def construct(objp: int, _cachep: int, flags: int) -> None:
        if construction(flags):
            image.ram.fill(virt_to_phys(objp), kind.size)
            for head in heads:
                lists.init(objp + head)
            inode = image.at(kind, objp)
            inode.i_sem.count = 1
            inode.i_data.page_tree.gfp_mask = image.constants.gfp.atomic
            inode.i_data.i_mmap.index_bits = inode.i_data.i_mmap.raw = 1

    return construct


def pte_chain_ctor(image: KernelImage) -> Constructor:
    """A ``struct pte_chain`` that names no PTE."""

    def construct(objp: int, _cachep: int, flags: int) -> None:
        if construction(flags):
            image.ram.fill(virt_to_phys(objp), PTE_CHAIN.size)

    return construct


CACHES: Final = (
    KernelCache(
        "anon_vma_cachep",
        "anon_vma",
        lambda s: s.anon_vma.size,
        anon_vma_ctor,
        flags=SLAB_DESTROY_BY_RCU | SLAB_PANIC,
    ),
    KernelCache(
        "sigact_cachep", "sighand_cache", lambda s: _SIGHAND + s.spinlock_t.size, flags=_ALIGNED
    ),
    KernelCache(
        "files_cachep", "files_cache", lambda s: _FILES + s.spinlock_t.size, flags=_ALIGNED
    ),
    KernelCache("fs_cachep", "fs_cache", lambda s: _FS + s.rwlock_t.size, flags=_ALIGNED),
    KernelCache(
        "vm_area_cachep", "vm_area_struct", lambda s: s.vm_area_struct.size, flags=SLAB_PANIC
    ),
    KernelCache("mm_cachep", "mm_struct", lambda s: s.mm_struct.size, flags=_ALIGNED),
    KernelCache(
        "bh_cachep", "buffer_head", lambda _: _BUFFER_HEAD, init_buffer_head, flags=SLAB_PANIC
    ),
    KernelCache("names_cachep", "names_cache", lambda _: PATH_MAX, flags=_ALIGNED),
    KernelCache("filp_cachep", "filp", lambda s: s.file.size, flags=_ALIGNED),
    KernelCache(
        "dentry_cache",
        "dentry_cache",
        lambda s: s.dentry.size,
        flags=SLAB_RECLAIM_ACCOUNT | SLAB_PANIC,
    ),
    KernelCache(
        "inode_cachep",
        "inode_cache",
        lambda s: s.inode.size,
        inode_init_once,
        flags=SLAB_RECLAIM_ACCOUNT | SLAB_PANIC,
    ),
    KernelCache(
        "shmem_inode_cachep",
        "shmem_inode_cache",
        lambda s: s.shmem_inode_info.size,
    ),
    KernelCache(
        "radix_tree_node_cachep",
        "radix_tree_node",
        lambda s: s.radix_tree_node.size,
        radix_tree_node_ctor,
        flags=SLAB_PANIC,
    ),
    KernelCache("sigqueue_cachep", "sigqueue", lambda _: _SIGQUEUE, offset=4, flags=SLAB_PANIC),
)
"""In the order in which the kernel creates them. ``sighand_struct``, ``files_struct``,
``fs_struct``, ``buffer_head`` and ``sigqueue`` have a size here and no fields: memory management
does not look into them."""

PTE_CHAINS: Final = (
    KernelCache(
        "pte_chain_cache",
        "pte_chain",
        lambda s: s.pte_chain.size,
        pte_chain_ctor,
        offset=PTE_CHAIN.size,
        flags=SLAB_MUST_HWCACHE_ALIGN,
    ),
)
"""Besides, where the reverse map is one of chains (linux-2.6.0 ``mm/rmap.c: pte_chain_init()``).
The bits below the alignment of a line hold an index."""
