# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories: reading them, and being in one.

Models linux-2.4.22 ``fs/readdir.c`` and ``fs/open.c: sys_chdir``, ``fs/dcache.c: sys_getcwd``.
"""

import errno
import struct
from collections.abc import Callable
from typing import Final

from harness.syscalls.places import place
from harness.syscalls.requests import Call, CopyToUser
from harness.syscalls.task import Task
from harness.syscalls.user_copy import CHUNK, copy_out
from harness.vfs.credentials import MAY_EXEC
from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.inode import Inode
from harness.vfs.open_file import DirectoryOpenFile
from kernel_model.arch_i386.page import TASK_SIZE

Encode = Callable[[bytes, Inode, int], bytes]
"""(name, inode, position after it) -> the entry."""

_KIND_SHIFT: Final = 12
"""``DT_REG`` is ``S_IFREG`` shifted down, and so for each kind."""


def _dirent(name: bytes, inode: Inode, after: int) -> bytes:
    """``struct linux_dirent``; the kind is its last byte."""
    length = 10 + len(name) + 2 + 3 & ~3
    head = struct.pack("<IIH", inode.number & 0xFFFFFFFF, after, length)
    return (head + name).ljust(length - 1, b"\0") + bytes([inode.kind >> _KIND_SHIFT])


def _dirent64(name: bytes, inode: Inode, after: int) -> bytes:
    """``struct linux_dirent64``."""
    length = 19 + len(name) + 1 + 7 & ~7
    head = struct.pack("<QqHB", inode.number, after, length, inode.kind >> _KIND_SHIFT)
    return (head + name).ljust(length, b"\0")


def _getdents(task: Task, descriptor: int, buffer: int, count: int, encode: Encode) -> Call:
    file = task.files.get(descriptor)
    if not file.may_read:
        fail(errno.EBADF)
    if not isinstance(file, DirectoryOpenFile):
        fail(errno.ENOTDIR)
    before, data = file.position, bytearray()
    room = min(count, CHUNK)
    while True:
        position = file.position
        found = file.entry()
        if found is None:
            break
        entry = encode(*found, file.position)
        if len(data) + len(entry) > room:
            file.position = position
            if not data:
                fail(errno.EINVAL)
            break
        data += entry
    if data:
        left = len(data)
        if buffer + left <= TASK_SIZE:
            left = yield CopyToUser(buffer, bytes(data))
        if left:
            file.position = before
            fail(errno.EFAULT)
    return len(data)


def sys_getdents(task: Task, descriptor: int, buffer: int, count: int) -> Call:
    return (yield from _getdents(task, descriptor, buffer, count, _dirent))


def sys_getdents64(task: Task, descriptor: int, buffer: int, count: int) -> Call:
    return (yield from _getdents(task, descriptor, buffer, count, _dirent64))


# -- the working directory and the root ----------------------------------------------------------


def sys_getcwd(task: Task, buffer: int, size: int) -> Call:
    """The length with the zero; a directory that was removed has no path."""
    if task.fs.cwd.removed:
        return -errno.ENOENT
    path = task.fs.cwd.path(task.fs.root)
    text = (b"(unreachable)/" if path is None else path) + b"\0"
    if len(text) > size:
        return -errno.ERANGE
    yield from copy_out(buffer, text)
    return len(text)


def _enter(task: Task, inode: Inode) -> Directory:
    if not isinstance(inode, Directory):
        fail(errno.ENOTDIR)
    task.fs.credentials.check(inode, MAY_EXEC)
    return inode


def sys_chdir(task: Task, path: int) -> Call:
    inode = yield from place(task, path)
    task.fs.cwd = _enter(task, inode)
    return 0


def sys_fchdir(task: Task, descriptor: int) -> int:
    task.fs.cwd = _enter(task, task.files.get_raw(descriptor).inode)
    return 0


def sys_chroot(task: Task, path: int) -> Call:
    inode = yield from place(task, path)
    directory = _enter(task, inode)
    if not task.fs.credentials.privileged:
        return -errno.EPERM
    task.fs.root = directory
    return 0


def sys_umask(task: Task, mask: int) -> int:
    before, task.fs.umask = task.fs.umask, mask & 0o777
    return before
