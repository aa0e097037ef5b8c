# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to an inode's pages when nobody has the inode any more.

Models linux-2.4.22 ``fs/inode.c``: the end of ``iput()``, ``write_inode_now()``,
``clear_inode()``. A kernel keeps an inode that still has a name, pages and all, until memory is
short (``inode_unused``); here names are the harness's, and it goes at once, its dirty pages
written before. Nothing can fail: what cannot be written is lost, as in the kernel.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernel_model.mm.filemap.pages import FilePages
    from kernel_model.mm.filemap.sync import WriteBack
    from kernel_model.mm.filemap.truncate import Truncation


class Eviction:
    """To be called with the ``i_data`` of an inode whose last reference is gone."""

    def __init__(
        self, pages: "FilePages", write_back: "WriteBack", truncation: "Truncation"
    ) -> None:
        self._pages = pages
        self._write_back = write_back
        self._truncation = truncation
        self.clear_inode: dict[int, Callable[[int], None]] = {}
        """What a file system does to its inode at the end, by the address of its ``a_ops``."""
        pages.files.truncate_inode_pages = self

    def __call__(self, mapping: int) -> None:
        space = self._pages.space(mapping)
        inode = int(space.host)
        if self._pages.files.inode(inode).i_nlink:
            self._write_back.filemap_fdatasync(mapping)
            self._write_back.filemap_fdatawait(mapping)
        self._truncation.truncate_inode_pages(mapping, 0)
        if clear_inode := self.clear_inode.get(int(space.a_ops)):
            clear_inode(inode)
