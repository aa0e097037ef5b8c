# SPDX-License-Identifier: GPL-2.0-or-later
"""From a path to what it leads to.

Models linux-2.4.22 ``fs/namei.c: link_path_walk``. Links are read as text and walked in this tree
only, ``..`` of the root is the root: no path leaves it. What can fail: ``ENOENT``, ``ENOTDIR``,
``EACCES``, ``ENAMETOOLONG``, ``ELOOP`` after :data:`MAX_LINKS` links.
"""

import errno
from dataclasses import dataclass
from enum import Enum
from typing import Final

from harness.vfs.credentials import MAY_EXEC, Credentials
from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.inode import Inode, Symlink

PATH_MAX: Final = 4096
"""With the zero at its end."""
MAX_LINKS: Final = 40


@dataclass(slots=True)
class Context:
    """Where a process is: ``struct fs_struct``, and who asks."""

    root: Directory
    cwd: Directory
    credentials: Credentials
    umask: int = 0o022

    def fork(self, credentials: Credentials) -> "Context":
        """A child's, with its own copy of the IDs."""
        return Context(self.root, self.cwd, credentials, self.umask)


class Last(Enum):
    """What kind of name a path ends with."""

    NAME = "a name"
    DOT = "."
    DOTDOT = ".."
    ROOT = "/"


@dataclass(frozen=True, slots=True)
class Parent:
    """A path but for its last name, which nobody has looked up."""

    directory: Directory
    name: bytes
    last: Last
    slash: bool
    """Whether slashes follow the name: it must be a directory."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a path leads to, and the directory and name by which it was found, if it has one."""

    inode: Inode
    directory: Directory | None
    name: bytes


class Walk:
    """One lookup: ``context`` asks, and all its links count together."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._links = 0

    def find(self, path: bytes, start: Directory | None = None, *, follow: bool = True) -> Found:
        """What ``path`` leads to, from ``start`` or the working directory.

        ``follow`` says whether a link at its end is followed; before slashes it always is.
        """
        parent = self.parent(path, start)
        while True:
            found = self._last(parent)
            if found is None:
                fail(errno.ENOENT)
            inode = found.inode
            if not isinstance(inode, Symlink) or not (follow or parent.slash):
                if parent.slash and not isinstance(inode, Directory):
                    fail(errno.ENOTDIR)
                return found
            step = self.follow(inode, parent)
            if isinstance(step, Found):
                if parent.slash and not isinstance(step.inode, Directory):
                    fail(errno.ENOTDIR)
                return step
            parent = step

    def parent(self, path: bytes, start: Directory | None = None) -> Parent:
        """Everything of ``path`` but its last name."""
        if not path:
            fail(errno.ENOENT)
        if len(path) >= PATH_MAX:
            fail(errno.ENAMETOOLONG)
        context = self._context
        at = context.root if path.startswith(b"/") else start or context.cwd
        slash = path.endswith(b"/")
        rest = [name for name in reversed(path.split(b"/")) if name]
        if not rest:
            return Parent(context.root, b"", Last.ROOT, False)
        while len(rest) > 1:
            at = self._step(at, rest)
        context.credentials.check(at, MAY_EXEC)
        name = rest[0]
        last = {b".": Last.DOT, b"..": Last.DOTDOT}.get(name, Last.NAME)
        return Parent(at, name, last, slash)

    def follow(self, link: Symlink, parent: Parent) -> Found | Parent:
        """Where a link that ``parent`` ends with leads: to a file at once, or further on."""
        target, text = self._read(link)
        if target is not None:
            return Found(target, None, b"")
        if parent.slash and not text.endswith(b"/"):
            text += b"/"
        return self.parent(text, parent.directory)

    def look(self, parent: Parent) -> Inode | None:
        """What the last name leads to, without following it; ``None`` when there is nothing."""
        found = self._last(parent)
        return None if found is None else found.inode

    # -- parts -------------------------------------------------------------------------------

    def _read(self, link: Symlink) -> tuple[Inode | None, bytes]:
        self._links += 1
        if self._links > MAX_LINKS:
            fail(errno.ELOOP)
        target = link.target()
        text = link.text() if target is None else b""
        if target is None and not text:
            fail(errno.ENOENT)
        return target, text

    def _step(self, at: Directory, rest: list[bytes]) -> Directory:
        """One name on, taken from the end of ``rest``; a link's names take its place there."""
        self._context.credentials.check(at, MAY_EXEC)
        name = rest.pop()
        if name == b".":
            return at
        if name == b"..":
            return self._up(at)
        inode = at.lookup(name)
        if inode is None:
            fail(errno.ENOENT)
        if isinstance(inode, Symlink):
            target, text = self._read(inode)
            if target is not None:
                inode = target
            else:
                if len(text) >= PATH_MAX:
                    fail(errno.ENAMETOOLONG)
                rest.extend(name for name in reversed(text.split(b"/")) if name)
                return self._context.root if text.startswith(b"/") else at
        if not isinstance(inode, Directory):
            fail(errno.ENOTDIR)
        return inode

    def _up(self, at: Directory) -> Directory:
        return at if at is self._context.root else at.parent

    def _last(self, parent: Parent) -> Found | None:
        at = parent.directory
        if parent.last is Last.NAME:
            inode = at.lookup(parent.name)
            return None if inode is None else Found(inode, at, parent.name)
        directory = self._up(at) if parent.last is Last.DOTDOT else at
        return Found(directory, None, b"")
