# SPDX-License-Identifier: GPL-2.0-or-later
"""Files without a name: the memory behind shared anonymous mappings.

Models linux-2.4.22 ``mm/shmem.c: shmem_file_setup()``, ``shmem_zero_setup()``, as far as the VMA
layer sees them. In RAM: an inode, a directory entry and an open file for each such mapping, and
the static ``shmem_vm_ops``, ``shmem_file_operations`` and ``shmem_aops``.

What can fail: ``-ENOMEM``, and ``-EINVAL`` for more than a file can hold.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.fs.file_table import Files
from kernel_model.image import KernelImage
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.mm import VM_AREA_STRUCT

_DIRECT: Final = 16
_ENTRIES_PER_PAGE: Final = 1024
SHMEM_MAX_PAGES: Final = _DIRECT + _ENTRIES_PER_PAGE**2 // 2 * (_ENTRIES_PER_PAGE + 1)
"""``SHMEM_MAX_INDEX``: slots in the inode, in indirect and in double indirect blocks."""


class Shmem:
    """Makes such files. ``enough_memory`` is ``vm_enough_memory()``."""

    def __init__(
        self, image: KernelImage, files: Files, enough_memory: Callable[[int], bool]
    ) -> None:
        self._image = image
        self._files = files
        self._enough_memory = enough_memory

    def shmem_file_setup(self, name: str, size: int) -> int:
        """An open file of ``size`` zeros that is deleted already; below 0 is an error."""
        pages = -(-size >> PAGE_SHIFT)
        if pages > SHMEM_MAX_PAGES:
            return -EINVAL
        if not self._enough_memory(pages):
            return -ENOMEM
        inode = self._files.new_inode(size, self._image.symbol("shmem_aops"))
        if not inode:
            return -ENOMEM
        self._files.inode(inode).i_nlink = 0
        operations = self._image.symbol("shmem_file_operations")
        file = self._files.open_inode(inode, name, FMODE_READ | FMODE_WRITE, operations)
        if not file:
            self._files.iput(inode)
            return -ENOMEM
        return file

    def shmem_zero_setup(self, vma: int) -> int:
        """Give a VMA such a file of its own; 0, or an error."""
        area = self._image.at(VM_AREA_STRUCT, vma)
        file = self.shmem_file_setup("dev/zero", area.vm_end - area.vm_start)
        if file < 0:
            return file
        if area.vm_file:
            self._files.fput(int(area.vm_file))
        area.vm_file = file
        area.vm_ops = self._image.symbol("shmem_vm_ops")
        return 0
