# SPDX-License-Identifier: GPL-2.0-or-later
"""All files that programs see: the root, ``/dev``, ``/proc``, pipes and the standard streams.

The root is an empty tree, or what a folder of the host shows. Everything a program writes stays in
memory.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final
from weakref import WeakSet

from harness.vfs.credentials import Credentials
from harness.vfs.descriptors import DescriptorTable
from harness.vfs.devices import RandomBytes, fill_dev
from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.flags import O_RDONLY, O_WRONLY
from harness.vfs.host import HostFolder
from harness.vfs.inode import PIPEFS_MAGIC, TMPFS_MAGIC, Inode, SuperBlock
from harness.vfs.mounts import mounts_text
from harness.vfs.namei import Context
from harness.vfs.overlay import HostTree
from harness.vfs.proc import Processes, ProcTree
from harness.vfs.quota import Quota
from harness.vfs.regular import RegularFile
from harness.vfs.streams import InputStream, OutputStream
from harness.vfs.timerfd import TimerFile

_ROOT_DEVICE: Final = 0x0801
_DEV_DEVICE, _PROC_DEVICE, _PIPE_DEVICE = 0x0002, 0x0003, 0x0004
"""File systems without a disk have major number 0."""


class FileSystem:
    """One machine's files.

    ``now`` gives nanoseconds since 1970; ``random`` feeds ``/dev/random``; ``root`` is the
    folder of the host to show.
    """

    def __init__(
        self,
        now: Callable[[], int],
        random: RandomBytes,
        root: Path | str | None = None,
        quota: Quota | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.quota = quota or Quota()
        self.now = now
        self._pipes = SuperBlock(_PIPE_DEVICE, PIPEFS_MAGIC, self.quota, now)
        self.timers: WeakSet[TimerFile] = WeakSet()
        """The timers that are files."""
        self._folders: list[HostFolder] = []
        self.root = self._root(root)
        self.mounts: list[Directory] = [self.root]
        """The roots of all file systems that a path leads to."""
        self.proc = ProcTree(_PROC_DEVICE, self.quota, now, processes)
        self.proc.process_texts[b"mounts"] = self._mounts
        self.dev = Directory(SuperBlock(_DEV_DEVICE, TMPFS_MAGIC, self.quota, now))
        fill_dev(self.dev, random)
        self.mount(b"dev", self.dev)
        self.mount(b"proc", self.proc.root)
        if root is None:
            tmp = self.make_directory(b"tmp")
            tmp.mode |= 0o1777

    def _root(self, folder: Path | str | None) -> Directory:
        if folder is None:
            return Directory(SuperBlock(_ROOT_DEVICE, TMPFS_MAGIC, self.quota, self.now))
        self._folders.append(HostFolder(folder))
        return HostTree(_ROOT_DEVICE, self.quota, self.now, self._folders[-1]).root

    @property
    def pipes(self) -> SuperBlock:
        """The file system that pipes are in, and whatever else no path leads to."""
        return self._pipes

    def next_event(self) -> int | None:
        """When the next timer goes off, on its clock."""
        events = (timer.next_event() for timer in self.timers if timer.count)
        return min((event for event in events if event is not None), default=None)

    def mount(self, name: bytes, directory: Directory, at: Directory | None = None) -> None:
        """Let ``/name``, or a name in the directory ``at``, be the root of another file system."""
        (at or self.root).mount(name, directory)
        self.mounts.append(directory)

    def mount_folder(self, name: bytes, folder: Path | str) -> None:
        """Show another folder of the host as ``/name``."""
        self._folders.append(HostFolder(folder))
        device = _ROOT_DEVICE + len(self._folders)
        self.mount(name, HostTree(device, self.quota, self.now, self._folders[-1]).root)

    def _mounts(self, pid: int) -> bytes:
        return mounts_text(self.mounts, self.proc.processes.root(pid))

    def close(self) -> None:
        """Give back the host's descriptors."""
        for folder in self._folders:
            folder.close()

    # -- what the machine itself puts there ----------------------------------------------------

    def make_directory(self, path: bytes) -> Directory:
        """The directory ``path``, made where it is missing, and those above it."""
        at = self.root
        for name in path.split(b"/"):
            if not name:
                continue
            below = at.lookup(name)
            if below is None:
                below = Directory(at.superblock)
                at.attach(name, below)
            if not isinstance(below, Directory):
                fail(errno.ENOTDIR)
            at = below
        return at

    def add_file(self, path: bytes, content: bytes, mode: int = 0o644) -> RegularFile:
        """A file that is there from the start, not counted in the quota: ``content`` is shared."""
        directory, _, name = path.rpartition(b"/")
        parent = self.make_directory(directory)
        inode = RegularFile(
            parent.superblock,
            mode,
            lower=lambda count, position: content[position : position + count],
            lower_size=len(content),
        )
        parent.attach(name, inode)
        return inode

    # -- what a first process gets ---------------------------------------------------------------

    def context(self, credentials: Credentials) -> Context:
        """In the root."""
        return Context(self.root, self.root, credentials)

    def standard_streams(
        self,
        output: Callable[[bytes], None],
        error: Callable[[bytes], None],
        data: bytes = b"",
        host_input: int | None = None,
    ) -> DescriptorTable:
        """Descriptors 0, 1 and 2. Input is ``data``, then what host descriptor ``host_input``
        gives.
        """
        table = DescriptorTable()
        streams: list[tuple[Inode, int]] = [
            (InputStream(self._pipes, data, host_input), O_RDONLY),
            (OutputStream(self._pipes, output), O_WRONLY),
            (OutputStream(self._pipes, error), O_WRONLY),
        ]
        for inode, flags in streams:
            table.install(inode.open(flags), limit=3)
        return table
