# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of the virtual file system in the model's page cache.

A regular file of :mod:`harness.vfs` is the backing store of a model's file: what is mapped comes
from its pages, and what a shared mapping dirties goes back there. While the model has an inode of
the file, ``read()`` and ``write()`` go through its pages too, so both see the same bytes.
"""

from harness.vfs.hugetlbfs import HugeFile
from harness.vfs.regular import RegularFile
from kernel_model.fs.hostfs import HostFs


class CachedPages:
    """The :class:`~harness.vfs.regular.AddressSpace` of one file."""

    def __init__(self, hostfs: HostFs, file: RegularFile) -> None:
        self._hostfs = hostfs
        self._file = file

    def cached(self, index: int) -> bytes | None:
        inode = self._hostfs.find(self._file)
        return self._hostfs.cached(inode, index) if inode else None

    def written(self, index: int, offset: int, data: bytes) -> None:
        if inode := self._hostfs.find(self._file):
            self._hostfs.written(inode, index, offset, data)

    def truncated(self, size: int) -> None:
        if inode := self._hostfs.find(self._file):
            self._hostfs.truncated(inode, size)


class MappedFiles:
    """Opens files for the model."""

    def __init__(self, hostfs: HostFs) -> None:
        self._hostfs = hostfs

    def open(self, file: RegularFile, name: str, mode: int) -> int:
        """A ``struct file *`` with one reference, for mapping; 0: no memory."""
        if isinstance(file, HugeFile):
            return file.open_for_mapping(name, mode)
        if file.address_space is None:
            file.address_space = CachedPages(self._hostfs, file)
        return self._hostfs.open(file, name, mode)
