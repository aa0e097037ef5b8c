# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab caches that the kernel makes for its own structures at boot.

Models what linux-2.4.22 ``kernel/fork.c: proc_caches_init()``, ``fs/dcache.c:
vfs_caches_init()`` and ``kernel/signal.c: signals_init()`` create, in the order of
``start_kernel()`` (book 8.1, 4.3.1, 4.4.1). In RAM: the caches, and the kernel's pointers to them.
Caches of drivers, block devices and the network come with their initcalls and are not modelled.

A constructor leaves an object as its cache keeps it while it is free: zero, with empty lists,
and semaphores that one may take.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errors import KernelPanic
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.flags import (
    SLAB_CTOR_CONSTRUCTOR,
    SLAB_CTOR_VERIFY,
    SLAB_HWCACHE_ALIGN,
)
from kernel_model.mm.slab.objects import Constructor
from kernel_model.structs import Structs

PATH_MAX: Final = 4096
INODE_LISTS: Final = (
    *("i_hash", "i_dentry", "i_dirty_buffers", "i_dirty_data_buffers", "i_devices"),
)
PAGE_LISTS: Final = ("clean_pages", "dirty_pages", "locked_pages")
_SIGACTIONS: Final = 64 * 20
_SIGINFO: Final = 128


@dataclass(frozen=True, slots=True)
class KernelCache:
    """One of the kernel's caches: ``pointer`` is its ``kmem_cache_t *`` among the statics."""

    pointer: str
    name: str
    size: Callable[[Structs], int]
    """``sizeof`` the structure, in bytes."""
    constructor: Callable[[KernelImage], Constructor] | None = None
    offset: int = 0
    flags: int = SLAB_HWCACHE_ALIGN


def construction(flags: int) -> bool:
    """Whether a constructor is to construct, not to verify."""
    return flags & (SLAB_CTOR_VERIFY | SLAB_CTOR_CONSTRUCTOR) == SLAB_CTOR_CONSTRUCTOR


def init_buffer_head(image: KernelImage) -> Constructor:
    """A ``struct buffer_head`` that nobody waits for: its wait queue is all that is not zero."""
    size = _buffer_head(image.structs)
    wait = _BUFFER_HEAD_WAIT + image.structs.wait_queue_head_t.offset("task_list")

    def construct(objp: int, _cachep: int, flags: int) -> None:
        if construction(flags):
            image.ram.fill(virt_to_phys(objp), size)
            Lists(image.ram).init(objp + wait)

    return construct


def init_once(image: KernelImage) -> Constructor:
    """A ``struct inode`` that is on no list, has no pages, and is not locked."""
    structs = image.structs
    kind, lists = structs.inode, Lists(image.ram)
    task_list = structs.wait_queue_head_t.offset("task_list")
    wait = structs.semaphore.offset("wait") + task_list
    heads = [kind.offset(name) for name in INODE_LISTS]
    heads += [kind.offset("i_data") + structs.address_space.offset(name) for name in PAGE_LISTS]
    heads += [kind.offset("i_wait") + task_list]
    heads += [kind.offset(name) + wait for name in ("i_sem", "i_zombie")]

    def construct(objp: int, _cachep: int, flags: int) -> None:
        if construction(flags):
            image.ram.fill(virt_to_phys(objp), kind.size)
            for head in heads:
                lists.init(objp + head)
            inode = image.at(kind, objp)
            inode.i_sem.count = inode.i_zombie.count = 1

    return construct


_BUFFER_HEAD_WAIT: Final = 72
"""``b_wait``: 18 words stand before it, of 88 bytes without its spinlock."""


def _buffer_head(structs: Structs) -> int:
    return 88 + structs.spinlock_t.size


CACHES: Final = (
    KernelCache("sigact_cachep", "signal_act", lambda s: 4 + _SIGACTIONS + s.spinlock_t.size),
    KernelCache("files_cachep", "files_cache", lambda s: 412 + s.rwlock_t.size),
    KernelCache("fs_cachep", "fs_cache", lambda s: 32 + s.rwlock_t.size),
    KernelCache("vm_area_cachep", "vm_area_struct", lambda s: s.vm_area_struct.size),
    KernelCache("mm_cachep", "mm_struct", lambda s: s.mm_struct.size),
    KernelCache("bh_cachep", "buffer_head", _buffer_head, init_buffer_head),
    KernelCache("names_cachep", "names_cache", lambda _: PATH_MAX),
    KernelCache("filp_cachep", "filp", lambda s: s.file.size),
    KernelCache("dentry_cache", "dentry_cache", lambda s: s.dentry.size),
    KernelCache("inode_cachep", "inode_cache", lambda s: s.inode.size, init_once),
    KernelCache("sigqueue_cachep", "sigqueue", lambda _: 4 + _SIGINFO, offset=4, flags=0),
)
"""In the order in which the kernel creates them. ``signal_struct``, ``files_struct``,
``fs_struct``, ``buffer_head`` and ``sigqueue`` have a size here and no fields: memory management
does not look into them."""


def proc_caches_init(
    image: KernelImage, slab: Slab, caches: Sequence[KernelCache] = CACHES
) -> None:
    """Create those that are missing, and point to each."""
    for wanted in caches:
        cache = slab.find(wanted.name)
        cachep = cache.vaddr if cache else _create(image, slab, wanted)
        if not cachep:
            raise KernelPanic(f"cannot create the slab cache {wanted.name}")
        setattr(image.statics, wanted.pointer, cachep)


def _create(image: KernelImage, slab: Slab, wanted: KernelCache) -> int:
    constructor = wanted.constructor(image) if wanted.constructor else None
    size = wanted.size(image.structs)
    return slab.kmem_cache_create(wanted.name, size, wanted.offset, wanted.flags, constructor)
