# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving structures, texts and vectors between a program and its system calls.

Models what linux-2.4.22 does with ``copy_from_user`` and ``copy_to_user`` all over. Every address
and length is the program's, and checked. What can fail: ``EFAULT``, ``ENAMETOOLONG``, ``EINVAL``
for vectors.
"""

import ctypes
import errno
from typing import Final, TypeVar

from harness.syscalls.requests import CopyFromUser, CopyToUser, Part, StrncpyFromUser
from harness.vfs.failure import fail
from harness.vfs.namei import PATH_MAX
from kernel_model.arch_i386.page import TASK_SIZE

MAX_COUNT: Final = 0x7FFFFFFF
UIO_MAXIOV: Final = 1024
CHUNK: Final = 1 << 16
"""Bytes that one request moves at most."""

S = TypeVar("S", bound=ctypes.Structure)
Segments = list[tuple[int, int]]
"""(address, length), as ``struct iovec`` has them."""


def signed(value: int, bits: int = 32) -> int:
    """An unsigned register's value as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def wide(low: int, high: int) -> int:
    """A ``loff_t`` in two registers."""
    return signed(high << 32 | low, 64)


def check_range(address: int, length: int) -> None:
    """``access_ok()``."""
    if address + length > TASK_SIZE:
        fail(errno.EFAULT)


def copy_in(address: int, length: int) -> Part[bytes]:
    """All of ``length`` bytes."""
    check_range(address, length)
    if not length:
        return b""
    data: bytes = yield CopyFromUser(address, length)
    if len(data) < length:
        fail(errno.EFAULT)
    return data


def copy_out(address: int, data: bytes) -> Part[None]:
    """All of ``data``."""
    check_range(address, len(data))
    if data:
        left: int = yield CopyToUser(address, data)
        if left:
            fail(errno.EFAULT)


def copy_path(address: int) -> Part[bytes]:
    """A path (``getname``)."""
    text: bytes | None = None
    if address < TASK_SIZE:
        text = yield StrncpyFromUser(address, PATH_MAX)
    if text is None:
        fail(errno.EFAULT)
    if len(text) >= PATH_MAX:
        fail(errno.ENAMETOOLONG)
    return text


def copy_struct_in(address: int, layout: type[S]) -> Part[S]:
    data = yield from copy_in(address, ctypes.sizeof(layout))
    return layout.from_buffer_copy(data)


def copy_struct_out(address: int, structure: ctypes.Structure) -> Part[int]:
    """Gives 0, which is what most calls that end with it return."""
    yield from copy_out(address, bytes(structure))
    return 0


def copy_words_in(address: int, count: int, size: int = 4) -> Part[list[int]]:
    """``count`` unsigned numbers of ``size`` bytes."""
    data = yield from copy_in(address, count * size)
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def words(*values: int, size: int = 4) -> bytes:
    """Numbers as the program reads them."""
    mask = (1 << 8 * size) - 1
    return b"".join((value & mask).to_bytes(size, "little") for value in values)


def copy_vector(address: int, count: int) -> Part[Segments]:
    """The ``struct iovec`` array of ``readv()`` and ``writev()``; together below 2 GiB."""
    if count > UIO_MAXIOV:
        fail(errno.EINVAL)
    numbers = yield from copy_words_in(address, 2 * count)
    segments = list(zip(numbers[::2], numbers[1::2], strict=True))
    if any(length > MAX_COUNT for _, length in segments):
        fail(errno.EINVAL)
    if sum(length for _, length in segments) > MAX_COUNT:
        fail(errno.EINVAL)
    for base, length in segments:
        check_range(base, length)
    return segments


class UserVector:
    """What a program hands over in pieces, taken from the front."""

    def __init__(self, segments: Segments) -> None:
        self._segments = [segment for segment in segments if segment[1]]
        self.faulted = False

    @property
    def left(self) -> int:
        return sum(length for _, length in self._segments)

    def take(self, limit: int) -> Part[bytes]:
        """Up to ``limit`` bytes; fewer only at the end, or when :attr:`faulted`."""
        data = bytearray()
        while self._segments and len(data) < limit:
            address, length = self._segments.pop(0)
            wanted = min(length, limit - len(data))
            part: bytes = yield CopyFromUser(address, wanted)
            data += part
            if len(part) < wanted:
                self.faulted = True
                break
            if wanted < length:
                self._segments.insert(0, (address + wanted, length - wanted))
        return bytes(data)
