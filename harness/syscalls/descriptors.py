# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors: duplicates, flags, locks, pipes, ``ioctl``.

Models linux-2.4.22 ``fs/fcntl.c``, ``fs/locks.c``, ``fs/ioctl.c``, ``arch/i386/kernel/sys_i386.c:
sys_pipe``. There is no terminal: every request to one gives ``ENOTTY``.
"""

import errno
from collections.abc import Callable
from typing import Final

from harness.syscalls.new_files import install_pair
from harness.syscalls.requests import Call, Part, WaitUntil
from harness.syscalls.structures import Flock, Flock64
from harness.syscalls.task import RLIMIT_NOFILE, Task
from harness.syscalls.user_copy import (
    copy_out,
    copy_struct_in,
    copy_struct_out,
    copy_words_in,
    signed,
    words,
)
from harness.vfs.failure import fail
from harness.vfs.flags import (
    O_APPEND,
    O_ASYNC,
    O_CLOEXEC,
    O_DIRECT,
    O_NOATIME,
    O_NONBLOCK,
    O_PATH,
    SEEK_CUR,
    SEEK_END,
    SEEK_SET,
)
from harness.vfs.locks import END, RangeLock
from harness.vfs.open_file import OpenFile
from harness.vfs.pipe import PIPE_SIZE, PipeEnd, new_pipe

# -- duplicates ----------------------------------------------------------------------------------


def sys_dup(task: Task, descriptor: int) -> int:
    file = task.files.get_raw(descriptor)
    return task.files.install(file.get(), task.limits.soft(RLIMIT_NOFILE))


def sys_dup2(task: Task, old: int, new: int) -> int:
    file = task.files.get_raw(old)
    if new >= task.limits.soft(RLIMIT_NOFILE):
        return -errno.EBADF
    if old != new:
        task.files.replace(new, file)
    return new


def sys_dup3(task: Task, old: int, new: int, flags: int) -> int:
    if flags & ~O_CLOEXEC or old == new:
        return -errno.EINVAL
    if new >= task.limits.soft(RLIMIT_NOFILE):
        return -errno.EBADF
    task.files.replace(new, task.files.get_raw(old), close_on_exec=bool(flags & O_CLOEXEC))
    return new


# -- pipes ---------------------------------------------------------------------------------------


def sys_pipe2(task: Task, result: int, flags: int) -> Call:
    if flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT):
        return -errno.EINVAL
    if flags & O_DIRECT:
        return -errno.EINVAL
    credentials = task.fs.credentials
    reader, writer = new_pipe(
        task.system.files.pipes, flags & O_NONBLOCK, credentials.fsuid, credentials.fsgid
    )
    yield from install_pair(task, reader, writer, flags, result)
    return 0


def sys_pipe(task: Task, result: int) -> Call:
    return (yield from sys_pipe2(task, result, 0))


# -- fcntl ---------------------------------------------------------------------------------------

F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW = range(8)
F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG, F_GETLK64, F_SETLK64, F_SETLKW64 = range(8, 15)
F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ = 1030, 1031, 1032
FD_CLOEXEC: Final = 1
F_RDLCK, F_WRLCK, F_UNLCK = range(3)

_SETTABLE: Final = O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_NOATIME
_WITH_PATH_ONLY: Final = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL}


def _dup_from(task: Task, file: OpenFile, lowest: int, close_on_exec: bool) -> int:
    limit = task.limits.soft(RLIMIT_NOFILE)
    if lowest >= limit:
        return -errno.EINVAL
    return task.files.install(file.get(), limit, lowest=lowest, close_on_exec=close_on_exec)


def _set_flags(task: Task, file: OpenFile, flags: int) -> int:
    if flags & O_NOATIME and not task.fs.credentials.owns(file.inode):
        return -errno.EPERM
    file.flags = file.flags & ~_SETTABLE | flags & _SETTABLE
    return 0


def _pipe_size(file: OpenFile, wanted: int | None) -> int:
    """The size is fixed: what is asked for is granted as far as it is no more than that."""
    if not isinstance(file, PipeEnd):
        return -errno.EBADF
    if wanted is not None and wanted > PIPE_SIZE:
        return -errno.EPERM
    return PIPE_SIZE


def sys_fcntl64(task: Task, descriptor: int, command: int, argument: int) -> Call:
    file = task.files.get_raw(descriptor)
    if file.flags & O_PATH and command not in _WITH_PATH_ONLY:
        return -errno.EBADF
    if command in _LOCKS:
        return (yield from _LOCKS[command](task, file, command, argument))
    simple: dict[int, Callable[[], int]] = {
        F_DUPFD: lambda: _dup_from(task, file, argument, False),
        F_DUPFD_CLOEXEC: lambda: _dup_from(task, file, argument, True),
        F_GETFD: lambda: FD_CLOEXEC * task.files.close_on_exec(descriptor),
        F_GETFL: lambda: file.flags,
        F_SETFL: lambda: _set_flags(task, file, argument),
        F_SETOWN: lambda: 0,
        F_GETOWN: lambda: 0,
        F_GETSIG: lambda: 0,
        F_SETSIG: lambda: 0 if argument <= 64 else -errno.EINVAL,
        F_GETPIPE_SZ: lambda: _pipe_size(file, None),
        F_SETPIPE_SZ: lambda: _pipe_size(file, argument),
    }
    if command == F_SETFD:
        task.files.set_close_on_exec(descriptor, bool(argument & FD_CLOEXEC))
        return 0
    return simple.get(command, lambda: -errno.EINVAL)()


def sys_fcntl(task: Task, descriptor: int, command: int, argument: int) -> Call:
    if command in (F_GETLK64, F_SETLK64, F_SETLKW64):
        task.files.get_raw(descriptor)
        return -errno.EINVAL
    return (yield from sys_fcntl64(task, descriptor, command, argument))


# -- locks on ranges -----------------------------------------------------------------------------


def _range(task: Task, file: OpenFile, lock: Flock | Flock64) -> RangeLock:
    """The bytes that a ``struct flock`` names (``flock_to_posix_lock``)."""
    bases = {SEEK_SET: 0, SEEK_CUR: file.position, SEEK_END: file.inode.size}
    if lock.l_whence not in bases or lock.l_type not in (F_RDLCK, F_WRLCK, F_UNLCK):
        fail(errno.EINVAL)
    start = bases[lock.l_whence] + lock.l_start
    end = start + lock.l_len if lock.l_len else END
    if lock.l_len < 0:
        start, end = end, start
    if start < 0:
        fail(errno.EINVAL)
    if end > END:
        fail(errno.EOVERFLOW)
    return RangeLock(task.files, task.tgid, start, end, lock.l_type == F_WRLCK)


def _layout(command: int) -> type[Flock | Flock64]:
    return Flock if command in (F_GETLK, F_SETLK, F_SETLKW) else Flock64


def _get_lock(task: Task, file: OpenFile, command: int, address: int) -> Call:
    lock = yield from copy_struct_in(address, _layout(command))
    if lock.l_type == F_UNLCK:
        return -errno.EINVAL
    held = file.inode.locks.conflict(_range(task, file, lock))
    lock.l_type = F_UNLCK
    if held is not None:
        lock.l_type = F_WRLCK if held.exclusive else F_RDLCK
        lock.l_whence, lock.l_start, lock.l_pid = SEEK_SET, held.start, held.pid
        lock.l_len = 0 if held.end == END else held.end - held.start
    return (yield from copy_struct_out(address, lock))


def _set_lock(task: Task, file: OpenFile, command: int, address: int) -> Call:
    lock = yield from copy_struct_in(address, _layout(command))
    wanted, locks = _range(task, file, lock), file.inode.locks
    if lock.l_type == F_RDLCK and not file.may_read:
        return -errno.EBADF
    if lock.l_type == F_WRLCK and not file.may_write:
        return -errno.EBADF
    unlock = lock.l_type == F_UNLCK
    if not unlock and locks.conflict(wanted) is not None:
        if command in (F_SETLK, F_SETLK64):
            return -errno.EAGAIN
        yield from _wait_holding(file, lambda: locks.conflict(wanted) is None)
    locks.set_range(wanted, unlock=unlock)
    return 0


_LOCKS: Final = {
    F_GETLK: _get_lock,
    F_GETLK64: _get_lock,
    F_SETLK: _set_lock,
    F_SETLKW: _set_lock,
    F_SETLK64: _set_lock,
    F_SETLKW64: _set_lock,
}


def _wait_holding(file: OpenFile, condition: Callable[[], bool]) -> Part[None]:
    """Sleep while the file stays open, whatever becomes of its descriptor."""
    file.get()
    try:
        yield WaitUntil(condition)
    finally:
        file.put()


LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = 1, 2, 4, 8


def sys_flock(task: Task, descriptor: int, operation: int) -> Call:
    file = task.files.get(descriptor)
    locks, kind = file.inode.locks, operation & ~LOCK_NB
    if kind == LOCK_UN:
        locks.drop_whole(file)
        return 0
    if kind not in (LOCK_SH, LOCK_EX):
        return -errno.EINVAL
    exclusive = kind == LOCK_EX
    if locks.whole_conflict(file, exclusive=exclusive):
        # What it held is given up first: changing a lock is not atomic (flock(2)).
        locks.drop_whole(file)
        if operation & LOCK_NB:
            return -errno.EWOULDBLOCK
        yield from _wait_holding(file, lambda: not locks.whole_conflict(file, exclusive=exclusive))
    locks.set_whole(file, exclusive=exclusive)
    return 0


# -- ioctl ---------------------------------------------------------------------------------------

FIONREAD, FIONBIO, FIOASYNC = 0x541B, 0x5421, 0x5452
FIONCLEX, FIOCLEX = 0x5450, 0x5451


def sys_ioctl(task: Task, descriptor: int, command: int, argument: int) -> Call:
    file = task.files.get(descriptor)
    if command in (FIOCLEX, FIONCLEX):
        task.files.set_close_on_exec(descriptor, command == FIOCLEX)
        return 0
    if command == FIONREAD:
        yield from copy_out(argument, words(min(file.available(), 0x7FFFFFFF)))
        return 0
    if command in (FIONBIO, FIOASYNC):
        (on,) = yield from copy_words_in(argument, 1)
        flag = O_NONBLOCK if command == FIONBIO else O_ASYNC
        file.flags = file.flags | flag if signed(on) else file.flags & ~flag
        return 0
    return -errno.ENOTTY
