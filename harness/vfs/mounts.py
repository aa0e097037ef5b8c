# SPDX-License-Identifier: GPL-2.0-or-later
"""Which file system hangs where, and ``/proc/PID/mounts``, which tells of it.

Models linux-2.4.22 ``fs/namespace.c: show_vfsmnt()``. Nothing here can fail.
"""

from collections.abc import Iterable
from typing import Final

from harness.vfs.directory import Directory
from harness.vfs.hugetlbfs import HUGETLBFS_MAGIC
from harness.vfs.inode import PIPEFS_MAGIC, PROC_MAGIC, TMPFS_MAGIC

_TYPES: Final = {
    TMPFS_MAGIC: b"tmpfs",
    PROC_MAGIC: b"proc",
    PIPEFS_MAGIC: b"pipefs",
    HUGETLBFS_MAGIC: b"hugetlbfs",
}
_OPTIONS: Final = b"rw 0 0"
_ESCAPED: Final = b" \t\n\\"


def mounts_text(roots: Iterable[Directory], root: Directory) -> bytes:
    """A line for each file system whose root a process sees whose own root is ``root``."""
    lines = []
    for mounted in roots:
        path = mounted.path(root)
        if path is not None:
            name = _TYPES[mounted.superblock.magic]
            lines.append(b" ".join((name, _escape(path), name, _OPTIONS)) + b"\n")
    return b"".join(lines)


def _escape(path: bytes) -> bytes:
    """What would end a field, in octal (``mangle``)."""
    return b"".join(b"\\%03o" % byte if byte in _ESCAPED else bytes([byte]) for byte in path)
