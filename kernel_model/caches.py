# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab caches of address spaces and files.

Models what linux-2.4.22 ``kernel/fork.c: proc_caches_init()`` and ``fs/dcache.c:
vfs_caches_init()`` create for them (book 8.1). In RAM: the caches, and the kernel's pointers to
them. A cache that exists already is taken as it is.
"""

from typing import Final

from kernel_model.errors import KernelPanic
from kernel_model.image import KernelImage
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN

CACHES: Final = {
    "mm_cachep": ("mm_struct", "mm_struct"),
    "vm_area_cachep": ("vm_area_struct", "vm_area_struct"),
    "filp_cachep": ("filp", "file"),
    "dentry_cache": ("dentry_cache", "dentry"),
    "inode_cachep": ("inode_cache", "inode"),
}
"""The kernel's pointer -> name of the cache, structure that it holds."""


def proc_caches_init(image: KernelImage, slab: Slab) -> None:
    """Create what is missing, and point to it."""
    for pointer, (name, structure) in CACHES.items():
        cache = slab.find(name)
        size = getattr(image.structs, structure).size
        cachep = cache.vaddr if cache else slab.kmem_cache_create(name, size, 0, SLAB_HWCACHE_ALIGN)
        if not cachep:
            raise KernelPanic(f"cannot create the slab cache {name}")
        setattr(image.statics, pointer, cachep)
