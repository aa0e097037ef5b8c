# SPDX-License-Identifier: GPL-2.0-or-later
"""Who maps a file: its VMAs, from its side.

Models ``__vma_link_file()`` and ``__remove_shared_vm_struct()`` of linux-2.4.22 and 2.6.11
``mm/mmap.c`` (book 4.4.2, 3.10). A VMA that denies writing counts in ``inode->i_writecount``. What
the VMAs hang on, in the ``address_space``, is each release's own.
"""

from abc import ABC, abstractmethod
from typing import Any

from kernel_model.mm.mmap.areas import Areas
from kernel_model.structs.mm import VM_DENYWRITE


class FileMappings(ABC):
    """The VMAs of every file. Those without a file are left alone."""

    def __init__(self, areas: Areas) -> None:
        self._areas = areas

    def _inode(self, vma: int) -> Any:
        """The inode that a VMA maps; None: none."""
        file = self._areas.vma(vma).vm_file
        return self._areas.files.inode(self._areas.files.inode_of(file)) if file else None

    def link(self, vma: int) -> None:
        """``__vma_link_file()``."""
        inode = self._inode(vma)
        if inode is None:
            return
        if self._areas.vma(vma).vm_flags & VM_DENYWRITE:
            inode.i_writecount -= 1
        self._insert(vma, int(inode.i_mapping))

    def link_copy(self, new: int, old: int) -> None:
        """A child's VMA goes right behind the one it was copied from."""
        inode = self._inode(new)
        if inode is None:
            return
        if self._areas.vma(new).vm_flags & VM_DENYWRITE:
            inode.i_writecount -= 1
        self._insert_behind(new, old)

    def remove(self, vma: int) -> None:
        """``__remove_shared_vm_struct()``: no longer among the file's, nor against writing."""
        inode = self._inode(vma)
        if inode is None:
            return
        if self._areas.vma(vma).vm_flags & VM_DENYWRITE:
            inode.i_writecount += 1
        self._remove(vma, int(inode.i_mapping))

    @abstractmethod
    def _insert(self, vma: int, mapping: int) -> None: ...

    @abstractmethod
    def _insert_behind(self, new: int, old: int) -> None: ...

    @abstractmethod
    def _remove(self, vma: int, mapping: int) -> None: ...
