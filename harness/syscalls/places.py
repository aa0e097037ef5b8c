# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the ``*at`` calls start from, and what a path leads to from there.

Models linux-2.4.22 ``fs/namei.c: path_init`` with the directory descriptors that later kernels
brought.
"""

import errno
from typing import Final

from harness.syscalls.requests import Part
from harness.syscalls.task import Task
from harness.syscalls.user_copy import copy_path, signed
from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.inode import Inode
from harness.vfs.namei import Context, Parent, Walk

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_REMOVEDIR: Final = 0x200
AT_EACCESS: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_SYNC_TYPE: Final = 0x6000
CWD: Final = AT_FDCWD & 0xFFFFFFFF
""":data:`AT_FDCWD` as a register has it."""


def start_of(task: Task, descriptor: int, path: bytes) -> Directory | None:
    """Where ``path`` starts: ``None`` is the working directory."""
    if path.startswith(b"/") or signed(descriptor) == AT_FDCWD:
        return None
    inode = task.files.get_raw(descriptor).inode
    if not path:
        fail(errno.ENOENT)
    if not isinstance(inode, Directory):
        fail(errno.ENOTDIR)
    return inode


def place_at(task: Task, descriptor: int, path: int, flags: int) -> Part[Inode]:
    """The inode that ``(descriptor, path, flags)`` names; ``path`` is the program's address."""
    return find_at(task, descriptor, (yield from copy_path(path)), flags)


def find_at(
    task: Task, descriptor: int, name: bytes, flags: int, context: Context | None = None
) -> Inode:
    """As :func:`place_at`, with the path in hand; ``context`` asks instead of the task."""
    if not name and flags & AT_EMPTY_PATH:
        if signed(descriptor) == AT_FDCWD:
            return task.fs.cwd
        return task.files.get_raw(descriptor).inode
    follow = not flags & AT_SYMLINK_NOFOLLOW
    walk = Walk(context or task.fs)
    return walk.find(name, start_of(task, descriptor, name), follow=follow).inode


def place(task: Task, path: int, *, follow: bool = True) -> Part[Inode]:
    """The inode at ``path``, from the working directory."""
    return (yield from place_at(task, CWD, path, 0 if follow else AT_SYMLINK_NOFOLLOW))


def parent_at(task: Task, descriptor: int, path: int) -> Part[Parent]:
    """``path`` but for its last name."""
    name = yield from copy_path(path)
    return Walk(task.fs).parent(name, start_of(task, descriptor, name))
