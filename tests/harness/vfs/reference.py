# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's kernel as the reference for files: a process in a root of its own that does as told.

``python reference.py FOLDER`` enters ``FOLDER`` with ``chroot()`` (in a user namespace of its own
where that needs one), then reads pickled ``(operation, arguments)`` and answers ``(errno, value)``.
"""

import contextlib
import ctypes
import errno
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

CLONE_NEWUSER = 0x10000000
Answer = tuple[int, Any]


def populate(top: Path) -> None:
    """What both trees start with: nested directories, links of all kinds, a FIFO."""
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "f").write_bytes(bytes(range(250)) * 40)
    (top / "a" / "b" / "g").write_bytes(b"g" * 4096)
    (top / "c").write_bytes(b"0123456789")
    os.link(top / "c", top / "a" / "h")
    for name, text in {
        "d": "a/b",
        "e": "/a/f",
        "l": "l",
        "x": "../../../c",
        "z": "nowhere",
        "a/up": "..",
        "a/r": "/",
        "s": "d/",
    }.items():
        (top / name).symlink_to(text)
    os.mkfifo(top / "p")
    for path in sorted(top.rglob("*")):
        if not path.is_symlink():
            os.chmod(path, 0o755 if path.is_dir() else 0o644)
            os.utime(path, ns=(1_000_000_000, 2_000_000_000))


class Worker:
    """The operations; descriptors are named by handles, which count from 0."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[int, int] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def reset(self) -> None:
        """Empty the tree and make it as it was at first."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        os.seteuid(0)
        os.setegid(0)
        os.fchdir(self._root)
        os.chown(self._root, 0, 0)
        os.fchmod(self._root, 0o755)
        os.umask(0o022)
        for name in os.listdir("/"):
            _remove("/" + name)
        populate(Path("/"))

    def start(self, handle: int | None) -> int | None:
        return None if handle is None else self._open[handle]

    def open(self, handle: int, at: int | None, path: bytes, flags: int, mode: int) -> None:
        self._open[handle] = os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=self.start(at))

    def close(self, handle: int) -> None:
        os.close(self._open.pop(handle))

    def read(self, handle: int, count: int) -> bytes:
        return os.read(self._open[handle], count)

    def write(self, handle: int, data: bytes) -> int:
        return os.write(self._open[handle], data)

    def pread(self, handle: int, count: int, position: int) -> bytes:
        return os.pread(self._open[handle], count, position)

    def pwrite(self, handle: int, data: bytes, position: int) -> int:
        return os.pwrite(self._open[handle], data, position)

    def seek(self, handle: int, offset: int, whence: int) -> int:
        return os.lseek(self._open[handle], offset, whence)

    def ftruncate(self, handle: int, size: int) -> None:
        os.ftruncate(self._open[handle], size)

    def fstat(self, handle: int) -> tuple[int, ...]:
        return described(os.fstat(self._open[handle]))

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(path, size)

    def mkdir(self, at: int | None, path: bytes, mode: int) -> None:
        os.mkdir(path, mode, dir_fd=self.start(at))

    def rmdir(self, at: int | None, path: bytes) -> None:
        os.rmdir(path, dir_fd=self.start(at))

    def unlink(self, at: int | None, path: bytes) -> None:
        os.unlink(path, dir_fd=self.start(at))

    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        if self._libc.renameat2(-100, old, -100, new, flags):
            raise OSError(ctypes.get_errno(), "renameat2")

    def link(self, old: bytes, new: bytes, follow: bool) -> None:
        # os.link() decides by itself what to follow.
        if self._libc.linkat(-100, old, -100, new, 0x400 * follow):
            raise OSError(ctypes.get_errno(), "linkat")

    def symlink(self, text: bytes, path: bytes) -> None:
        os.symlink(text, path)

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(path)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(path, mode)

    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        os.chown(path, uid, gid, follow_symlinks=follow)

    def utimes(self, path: bytes, atime: int, mtime: int, follow: bool) -> tuple[int, int]:
        os.utime(path, ns=(atime, mtime), follow_symlinks=follow)
        status = os.stat(path, follow_symlinks=follow)
        return status.st_atime_ns, status.st_mtime_ns

    def mkfifo(self, path: bytes, mode: int) -> None:
        os.mkfifo(path, mode)

    def stat(self, at: int | None, path: bytes, follow: bool) -> tuple[int, ...]:
        return described(os.stat(path, dir_fd=self.start(at), follow_symlinks=follow))

    def access(self, path: bytes, mode: int) -> None:
        if self._libc.access(path, mode):
            raise OSError(ctypes.get_errno(), "access")

    def list(self, path: bytes) -> list[bytes]:
        return sorted(os.listdir(path))

    def chdir(self, path: bytes) -> None:
        os.chdir(path)

    def getcwd(self) -> bytes:
        return os.getcwdb()

    def umask(self, mask: int) -> int:
        return os.umask(mask)

    def become(self, uid: int) -> None:
        """Effective IDs only: the way back is open."""
        os.seteuid(0)
        os.setegid(uid)
        os.seteuid(uid)


def described(status: Any) -> tuple[int, ...]:
    """What must agree. How large a directory is, and what it counts, is the file system's.

    Who runs the tests owns what root owns in the reference's root directory.
    """
    directory = stat.S_ISDIR(status.st_mode)
    size = 0 if directory else status.st_size
    nlink = 0 if directory else status.st_nlink
    uid = 0 if status.st_uid == os.getuid() else status.st_uid
    gid = 0 if status.st_gid == os.getgid() else status.st_gid
    return status.st_mode, nlink, uid, gid, size


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            _remove(f"{path}/{name}")
        os.rmdir(path)
    else:
        os.unlink(path)


class Reference:
    """The process, seen from the test."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def do(self, operation: str, *arguments: Any) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((operation, arguments), self._process.stdin)
        self._process.stdin.flush()
        answer: Answer = pickle.load(self._process.stdout)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def enter(folder: str) -> int:
    """Make ``folder`` the root: a descriptor of it."""
    uid, gid = os.getuid(), os.getgid()
    if uid:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
            sys.exit("this host lets nobody but root have a root directory of his own")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    else:
        os.setgroups([])
    os.chroot(folder)
    os.chdir("/")
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY)


def serve(worker: Worker) -> None:
    while True:
        try:
            operation, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = 0, getattr(worker, operation)(*arguments)
        except OSError as error:
            answer = error.errno or errno.EIO, None
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve(Worker(enter(sys.argv[1])))
