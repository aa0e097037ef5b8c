# SPDX-License-Identifier: GPL-2.0-or-later
"""The descriptors of a process.

Models ``struct files_struct`` of linux-2.4.22 ``include/linux/sched.h``. What can fail: ``EBADF``,
and ``EMFILE`` at the process's limit.
"""

import errno
from collections.abc import Iterator
from typing import Final

from harness.vfs.failure import fail
from harness.vfs.flags import O_PATH
from harness.vfs.open_file import OpenFile

NR_OPEN: Final = 1 << 20
"""The highest that ``RLIMIT_NOFILE`` goes; see ``fs.nr_open``."""


class DescriptorTable:
    """Number -> open file; each entry holds one count of its file."""

    def __init__(self) -> None:
        self._files: dict[int, OpenFile] = {}
        self._close_on_exec: set[int] = set()
        self._next = 0
        """No number below it is free."""

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._files))

    def __len__(self) -> int:
        return len(self._files)

    @property
    def files(self) -> dict[int, OpenFile]:
        """All of them; not to be changed."""
        return self._files

    def get(self, descriptor: int) -> OpenFile:
        """An open file, but none that was opened with ``O_PATH``."""
        file = self.get_raw(descriptor)
        if file.flags & O_PATH:
            fail(errno.EBADF)
        return file

    def get_raw(self, descriptor: int) -> OpenFile:
        """As :meth:`get`, for what only asks where or what the file is."""
        file = self._files.get(descriptor)
        if file is None:
            fail(errno.EBADF)
        return file

    def free_number(self, limit: int, lowest: int = 0) -> int:
        """The lowest free number from ``lowest`` on."""
        number = max(lowest, self._next)
        while number in self._files:
            number += 1
        if lowest <= self._next:
            self._next = number
        if number >= limit:
            fail(errno.EMFILE)
        return number

    def install(
        self, file: OpenFile, limit: int, *, lowest: int = 0, close_on_exec: bool = False
    ) -> int:
        """Give ``file``, one count of which the caller hands over, a number. It is closed when
        there is none.
        """
        try:
            number = self.free_number(limit, lowest)
        except OSError:
            file.put()
            raise
        self._set(number, file, close_on_exec)
        return number

    def replace(self, number: int, file: OpenFile, *, close_on_exec: bool = False) -> None:
        """``dup2()``: ``number`` means ``file`` from now on; what it meant is closed."""
        before = self._files.get(number)
        self._set(number, file.get(), close_on_exec)
        if before is not None:
            self._closed(before)

    def _set(self, number: int, file: OpenFile, close_on_exec: bool) -> None:
        self._files[number] = file
        self.set_close_on_exec(number, close_on_exec)

    def close(self, descriptor: int) -> None:
        file = self.get_raw(descriptor)
        del self._files[descriptor]
        self._close_on_exec.discard(descriptor)
        self._next = min(self._next, descriptor)
        self._closed(file)

    def _closed(self, file: OpenFile) -> None:
        file.inode.drop_locks(self)
        file.put()

    def close_on_exec(self, descriptor: int) -> bool:
        return descriptor in self._close_on_exec

    def set_close_on_exec(self, descriptor: int, value: bool) -> None:
        if value:
            self._close_on_exec.add(descriptor)
        else:
            self._close_on_exec.discard(descriptor)

    def fork(self) -> "DescriptorTable":
        """A child's: the same files under the same numbers."""
        child = DescriptorTable()
        child._files = {number: file.get() for number, file in self._files.items()}
        child._close_on_exec = set(self._close_on_exec)
        child._next = self._next
        return child

    def exec(self) -> None:
        """``execve()`` has succeeded."""
        for descriptor in sorted(self._close_on_exec):
            self.close(descriptor)

    def close_all(self) -> None:
        """The process has ended."""
        for descriptor in list(self):
            self.close(descriptor)
