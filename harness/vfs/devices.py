# SPDX-License-Identifier: GPL-2.0-or-later
"""``/dev``: the memory devices, and the random ones fed from the seed.

Models linux-2.4.22 ``drivers/char/mem.c`` and ``random.c``. No device of the host stands behind any
of them.
"""

import errno
import stat
from collections.abc import Callable
from typing import Final

from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.inode import Inode, SuperBlock
from harness.vfs.open_file import OpenFile

RandomBytes = Callable[[int], bytes]

_READ_AT_ONCE: Final = 1 << 20
"""Bytes that one read gives at most: the count is the program's."""


class DeviceFile(OpenFile):
    """An open device. It has a position that means nothing, as ``mem.c: null_lseek`` has it."""

    def seek(self, offset: int, whence: int) -> int:
        del offset, whence
        self.position = 0
        return 0

    def read_at(self, position: int, count: int) -> bytes:
        del position
        return self.read(count)

    def write_at(self, position: int, data: bytes) -> int:
        del position
        return self.write(data)

    def unread(self, data: bytes) -> None:
        del data


class NullFile(DeviceFile):
    """``/dev/null``."""

    pollable = False

    def read(self, count: int) -> bytes:
        del count
        return b""

    def write(self, data: bytes) -> int:
        return len(data)


class ZeroFile(NullFile):
    """``/dev/zero``."""

    def read(self, count: int) -> bytes:
        return bytes(min(count, _READ_AT_ONCE))


class FullFile(ZeroFile):
    """``/dev/full``."""

    def write(self, data: bytes) -> int:
        del data
        fail(errno.ENOSPC)


class RandomFile(NullFile):
    """``/dev/random`` and ``/dev/urandom``: what is written into them is forgotten."""

    pollable = True
    inode: "Device"

    def read(self, count: int) -> bytes:
        return self.inode.random(min(count, _READ_AT_ONCE))


class TerminalFile(DeviceFile):
    """``/dev/tty``: there is none."""

    def __init__(self, inode: Inode, flags: int) -> None:
        del inode, flags
        fail(errno.ENXIO)


class Device(Inode):
    """A character device."""

    seekable = True

    def __init__(
        self,
        superblock: SuperBlock,
        number: tuple[int, int],
        opened: type[DeviceFile],
        random: RandomBytes,
    ) -> None:
        super().__init__(superblock, stat.S_IFCHR | 0o666)
        self.rdev = number[0] << 8 | number[1]
        self._opened = opened
        self.random = random

    def open(self, flags: int) -> OpenFile:
        return self._opened(self, flags)


DEVICES: Final[dict[bytes, tuple[tuple[int, int], type[DeviceFile]]]] = {
    b"null": ((1, 3), NullFile),
    b"zero": ((1, 5), ZeroFile),
    b"full": ((1, 7), FullFile),
    b"random": ((1, 8), RandomFile),
    b"urandom": ((1, 9), RandomFile),
    b"tty": ((5, 0), TerminalFile),
}
"""Name -> (major, minor) and what opening gives; the numbers are those of ``devices.txt``."""


def fill_dev(directory: Directory, random: RandomBytes) -> None:
    """Put every device into ``directory``, and the links that ``/dev`` has to ``/proc/self/fd``."""
    from harness.vfs.inode import Symlink

    superblock = directory.superblock
    for name, (number, opened) in DEVICES.items():
        directory.attach(name, Device(superblock, number, opened, random))
    links = {b"fd": b"/proc/self/fd", b"stdin": b"/proc/self/fd/0"}
    links |= {b"stdout": b"/proc/self/fd/1", b"stderr": b"/proc/self/fd/2"}
    for name, text in links.items():
        directory.attach(name, Symlink(superblock, text))
