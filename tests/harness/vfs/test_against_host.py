# SPDX-License-Identifier: GPL-2.0-or-later
"""The same operations on our tree and on the host's: the same results, the same errors.

Ours starts as a view of a folder of the host; the host's kernel works on a second folder of
the same content. At the end both trees are alike, and our folder is what it was.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.vfs import operations
from harness.vfs.directory import Directory
from harness.vfs.inode import Inode, Symlink
from harness.vfs.namei import Context, Parent, Walk
from harness.vfs.regular import RegularFile
from tests.harness.vfs.ours import Ours, checksum
from tests.harness.vfs.reference import Answer, Reference, populate

OPEN_FLAGS = [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, 3]
EXTRA_FLAGS = [
    *(0, 0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_TRUNC),
    *(os.O_DIRECTORY, os.O_NOFOLLOW, os.O_NOFOLLOW | os.O_DIRECTORY, os.O_PATH),
    *(os.O_PATH | os.O_NOFOLLOW, os.O_CREAT | os.O_NOFOLLOW, os.O_CREAT | os.O_APPEND),
]
NAMES = ["a", "b", "c", "d", "e", "f", "g", "h", "l", "n", "p", "s", "x", "z", "up", "r"]


def _path(parts: list[str], lead: str, trail: str) -> bytes:
    return (lead + "/".join(parts) + trail).encode()


PARTS = st.sampled_from([*NAMES, *NAMES, ".", "..", ""])
GOOD = [b"a", b"a/b", b"a/f", b"a/b/g", b"a/h", b"c", b"d", b"d/g", b"e", b"x", b"n", b"a/n"]
"""What is there at first, and what is likely to be made."""
PATHS = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(GOOD),
    st.builds(
        _path,
        st.lists(PARTS, min_size=1, max_size=4),
        st.sampled_from(["", "", "", "/", "a/", "a/b/", "/../"]),
        st.sampled_from(["", "", "", "", "", "/", "/."]),
    ),
    st.sampled_from([b"", b"/", b"n" * 255, b"n" * 256, b"a/" * 2100, b"a/" + b"n" * 256 + b"/x"]),
)
ROOT = os.getuid() == 0
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o777, 0o711, 0o070, 0, *([0o4755] if ROOT else [])])
"""Root of a user namespace loses set-ID bits when he writes, which root himself does not.

