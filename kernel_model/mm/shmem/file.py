# SPDX-License-Identifier: GPL-2.0-or-later
"""Shmem files: made for shared anonymous mappings.

Models linux-2.4.22 ``mm/shmem.c``: ``shmem_file_setup()``, ``shmem_zero_setup()``,
``shmem_get_inode()``, ``shmem_set_size()`` (book 4.4.1). In RAM: an inode, a directory entry
and an open file for each mapping, ``shmem_sb``, and the static ``shmem_vm_ops``,
``shmem_file_operations`` and ``shmem_aops``, which :class:`~kernel_model.mm.shmem.Shmem` fills.
Not modelled: reading and writing by system call (CONFIG_TMPFS), and the list of all such
inodes, which only ``swapoff()`` walks.

What can fail: ``-ENOMEM``; ``-ENOSPC`` when there are too many inodes; ``-EINVAL`` for more than
a file can hold.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.errno import EINVAL, ENOMEM, ENOSPC
from kernel_model.fs.file_table import Files
from kernel_model.image import KernelImage
from kernel_model.mm.shmem.entries import SHMEM_MAX_INDEX, shmem_info
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE

_UNLIMITED: Final = 0xFFFFFFFF
_MODE: Final = 0o100777


class ShmemFiles:
    """Makes such files. ``enough_memory`` is ``vm_enough_memory()``."""

    def __init__(
        self, image: KernelImage, files: Files, enough_memory: Callable[[int], bool]
    ) -> None:
        self._image = image
        self._files = files
        self._enough_memory = enough_memory
        self.shmem_set_size(_UNLIMITED, _UNLIMITED)

    def shmem_set_size(self, blocks: int, inodes: int) -> int:
        """How much all files may take, in pages. ``-EINVAL`` if they have taken more."""
        sb = self._image.statics.shmem_sb
        used_blocks, used_inodes = sb.max_blocks - sb.free_blocks, sb.max_inodes - sb.free_inodes
        if used_blocks > blocks or used_inodes > inodes:
            return -EINVAL
        sb.max_blocks, sb.free_blocks = blocks, blocks - used_blocks
        sb.max_inodes, sb.free_inodes = inodes, inodes - used_inodes
        return 0

    def _get_inode(self, size: int) -> int:
        """An inode without a name, with a reference; or ``-errno``."""
        sb = self._image.statics.shmem_sb
        if not sb.free_inodes:
            return -ENOSPC
        inode = self._files.new_inode(size, self._image.symbol("shmem_aops"), _MODE)
        if not inode:
            return -ENOMEM
        sb.free_inodes -= 1
        view = self._files.inode(inode)
        view.i_nlink = 0
        view.i_op = self._image.symbol("shmem_inode_operations")
        view.i_fop = self._image.symbol("shmem_file_operations")
        highuser = self._image.constants.gfp.highuser
        self._files.set_mapping_gfp_mask(int(view.i_mapping), highuser)
        self._prepare(inode)
        return inode

    def _prepare(self, inode: int) -> None:
        """What the file system notes in an inode of its own."""
        shmem_info(self._image, inode).inode = inode

    def shmem_file_setup(self, name: str, size: int, vm_flags: int = 0) -> int:
        """An open file of ``size`` zeros that is deleted already; below 0 is ``-errno``.

        ``vm_flags`` are those of the mapping that it is for.
        """
        pages = size + PAGE_SIZE - 1 >> PAGE_SHIFT
        if pages > SHMEM_MAX_INDEX:
            return -EINVAL
        if not self._charge(pages, vm_flags):
            return -ENOMEM
        inode = self._get_inode(size)
        if inode < 0:
            self._uncharge(pages, vm_flags)
            return inode
        operations = self._image.symbol("shmem_file_operations")
        file = self._files.open_inode(inode, name, FMODE_READ | FMODE_WRITE, operations)
        if not file:
            self._uncharge(pages, vm_flags)
            self._files.iput(inode)
            return -ENOMEM
        self._charged(inode, vm_flags)
        return file

    def _charge(self, pages: int, vm_flags: int) -> bool:
        """Whether the machine has memory for a file."""
        return self._enough_memory(pages)

    def _uncharge(self, pages: int, vm_flags: int) -> None:
        """It did not come to be."""

    def _charged(self, inode: int, vm_flags: int) -> None:
        """The file is there."""

    def shmem_zero_setup(self, vma: int) -> int:
        """Give a VMA such a file of its own. 0 or ``-errno``."""
        view = self._image.at(self._image.structs.vm_area_struct, vma)
        size = int(view.vm_end) - int(view.vm_start)
        file = self.shmem_file_setup("dev/zero", size, int(view.vm_flags))
        if file < 0:
            return file
        if view.vm_file:
            self._files.fput(int(view.vm_file))
        view.vm_file = file
        view.vm_ops = self._image.symbol("shmem_vm_ops")
        return 0
