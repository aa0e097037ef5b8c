# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes between an open file and a program, in pieces that fit one request.

Models linux-2.4.22 ``fs/read_write.c: vfs_read, do_readv_writev`` and the waiting of ``fs/pipe.c``.
However much a program asks for, one request moves at most :data:`~harness.syscalls.user_copy.CHUNK`
bytes, and the machine has the word between two.
"""

import errno
from collections.abc import Callable
from functools import partial

from harness.syscalls.requests import CopyToUser, Interrupted, Part, SignalPending, WaitUntil
from harness.syscalls.task import RLIM_INFINITY, RLIMIT_FSIZE, SIGPIPE, SIGXFSZ, Task
from harness.syscalls.user_copy import CHUNK, Segments, UserVector
from harness.vfs.failure import fail
from harness.vfs.flags import O_APPEND, POLLHUP, READABLE
from harness.vfs.open_file import OpenFile, RegularOpenFile


def wait_for(file: OpenFile, condition: Callable[[], bool]) -> Part[None]:
    """Sleep until ``condition()``, which ``file`` can make true; ``EAGAIN`` if it must not."""
    if file.nonblocking:
        fail(errno.EAGAIN)
    host = file.host_descriptor
    file.get()
    try:
        yield WaitUntil(condition, host_descriptors=() if host is None else (host,))
    finally:
        file.put()


def _read_some(file: OpenFile, count: int, position: int | None, *, wait: bool) -> Part[bytes]:
    """What one read gives, waiting for its first byte if ``wait``."""
    while True:
        try:
            return file.read(count) if position is None else file.read_at(position, count)
        except BlockingIOError:
            if not wait:
                return b""
        yield from wait_for(file, lambda: bool(file.poll() & (READABLE | POLLHUP)))


def read_vector(file: OpenFile, segments: Segments, position: int | None = None) -> Part[int]:
    """Fill ``segments`` from the file's position, which moves, or from ``position``."""
    if not file.may_read:
        fail(errno.EBADF)
    if not any(length for _, length in segments):
        yield from _read_some(file, 0, position, wait=False)
    total = 0
    for address, length in segments:
        done = 0
        while done < length:
            wanted = min(CHUNK, length - done)
            at = None if position is None else position + total
            try:
                data = yield from _read_some(file, wanted, at, wait=total == 0)
            except OSError:
                if not total:
                    raise
                return total
            if not data:
                return total
            left: int = yield CopyToUser(address + done, data)
            if left and position is None:
                file.unread(data[len(data) - left :])
            done += len(data) - left
            total += len(data) - left
            if left and not total:
                fail(errno.EFAULT)
            if left or len(data) < wanted or (yield from _interrupted(file)):
                return total
    return total


def _interrupted(file: OpenFile) -> Part[bool]:
    """Whether a signal ends a long transfer here; reading a disk is not interrupted."""
    if isinstance(file, RegularOpenFile):
        return False
    pending: bool = yield SignalPending()
    return pending


def write_vector(
    task: Task, file: OpenFile, segments: Segments, position: int | None = None
) -> Part[int]:
    """Write ``segments`` at the file's position, which moves, or at ``position``."""
    if not file.may_write:
        fail(errno.EBADF)
    vector, total = UserVector(segments), 0
    if not vector.left:
        return 0
    while vector.left:
        data = yield from vector.take(CHUNK)
        if not data:
            break
        at = None if position is None else position + total
        try:
            done = yield from write_bytes(task, file, data, at)
        except (OSError, Interrupted):
            if not total:
                raise
            return total
        total += done
        if done < len(data) or vector.faulted or (yield from _interrupted(file)):
            break
    if not total:
        fail(errno.EFAULT)
    return total


def write_bytes(task: Task, file: OpenFile, data: bytes, position: int | None = None) -> Part[int]:
    """Write what is in hand, waiting where the file has no room: how many bytes went.

    A write to a pipe that nobody reads sends ``SIGPIPE``; one past ``RLIMIT_FSIZE`` ``SIGXFSZ``.
    """
    data = _within_limit(task, file, data, position)
    if task.fs.credentials.fsuid and isinstance(file, RegularOpenFile):
        file.inode.drop_privileges()
    done = 0
    while done < len(data):
        rest = data[done:]
        try:
            if position is None:
                done += file.write(rest)
            else:
                done += file.write_at(position + done, rest)
            continue
        except BlockingIOError:
            if file.nonblocking and done:
                return done
        except OSError as error:
            if error.errno == errno.EPIPE:
                task.send_signal(SIGPIPE)
            if not done:
                raise
            return done
        try:
            yield from wait_for(file, partial(file.can_write, rest))
        except Interrupted:
            if not done:
                raise
            return done
    return done


def _within_limit(task: Task, file: OpenFile, data: bytes, position: int | None) -> bytes:
    """``generic_write_checks`` as to the limit of a file's size."""
    limit = task.limits.soft(RLIMIT_FSIZE)
    if limit == RLIM_INFINITY or not isinstance(file, RegularOpenFile):
        return data
    at = file.position if position is None else position
    if file.flags & O_APPEND:
        at = file.inode.size
    if at >= limit:
        task.send_signal(SIGXFSZ)
        fail(errno.EFBIG)
    return data[: limit - at]
