# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``execve()`` finds at a path: an ELF program, or a script and its interpreter.

Models linux-2.4.22 ``fs/binfmt_script.c`` and the reading side of ``fs/exec.c``. What can fail, as
:class:`OSError`: the path, ``EACCES`` for what may not be run, ``ENOEXEC`` for what is no
program, ``ELOOP`` for scripts run by scripts without end.
"""

import errno
from dataclasses import dataclass
from typing import Final

from harness.elf import BadElf, ElfImage, load_elf
from harness.vfs.failure import fail
from harness.vfs.namei import Context
from harness.vfs.open_file import RegularOpenFile
from harness.vfs.operations import open_exec
from harness.vfs.regular import RegularFile

_MAX_SCRIPTS: Final = 4
_SCRIPT_LINE: Final = 127
_KEPT: Final = 8
"""Programs whose parsed headers are kept for the next ``execve()``."""


@dataclass(frozen=True, slots=True)
class Found:
    """A program, its open file (one count of which is the caller's), and its arguments."""

    image: ElfImage
    file: RegularOpenFile
    path: bytes
    argv: list[bytes]


class Programs:
    """Finds and parses programs; ``ram`` is how many bytes of memory there are."""

    def __init__(self, ram: int) -> None:
        self._ram = ram
        self._parsed: dict[tuple[int, int, int], ElfImage] = {}

    def find(self, context: Context, path: bytes, argv: list[bytes]) -> Found:
        """The program at ``path``, behind as many scripts as there are."""
        for _ in range(_MAX_SCRIPTS + 1):
            file = open_exec(context, path)
            start = file.read_at(0, _SCRIPT_LINE)
            if not start.startswith(b"#!"):
                break
            file.put()
            interpreter, *option = _script_line(start)
            argv = [interpreter, *option, path, *argv[1:]]
            path = interpreter
        else:
            fail(errno.ELOOP)
        try:
            image = self._parse(file.inode, path)
        except BadElf:
            file.put()
            raise OSError(errno.ENOEXEC, "not a program that runs here") from None
        except BaseException:
            file.put()
            raise
        return Found(image, file, path, argv)

    def release(self) -> None:
        """Forget the programs that are kept."""
        self._parsed.clear()

    def _parse(self, inode: RegularFile, path: bytes) -> ElfImage:
        key = (id(inode), inode.size, inode.mtime)
        if key not in self._parsed:
            content = inode.read_at(0, inode.size)
            image = load_elf(content, path.decode("latin-1"), ram=self._ram)
            if image.ring != 3:
                fail(errno.ENOEXEC)
            if len(self._parsed) >= _KEPT:
                del self._parsed[next(iter(self._parsed))]
            self._parsed[key] = image
        return self._parsed[key]


def _script_line(start: bytes) -> list[bytes]:
    """The interpreter of a script, and its one argument if there is one."""
    line = start[2:].partition(b"\n")[0].partition(b"\0")[0].strip(b" \t")
    words = line.split(None, 1)
    if not words:
        fail(errno.ENOEXEC)
    return [words[0], *(word.rstrip(b" \t") for word in words[1:])]
