# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes that Python has, as a file whose pages the model's page cache can read.

It is the disk behind a :class:`~kernel_model.fs.hostfs.HostFs` file that nobody may write to.
"""

import errno

from kernel_model.arch_i386.page import PAGE_SIZE


class ProgramFile:
    """A :class:`~kernel_model.fs.hostfs.BackingStore` over ``content``."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read_page(self, index: int) -> bytes:
        return self._content[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]

    def write_page(self, index: int, data: bytes) -> None:
        """Refused: private mappings never come here, and shared ones cannot be made."""
        raise OSError(errno.EROFS, "a program's file is read-only")

    def truncate(self, size: int) -> None:
        raise OSError(errno.EROFS, "a program's file is read-only")
