# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMAs of a file in a prio tree; on a list those whose pages are in no order.

Models linux-2.6.11 ``mapping->i_mmap``, ``i_mmap_nonlinear`` and ``i_mmap_writable`` (book 3.10,
4.8). The tree finds a VMA by the pages it maps, so a VMA is taken out while these change.
"""

from typing import Any

from kernel_model.lists import Lists
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.mappings import FileMappings
from kernel_model.mm.prio_tree import PARENT, VM_SHARED_NODE, VmaPrioTree
from kernel_model.structs.linux_2_6.mm import VM_NONLINEAR
from kernel_model.structs.mm import VM_SHARED


class MappingTrees(FileMappings):
    """The prio tree and the list of every file."""

    def __init__(self, areas: Areas) -> None:
        super().__init__(areas)
        self.trees = VmaPrioTree(areas.image.ram)
        self._lists = Lists(areas.image.ram)
        mapping = areas.image.structs.address_space
        self._i_mmap = mapping.offset("i_mmap")
        self._i_mmap_nonlinear = mapping.offset("i_mmap_nonlinear")

    def _space(self, mapping: int) -> Any:
        return self._areas.image.at(self._areas.image.structs.address_space, mapping)

    def _insert(self, vma: int, mapping: int) -> None:
        vm_flags = self._areas.vma(vma).vm_flags
        if vm_flags & VM_SHARED:
            self._space(mapping).i_mmap_writable += 1
        if vm_flags & VM_NONLINEAR:
            self._insert_nonlinear(vma, mapping)
        else:
            self.trees.insert(vma, mapping + self._i_mmap)

    def _insert_nonlinear(self, vma: int, mapping: int) -> None:
        """``vma_nonlinear_insert()``."""
        self.trees.tree.put(vma + VM_SHARED_NODE, PARENT, 0)
        self._lists.add_tail(vma + VM_SHARED_NODE, mapping + self._i_mmap_nonlinear)

    def _insert_behind(self, new: int, old: int) -> None:
        self.trees.add(new, old)

    def _remove(self, vma: int, mapping: int) -> None:
        vm_flags = self._areas.vma(vma).vm_flags
        if vm_flags & VM_SHARED:
            self._space(mapping).i_mmap_writable -= 1
        if vm_flags & VM_NONLINEAR:
            self._lists.delete_init(vma + VM_SHARED_NODE)
        else:
            self.trees.remove(vma, mapping + self._i_mmap)

    # -- VMAs that change ----------------------------------------------------------------------

    def _root(self, vma: int) -> int:
        """The tree that a VMA is in; 0: none."""
        inode = self._inode(vma)
        if inode is None or self._areas.vma(vma).vm_flags & VM_NONLINEAR:
            return 0
        return int(inode.i_mapping) + self._i_mmap

    def take_out(self, vma: int) -> None:
        """Out of its tree, because it is about to map other pages."""
        if root := self._root(vma):
            self.trees.remove(vma, root)

    def put_back(self, vma: int) -> None:
        """Into its tree by the pages that it maps now."""
        if root := self._root(vma):
            self.trees.insert(vma, root)

    def make_nonlinear(self, vma: int) -> None:
        """From the tree to the list: ``remap_file_pages()`` puts its pages into another order."""
        self.take_out(vma)
        self._areas.vma(vma).vm_flags |= VM_NONLINEAR
        self._insert_nonlinear(vma, int(self._inode(vma).i_mapping))
