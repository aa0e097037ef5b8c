# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories: names of their own, and those that a folder of the host shows through.

A name that was removed is a whiteout when the host has it. What a directory holds depends on
nothing else: it may be renamed and keeps both its own names and the host's.

``parent`` and ``name`` say where a directory hangs (Linux's dentry does); a directory has one name
only. What can fail: ``ENOENT`` in a directory that was removed.
"""

import errno
import stat
from typing import TYPE_CHECKING, Protocol

from harness.vfs.failure import fail
from harness.vfs.inode import NAME_MAX, Inode, SuperBlock

if TYPE_CHECKING:
    from harness.vfs.open_file import DirectoryOpenFile


class LowerDirectory(Protocol):
    """What a directory shows that it does not hold itself."""

    def lookup(self, directory: "Directory", name: bytes) -> Inode | None: ...

    def has(self, name: bytes) -> bool: ...

    def names(self) -> list[bytes]: ...


class Directory(Inode):
    """Names and inodes. ``parent`` of the root is itself."""

    seekable = True

    def __init__(
        self,
        superblock: SuperBlock,
        mode: int = 0o755,
        uid: int = 0,
        gid: int = 0,
        lower: LowerDirectory | None = None,
    ) -> None:
        super().__init__(superblock, stat.S_IFDIR | mode & 0o7777, uid, gid)
        self.nlink = 2
        self.parent: Directory = self
        self.name = b""
        self.mounted = False
        """Whether it is the root of a file system: it cannot be removed or renamed."""
        self.removed = False
        self._lower = lower
        self._entries: dict[bytes, Inode] = {}
        self._whiteouts: set[bytes] = set()

    @property
    def size(self) -> int:
        return 4096

    @property
    def blocks(self) -> int:
        return 8

    def open(self, flags: int) -> "DirectoryOpenFile":
        from harness.vfs.open_file import DirectoryOpenFile

        return DirectoryOpenFile(self, flags)

    # -- names -------------------------------------------------------------------------------

    def lookup(self, name: bytes) -> Inode | None:
        """What ``name`` leads to here; never ``.`` or ``..``."""
        if len(name) > NAME_MAX:
            fail(errno.ENAMETOOLONG)
        inode = self._entries.get(name)
        if inode is None and self._lower is not None and name not in self._whiteouts:
            inode = self._lower.lookup(self, name)
        return inode

    def names(self) -> list[bytes]:
        """All names: the host's in its order, then the directory's own in the order of making."""
        if self._lower is None:
            return list(self._entries)
        lower = self._lower.names()
        shown = [n for n in lower if n not in self._whiteouts]
        present = set(shown)
        return shown + [name for name in self._entries if name not in present]

    def is_empty(self) -> bool:
        return not self.names()

    def check_alive(self) -> None:
        """Nothing can be made in a directory that no name leads to."""
        if self.removed:
            fail(errno.ENOENT)

    def check_removal(self) -> None:
        """Refuse when no name may be taken away here."""

    def attach(self, name: bytes, inode: Inode) -> None:
        """Let ``name``, which is free, lead to ``inode``; counts are the caller's."""
        self._entries[name] = inode
        if isinstance(inode, Directory):
            inode.parent, inode.name = self, name
            self.nlink += 1
        self.modified()

    def mount(self, name: bytes, root: "Directory") -> None:
        """Show the root of another file system as ``name``: this one does not change by it."""
        self._entries[name] = root
        root.parent, root.name, root.mounted = self, name, True

    def detach(self, name: bytes) -> None:
        """Take ``name`` away; counts of what it led to are the caller's."""
        inode = self.lookup(name)
        assert inode is not None
        self._entries.pop(name, None)
        if self._lower is not None and self._lower.has(name):
            self._whiteouts.add(name)
        if isinstance(inode, Directory):
            self.nlink = max(1, self.nlink - 1)
        self.modified()

    def link_removed(self) -> None:
        """``rmdir``: its own ``.`` goes with its name."""
        self.removed = True
        self.nlink = 1
        super().link_removed()

    # -- where it hangs ----------------------------------------------------------------------

    def is_below(self, other: "Directory") -> bool:
        """Whether ``other`` is it, or one of those it hangs in."""
        at = self
        while at is not other:
            if at.parent is at:
                return False
            at = at.parent
        return True

    def path(self, root: "Directory") -> bytes | None:
        """Its path seen from ``root`` (``d_path``); ``None`` when it does not hang below it."""
        names: list[bytes] = []
        at = self
        while at is not root:
            if at.parent is at or at.removed:
                return None
            names.append(at.name)
            at = at.parent
        return b"/" + b"/".join(reversed(names))
