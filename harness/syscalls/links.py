# SPDX-License-Identifier: GPL-2.0-or-later
"""Names: make, remove, rename, link.

Models the system calls of linux-2.4.22 ``fs/namei.c``; what they do to a tree is in
:mod:`harness.vfs.operations`.
"""

import errno

from harness.syscalls.places import (
    AT_EMPTY_PATH,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    CWD,
    find_at,
    parent_at,
    place_at,
)
from harness.syscalls.requests import Call
from harness.syscalls.task import Task
from harness.syscalls.user_copy import MAX_COUNT, copy_out, copy_path
from harness.vfs import operations
from harness.vfs.failure import fail
from harness.vfs.inode import Symlink


def sys_mkdirat(task: Task, directory: int, path: int, mode: int) -> Call:
    operations.mkdir(task.fs, (yield from parent_at(task, directory, path)), mode)
    return 0


def sys_mkdir(task: Task, path: int, mode: int) -> Call:
    return (yield from sys_mkdirat(task, CWD, path, mode))


def sys_mknodat(task: Task, directory: int, path: int, mode: int, device: int) -> Call:
    del device
    operations.mknod(task.fs, (yield from parent_at(task, directory, path)), mode & 0xFFFF)
    return 0


def sys_mknod(task: Task, path: int, mode: int, device: int) -> Call:
    return (yield from sys_mknodat(task, CWD, path, mode, device))


def sys_unlinkat(task: Task, directory: int, path: int, flags: int) -> Call:
    if flags & ~AT_REMOVEDIR:
        return -errno.EINVAL
    remove = operations.rmdir if flags & AT_REMOVEDIR else operations.unlink
    remove(task.fs, (yield from parent_at(task, directory, path)))
    return 0


def sys_unlink(task: Task, path: int) -> Call:
    return (yield from sys_unlinkat(task, CWD, path, 0))


def sys_rmdir(task: Task, path: int) -> Call:
    return (yield from sys_unlinkat(task, CWD, path, AT_REMOVEDIR))


def sys_renameat2(
    task: Task, old_directory: int, old: int, new_directory: int, new: int, flags: int
) -> Call:
    source = yield from parent_at(task, old_directory, old)
    target = yield from parent_at(task, new_directory, new)
    operations.rename(task.fs, source, target, flags)
    return 0


def sys_renameat(task: Task, old_directory: int, old: int, new_directory: int, new: int) -> Call:
    return (yield from sys_renameat2(task, old_directory, old, new_directory, new, 0))


def sys_rename(task: Task, old: int, new: int) -> Call:
    return (yield from sys_renameat2(task, CWD, old, CWD, new, 0))


def sys_linkat(
    task: Task, old_directory: int, old: int, new_directory: int, new: int, flags: int
) -> Call:
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    look = flags & AT_EMPTY_PATH
    if not flags & AT_SYMLINK_FOLLOW:
        look |= AT_SYMLINK_NOFOLLOW
    inode = yield from place_at(task, old_directory, old, look)
    operations.link(task.fs, inode, (yield from parent_at(task, new_directory, new)))
    return 0


def sys_link(task: Task, old: int, new: int) -> Call:
    return (yield from sys_linkat(task, CWD, old, CWD, new, 0))


def sys_symlinkat(task: Task, text: int, directory: int, path: int) -> Call:
    target = yield from copy_path(text)
    if not target:
        return -errno.ENOENT
    operations.symlink(task.fs, target, (yield from parent_at(task, directory, path)))
    return 0


def sys_symlink(task: Task, text: int, path: int) -> Call:
    return (yield from sys_symlinkat(task, text, CWD, path))


def sys_readlinkat(task: Task, directory: int, path: int, buffer: int, size: int) -> Call:
    if not 0 < size <= MAX_COUNT:
        return -errno.EINVAL
    name = yield from copy_path(path)
    inode = find_at(task, directory, name, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)
    if not isinstance(inode, Symlink):
        fail(errno.EINVAL if name else errno.ENOENT)
    text = inode.text()[:size]
    yield from copy_out(buffer, text)
    return len(text)


def sys_readlink(task: Task, path: int, buffer: int, size: int) -> Call:
    return (yield from sys_readlinkat(task, CWD, path, buffer, size))
