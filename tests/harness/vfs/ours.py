# SPDX-License-Identifier: GPL-2.0-or-later
"""Our tree, with the operations of the reference, and proof that a folder stays as it was."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.syscalls.places import AT_FDCWD, AT_SYMLINK_NOFOLLOW
from harness.syscalls.structures import Stat64
from harness.vfs.directory import Directory
from harness.vfs.namei import Walk
from tests.harness.syscalls.program import Program, new_machine
from tests.harness.vfs.reference import Answer, described

O_LARGEFILE = 0o100000


class Ours:
    """The operations of :class:`~tests.harness.vfs.reference.Worker`, as system calls."""

    def __init__(self, folder: Path) -> None:
        self.machine = new_machine(folder)
        for name in (b"dev", b"proc"):
            inode = self.machine.files.root.lookup(name)
            assert isinstance(inode, Directory)
            inode.mounted = False
            self.machine.files.root.detach(name)
        self.program = Program(self.machine)
        self._open: dict[int, int] = {}

    def do(self, operation: str, *arguments: Any) -> Answer:
        result = getattr(self, operation)(*arguments)
        if isinstance(result, int) and result < 0:
            return -result, None
        return 0, result

    def call(self, name: str, *arguments: int | bytes) -> int:
        return self.program.call(name, *arguments)

    def _plain(self, name: str, *arguments: int | bytes) -> int | None:
        result = self.call(name, *arguments)
        return result if result < 0 else None

    def start(self, handle: int | None) -> int:
        return AT_FDCWD if handle is None else self._open[handle]

    def open(self, handle: int, at: int | None, path: bytes, flags: int, mode: int) -> int | None:
        result = self.call("openat", self.start(at), path, flags | O_LARGEFILE, mode)
        if result < 0:
            return result
        self._open[handle] = result
        return None

    def close(self, handle: int) -> int | None:
        return self._plain("close", self._open.pop(handle))

    def _bytes(self, name: str, count: int, *arguments: int) -> int | bytes:
        room = self.program.room(max(count, 1))
        result = self.call(name, arguments[0], room, count, *arguments[1:])
        return result if result < 0 else self.program.get(room, result)

    def read(self, handle: int, count: int) -> int | bytes:
        return self._bytes("read", count, self._open[handle])

    def pread(self, handle: int, count: int, position: int) -> int | bytes:
        return self._bytes("pread64", count, self._open[handle], position, position >> 32)

    def write(self, handle: int, data: bytes) -> int:
        return self.call("write", self._open[handle], self.program.put(data), len(data))

    def pwrite(self, handle: int, data: bytes, position: int) -> int:
        address = self.program.put(data)
        low, high = position, position >> 32
        return self.call("pwrite64", self._open[handle], address, len(data), low, high)

    def seek(self, handle: int, offset: int, whence: int) -> int:
        room = self.program.room(8)
        high = offset >> 32
        result = self.call("_llseek", self._open[handle], high, offset, room, whence)
        return result or int.from_bytes(self.program.get(room, 8), "little")

    def ftruncate(self, handle: int, size: int) -> int | None:
        return self._plain("ftruncate64", self._open[handle], size, size >> 32)

    def _status(self, result: int, room: int) -> int | tuple[int, ...]:
        return result or described(Stat64.from_buffer_copy(self.program.get(room, 96)))

    def fstat(self, handle: int) -> int | tuple[int, ...]:
        room = self.program.room(96)
        return self._status(self.call("fstat64", self._open[handle], room), room)

    def stat(self, at: int | None, path: bytes, follow: bool) -> int | tuple[int, ...]:
        room, flags = self.program.room(96), 0 if follow else AT_SYMLINK_NOFOLLOW
        return self._status(self.call("fstatat64", self.start(at), path, room, flags), room)

    def truncate(self, path: bytes, size: int) -> int | None:
        return self._plain("truncate64", path, size, size >> 32)

    def mkdir(self, at: int | None, path: bytes, mode: int) -> int | None:
        return self._plain("mkdirat", self.start(at), path, mode)

    def rmdir(self, at: int | None, path: bytes) -> int | None:
        return self._plain("unlinkat", self.start(at), path, 0x200)

    def unlink(self, at: int | None, path: bytes) -> int | None:
        return self._plain("unlinkat", self.start(at), path, 0)

    def rename(self, old: bytes, new: bytes, flags: int) -> int | None:
        return self._plain("renameat2", AT_FDCWD, old, AT_FDCWD, new, flags)

    def link(self, old: bytes, new: bytes, follow: bool) -> int | None:
        return self._plain("linkat", AT_FDCWD, old, AT_FDCWD, new, 0x400 * follow)

    def symlink(self, text: bytes, path: bytes) -> int | None:
        return self._plain("symlink", text, path)

    def readlink(self, path: bytes) -> int | bytes:
        room = self.program.room(4096)
        result = self.call("readlink", path, room, 4096)
        return result if result < 0 else self.program.get(room, result)

    def chmod(self, path: bytes, mode: int) -> int | None:
        return self._plain("chmod", path, mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> int | None:
        return self._plain("chown32" if follow else "lchown32", path, uid, gid)

    def utimes(self, path: bytes, atime: int, mtime: int, follow: bool) -> int | tuple[int, int]:
        specs = b"".join(
            part.to_bytes(4, "little") for time in (atime, mtime) for part in divmod(time, 10**9)
        )
        flags = 0 if follow else AT_SYMLINK_NOFOLLOW
        result = self.call("utimensat", AT_FDCWD, path, self.program.put(specs), flags)
        if result:
            return result
        inode = Walk(self.program.fs).find(path, follow=follow).inode
        return inode.atime, inode.mtime

    def mkfifo(self, path: bytes, mode: int) -> int | None:
        return self._plain("mknod", path, stat.S_IFIFO | mode, 0)

    def access(self, path: bytes, mode: int) -> int | None:
        return self._plain("access", path, mode)

    def list(self, path: bytes) -> int | list[bytes]:
        descriptor = self.call("open", path, os.O_DIRECTORY, 0)
        if descriptor < 0:
            return descriptor
        room, names = self.program.room(512), []
        while (length := self.call("getdents64", descriptor, room, 512)) > 0:
            names += entry_names(self.program.get(room, length))
        self.call("close", descriptor)
        return sorted(names) if length == 0 else length

    def chdir(self, path: bytes) -> int | None:
        return self._plain("chdir", path)

    def getcwd(self) -> int | bytes:
        room = self.program.room(4096)
        result = self.call("getcwd", room, 4096)
        return result if result < 0 else self.program.get(room, result - 1)

    def become(self, uid: int) -> int | None:
        for number in (0, uid):
            for name in ("setresgid32", "setresuid32"):
                self.call(name, -1, number, -1)
        return None

    def umask(self, mask: int) -> int:
        return self.call("umask", mask)


def entry_names(data: bytes) -> Iterator[bytes]:
    """The names in what ``getdents64()`` gave, without ``.`` and ``..``."""
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at + 16 : at + 18], "little")
        name = data[at + 19 : at + length].partition(b"\0")[0]
        if name not in (b".", b".."):
            yield name
        at += length


def checksum(top: Path) -> str:
    """Names, kinds, contents and all times but that of access, which nobody may change either."""
    digest = hashlib.sha256()
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        digest.update(repr((path, status.st_mode, status.st_size, status.st_nlink)).encode())
        digest.update(repr((status.st_mtime_ns, status.st_ctime_ns, status.st_uid)).encode())
        if stat.S_ISREG(status.st_mode):
            digest.update(repr(status.st_atime_ns).encode())
            descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)
            digest.update(os.pread(descriptor, 1 << 20, 0))
            os.close(descriptor)
    return digest.hexdigest()
