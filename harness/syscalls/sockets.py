# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets, of which there are only pairs: ``socketpair(AF_UNIX, SOCK_STREAM)``.

Models linux-6 ``net/socket.c`` and, behind it, ``net/unix/af_unix.c``. There is no network: other
calls of ``socketcall`` are ``ENOSYS`` and counted as unknown. What can fail: ``EINVAL``,
``EAFNOSUPPORT``, ``ENOTSOCK``, ``EFAULT``, and what the socket fails with.
"""

import errno
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from harness.syscalls.new_files import install_pair
from harness.syscalls.requests import Call, Interrupted, Part
from harness.syscalls.task import SIGPIPE, Task
from harness.syscalls.transfer import wait_for
from harness.syscalls.user_copy import CHUNK, check_range, copy_in, copy_out, copy_words_in, words
from harness.vfs.failure import fail
from harness.vfs.flags import O_CLOEXEC, O_NONBLOCK, POLLHUP, READABLE
from harness.vfs.socket_pair import RCV_SHUTDOWN, SEND_SHUTDOWN, Socket, new_pair

AF_UNIX: Final = 1
SOCK_STREAM: Final = 1
_SOCK_TYPE: Final = 0xF
MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL, MSG_NOSIGNAL = 2, 0x40, 0x100, 0x4000
_MSG_OOB: Final = 1
_ARRIVED: Final = READABLE | POLLHUP
_HOW: Final = (RCV_SHUTDOWN, SEND_SHUTDOWN, RCV_SHUTDOWN | SEND_SHUTDOWN)
"""``SHUT_RD``, ``SHUT_WR``, ``SHUT_RDWR``."""


def sys_socketpair(task: Task, family: int, kind: int, protocol: int, result: int) -> Call:
    flags = kind & ~_SOCK_TYPE
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        return -errno.EINVAL
    if family != AF_UNIX:
        return -errno.EAFNOSUPPORT
    if protocol not in (0, AF_UNIX):
        return -errno.EPROTONOSUPPORT
    if kind & _SOCK_TYPE != SOCK_STREAM:
        return -errno.ESOCKTNOSUPPORT
    first, second = new_pair(task.system.files.pipes, flags & O_NONBLOCK)
    yield from install_pair(task, first, second, flags, result)
    return 0


def _socket(task: Task, descriptor: int) -> Socket:
    file = task.files.get(descriptor)
    if not isinstance(file, Socket):
        fail(errno.ENOTSOCK)
    return file


def sys_shutdown(task: Task, descriptor: int, how: int) -> int:
    socket = _socket(task, descriptor)
    if how >= len(_HOW):
        return -errno.EINVAL
    socket.shutdown(_HOW[how])
    return 0


# -- bytes ---------------------------------------------------------------------------------------


def _wait(socket: Socket, flags: int, done: int, condition: Callable[[], bool]) -> Part[bool]:
    """Sleep until ``condition()``. ``False``: what is ``done`` so far is all there will be."""
    if flags & MSG_DONTWAIT or socket.nonblocking:
        if not done:
            fail(errno.EAGAIN)
        return False
    try:
        yield from wait_for(socket, condition)
    except Interrupted:
        if not done:
            raise
        return False
    return True


def sys_sendto(
    task: Task, descriptor: int, buffer: int, count: int, flags: int, address: int, length: int
) -> Call:
    """``send()``, too: both ends know each other, so no address may be given."""
    del length
    socket = _socket(task, descriptor)
    check_range(buffer, count)
    if flags & _MSG_OOB:
        return -errno.EOPNOTSUPP
    if address:
        return -errno.EISCONN
    done = 0
    while done < count or not count:
        try:
            data = yield from copy_in(buffer + done, min(CHUNK, count - done))
            done += socket.write(data)
        except BlockingIOError:
            if not (yield from _wait(socket, flags, done, partial(socket.can_write, data))):
                break
        except BrokenPipeError:
            if not flags & MSG_NOSIGNAL:
                task.send_signal(SIGPIPE)
            return done or -errno.EPIPE
        except OSError:
            if not done:
                raise
            break
        if not count:
            break
    return done


def sys_recvfrom(
    task: Task, descriptor: int, buffer: int, count: int, flags: int, address: int, length: int
) -> Call:
    """``recv()``, too: the sender has no address."""
    socket = _socket(task, descriptor)
    check_range(buffer, count)
    if flags & _MSG_OOB:
        return -errno.EOPNOTSUPP
    take = socket.peek if flags & MSG_PEEK else socket.read
    done = 0
    while True:
        try:
            data = take(min(CHUNK, count - done))
        except BlockingIOError:
            if (yield from _wait(socket, flags, done, lambda: bool(socket.poll() & _ARRIVED))):
                continue
            break
        try:
            yield from copy_out(buffer + done, data)
        except OSError:
            if not flags & MSG_PEEK:
                socket.unread(data)
            if not done:
                raise
            break
        done += len(data)
        if not data or done >= count or not flags & MSG_WAITALL or flags & MSG_PEEK:
            break
    if address:
        yield from copy_out(length, words(0))
    return done


# -- all in one ----------------------------------------------------------------------------------


def _send(task: Task, descriptor: int, buffer: int, count: int, flags: int) -> Call:
    return sys_sendto(task, descriptor, buffer, count, flags, 0, 0)


def _recv(task: Task, descriptor: int, buffer: int, count: int, flags: int) -> Call:
    return sys_recvfrom(task, descriptor, buffer, count, flags, 0, 0)


_CALLS: Final[dict[int, tuple[Callable[..., Any], int]]] = {
    8: (sys_socketpair, 4),
    9: (_send, 4),
    10: (_recv, 4),
    11: (sys_sendto, 6),
    12: (sys_recvfrom, 6),
    13: (sys_shutdown, 2),
}
"""Number -> call and how many words of arguments it has."""


def sys_socketcall(task: Task, number: int, arguments: int) -> Call:
    """The old way to all of them."""
    if number not in _CALLS:
        return -errno.ENOSYS
    function, count = _CALLS[number]
    values = yield from copy_words_in(arguments, count)
    result = function(task, *values)
    return result if isinstance(result, int) else (yield from result)
