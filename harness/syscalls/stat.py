# SPDX-License-Identifier: GPL-2.0-or-later
"""``stat`` in all its forms, and ``statfs``.

Models linux-2.4.22 ``fs/stat.c`` and ``fs/open.c: vfs_statfs``. What can fail: ``EOVERFLOW`` where
the form has no room for a number.
"""

import ctypes
import errno
from typing import Final

from harness.syscalls.places import (
    AT_EMPTY_PATH,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
    place,
    place_at,
)
from harness.syscalls.requests import Call
from harness.syscalls.structures import (
    OldStat,
    Stat,
    Stat64,
    Statfs,
    Statfs64,
    Statx,
    StatxTimestamp,
)
from harness.syscalls.task import Task
from harness.syscalls.user_copy import copy_struct_out
from harness.vfs.failure import fail
from harness.vfs.inode import NAME_MAX, PROC_MAGIC, Inode

BLOCK_SIZE: Final = 4096
_SECOND: Final = 1_000_000_000
_STATX_BASIC: Final = 0x7FF


def _old(inode: Inode) -> OldStat:
    if inode.size > 0x7FFFFFFF:
        fail(errno.EOVERFLOW)
    return OldStat(
        inode.superblock.device,
        inode.number,
        inode.mode,
        inode.nlink,
        *(min(inode.uid, 0xFFFE), min(inode.gid, 0xFFFE)),
        *(inode.rdev, inode.size),
        *(time // _SECOND for time in (inode.atime, inode.mtime, inode.ctime)),
    )


def _times(inode: Inode) -> list[int]:
    """Seconds and nanoseconds of each."""
    times = (inode.atime, inode.mtime, inode.ctime)
    return [part for time in times for part in divmod(time, _SECOND)]


def _new(inode: Inode) -> Stat:
    if inode.size > 0x7FFFFFFF:
        fail(errno.EOVERFLOW)
    return Stat(
        inode.superblock.device,
        *(inode.number, inode.mode, inode.nlink),
        *(min(inode.uid, 0xFFFE), min(inode.gid, 0xFFFE)),
        *(inode.rdev, inode.size, BLOCK_SIZE, inode.blocks),
        *_times(inode),
    )


def _large(inode: Inode) -> Stat64:
    return Stat64(
        st_dev=inode.superblock.device,
        __st_ino=inode.number,
        st_mode=inode.mode,
        st_nlink=inode.nlink,
        st_uid=inode.uid,
        st_gid=inode.gid,
        st_rdev=inode.rdev,
        st_size=inode.size,
        st_blksize=BLOCK_SIZE,
        st_blocks=inode.blocks,
        st_ino=inode.number,
        **dict(
            zip(
                (
                    "st_atime",
                    "st_atime_nsec",
                    "st_mtime",
                    "st_mtime_nsec",
                    "st_ctime",
                    "st_ctime_nsec",
                ),
                _times(inode),
                strict=True,
            )
        ),
    )


def _statx(inode: Inode) -> Statx:
    atime, mtime, ctime = (
        StatxTimestamp(*divmod(time, _SECOND)) for time in (inode.atime, inode.mtime, inode.ctime)
    )
    device, rdev = inode.superblock.device, inode.rdev
    return Statx(
        stx_mask=_STATX_BASIC,
        stx_blksize=BLOCK_SIZE,
        stx_nlink=inode.nlink,
        stx_uid=inode.uid,
        stx_gid=inode.gid,
        stx_mode=inode.mode,
        stx_ino=inode.number,
        stx_size=inode.size,
        stx_blocks=inode.blocks,
        stx_atime=atime,
        stx_ctime=ctime,
        stx_mtime=mtime,
        stx_rdev_major=rdev >> 8 & 0xFFF,
        stx_rdev_minor=rdev & 0xFF | rdev >> 12 & ~0xFF,
        stx_dev_major=device >> 8 & 0xFFF,
        stx_dev_minor=device & 0xFF | device >> 12 & ~0xFF,
    )


def sys_oldstat(task: Task, path: int, buffer: int) -> Call:
    return (yield from copy_struct_out(buffer, _old((yield from place(task, path)))))


def sys_oldlstat(task: Task, path: int, buffer: int) -> Call:
    inode = yield from place(task, path, follow=False)
    return (yield from copy_struct_out(buffer, _old(inode)))


def sys_oldfstat(task: Task, descriptor: int, buffer: int) -> Call:
    return (yield from copy_struct_out(buffer, _old(task.files.get_raw(descriptor).inode)))


def sys_stat(task: Task, path: int, buffer: int) -> Call:
    return (yield from copy_struct_out(buffer, _new((yield from place(task, path)))))


def sys_lstat(task: Task, path: int, buffer: int) -> Call:
    inode = yield from place(task, path, follow=False)
    return (yield from copy_struct_out(buffer, _new(inode)))


def sys_fstat(task: Task, descriptor: int, buffer: int) -> Call:
    return (yield from copy_struct_out(buffer, _new(task.files.get_raw(descriptor).inode)))


def sys_stat64(task: Task, path: int, buffer: int) -> Call:
    return (yield from copy_struct_out(buffer, _large((yield from place(task, path)))))


def sys_lstat64(task: Task, path: int, buffer: int) -> Call:
    inode = yield from place(task, path, follow=False)
    return (yield from copy_struct_out(buffer, _large(inode)))


def sys_fstat64(task: Task, descriptor: int, buffer: int) -> Call:
    return (yield from copy_struct_out(buffer, _large(task.files.get_raw(descriptor).inode)))


_STAT_FLAGS: Final = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH


def sys_fstatat64(task: Task, directory: int, path: int, buffer: int, flags: int) -> Call:
    if flags & ~_STAT_FLAGS:
        return -errno.EINVAL
    inode = yield from place_at(task, directory, path, flags)
    return (yield from copy_struct_out(buffer, _large(inode)))


def sys_statx(task: Task, directory: int, path: int, flags: int, mask: int, buffer: int) -> Call:
    if flags & ~(_STAT_FLAGS | AT_STATX_SYNC_TYPE) or mask & 0x80000000:
        return -errno.EINVAL
    if flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        return -errno.EINVAL
    inode = yield from place_at(task, directory, path, flags)
    return (yield from copy_struct_out(buffer, _statx(inode)))


# -- file systems --------------------------------------------------------------------------------


def _file_system(inode: Inode, layout: type[Statfs] | type[Statfs64]) -> Statfs | Statfs64:
    """The writable layer's bounds are the file system's size."""
    superblock, quota = inode.superblock, inode.superblock.quota
    result = layout(
        f_type=superblock.magic,
        f_bsize=BLOCK_SIZE,
        f_frsize=BLOCK_SIZE,
        f_namelen=NAME_MAX,
    )
    if superblock.magic != PROC_MAGIC:
        result.f_blocks = quota.max_pages
        result.f_bfree = result.f_bavail = quota.max_pages - quota.pages
        result.f_files = quota.max_inodes
        result.f_ffree = quota.max_inodes - quota.inodes
    return result


def sys_statfs(task: Task, path: int, buffer: int) -> Call:
    inode = yield from place(task, path)
    return (yield from copy_struct_out(buffer, _file_system(inode, Statfs)))


def sys_fstatfs(task: Task, descriptor: int, buffer: int) -> Call:
    inode = task.files.get_raw(descriptor).inode
    return (yield from copy_struct_out(buffer, _file_system(inode, Statfs)))


def _check_size(size: int) -> None:
    """Programs also pass the size with the padding that other architectures need."""
    if size not in (ctypes.sizeof(Statfs64), ctypes.sizeof(Statfs64) + 4):
        fail(errno.EINVAL)


def sys_statfs64(task: Task, path: int, size: int, buffer: int) -> Call:
    _check_size(size)
    inode = yield from place(task, path)
    return (yield from copy_struct_out(buffer, _file_system(inode, Statfs64)))


def sys_fstatfs64(task: Task, descriptor: int, size: int, buffer: int) -> Call:
    _check_size(size)
    inode = task.files.get_raw(descriptor).inode
    return (yield from copy_struct_out(buffer, _file_system(inode, Statfs64)))
