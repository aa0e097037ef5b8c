# SPDX-License-Identifier: GPL-2.0-or-later
"""What changes a tree: make, remove, rename, link.

Models the ``vfs_*`` functions of linux-2.4.22 ``fs/namei.c`` and ``fs/open.c``. Each takes a walk's
:class:`~harness.vfs.namei.Parent`; each checks everything first, so that one that fails has changed
nothing. What can fail: what Linux gives, and ``ENOSPC`` by the quota.
"""

import errno
import stat
from collections.abc import Callable

from harness.vfs.credentials import MAY_EXEC, MAY_WRITE, Credentials
from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.flags import O_LARGEFILE, O_RDONLY
from harness.vfs.inode import LINK_MAX, Inode, SuperBlock, Symlink
from harness.vfs.namei import Context, Last, Parent, Walk
from harness.vfs.open_file import RegularOpenFile
from harness.vfs.pipe import Pipe
from harness.vfs.regular import RegularFile

NewInode = Callable[[SuperBlock, int, int], Inode]
"""(file system, uid, gid) -> inode."""


def create(context: Context, parent: Parent, new: NewInode) -> Inode:
    """Make what ``new`` gives under a name that is free."""
    _vacant(context, parent)
    directory, credentials = parent.directory, context.credentials
    superblock = directory.superblock
    superblock.quota.take_inode()
    gid = directory.gid if directory.mode & stat.S_ISGID else credentials.fsgid
    inode = new(superblock, credentials.fsuid, gid)
    inode.charges = 1
    if isinstance(inode, Directory) and directory.mode & stat.S_ISGID:
        inode.mode |= stat.S_ISGID
    directory.attach(parent.name, inode)
    superblock.changed(inode)
    return inode


def _vacant(context: Context, parent: Parent, *, directory: bool = False) -> None:
    """Whether something can be made there: ``lookup_create`` and ``may_create``."""
    if parent.last is not Last.NAME or parent.directory.lookup(parent.name) is not None:
        fail(errno.EEXIST)
    if parent.slash and not directory:
        fail(errno.ENOENT)
    parent.directory.check_alive()
    context.credentials.check(parent.directory, MAY_WRITE | MAY_EXEC)


def create_file(context: Context, parent: Parent, mode: int) -> Inode:
    mode &= ~context.umask
    return create(context, parent, lambda sb, uid, gid: sb.new_file(mode, uid, gid))


def mkdir(context: Context, parent: Parent, mode: int) -> Inode:
    _vacant(context, parent, directory=True)
    mode = mode & 0o1777 & ~context.umask
    plain = Parent(parent.directory, parent.name, parent.last, False)
    return create(context, plain, lambda sb, uid, gid: Directory(sb, mode, uid, gid))


def symlink(context: Context, text: bytes, parent: Parent) -> Inode:
    return create(context, parent, lambda sb, uid, gid: Symlink(sb, text, uid, gid))


def mknod(context: Context, parent: Parent, mode: int) -> Inode:
    """A regular file or a FIFO; there are no devices to name, and no sockets."""
    _vacant(context, parent)
    kind, permissions = stat.S_IFMT(mode), mode & 0o7777 & ~context.umask
    if kind in (0, stat.S_IFREG):
        return create_file(context, parent, mode & 0o7777)
    if kind == stat.S_IFIFO:
        return create(context, parent, lambda sb, uid, gid: Pipe(sb, permissions, uid, gid))
    fail(errno.EPERM)


def link(context: Context, inode: Inode, parent: Parent) -> None:
    """One more name for ``inode``."""
    _vacant(context, parent)
    directory = parent.directory
    if inode.superblock is not directory.superblock:
        fail(errno.EXDEV)
    if isinstance(inode, Directory):
        fail(errno.EPERM)
    if inode.nlink == 0:
        fail(errno.ENOENT)
    if inode.nlink >= LINK_MAX:
        fail(errno.EMLINK)
    directory.superblock.quota.take_inode()
    directory.attach(parent.name, inode)
    inode.charges += 1
    inode.link_added()


# -- removal -------------------------------------------------------------------------------------


def rmdir(context: Context, parent: Parent) -> None:
    errors = {Last.DOT: errno.EINVAL, Last.DOTDOT: errno.ENOTEMPTY, Last.ROOT: errno.EBUSY}
    if parent.last in errors:
        fail(errors[parent.last])
    victim = _victim(context.credentials, parent)
    if not isinstance(victim, Directory):
        fail(errno.ENOTDIR)
    _check_not_busy(context, victim)
    if not victim.is_empty():
        fail(errno.ENOTEMPTY)
    _remove(parent.directory, parent.name)


def unlink(context: Context, parent: Parent) -> None:
    if parent.last is not Last.NAME:
        fail(errno.EISDIR)
    victim = parent.directory.lookup(parent.name)
    if victim is not None and parent.slash:
        fail(errno.EISDIR if isinstance(victim, Directory) else errno.ENOTDIR)
    victim = _victim(context.credentials, parent)
    if isinstance(victim, Directory):
        fail(errno.EISDIR)
    _remove(parent.directory, parent.name)


