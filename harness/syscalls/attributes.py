# SPDX-License-Identifier: GPL-2.0-or-later
"""What describes a file: mode, owner, times, size, and what one may do to it.

Models linux-2.4.22 ``fs/open.c`` and ``fs/attr.c``.
"""

import errno
import stat
from dataclasses import replace
from typing import Final

from harness.syscalls.places import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_SYMLINK_NOFOLLOW,
    CWD,
    find_at,
    place,
    place_at,
)
from harness.syscalls.requests import Call, Part
from harness.syscalls.structures import Timespec, Timespec64, Timeval, Utimbuf
from harness.syscalls.task import RLIM_INFINITY, RLIMIT_FSIZE, SIGXFSZ, Task
from harness.syscalls.user_copy import MAX_COUNT, copy_path, copy_struct_in, signed, wide
from harness.vfs import operations
from harness.vfs.credentials import MAY_WRITE
from harness.vfs.failure import fail
from harness.vfs.inode import Inode, Symlink
from harness.vfs.open_file import RegularOpenFile

_SECOND: Final = 1_000_000_000


# -- access --------------------------------------------------------------------------------------


def sys_faccessat2(task: Task, directory: int, path: int, mode: int, flags: int) -> Call:
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    context = task.fs
    if not flags & AT_EACCESS:
        context = replace(context, credentials=context.credentials.real())
    name = yield from copy_path(path)
    context.credentials.check(find_at(task, directory, name, flags, context), mode)
    return 0


def sys_faccessat(task: Task, directory: int, path: int, mode: int) -> Call:
    return (yield from sys_faccessat2(task, directory, path, mode, 0))


def sys_access(task: Task, path: int, mode: int) -> Call:
    return (yield from sys_faccessat2(task, CWD, path, mode, 0))


# -- mode and owner ------------------------------------------------------------------------------


def _chmod(task: Task, inode: Inode, mode: int) -> int:
    credentials = task.fs.credentials
    if not credentials.owns(inode):
        return -errno.EPERM
    if isinstance(inode, Symlink):
        return -errno.EOPNOTSUPP
    if credentials.fsuid and not credentials.in_group(inode.gid):
        mode &= ~stat.S_ISGID
    inode.set_mode(mode)
    return 0


def sys_chmod(task: Task, path: int, mode: int) -> Call:
    return _chmod(task, (yield from place(task, path)), mode)


def sys_fchmod(task: Task, descriptor: int, mode: int) -> int:
    return _chmod(task, task.files.get(descriptor).inode, mode)


def sys_fchmodat(task: Task, directory: int, path: int, mode: int) -> Call:
    return _chmod(task, (yield from place_at(task, directory, path, 0)), mode)


def _chown(task: Task, inode: Inode, uid: int, gid: int) -> int:
    credentials = task.fs.credentials
    if credentials.fsuid:
        own = credentials.fsuid == inode.uid
        if uid != -1 and not (own and uid == inode.uid):
            return -errno.EPERM
        in_group = gid == inode.gid or credentials.in_group(gid)
        if gid != -1 and not (own and in_group):
            return -errno.EPERM
    inode.set_owner(uid, gid)
    return 0


def _short(number: int) -> int:
    """A 16-bit ID; 0xFFFF leaves it as it is."""
    return signed(number, 16) if number & 0xFFFF == 0xFFFF else number & 0xFFFF


def _long(number: int) -> int:
    return -1 if number == 0xFFFFFFFF else number


def sys_chown32(task: Task, path: int, uid: int, gid: int) -> Call:
    return _chown(task, (yield from place(task, path)), _long(uid), _long(gid))


def sys_lchown32(task: Task, path: int, uid: int, gid: int) -> Call:
    return _chown(task, (yield from place(task, path, follow=False)), _long(uid), _long(gid))


def sys_fchown32(task: Task, descriptor: int, uid: int, gid: int) -> int:
    return _chown(task, task.files.get(descriptor).inode, _long(uid), _long(gid))


def sys_chown(task: Task, path: int, uid: int, gid: int) -> Call:
    return _chown(task, (yield from place(task, path)), _short(uid), _short(gid))


def sys_lchown(task: Task, path: int, uid: int, gid: int) -> Call:
    return _chown(task, (yield from place(task, path, follow=False)), _short(uid), _short(gid))


def sys_fchown(task: Task, descriptor: int, uid: int, gid: int) -> int:
    return _chown(task, task.files.get(descriptor).inode, _short(uid), _short(gid))


def sys_fchownat(task: Task, directory: int, path: int, uid: int, gid: int, flags: int) -> Call:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    inode = yield from place_at(task, directory, path, flags)
    return _chown(task, inode, _long(uid), _long(gid))


# -- times ---------------------------------------------------------------------------------------

UTIME_NOW: Final = 0x3FFFFFFF
UTIME_OMIT: Final = 0x3FFFFFFE
Times = tuple[int | None, int | None] | None
"""Access and modification; ``None`` for both: now; for one: as it is."""


def _set_times(task: Task, inode: Inode, times: Times) -> int:
    credentials = task.fs.credentials
    if times is None:
        if not credentials.owns(inode):
            credentials.check(inode, MAY_WRITE)
        now = task.system.clock.realtime()
        times = now, now
    elif times == (None, None):
        return 0
    elif not credentials.owns(inode):
        return -errno.EPERM
    inode.set_times(*times)
    return 0


