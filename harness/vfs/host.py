# SPDX-License-Identifier: GPL-2.0-or-later
"""A folder of the host, for reading only.

A file in it is named by the tuple of names that lead to it. Each name is opened for itself,
relative to the directory before it, with ``O_NOFOLLOW``: a link is never followed by the host, so
neither a link nor one that is put in place meanwhile leads out of the folder. ``O_PATH`` comes
first, and only what then proves to be a regular file or a directory is opened for reading: a
device, a FIFO or a socket never is. Nothing is written; access times stay as they are where the
host allows.

What can fail: ``OSError``, as the host has it; ``ESTALE`` when another file has taken the place.
"""

import errno
import os
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Final

from harness.vfs.failure import fail
from kernel_model.errors import BadInput

Names = tuple[bytes, ...]

_PATH: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_FILES: Final = 32
"""Descriptors kept open on files that were read last."""


class HostFolder:
    """``path`` and all below it."""

    def __init__(self, path: Path | str) -> None:
        try:
            self._root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}: give a folder") from error
        self._files: OrderedDict[tuple[Names, int, int], int] = OrderedDict()

    def close(self) -> None:
        """Give back every descriptor; the folder can not be read any more."""
        while self._files:
            os.close(self._files.popitem()[1])
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def status(self, names: Names) -> os.stat_result:
        """``lstat()`` of it."""
        place = self._place(names)
        try:
            return os.fstat(place)
        finally:
            os.close(place)

    def names(self, names: Names) -> list[bytes]:
        """What a directory holds, in the host's order, without ``.`` and ``..``."""
        place = self._place(names)
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                fail(errno.ENOTDIR)
            descriptor = _reopen(place, os.O_DIRECTORY)
        finally:
            os.close(place)
        try:
            return [os.fsencode(name) for name in os.listdir(descriptor)]
        finally:
            os.close(descriptor)

    def link_text(self, names: Names) -> bytes:
        place = self._place(names)
        try:
            return os.fsencode(os.readlink("", dir_fd=place))
        finally:
            os.close(place)

    def read(self, names: Names, identity: tuple[int, int], count: int, position: int) -> bytes:
        """``count`` bytes of the regular file ``(st_dev, st_ino)`` names; fewer at its end."""
        descriptor = self._file(names, identity)
        parts = []
        while count > 0:
            part = os.pread(descriptor, count, position)
            if not part:
                break
            parts.append(part)
            count -= len(part)
            position += len(part)
        return b"".join(parts)

    def _file(self, names: Names, identity: tuple[int, int]) -> int:
        key = (names, *identity)
        descriptor = self._files.get(key)
        if descriptor is not None:
            self._files.move_to_end(key)
            return descriptor
        place = self._place(names)
        try:
            status = os.fstat(place)
            if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) != identity:
                fail(errno.ESTALE)
            descriptor = _reopen(place, 0)
        finally:
            os.close(place)
        self._files[key] = descriptor
        if len(self._files) > _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        return descriptor

    def _place(self, names: Names) -> int:
        """An ``O_PATH`` descriptor on what lies there, a link included."""
        place = os.dup(self._root)
        try:
            for name in names:
                assert name not in (b"", b".", b"..")
                assert b"/" not in name
                below = os.open(name, _PATH, dir_fd=place)
                os.close(place)
                place = below
        except OSError:
            os.close(place)
            raise
        return place


def _reopen(place: int, flags: int) -> int:
    """Open for reading what the ``O_PATH`` descriptor is on, whatever its name leads to by now."""
    path = f"/proc/self/fd/{place}"
    try:
        return os.open(path, _READ | flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, _READ | flags)
