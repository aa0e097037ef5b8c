# SPDX-License-Identifier: GPL-2.0-or-later
"""``poll`` and ``select``.

Models linux-2.4.22 ``fs/select.c``. A signal ends them with ``EINTR`` when a handler ran. What can
fail: ``EBADF`` and ``EINVAL``, and ``EFAULT`` after the wait, when the answer cannot be stored.
"""

import ctypes
import errno
from collections.abc import Callable, Iterable
from typing import Final

from harness.syscalls.requests import (
    ERESTARTNOHAND,
    Call,
    Interrupted,
    Part,
    RestartSystemCall,
    WaitUntil,
)
from harness.syscalls.structures import PollFd, Timespec, Timespec64, Timeval
from harness.syscalls.task import RLIMIT_NOFILE, Task
from harness.syscalls.timespec import SECOND, TimeLayout, read_time
from harness.syscalls.user_copy import (
    copy_in,
    copy_out,
    copy_struct_in,
    copy_struct_out,
    copy_words_in,
    signed,
)
from harness.vfs.failure import fail
from harness.vfs.flags import O_PATH, POLLERR, POLLHUP, POLLNVAL, POLLPRI, READABLE, WRITABLE

MILLISECOND: Final = 1_000_000
_MICROSECOND: Final = 1_000
SIGSET_SIZE: Final = 8


def wait_until_ready(
    task: Task,
    ready: Callable[[], int],
    hosts: Iterable[int],
    deadline: int | None,
    mask: bytes | None,
) -> Part[int]:
    """Sleep until ``ready()`` is not 0, and give it; 0 at the deadline."""
    if count := ready():
        return count
    if deadline is not None and deadline <= task.system.clock.monotonic() and mask is None:
        return 0
    yield WaitUntil(lambda: ready() != 0, deadline, tuple(hosts), mask)
    return ready()


def _wait(
    task: Task,
    ready: Callable[[], int],
    descriptors: list[int],
    deadline: int | None,
    mask: bytes | None = None,
) -> Part[int]:
    """The same for ``poll`` and ``select``, of the files behind ``descriptors``."""
    hosts = {task.files.files[fd].host_descriptor for fd in descriptors if fd in task.files.files}
    waiting = sorted(host for host in hosts if host is not None)
    try:
        return (yield from wait_until_ready(task, ready, waiting, deadline, mask))
    except Interrupted as signal:
        raise RestartSystemCall(ERESTARTNOHAND) from signal


def after(task: Task, nanoseconds: int | None) -> int | None:
    """The deadline, from how long to wait."""
    return None if nanoseconds is None else task.system.clock.monotonic() + nanoseconds


def _timeout(address: int, layout: TimeLayout) -> Part[int | None]:
    """Nanoseconds in a ``timespec``; ``None`` for a null pointer: without end."""
    return (yield from read_time(address, layout)) if address else None


def _store_rest(task: Task, address: int, layout: TimeLayout, deadline: int | None) -> Part[None]:
    """Linux tells how much time is left; that it cannot is no failure."""
    if not address or deadline is None:
        return
    left = max(0, deadline - task.system.clock.monotonic())
    try:
        yield from copy_struct_out(address, layout(*divmod(left, SECOND)))
    except OSError:
        return


def signal_mask(address: int, size: int) -> Part[bytes | None]:
    if not address:
        return None
    if size != SIGSET_SIZE:
        fail(errno.EINVAL)
    return (yield from copy_in(address, SIGSET_SIZE))


# -- poll ----------------------------------------------------------------------------------------


def _poll(
    task: Task, address: int, count: int, deadline: int | None, mask: bytes | None = None
) -> Call:
    if count > task.limits.soft(RLIMIT_NOFILE):
        fail(errno.EINVAL)
    size = ctypes.sizeof(PollFd)
    data = bytearray((yield from copy_in(address, count * size)))
    entries = [PollFd.from_buffer(data, at * size) for at in range(count)]

    def ready() -> int:
        for entry in entries:
            entry.revents = _revents(task, entry.fd, entry.events)
        return sum(entry.revents != 0 for entry in entries)

    number = yield from _wait(task, ready, [entry.fd for entry in entries], deadline, mask)
    yield from copy_out(address, bytes(data))
    return number


def _revents(task: Task, descriptor: int, events: int) -> int:
    if descriptor < 0:
        return 0
    file = task.files.files.get(descriptor)
    if file is None or file.flags & O_PATH:
        return POLLNVAL
    return file.poll() & (events | POLLERR | POLLHUP)


def sys_poll(task: Task, fds: int, count: int, timeout: int) -> Call:
    milliseconds = signed(timeout)
    wanted = None if milliseconds < 0 else milliseconds * MILLISECOND
    return (yield from _poll(task, fds, count, after(task, wanted)))


