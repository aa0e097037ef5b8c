# SPDX-License-Identifier: GPL-2.0-or-later
"""``open``, ``creat``, ``close``.

Models linux-2.4.22 ``fs/open.c`` and ``fs/namei.c: open_namei``; where later kernels decided
otherwise, as they do.
"""

import errno
import stat

from harness.syscalls.places import start_of
from harness.syscalls.requests import Call, Part, WaitUntil
from harness.syscalls.task import RLIMIT_NOFILE, Task
from harness.syscalls.user_copy import copy_path
from harness.vfs.credentials import MAY_READ, MAY_WRITE
from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.flags import (
    MAX_NON_LFS,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_LARGEFILE,
    O_NOATIME,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
)
from harness.vfs.inode import Inode, Symlink
from harness.vfs.namei import Context, Found, Last, Parent, Walk
from harness.vfs.open_file import OpenFile
from harness.vfs.operations import create_file, cut
from harness.vfs.pipe import PipeEnd
from harness.vfs.regular import RegularFile

_WANTED = {
    O_RDONLY: MAY_READ,
    O_WRONLY: MAY_WRITE,
    O_RDWR: MAY_READ | MAY_WRITE,
    O_ACCMODE: MAY_READ | MAY_WRITE,
}
_KEPT = ~(O_CREAT | O_EXCL | O_TRUNC | O_CLOEXEC)
"""Flags that an open file keeps; the others only say how to open it."""


def _found(
    context: Context, path: bytes, start: Directory | None, flags: int, mode: int
) -> tuple[Found, bool]:
    """What to open, made if need be; and whether it was made."""
    walk = Walk(context)
    if not flags & O_CREAT:
        follow = not flags & O_NOFOLLOW
        return walk.find(path, start, follow=follow), False
    parent = walk.parent(path, start)
    while True:
        if parent.slash and parent.last is Last.NAME:
            fail(errno.EISDIR)
        inode = walk.look(parent)
        if inode is None:
            made = create_file(
                context, Parent(parent.directory, parent.name, parent.last, False), mode
            )
            return Found(made, parent.directory, parent.name), True
        if flags & O_EXCL:
            fail(errno.EEXIST)
        if not isinstance(inode, Symlink) or flags & O_NOFOLLOW:
            return Found(inode, parent.directory, parent.name), False
        step = walk.follow(inode, parent)
        if isinstance(step, Found):
            return step, False
        parent = step


def _check(context: Context, inode: Inode, flags: int, made: bool) -> None:
    """``may_open()``, and what ``do_open()`` asks of the kind."""
    if isinstance(inode, Symlink) and not flags & O_PATH:
        fail(errno.ENOTDIR if flags & O_DIRECTORY else errno.ELOOP)
    if isinstance(inode, Directory):
        if flags & O_CREAT or (not flags & O_PATH and flags & (O_ACCMODE | O_TRUNC)):
            fail(errno.EISDIR)
    elif flags & O_DIRECTORY:
        fail(errno.ENOTDIR)
    if flags & O_PATH:
        return
    if not made:
        wanted = _WANTED[flags & O_ACCMODE] | (MAY_WRITE if flags & O_TRUNC else 0)
        context.credentials.check(inode, wanted)
    if flags & O_NOATIME and not context.credentials.owns(inode):
        fail(errno.EPERM)
    large = inode.size > MAX_NON_LFS and not flags & (O_LARGEFILE | O_TRUNC)
    if stat.S_ISREG(inode.mode) and large:
        fail(errno.EOVERFLOW)


def open_path(
    task: Task, start: Directory | None, path: bytes, flags: int, mode: int
) -> Part[OpenFile]:
    """A new open file; one who opens a FIFO waits here for the other end."""
    if flags & O_PATH:
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
    elif flags & O_TMPFILE == O_TMPFILE:
        fail(errno.EOPNOTSUPP)
    elif flags & O_CREAT and flags & O_DIRECTORY:
        fail(errno.EINVAL)
    found, made = _found(task.fs, path, start, flags, mode & 0o7777)
    inode = found.inode
    _check(task.fs, inode, flags, made)
    if flags & O_PATH:
        file = OpenFile(inode, flags & _KEPT)
    else:
        if flags & O_TRUNC and isinstance(inode, RegularFile) and not made:
            cut(task.fs, inode, 0)
        file = inode.open(flags & _KEPT)
    if found.directory is not None:
        file.where = found.directory, found.name
    if isinstance(file, PipeEnd) and not file.met():
        end = file
        try:
            yield WaitUntil(end.met)
        except BaseException:
            file.put()
            raise
    return file


def _install(task: Task, start: Directory | None, path: bytes, flags: int, mode: int) -> Call:
    limit = task.limits.soft(RLIMIT_NOFILE)
    task.files.free_number(limit)
    file = yield from open_path(task, start, path, flags, mode)
    return task.files.install(file, limit, close_on_exec=bool(flags & O_CLOEXEC))


def sys_open(task: Task, path: int, flags: int, mode: int) -> Call:
    name = yield from copy_path(path)
    return (yield from _install(task, None, name, flags, mode))


def sys_openat(task: Task, directory: int, path: int, flags: int, mode: int) -> Call:
    name = yield from copy_path(path)
    return (yield from _install(task, start_of(task, directory, name), name, flags, mode))


def sys_creat(task: Task, path: int, mode: int) -> Call:
    return (yield from sys_open(task, path, O_CREAT | O_WRONLY | O_TRUNC, mode))


def sys_close(task: Task, descriptor: int) -> int:
    task.files.close(descriptor)
    return 0


CLOSE_RANGE_UNSHARE, CLOSE_RANGE_CLOEXEC = 2, 4


def sys_close_range(task: Task, first: int, last: int, flags: int) -> int:
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        return -errno.EINVAL
    for descriptor in [number for number in task.files if first <= number <= last]:
        if flags & CLOSE_RANGE_CLOEXEC:
            task.files.set_close_on_exec(descriptor, True)
        else:
            task.files.close(descriptor)
    return 0