No sticky directories: later kernels forbid there what the tree need not (``fs.protected_*``).
"""
USERS = st.sampled_from([0, 0, 0, 0, 0, 5] if ROOT else [0])
"""Only root may be somebody else on the host, too."""
SIZES = st.sampled_from([0, 1, 9, 10, 11, 100, 4095, 4096, 4097, 9999, 10000, 20000])
WHERE = st.none() | st.integers(0, 3)


def tree(do: Callable[..., Answer], path: bytes = b"") -> Iterator[tuple[bytes, Any]]:
    """Everything below ``path``, with contents."""
    error, names = do("list", path or b"/")
    assert error == 0
    for name in names:
        below = path + b"/" + name
        error, status = do("stat", None, below, False)
        assert error == 0
        yield below, status
        if stat.S_ISDIR(status[0]):
            yield from tree(do, below)
        elif stat.S_ISLNK(status[0]):
            yield below, do("readlink", below)
        elif stat.S_ISREG(status[0]):
            assert do("open", 9, None, below, os.O_RDONLY, 0)[0] == 0
            for position in range(0, min(status[4], 1 << 17), 1 << 15):
                error, data = do("pread", 9, 1 << 15, position)
                yield below, hashlib.sha256(data).hexdigest()
            do("close", 9)


class TwoTrees(RuleBasedStateMachine):
    """``handles`` are the open files that both sides have."""

    folder: Path
    reference: Reference

    @initialize()
    def start(self) -> None:
        assert self.reference.do("reset") == (0, None)
        self.ours = Ours(self.folder)
        self.handles: set[int] = set()
        self.user = 0

    def both(self, operation: str, *arguments: Any) -> int:
        """Do it on both sides, compare, and give the error's number."""
        expected = self.reference.do(operation, *arguments)
        got = self.ours.do(operation, *arguments)
        same = got == expected
        assert same, f"{operation}{_short(arguments)}: {_short(got)}, host {_short(expected)}"
        return expected[0]

    def at(self, handle: int | None) -> int | None:
        return handle if handle in self.handles else None

    # -- names -------------------------------------------------------------------------------

    @rule(at=WHERE, path=PATHS, mode=MODES)
    def mkdir(self, at: int | None, path: bytes, mode: int) -> None:
        self.both("mkdir", self.at(at), path, mode)

    @rule(at=WHERE, path=PATHS)
    def rmdir(self, at: int | None, path: bytes) -> None:
        self.both("rmdir", self.at(at), path)

    @rule(at=WHERE, path=PATHS)
    def unlink(self, at: int | None, path: bytes) -> None:
        self.both("unlink", self.at(at), path)

    @rule(old=PATHS, new=PATHS, flags=st.sampled_from([0, 0, 0, 1, 2]))
    def rename(self, old: bytes, new: bytes, flags: int) -> None:
        self.both("rename", old, new, flags)

    @precondition(lambda self: not self.user)
    @rule(old=PATHS, new=PATHS, follow=st.booleans())
    def link(self, old: bytes, new: bytes, follow: bool) -> None:
        self.both("link", old, new, follow)

    @rule(text=PATHS, path=PATHS)
    def symlink(self, text: bytes, path: bytes) -> None:
        self.both("symlink", text, path)

    @rule(path=PATHS, mode=MODES)
    def mkfifo(self, path: bytes, mode: int) -> None:
        self.both("mkfifo", path, mode)

    @rule(path=PATHS)
    def readlink(self, path: bytes) -> None:
        self.both("readlink", path)

    @rule(path=PATHS)
    def list(self, path: bytes) -> None:
        self.both("list", path)

    @rule(path=PATHS)
    def chdir(self, path: bytes) -> None:
        self.both("chdir", path)
        self.both("getcwd")

    # -- what describes a file -----------------------------------------------------------------

    @rule(at=WHERE, path=PATHS, follow=st.booleans())
    def stat(self, at: int | None, path: bytes, follow: bool) -> None:
        self.both("stat", self.at(at), path, follow)

    @rule(path=PATHS, mode=st.integers(0, 7))
    def access(self, path: bytes, mode: int) -> None:
        self.both("access", path, mode)

    @rule(path=PATHS, mode=MODES)
    def chmod(self, path: bytes, mode: int) -> None:
        self.both("chmod", path, mode)

    @rule(path=PATHS, uid=USERS | st.just(-1), gid=USERS | st.just(-1), follow=st.booleans())
    def chown(self, path: bytes, uid: int, gid: int, follow: bool) -> None:
        self.both("chown", path, uid, gid, follow)

    @rule(
        path=PATHS, atime=st.integers(0, 2**60), mtime=st.integers(0, 2**60), follow=st.booleans()
    )
    def utimes(self, path: bytes, atime: int, mtime: int, follow: bool) -> None:
        self.both("utimes", path, atime, mtime, follow)

    @rule(user=USERS)
    def become(self, user: int) -> None:
        """Somebody with no rights but his own, or root again."""
        self.both("become", user)
        self.user = user

    @rule(mask=st.sampled_from([0, 0o022, 0o077, 0o777]))
    def umask(self, mask: int) -> None:
        self.both("umask", mask)

    @rule(path=PATHS, size=SIZES | st.just(-1))
    def truncate(self, path: bytes, size: int) -> None:
        self.both("truncate", path, size)

    # -- open files ----------------------------------------------------------------------------

    @rule(
        handle=st.integers(0, 3),
        at=WHERE,
        path=PATHS,
        access=st.sampled_from(OPEN_FLAGS),
        extra=st.sampled_from(EXTRA_FLAGS),
        mode=MODES,
    )
    def open(
        self, handle: int, at: int | None, path: bytes, access: int, extra: int, mode: int
    ) -> None:
        """Never one that waits for the other end of a FIFO."""
        flags = access | extra | os.O_NONBLOCK
        at = self.at(at)
        if handle in self.handles and handle != at:
            self.both("close", handle)
            self.handles.discard(handle)
        if handle not in self.handles and self.both("open", handle, at, path, flags, mode) == 0:
            self.handles.add(handle)
            self.both("fstat", handle)

    @rule(
        path=st.sampled_from(GOOD),
        flags=st.sampled_from([0, os.O_APPEND, os.O_TRUNC]),
        position=SIZES,
        count=SIZES,
        size=SIZES,
    )
    def edit(self, path: bytes, flags: int, position: int, count: int, size: int) -> None:
        """Write somewhere into a file, cut it, let it grow, and look at all of it."""
        flags |= os.O_RDWR | os.O_CREAT | os.O_NONBLOCK
        if self.both("open", 8, None, path, flags, 0o666):
            return
        if self.reference.do("fstat", 8)[1][0] >> 12 == stat.S_IFREG >> 12:
            self.both("seek", 8, position, os.SEEK_SET)
            self.both("write", 8, (b"edited " * (count // 7 + 1))[:count])
            self.both("ftruncate", 8, size)
            self.both("ftruncate", 8, size + count // 2)
            self.both("pread", 8, 1 << 16, 0)
        self.both("close", 8)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), count=SIZES)
    def read(self, data: st.DataObject, count: int) -> None:
        self.both("read", data.draw(st.sampled_from(sorted(self.handles))), count)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), count=SIZES)
    def write(self, data: st.DataObject, count: int) -> None:
        content = (b"written " * (count // 8 + 1))[:count]
        self.both("write", data.draw(st.sampled_from(sorted(self.handles))), content)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), count=SIZES, position=SIZES | st.just(-1))
    def positioned(self, data: st.DataObject, count: int, position: int) -> None:
        handle = data.draw(st.sampled_from(sorted(self.handles)))
        self.both("pwrite", handle, b"placed"[: count % 7], position)
        self.both("pread", handle, count, max(0, position - 8))

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), offset=SIZES | st.integers(-10, 10), whence=st.integers(0, 2))
    def seek(self, data: st.DataObject, offset: int, whence: int) -> None:
        handle = data.draw(st.sampled_from(sorted(self.handles)))
        if self.reference.do("fstat", handle)[1][0] >> 12 != stat.S_IFDIR >> 12:
            self.both("seek", handle, offset, whence)

    @precondition(lambda self: self.handles)
    @rule(data=st.data(), size=SIZES | st.just(-1))
    def ftruncate(self, data: st.DataObject, size: int) -> None:
        handle = data.draw(st.sampled_from(sorted(self.handles)))
        self.both("ftruncate", handle, size)
        self.both("fstat", handle)

    def teardown(self) -> None:
        if hasattr(self, "ours"):
            self.become(0)
            same = list(tree(self.ours.do)) == list(tree(self.reference.do))
            assert same, "the trees differ"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "..."