def _specified(task: Task, specs: list[Timespec] | list[Timespec64]) -> Times:
    """What ``utimensat()`` is given."""
    if all(spec.tv_nsec == UTIME_NOW for spec in specs):
        return None
    times: list[int | None] = []
    for spec in specs:
        if spec.tv_nsec == UTIME_OMIT:
            times.append(None)
        elif spec.tv_nsec == UTIME_NOW:
            times.append(task.system.clock.realtime())
        elif 0 <= spec.tv_nsec < _SECOND:
            times.append(spec.tv_sec * _SECOND + spec.tv_nsec)
        else:
            fail(errno.EINVAL)
    return times[0], times[1]


def _utimensat(
    task: Task,
    directory: int,
    path: int,
    times: int,
    flags: int,
    layout: type[Timespec] | type[Timespec64],
) -> Call:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        return -errno.EINVAL
    wanted: Times = None
    if times:
        first = yield from copy_struct_in(times, layout)
        second = yield from copy_struct_in(times + len(bytes(first)), layout)
        wanted = _specified(task, [first, second])  # type: ignore[arg-type]
    if path:
        inode = yield from place_at(task, directory, path, flags)
    else:
        inode = task.files.get(directory).inode
    return _set_times(task, inode, wanted)


def sys_utimensat(task: Task, directory: int, path: int, times: int, flags: int) -> Call:
    return (yield from _utimensat(task, directory, path, times, flags, Timespec))


def sys_utimensat_time64(task: Task, directory: int, path: int, times: int, flags: int) -> Call:
    return (yield from _utimensat(task, directory, path, times, flags, Timespec64))


def _timevals(times: int) -> Part[Times]:
    if not times:
        return None
    result = []
    for address in (times, times + 8):
        value = yield from copy_struct_in(address, Timeval)
        if not 0 <= value.tv_usec < 1_000_000:
            fail(errno.EINVAL)
        result.append(value.tv_sec * _SECOND + value.tv_usec * 1000)
    return result[0], result[1]


def sys_futimesat(task: Task, directory: int, path: int, times: int) -> Call:
    wanted = yield from _timevals(times)
    if not path:
        return _set_times(task, task.files.get(directory).inode, wanted)
    return _set_times(task, (yield from place_at(task, directory, path, 0)), wanted)


def sys_utimes(task: Task, path: int, times: int) -> Call:
    wanted = yield from _timevals(times)
    return _set_times(task, (yield from place(task, path)), wanted)


def sys_utime(task: Task, path: int, times: int) -> Call:
    wanted: Times = None
    if times:
        value = yield from copy_struct_in(times, Utimbuf)
        wanted = value.actime * _SECOND, value.modtime * _SECOND
    return _set_times(task, (yield from place(task, path)), wanted)


# -- size ----------------------------------------------------------------------------------------


def _check_size(task: Task, size: int) -> None:
    if size < 0:
        fail(errno.EINVAL)
    limit = task.limits.soft(RLIMIT_FSIZE)
    if limit != RLIM_INFINITY and size > limit:
        task.send_signal(SIGXFSZ)
        fail(errno.EFBIG)


def _truncate(task: Task, path: int, size: int) -> Call:
    if size < 0:
        fail(errno.EINVAL)
    inode = yield from place(task, path)
    _check_size(task, size)
    operations.truncate(task.fs, inode, size)
    return 0


def _ftruncate(task: Task, descriptor: int, size: int, *, small: bool) -> int:
    if size < 0:
        return -errno.EINVAL
    file = task.files.get(descriptor)
    if not isinstance(file, RegularOpenFile) or not file.may_write:
        return -errno.EINVAL
    if small and size > MAX_COUNT:
        return -errno.EINVAL
    _check_size(task, size)
    operations.cut(task.fs, file.inode, size)
    return 0


def sys_truncate(task: Task, path: int, size: int) -> Call:
    return (yield from _truncate(task, path, signed(size)))


def sys_ftruncate(task: Task, descriptor: int, size: int) -> int:
    return _ftruncate(task, descriptor, signed(size), small=True)


def sys_truncate64(task: Task, path: int, low: int, high: int) -> Call:
    return (yield from _truncate(task, path, wide(low, high)))


def sys_ftruncate64(task: Task, descriptor: int, low: int, high: int) -> int:
    return _ftruncate(task, descriptor, wide(low, high), small=False)


FALLOC_FL_KEEP_SIZE: Final = 1


def sys_fallocate(
    task: Task, descriptor: int, mode: int, low: int, high: int, length: int, length_high: int
) -> int:
    """Only the file's size can be made larger; nothing is reserved."""
    start, count = wide(low, high), wide(length, length_high)
    file = task.files.get(descriptor)
    if start < 0 or count <= 0:
        return -errno.EINVAL
    if mode & ~FALLOC_FL_KEEP_SIZE:
        return -errno.EOPNOTSUPP
    if not file.may_write:
        return -errno.EBADF
    if not isinstance(file, RegularOpenFile):
        return -errno.ENODEV
    if not mode and start + count > file.inode.size:
        _check_size(task, start + count)
        operations.cut(task.fs, file.inode, start + count)
    return 0
