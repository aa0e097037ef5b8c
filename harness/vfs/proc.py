# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc``: texts that the model and its processes write when they are read.

Models linux-2.4.22 ``fs/proc/``. Everything in it comes from callables that the model supplies:
:attr:`ProcTree.texts` for ``/proc/NAME``, :attr:`ProcTree.process_texts` for
``/proc/PID/NAME``. A text is written when a file is read from its start.

What can fail: ``ENOENT`` for a process that has ended, ``EPERM`` for any change.
"""

import errno
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.inode import PROC_MAGIC, Inode, SuperBlock, Symlink
from harness.vfs.open_file import OpenFile, sought
from harness.vfs.quota import Quota
from harness.vfs.regular import MAX_FILE_SIZE

_FIRST_NAME: Final = 1
_FIRST_DESCRIPTOR: Final = 0x100
_SELF, _MOUNTS, _FIRST_TEXT = 2, 3, 4


class Processes(Protocol):
    """The processes there are, by PID."""

    def current(self) -> int:
        """Who is reading."""

    def pids(self) -> Sequence[int]: ...

    def descriptors(self, pid: int) -> Mapping[int, OpenFile]: ...

    def root(self, pid: int) -> Directory: ...

    def cwd(self, pid: int) -> Directory: ...

    def executable(self, pid: int) -> bytes:
        """The path of its program."""


class NoProcesses:
    """For a tree that nobody runs in."""

    def current(self) -> int:
        return 1

    def pids(self) -> Sequence[int]:
        return ()

    def descriptors(self, pid: int) -> Mapping[int, OpenFile]:
        del pid
        return {}

    def root(self, pid: int) -> Directory:
        del pid
        fail(errno.ENOENT)

    cwd = root

    def executable(self, pid: int) -> bytes:
        del pid
        fail(errno.ENOENT)


class TextFile(OpenFile):
    """An open text of ``/proc``."""

    pollable = False
    inode: "Text"

    def __init__(self, inode: "Text", flags: int) -> None:
        super().__init__(inode, flags)
        self._text: bytes | None = None

    def read(self, count: int) -> bytes:
        data = self.read_at(self.position, count)
        self.position += len(data)
        return data

    def read_at(self, position: int, count: int) -> bytes:
        if self._text is None or position == 0:
            self._text = self.inode.write_text()
        return self._text[position : position + count]

    def seek(self, offset: int, whence: int) -> int:
        return sought(self, offset, whence, 0, MAX_FILE_SIZE)


class Text(Inode):
    """A file of ``/proc``: ``write_text`` gives what it holds now."""

    seekable = True

    def __init__(self, superblock: SuperBlock, write_text: Callable[[], bytes]) -> None:
        super().__init__(superblock, stat.S_IFREG | 0o444)
        self.write_text = write_text

    def open(self, flags: int) -> TextFile:
        return TextFile(self, flags)


class SelfLink(Symlink):
    """``/proc/self``."""

    def __init__(self, superblock: SuperBlock, processes: Processes) -> None:
        super().__init__(superblock, b"")
        self._processes = processes

    def text(self) -> bytes:
        return b"%d" % self._processes.current()


class DescriptorLink(Symlink):
    """``/proc/PID/fd/N``: leads to the open file itself, whatever its name is by now."""

    def __init__(self, superblock: SuperBlock, file: OpenFile, root: Directory) -> None:
        super().__init__(superblock, path_of(file, root))
        self._file = file

    def target(self) -> Inode | None:
        return self._file.inode


class DirectoryLink(Symlink):
    """``/proc/PID/cwd`` and ``root``."""

    def __init__(self, superblock: SuperBlock, directory: Directory, root: Directory) -> None:
        super().__init__(superblock, directory.path(root) or b"(unreachable)")
        self._directory = directory

    def target(self) -> Inode | None:
        return self._directory


def path_of(file: OpenFile, root: Directory) -> bytes:
    """What ``/proc/PID/fd`` shows of an open file (``d_path``)."""
    if isinstance(file.inode, Directory):
        return file.inode.path(root) or b"(unreachable)"
    if file.where is None:
        return file.label
    directory, name = file.where
    path = (directory.path(root) or b"(unreachable)").rstrip(b"/") + b"/" + name
    return path if directory.lookup(name) is file.inode else path + b" (deleted)"


class ProcDirectory(Directory):
    """A directory whose names are computed: ``look(name)`` and ``list()``."""

    def __init__(
        self,
        superblock: SuperBlock,
        look: Callable[[bytes], Inode | None],
        names: Callable[[], list[bytes]],
    ) -> None:
        super().__init__(superblock, 0o555)
        self._look = look
        self._list = names

    def lookup(self, name: bytes) -> Inode | None:
        inode = self._look(name)
        if isinstance(inode, Directory):
            inode.parent, inode.name = self, name
        return inode

    def names(self) -> list[bytes]:
        return self._list()

    def check_alive(self) -> None:
        fail(errno.ENOENT)

    def check_removal(self) -> None:
        fail(errno.EPERM)


class ProcTree(SuperBlock):
    """The file system; whoever has something to tell adds it to ``texts`` or ``process_texts``."""

    def __init__(
        self,
        device: int,
        quota: Quota,
        now: Callable[[], int],
        processes: Processes | None = None,
    ) -> None:
        super().__init__(device, PROC_MAGIC, quota, now)
        self.processes: Processes = processes or NoProcesses()
        self.texts: dict[bytes, Callable[[], bytes]] = {}
        self.process_texts: dict[bytes, Callable[[int], bytes]] = {}
        self.root: Final = ProcDirectory(self, self._top, self._top_names)

    def _numbered(self, inode: Inode, pid: int, index: int) -> Inode:
        """The same number each time: what is looked up twice must look like one file."""
        inode.number = (pid + 1) << 16 | index
        return inode

    def _top_names(self) -> list[bytes]:
        pids = [b"%d" % pid for pid in sorted(self.processes.pids())]
        return [*sorted(self.texts), b"mounts", b"self", *pids]

    def _top(self, name: bytes) -> Inode | None:
        if name in self.texts:
            index = sorted(self.texts).index(name) + _FIRST_TEXT
            return self._numbered(Text(self, self.texts[name]), 0, index)
        if name == b"self":
            return self._numbered(SelfLink(self, self.processes), 0, _SELF)
        if name == b"mounts":
            return self._numbered(Symlink(self, b"self/mounts"), 0, _MOUNTS)
        if not (name.isdigit() and name == b"%d" % int(name[:10])):
            return None
        pid = int(name)
        if pid not in self.processes.pids():
            return None
        directory = ProcDirectory(
            self, lambda below: self._of_process(pid, below), lambda: self._process_names(pid)
        )
        return self._numbered(directory, pid, 0)

    def _process_names(self, pid: int) -> list[bytes]:
        self._check(pid)
        return sorted([*self.process_texts, b"cwd", b"exe", b"fd", b"root"])

    def _check(self, pid: int) -> None:
        if pid not in self.processes.pids():
            fail(errno.ENOENT)

    def _of_process(self, pid: int, name: bytes) -> Inode | None:
        names = self._process_names(pid)
        if name not in names:
            return None
        inode = self._process_entry(pid, name)
        return self._numbered(inode, pid, _FIRST_NAME + names.index(name))

    def _process_entry(self, pid: int, name: bytes) -> Inode:
        processes = self.processes
        if name in self.process_texts:
            write = self.process_texts[name]
            return Text(self, lambda: write(pid))
        if name == b"exe":
            return Symlink(self, processes.executable(pid))
        if name == b"fd":
            return ProcDirectory(
                self, lambda below: self._descriptor(pid, below), lambda: self._descriptors(pid)
            )
        directory = processes.cwd(pid) if name == b"cwd" else processes.root(pid)
        return DirectoryLink(self, directory, processes.root(pid))

    def _descriptors(self, pid: int) -> list[bytes]:
        self._check(pid)
        return [b"%d" % number for number in sorted(self.processes.descriptors(pid))]

    def _descriptor(self, pid: int, name: bytes) -> Inode | None:
        self._check(pid)
        if not name.isdigit():
            return None
        number = int(name[:10])
        file = self.processes.descriptors(pid).get(number)
        if file is None or name != b"%d" % number:
            return None
        link = DescriptorLink(self, file, self.processes.root(pid))
        return self._numbered(link, pid, _FIRST_DESCRIPTOR + number)
