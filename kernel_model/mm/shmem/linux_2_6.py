# SPDX-License-Identifier: GPL-2.0-or-later
"""Shmem files of 2.6, whose pages are charged when they are made.

Models linux-2.6.11 ``mm/shmem.c: shmem_alloc_inode()``, ``shmem_acct_size()``,
``shmem_unacct_size()`` (book 4.8). A shared mapping is charged to its file, not to the VMAs that
map it: the charge goes with the file. In RAM: an inode is a part of its ``shmem_inode_info``, whose
flags have ``VM_ACCOUNT``; ``shmem_backing_dev_info`` says that the pages lie in memory only. What
can fail: ``-ENOMEM``, when that much may not be promised. Not modelled: index pages in high memory.
"""

from kernel_model.fs.file_table import Files, InodeHome
from kernel_model.image import KernelImage
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.shmem.entries import shmem_info
from kernel_model.mm.shmem.file import ShmemFiles
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT


class ChargedShmemFiles(ShmemFiles):
    """Makes such files for mappings that want to be charged."""

    def __init__(self, image: KernelImage, files: Files, limits: Limits) -> None:
        kind = image.structs.shmem_inode_info
        home = InodeHome("shmem_inode_cachep", kind, kind.offset("vfs_inode"))
        files.homes[image.symbol("shmem_aops")] = home
        image.statics.shmem_backing_dev_info.memory_backed = 1
        super().__init__(image, files, limits.vm_enough_memory)
        self._limits = limits

    def _charge(self, pages: int, vm_flags: int) -> bool:
        return not vm_flags & VM_ACCOUNT or self._limits.vm_enough_memory(pages)

    def _uncharge(self, pages: int, vm_flags: int) -> None:
        if vm_flags & VM_ACCOUNT:
            self._limits.vm_unacct_memory(pages)

    def _charged(self, inode: int, vm_flags: int) -> None:
        shmem_info(self._image, inode).flags = vm_flags & VM_ACCOUNT

    def _prepare(self, inode: int) -> None:
        space = self._files.inode(inode).i_data
        space.backing_dev_info = self._image.symbol("shmem_backing_dev_info")
