# SPDX-License-Identifier: GPL-2.0-or-later
"""The files below ``/dev/hugepages``, as the model has them.

A mount of the model's hugetlbfs; each name of the virtual file system holds an inode of it. What
can fail: :class:`~kernel_model.errors.MmucheckError` when there is no memory for the mount.
"""

from harness.vfs.directory import Directory
from harness.vfs.filesystem import FileSystem
from harness.vfs.hugetlbfs import HugeSuperBlock
from kernel_model.errors import MmucheckError
from kernel_model.fs.hugetlbfs import HugetlbFs
from kernel_model.kernel import Kernel

_DEVICE = 0x0005


class HugeFiles:
    """The inodes of the mount (:class:`~harness.vfs.hugetlbfs.HugeInodes`)."""

    def __init__(self, hugetlbfs: HugetlbFs, kernel: Kernel) -> None:
        self._hugetlbfs = hugetlbfs
        self._files = kernel.files
        self._held: set[int] = set()
        self._sb = hugetlbfs.mount()
        if not self._sb:
            raise MmucheckError("no memory to mount hugetlbfs")

    def new(self, mode: int) -> int:
        inode = self._hugetlbfs.hugetlbfs_get_inode(self._sb, mode)
        if inode > 0:
            self._held.add(inode)
        return inode

    def size(self, inode: int) -> int:
        return int(self._files.inode(inode).i_size)

    def truncate(self, inode: int, size: int) -> int:
        return self._hugetlbfs.hugetlbfs_setattr_size(inode, size)

    def open(self, inode: int, name: str, mode: int) -> int:
        return self._hugetlbfs.open(inode, name, mode)

    def release(self, inode: int) -> None:
        self._held.remove(inode)
        self._files.inode(inode).i_nlink = 0
        self._files.iput(inode)

    def unmount(self) -> None:
        """Nobody runs any more: every file goes, and the mount."""
        for inode in list(self._held):
            self.release(inode)
        self._hugetlbfs.put_super(self._sb)


def mount_huge_pages(files: FileSystem, kernel: Kernel) -> HugeFiles | None:
    """Mount hugetlbfs at ``/dev/hugepages``, if the kernel was booted with huge pages."""
    if not kernel.hugetlbfs or not kernel.config.nr_hugepages:
        return None
    inodes = HugeFiles(kernel.hugetlbfs, kernel)
    superblock = HugeSuperBlock(_DEVICE, files.quota, files.now, inodes)
    files.mount(b"hugepages", Directory(superblock, 0o1777), files.dev)
    return inodes