@pytest.fixture(scope="module")
def two_trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[TwoTrees]]:
    folder = tmp_path_factory.mktemp("ours")
    folder.chmod(0o755)
    populate(folder)
    with Reference(tmp_path_factory.mktemp("host")) as reference:
        yield type("TwoTrees", (TwoTrees,), {"folder": folder, "reference": reference})


def test_our_tree_is_the_hosts(two_trees: type[TwoTrees]) -> None:
    before = checksum(two_trees.folder)
    run_state_machine_as_test(
        two_trees, settings=settings(max_examples=60, stateful_step_count=40, derandomize=True)
    )
    assert checksum(two_trees.folder) == before


# -- planted faults ------------------------------------------------------------------------------


def a_removed_name_shows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Directory.detach

    def detach(self: Directory, name: bytes) -> None:
        real(self, name)
        self._whiteouts.discard(name)

    monkeypatch.setattr(Directory, "detach", detach)


def a_cut_file_grows_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real = RegularFile.truncate

    def truncate(self: RegularFile, size: int) -> None:
        lower = self._lower_size
        real(self, size)
        self._lower_size = lower

    monkeypatch.setattr(RegularFile, "truncate", truncate)


def a_copied_page_starts_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    def own_page(self: RegularFile, index: int) -> bytearray:
        return self._pages.setdefault(index, bytearray(4096))

    monkeypatch.setattr(RegularFile, "_own_page", own_page)


def appending_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.vfs.open_file.O_APPEND", 0)


def the_umask_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    real = operations.create_file

    def create_file(context: Context, parent: Parent, mode: int) -> Inode:
        inode = real(context, parent, mode)
        inode.mode |= mode
        return inode

    monkeypatch.setattr("harness.syscalls.open.create_file", create_file)


def absolute_links_start_here(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Walk._read

    def read(self: Walk, link: Symlink) -> tuple[Inode | None, bytes]:
        target, text = real(self, link)
        return target, text.lstrip(b"/") or b"."

    monkeypatch.setattr(Walk, "_read", read)


def the_root_has_a_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(self: Walk, at: Directory) -> Directory:
        return at.parent if at is not self._context.root else Directory(at.superblock)

    monkeypatch.setattr(Walk, "_up", up)


def a_directory_goes_below_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Directory, "is_below", lambda self, other: False)


def links_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inode, "link_added", lambda self: None)


def links_lead_nowhere_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.vfs.namei.MAX_LINKS", 1)


@pytest.mark.parametrize(
    "fault",
    [
        a_removed_name_shows_again,
        a_cut_file_grows_back,
        a_copied_page_starts_empty,
        appending_is_forgotten,
        the_umask_is_forgotten,
        absolute_links_start_here,
        the_root_has_a_parent,
        a_directory_goes_below_itself,
        links_are_not_counted,
        links_lead_nowhere_in_time,
    ],
)
def test_planted_faults_are_found(
    two_trees: type[TwoTrees],
    fault: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, OSError, RecursionError)):
        run_state_machine_as_test(
            two_trees,
            settings=settings(
                max_examples=300,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
            ),
        )
