# SPDX-License-Identifier: GPL-2.0-or-later
"""``epoll``: waiting for one of many files.

Models linux-6 ``fs/eventpoll.c``; see :mod:`harness.vfs.epoll` for the set of files. A signal ends
the wait with ``EINTR``, whether a handler ran or not. What can fail: ``EBADF``, ``EINVAL``,
``EFAULT``, and what the set refuses.
"""

import errno
from ctypes import sizeof
from typing import Final

from harness.syscalls.new_files import install
from harness.syscalls.poll import MILLISECOND, after, signal_mask, wait_until_ready
from harness.syscalls.requests import Call, Interrupted
from harness.syscalls.structures import EpollEvent
from harness.syscalls.task import Task
from harness.syscalls.user_copy import check_range, copy_out, copy_struct_in, signed
from harness.vfs.epoll import EPOLLEXCLUSIVE, EpollFile
from harness.vfs.failure import fail
from harness.vfs.flags import O_CLOEXEC

EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
_MAX_EVENTS: Final = 0x7FFFFFFF // sizeof(EpollEvent)
_WITH_EXCLUSIVE: Final = 0xB000001D
"""IN, OUT, ERR, HUP, WAKEUP, ET and itself."""


def sys_epoll_create1(task: Task, flags: int) -> int:
    if flags & ~O_CLOEXEC:
        return -errno.EINVAL
    return install(task, EpollFile(task.system.files.pipes), flags)


def sys_epoll_create(task: Task, size: int) -> int:
    return sys_epoll_create1(task, 0) if signed(size) > 0 else -errno.EINVAL


def _set(task: Task, descriptor: int) -> EpollFile:
    file = task.files.get(descriptor)
    if not isinstance(file, EpollFile):
        fail(errno.EINVAL)
    return file


def sys_epoll_ctl(task: Task, epoll: int, operation: int, descriptor: int, event: int) -> Call:
    wanted = EpollEvent()
    if operation != EPOLL_CTL_DEL:
        wanted = yield from copy_struct_in(event, EpollEvent)
    task.files.get(epoll)
    file = task.files.get(descriptor)
    if not file.pollable:
        return -errno.EPERM
    files = _set(task, epoll)
    if file is files:
        return -errno.EINVAL
    events, data = int(wanted.events), int(wanted.data)
    if operation != EPOLL_CTL_DEL and events & EPOLLEXCLUSIVE:
        nested = isinstance(file, EpollFile)
        if operation != EPOLL_CTL_ADD or nested or events & ~_WITH_EXCLUSIVE:
            return -errno.EINVAL
    match operation:
        case 1:
            files.add(descriptor, file, events, data)
        case 2:
            files.remove(descriptor, file)
        case 3:
            files.modify(descriptor, file, events, data)
        case _:
            return -errno.EINVAL
    return 0


def _wait(
    task: Task, epoll: int, events: int, count: int, timeout: int, mask: bytes | None
) -> Call:
    milliseconds = signed(timeout)
    deadline = after(task, None if milliseconds < 0 else milliseconds * MILLISECOND)
    if not 0 < count <= _MAX_EVENTS:
        return -errno.EINVAL
    check_range(events, count * sizeof(EpollEvent))
    files = _set(task, epoll)
    files.get()
    try:
        hosts = files.host_descriptors
        yield from wait_until_ready(task, files.any_ready, hosts, deadline, mask)
        told = files.take(count)
    except Interrupted:
        return -errno.EINTR
    finally:
        files.put()
    yield from copy_out(events, b"".join(bytes(EpollEvent(*event)) for event in told))
    return len(told)


def sys_epoll_wait(task: Task, epoll: int, events: int, count: int, timeout: int) -> Call:
    return (yield from _wait(task, epoll, events, count, timeout, None))


def sys_epoll_pwait(
    task: Task, epoll: int, events: int, count: int, timeout: int, mask: int, size: int
) -> Call:
    signals = yield from signal_mask(mask, size)
    return (yield from _wait(task, epoll, events, count, timeout, signals))