def _ppoll(
    task: Task, fds: int, count: int, timeout: int, mask: int, size: int, layout: TimeLayout
) -> Call:
    deadline = after(task, (yield from _timeout(timeout, layout)))
    signals = yield from signal_mask(mask, size)
    number = yield from _poll(task, fds, count, deadline, signals)
    yield from _store_rest(task, timeout, layout, deadline)
    return number


def sys_ppoll(task: Task, fds: int, count: int, timeout: int, mask: int, size: int) -> Call:
    return (yield from _ppoll(task, fds, count, timeout, mask, size, Timespec))


def sys_ppoll_time64(task: Task, fds: int, count: int, timeout: int, mask: int, size: int) -> Call:
    return (yield from _ppoll(task, fds, count, timeout, mask, size, Timespec64))


# -- select --------------------------------------------------------------------------------------

_CONDITIONS: Final = (READABLE | POLLHUP | POLLERR, WRITABLE | POLLERR, POLLPRI)
"""What makes a descriptor ready for reading, for writing, and exceptional."""


def _select(
    task: Task,
    count: int,
    sets: tuple[int, int, int],
    deadline: int | None,
    mask: bytes | None = None,
) -> Call:
    if signed(count) < 0:
        fail(errno.EINVAL)
    count = min(count, task.limits.soft(RLIMIT_NOFILE))
    length = (count + 31) // 32 * 4
    wanted = []
    for address in sets:
        data = (yield from copy_in(address, length)) if address else b""
        bits = int.from_bytes(data, "little") & (1 << count) - 1
        wanted.append([fd for fd in range(count) if bits >> fd & 1])
    for fd in {fd for fds in wanted for fd in fds}:
        task.files.get(fd)

    def chosen() -> list[list[int]]:
        files = task.files.files
        return [
            [fd for fd in fds if fd in files and files[fd].poll() & condition]
            for fds, condition in zip(wanted, _CONDITIONS, strict=True)
        ]

    everything = [fd for fds in wanted for fd in fds]
    yield from _wait(task, lambda: sum(map(len, chosen())), everything, deadline, mask)
    answer = chosen()
    for address, fds in zip(sets, answer, strict=True):
        if address:
            bits = sum(1 << fd for fd in fds)
            yield from copy_out(address, bits.to_bytes(length, "little"))
    return sum(map(len, answer))


def sys_newselect(
    task: Task, count: int, reading: int, writing: int, exceptional: int, timeout: int
) -> Call:
    wanted: int | None = None
    if timeout:
        value = yield from copy_struct_in(timeout, Timeval)
        if value.tv_sec < 0 or value.tv_usec < 0:
            fail(errno.EINVAL)
        wanted = value.tv_sec * SECOND + value.tv_usec * _MICROSECOND
    deadline = after(task, wanted)
    number = yield from _select(task, count, (reading, writing, exceptional), deadline)
    if deadline is not None:
        left = max(0, deadline - task.system.clock.monotonic())
        seconds, nanoseconds = divmod(left, SECOND)
        rest = Timeval(seconds, nanoseconds // _MICROSECOND)
        try:
            yield from copy_struct_out(timeout, rest)
        except OSError:
            return number
    return number


def sys_select(task: Task, arguments: int) -> Call:
    """The old call: one pointer to all five arguments."""
    count, reading, writing, exceptional, timeout = yield from copy_words_in(arguments, 5)
    return (yield from sys_newselect(task, count, reading, writing, exceptional, timeout))


def _pselect(
    task: Task,
    count: int,
    sets: tuple[int, int, int],
    timeout: int,
    mask: int,
    layout: TimeLayout,
) -> Call:
    """``mask`` points at a pointer to the signal set and its size."""
    deadline = after(task, (yield from _timeout(timeout, layout)))
    signals: bytes | None = None
    if mask:
        pointer, size = yield from copy_words_in(mask, 2)
        signals = yield from signal_mask(pointer, size)
    number = yield from _select(task, count, sets, deadline, signals)
    yield from _store_rest(task, timeout, layout, deadline)
    return number


def sys_pselect6(
    task: Task, count: int, reading: int, writing: int, exceptional: int, timeout: int, mask: int
) -> Call:
    sets = reading, writing, exceptional
    return (yield from _pselect(task, count, sets, timeout, mask, Timespec))


def sys_pselect6_time64(
    task: Task, count: int, reading: int, writing: int, exceptional: int, timeout: int, mask: int
) -> Call:
    sets = reading, writing, exceptional
    return (yield from _pselect(task, count, sets, timeout, mask, Timespec64))
