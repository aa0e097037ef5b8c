# SPDX-License-Identifier: GPL-2.0-or-later
"""``read``, ``write`` and their kin.

Models linux-2.4.22 ``fs/read_write.c``, ``mm/filemap.c: sys_sendfile``, ``fs/buffer.c: sys_fsync``.
"""

import errno

from harness.syscalls.requests import Call, Interrupted, Part
from harness.syscalls.task import Task
from harness.syscalls.transfer import read_vector, write_bytes, write_vector
from harness.syscalls.user_copy import (
    CHUNK,
    MAX_COUNT,
    check_range,
    copy_out,
    copy_vector,
    copy_words_in,
    signed,
    wide,
    words,
)
from harness.vfs.failure import fail
from harness.vfs.flags import O_APPEND
from harness.vfs.open_file import OpenFile, RegularOpenFile


def _range(buffer: int, count: int) -> None:
    if count > MAX_COUNT:
        fail(errno.EINVAL)
    check_range(buffer, count)


def _file_at(task: Task, descriptor: int, position: int) -> OpenFile:
    """For ``pread`` and ``pwrite``: a file that has positions."""
    if position < 0:
        fail(errno.EINVAL)
    file = task.files.get(descriptor)
    if not file.seekable:
        fail(errno.ESPIPE)
    return file


def sys_read(task: Task, descriptor: int, buffer: int, count: int) -> Call:
    file = task.files.get(descriptor)
    if not file.may_read:
        fail(errno.EBADF)
    _range(buffer, count)
    return (yield from read_vector(file, [(buffer, count)]))


def sys_write(task: Task, descriptor: int, buffer: int, count: int) -> Call:
    file = task.files.get(descriptor)
    if not file.may_write:
        fail(errno.EBADF)
    _range(buffer, count)
    return (yield from write_vector(task, file, [(buffer, count)]))


def sys_pread64(task: Task, descriptor: int, buffer: int, count: int, low: int, high: int) -> Call:
    position = wide(low, high)
    file = _file_at(task, descriptor, position)
    if not file.may_read:
        fail(errno.EBADF)
    _range(buffer, count)
    return (yield from read_vector(file, [(buffer, count)], position))


def sys_pwrite64(task: Task, descriptor: int, buffer: int, count: int, low: int, high: int) -> Call:
    position = wide(low, high)
    file = _file_at(task, descriptor, position)
    if not file.may_write:
        fail(errno.EBADF)
    _range(buffer, count)
    return (yield from write_vector(task, file, [(buffer, count)], position))


def sys_readv(task: Task, descriptor: int, vector: int, count: int) -> Call:
    file = task.files.get(descriptor)
    if not file.may_read:
        fail(errno.EBADF)
    segments = yield from copy_vector(vector, count)
    return (yield from read_vector(file, segments))


def sys_writev(task: Task, descriptor: int, vector: int, count: int) -> Call:
    file = task.files.get(descriptor)
    if not file.may_write:
        fail(errno.EBADF)
    segments = yield from copy_vector(vector, count)
    return (yield from write_vector(task, file, segments))


def sys_preadv(task: Task, descriptor: int, vector: int, count: int, low: int, high: int) -> Call:
    position = wide(low, high)
    file = _file_at(task, descriptor, position)
    segments = yield from copy_vector(vector, count)
    return (yield from read_vector(file, segments, position))


def sys_pwritev(task: Task, descriptor: int, vector: int, count: int, low: int, high: int) -> Call:
    position = wide(low, high)
    file = _file_at(task, descriptor, position)
    segments = yield from copy_vector(vector, count)
    return (yield from write_vector(task, file, segments, position))


# -- positions -----------------------------------------------------------------------------------


def sys_lseek(task: Task, descriptor: int, offset: int, whence: int) -> int:
    file = task.files.get(descriptor)
    before = file.position
    position = file.seek(signed(offset), whence)
    if position > MAX_COUNT:
        file.position = before
        fail(errno.EOVERFLOW)
    return position


def sys_llseek(task: Task, descriptor: int, high: int, low: int, result: int, whence: int) -> Call:
    file = task.files.get(descriptor)
    position = file.seek(wide(low, high), whence)
    yield from copy_out(result, words(position, size=8))
    return 0


# -- from file to file ---------------------------------------------------------------------------


def _sendfile(
    task: Task, output: int, source: int, count: int, position: int | None
) -> Part[tuple[int, int | None]]:
    """How many bytes went, and the position after them."""
    read, write = task.files.get(source), task.files.get(output)
    if not read.may_read or not write.may_write:
        fail(errno.EBADF)
    if position is not None and not read.seekable:
        fail(errno.ESPIPE)
    if not isinstance(read, RegularOpenFile) or write.flags & O_APPEND:
        fail(errno.EINVAL)
    if position is not None and position < 0:
        fail(errno.EINVAL)
    total, count = 0, min(count, MAX_COUNT & ~0xFFF)
    while total < count:
        at = read.position if position is None else position
        data = read.read_at(at, min(CHUNK, count - total))
        if not data:
            break
        try:
            done = yield from write_bytes(task, write, data)
        except (OSError, Interrupted):
            if not total:
                raise
            break
        total += done
        if position is None:
            read.position += done
        else:
            position += done
        if done < len(data):
            break
    return total, position


def _sendfile_at(task: Task, output: int, source: int, offset: int, count: int, size: int) -> Call:
    if not offset:
        return (yield from _sendfile(task, output, source, count, None))[0]
    (position,) = yield from copy_words_in(offset, 1, size)
    position = signed(position, 8 * size)
    total, after = yield from _sendfile(task, output, source, count, position)
    assert after is not None
    yield from copy_out(offset, words(after, size=size))
    return total


def sys_sendfile(task: Task, output: int, source: int, offset: int, count: int) -> Call:
    return (yield from _sendfile_at(task, output, source, offset, count, 4))


def sys_sendfile64(task: Task, output: int, source: int, offset: int, count: int) -> Call:
    return (yield from _sendfile_at(task, output, source, offset, count, 8))


# -- to the disk: there is none, and a file is never behind its memory ---------------------------


def sys_sync(task: Task) -> int:
    del task
    return 0


def sys_fsync(task: Task, descriptor: int) -> int:
    file = task.files.get(descriptor)
    return 0 if file.seekable else -errno.EINVAL


def sys_fadvise64(
    task: Task, descriptor: int, low: int, high: int, length: int, advice: int
) -> int:
    del low, high, length
    file = task.files.get(descriptor)
    if not file.seekable:
        return -errno.ESPIPE
    return 0 if advice <= 5 else -errno.EINVAL


def sys_fadvise64_64(
    task: Task, descriptor: int, low: int, high: int, length: int, length_high: int, advice: int
) -> int:
    del length_high
    return sys_fadvise64(task, descriptor, low, high, length, advice)


def sys_readahead(task: Task, descriptor: int, low: int, high: int, count: int) -> int:
    del low, high, count
    file = task.files.get(descriptor)
    if not file.may_read:
        return -errno.EBADF
    return 0 if isinstance(file, RegularOpenFile) else -errno.EINVAL
