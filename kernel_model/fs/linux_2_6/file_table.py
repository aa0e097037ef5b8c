# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files and inodes as 2.6 lays them out.

Models linux-2.6.11 ``fs/inode.c: inode_init_once()``, ``fs/file_table.c`` (book 3.10, 4.8). In RAM:
an inode's pages stand in a radix tree, ``page_tree``, the VMAs that map it in a prio tree,
``i_mmap``, or on a list, ``i_mmap_nonlinear``. A file points to its pages itself, by ``f_mapping``.
"""

from typing import Any, ClassVar, Final

from kernel_model.fs.file_table import Files, NamedObjects
from kernel_model.image import KernelImage
from kernel_model.mm.prio_tree import PrioTree
from kernel_model.structs.linux_2_6.fs import NO_PAGE, RA_PAGES, RA_PREV_PAGE

MAX_READAHEAD: Final = 32
"""Pages, of ``default_backing_dev_info``: ``VM_MAX_READAHEAD`` is 128 KiB."""


class TreeFiles(Files):
    """All open files of a machine that runs 2.6."""

    _inode_lists: ClassVar[tuple[str, ...]] = (
        *("i_hash", "i_list", "i_sb_list", "i_dentry", "i_devices"),
    )
    _gfp_mask_field: ClassVar[str] = "flags"
    _mapping_lists: ClassVar[tuple[str, ...]] = ("i_mmap_nonlinear", "private_list")

    def __init__(self, image: KernelImage, slab: NamedObjects) -> None:
        super().__init__(image, slab)
        self._trees = PrioTree(image.ram)

    def _init_mapping(self, mapping: int) -> None:
        super()._init_mapping(mapping)
        self._trees.init_root(mapping + self._image.structs.address_space.offset("i_mmap"))

    def device(self, inode: Any) -> int:
        """That of its superblock. Those of this model have none, and so are on no device."""
        return 0

    def open_inode(self, inode: int, name: str, mode: int, f_op: int) -> int:
        """An open file with one reference; takes the caller's reference to ``inode``."""
        file = super().open_inode(inode, name, mode, f_op)
        if file:
            view = self.file(file)
            view.f_mapping = self.inode(inode).i_mapping
            view.f_ra[RA_PREV_PAGE], view.f_ra[RA_PAGES] = NO_PAGE, MAX_READAHEAD
        return file

    def is_file_hugepages(self, file: int) -> bool:
        operations = self._image.symbol("hugetlbfs_file_operations")
        return bool(file) and self.file(file).f_op == operations