def _victim(credentials: Credentials, parent: Parent) -> Inode:
    """What is to lose its name, if it may (``may_delete``)."""
    victim = parent.directory.lookup(parent.name)
    if victim is None:
        fail(errno.ENOENT)
    parent.directory.check_removal()
    credentials.check_removal(parent.directory, victim)
    return victim


def _check_not_busy(context: Context, directory: Directory) -> None:
    if directory.mounted or directory is context.root:
        fail(errno.EBUSY)


def _remove(directory: Directory, name: bytes) -> None:
    victim = directory.lookup(name)
    assert victim is not None
    directory.detach(name)
    victim.link_removed()


# -- rename --------------------------------------------------------------------------------------

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


def rename(context: Context, old: Parent, new: Parent, flags: int = 0) -> None:
    """Give ``old`` the name ``new``, in the place of what has it."""
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == 3:
        fail(errno.EINVAL)
    if old.directory.superblock is not new.directory.superblock:
        fail(errno.EXDEV)
    if old.last is not Last.NAME:
        fail(errno.EBUSY)
    if new.last is not Last.NAME:
        fail(errno.EEXIST if flags & RENAME_NOREPLACE else errno.EBUSY)
    moved = old.directory.lookup(old.name)
    if moved is None:
        fail(errno.ENOENT)
    replaced = new.directory.lookup(new.name)
    if replaced is not None and flags & RENAME_NOREPLACE:
        fail(errno.EEXIST)
    if replaced is None and flags & RENAME_EXCHANGE:
        fail(errno.ENOENT)
    _check_slashes(old, moved, new, replaced, flags)
    _check_no_loop(old, moved, new, replaced, flags)
    if moved is replaced:
        return
    _check_rights(context, old, moved, new, replaced, flags)
    if flags & RENAME_EXCHANGE:
        assert replaced is not None
        _exchange(old, moved, new, replaced)
        return
    if isinstance(replaced, Directory) and not replaced.is_empty():
        fail(errno.ENOTEMPTY)
    if replaced is not None:
        _remove(new.directory, new.name)
    old.directory.detach(old.name)
    new.directory.attach(new.name, moved)
    moved.changed()


def _check_slashes(
    old: Parent, moved: Inode, new: Parent, replaced: Inode | None, flags: int
) -> None:
    slashes = old.slash or (new.slash and not flags & RENAME_EXCHANGE)
    if slashes and not isinstance(moved, Directory):
        fail(errno.ENOTDIR)
    if flags & RENAME_EXCHANGE and new.slash and not isinstance(replaced, Directory):
        fail(errno.ENOTDIR)


def _check_no_loop(
    old: Parent, moved: Inode, new: Parent, replaced: Inode | None, flags: int
) -> None:
    """A directory cannot go below itself."""
    if isinstance(moved, Directory) and new.directory.is_below(moved):
        fail(errno.EINVAL)
    if isinstance(replaced, Directory) and old.directory.is_below(replaced):
        fail(errno.EINVAL if flags & RENAME_EXCHANGE else errno.ENOTEMPTY)


def _check_rights(
    context: Context, old: Parent, moved: Inode, new: Parent, replaced: Inode | None, flags: int
) -> None:
    old.directory.check_removal()
    context.credentials.check_removal(old.directory, moved)
    if replaced is None:
        new.directory.check_alive()
        context.credentials.check(new.directory, MAY_WRITE | MAY_EXEC)
    else:
        new.directory.check_removal()
        context.credentials.check_removal(new.directory, replaced)
        if not flags & RENAME_EXCHANGE:
            if isinstance(moved, Directory) and not isinstance(replaced, Directory):
                fail(errno.ENOTDIR)
            if isinstance(replaced, Directory) and not isinstance(moved, Directory):
                fail(errno.EISDIR)
    for inode in (moved, replaced):
        if isinstance(inode, Directory):
            _check_not_busy(context, inode)


def _exchange(old: Parent, moved: Inode, new: Parent, replaced: Inode) -> None:
    old.directory.detach(old.name)
    new.directory.detach(new.name)
    old.directory.attach(old.name, replaced)
    new.directory.attach(new.name, moved)
    moved.changed()
    replaced.changed()


# -- content -------------------------------------------------------------------------------------


def truncate(context: Context, inode: Inode, size: int) -> None:
    """``truncate()`` by path."""
    if isinstance(inode, Directory):
        fail(errno.EISDIR)
    if not isinstance(inode, RegularFile):
        fail(errno.EINVAL)
    context.credentials.check(inode, MAY_WRITE)
    cut(context, inode, size)


def cut(context: Context, inode: RegularFile, size: int) -> None:
    """``do_truncate()``: rights have been checked."""
    if context.credentials.fsuid:
        inode.drop_privileges()
    inode.truncate(size)


def open_exec(context: Context, path: bytes) -> RegularOpenFile:
    """A program to run: the caller holds the one count of it. ``EACCES`` when it is none."""
    found = Walk(context).find(path)
    inode = found.inode
    if not isinstance(inode, RegularFile):
        fail(errno.EACCES)
    context.credentials.check(inode, MAY_EXEC)
    file = inode.open(O_RDONLY | O_LARGEFILE)
    if found.directory is not None:
        file.where = found.directory, found.name
    return file
