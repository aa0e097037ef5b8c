# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree that programs start with: devices, ``/proc``, bounds, pages for the page cache."""

import errno
import os
from pathlib import Path

import pytest

from harness.vfs.failure import fail
from harness.vfs.operations import open_exec
from harness.vfs.quota import Quota
from harness.vfs.regular import RegularFile
from kernel_model.ram import PAGE_SIZE
from tests.harness.syscalls.program import Program, new_machine
from tests.harness.vfs.ours import entry_names

RDWR = os.O_CREAT | os.O_RDWR


@pytest.fixture
def program() -> Program:
    return Program(new_machine())


def opened(program: Program, path: bytes, flags: int = os.O_RDONLY) -> int:
    descriptor = program.call("open", path, flags, 0o644)
    assert descriptor >= 0, errno.errorcode[-descriptor]
    return descriptor


def content(program: Program, path: bytes) -> bytes:
    descriptor, room = opened(program, path), program.room(4096)
    length = program.call("read", descriptor, room, 4096)
    assert length >= 0, errno.errorcode[-length]
    program.call("close", descriptor)
    return program.get(room, length)


def names(program: Program, path: bytes) -> list[bytes]:
    descriptor, room = opened(program, path, os.O_DIRECTORY), program.room(4096)
    length = program.call("getdents64", descriptor, room, 4096)
    program.call("close", descriptor)
    return list(entry_names(program.get(room, length)))


def write(program: Program, descriptor: int, data: bytes) -> int:
    return program.call("write", descriptor, program.put(data), len(data))


# -- /dev ----------------------------------------------------------------------------------------


def test_devices(program: Program) -> None:
    assert sorted(names(program, b"/")) == [b"dev", b"proc", b"tmp"]
    assert content(program, b"/dev/null") == b""
    assert content(program, b"/dev/zero") == bytes(4096)
    assert len(set(content(program, b"/dev/urandom"))) > 200
    assert content(program, b"/dev/stdin") == b"input\n"
    assert write(program, opened(program, b"/dev/null", os.O_WRONLY), b"gone") == 4
    assert write(program, opened(program, b"/dev/full", os.O_WRONLY), b"x") == -errno.ENOSPC
    assert write(program, opened(program, b"/dev/stdout", os.O_WRONLY), b"shown") == 5
    assert bytes(program.output) == b"shown"
    assert program.call("open", b"/dev/tty", os.O_RDWR, 0) == -errno.ENXIO


def test_random_devices_repeat_with_the_seed() -> None:
    first, second = (content(Program(new_machine()), b"/dev/random") for _ in range(2))
    same = first == second
    assert same


def test_mounted_directories_stay(program: Program) -> None:
    assert program.call("rmdir", b"/dev") == -errno.EBUSY
    assert program.call("rename", b"/proc", b"/p") == -errno.EBUSY
    assert program.call("rename", b"/dev/null", b"/null") == -errno.EXDEV
    assert program.call("link", b"/dev/null", b"/null") == -errno.EXDEV


# -- /proc ---------------------------------------------------------------------------------------


def test_texts_are_written_when_they_are_read(program: Program) -> None:
    proc, count = program.system.files.proc, iter(range(100))
    proc.texts[b"meminfo"] = lambda: b"MemFree: %d kB\n" % next(count)
    proc.process_texts[b"maps"] = lambda pid: b"maps of %d\n" % pid
    descriptor, room = opened(program, b"/proc/meminfo"), program.room(20)
    assert program.call("read", descriptor, room, 5) == 5
    assert program.call("read", descriptor, room, 20) == 9
    assert program.get(room, 9) == b"ee: 0 kB\n"
    assert program.call("lseek", descriptor, 0, os.SEEK_SET) == 0
    assert program.call("read", descriptor, room, 20) == 14
    assert program.get(room, 14) == b"MemFree: 1 kB\n"
    assert content(program, b"/proc/self/maps") == b"maps of 1\n"
    assert content(program, b"/proc/1/maps") == b"maps of 1\n"


def test_links_of_a_process(program: Program) -> None:
    room = program.room(100)

    def link(path: bytes) -> bytes:
        return program.get(room, program.call("readlink", path, room, 100))

    assert link(b"/proc/self") == b"1"
    assert link(b"/proc/self/exe") == b"/bin/test"
    program.call("mkdir", b"/tmp/dir", 0o755)
    program.call("chdir", b"/tmp/dir")
    descriptor = opened(program, b"file", RDWR)
    assert link(b"/proc/self/cwd") == b"/tmp/dir"
    assert link(b"/proc/self/fd/%d" % descriptor) == b"/tmp/dir/file"
    write(program, descriptor, b"kept")
    program.call("unlink", b"file")
    assert link(b"/proc/self/fd/%d" % descriptor) == b"/tmp/dir/file (deleted)"
    assert content(program, b"/proc/self/fd/%d" % descriptor) == b"kept"
    assert link(b"/proc/self/fd/0").startswith(b"pipe:[")
    assert sorted(names(program, b"/proc/self/fd"))[:3] == [b"0", b"1", b"2"]
    assert program.call("open", b"/proc/self/fd/77", 0, 0) == -errno.ENOENT
    assert program.call("open", b"/proc/self/fd/00", 0, 0) == -errno.ENOENT
    assert program.call("open", b"/proc/99/fd", 0, 0) == -errno.ENOENT


def test_proc_cannot_be_changed(program: Program) -> None:
    assert program.call("open", b"/proc/new", RDWR, 0o644) == -errno.ENOENT
    assert program.call("mkdir", b"/proc/new", 0o755) == -errno.ENOENT
    assert program.call("unlink", b"/proc/self") == -errno.EPERM
    assert program.call("rename", b"/proc/self", b"/proc/me") == -errno.EPERM


# -- programs -------------------------------------------------------------------------------------


def test_only_executable_regular_files_are_programs(program: Program) -> None:
    files = program.system.files
    files.add_file(b"/bin/tool", b"\x7fELF", 0o755)
    files.add_file(b"/etc/text", b"text")
    program.call("symlink", b"/bin/tool", b"/tool")
    assert open_exec(program.fs, b"/tool").inode.read_at(0, 9) == b"\x7fELF"
    assert files.quota.pages == 0
    for path, number in (
        (b"/etc/text", errno.EACCES),
        (b"/bin", errno.EACCES),
        (b"/dev/null", errno.EACCES),
        (b"/none", errno.ENOENT),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            open_exec(program.fs, path)
        assert caught.value.errno == number
    descriptor = opened(program, b"/bin/tool", os.O_RDWR)
    assert write(program, descriptor, b"changed") == 7
    assert open_exec(program.fs, b"/bin/tool").inode.read_at(0, 9) == b"changed"


# -- bounds --------------------------------------------------------------------------------------


def test_the_writable_layer_has_a_bound() -> None:
    program = Program(new_machine(quota=Quota(max_pages=3, max_inodes=4)))
    quota = program.system.files.quota
    descriptor = opened(program, b"/f", RDWR)
    assert write(program, descriptor, bytes(5 * PAGE_SIZE)) == 3 * PAGE_SIZE
    assert write(program, descriptor, b"x") == -errno.ENOSPC
    assert program.call("ftruncate", descriptor, 100) == 0
    assert quota.pages == 1
    made = [program.call("mkdir", b"/%d" % number, 0o755) for number in range(4)]
    assert made == [0, 0, 0, -errno.ENOSPC]
    assert program.call("link", b"/f", b"/hard") == -errno.ENOSPC
    program.call("rmdir", b"/0")
    assert program.call("link", b"/f", b"/hard") == 0
    assert program.call("open", b"/g", RDWR, 0o644) == -errno.ENOSPC
    for name in (b"/f", b"/hard"):
        program.call("unlink", name)
    assert quota.pages == 1, "the file is still open"
    program.call("close", descriptor)
    assert (quota.pages, quota.inodes) == (0, 2)


def test_names_made_and_removed_leave_nothing_behind(tmp_path: Path) -> None:
    program = Program(new_machine(tmp_path))
    root = program.system.files.root
    for number in range(50):
        program.call("close", opened(program, b"/%d" % number, RDWR))
        program.call("unlink", b"/%d" % number)
    assert not root._whiteouts
    assert program.system.files.quota.inodes == 0
    assert root.superblock._changed.keys() == {root.number}  # type: ignore[attr-defined]


# -- pages ---------------------------------------------------------------------------------------


def host_file(program: Program, name: bytes) -> RegularFile:
    inode = program.system.files.root.lookup(name)
    assert isinstance(inode, RegularFile)
    return inode


def test_pages_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a" * 5000)
    program = Program(new_machine(tmp_path))
    inode = host_file(program, b"f")
    assert inode.read_page(1) == b"a" * 904 + bytes(PAGE_SIZE - 904)
    assert inode.read_page(7) == bytes(PAGE_SIZE)
    assert program.system.files.quota.pages == 0
    inode.write_page(1, b"b" * PAGE_SIZE)
    assert program.system.files.quota.pages == 1
    assert inode.size == 5000
    assert inode.read_at(4094, 100) == b"aa" + b"b" * 98
    assert inode.read_page(1) == b"b" * 904 + bytes(PAGE_SIZE - 904)
    inode.write_page(2, b"c" * PAGE_SIZE)
    assert inode.size == 5000, "a page past the end was kept"
    inode.truncate(6000)
    assert inode.read_at(4096, 2000) == b"b" * 904 + bytes(1000)
    assert (tmp_path / "f").read_bytes() == b"a" * 5000


class PageCache:
    """What a kernel's page cache does for one file."""

    def __init__(self, inode: RegularFile) -> None:
        self.pages = {0: bytearray(inode.read_page(0))}
        self.cut: list[int] = []

    def cached(self, index: int) -> bytes | None:
        page = self.pages.get(index)
        return None if page is None else bytes(page)

    def written(self, index: int, offset: int, data: bytes) -> None:
        if index in self.pages:
            self.pages[index][offset : offset + len(data)] = data

    def truncated(self, size: int) -> None:
        self.cut.append(size)


def test_reading_and_writing_go_through_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    program = Program(new_machine(tmp_path))
    inode = host_file(program, b"f")
    cache = inode.address_space = PageCache(inode)
    cache.pages[0][2:4] = b"!!"
    assert content(program, b"/f") == b"01!!456789"
    descriptor = opened(program, b"/f", os.O_RDWR)
    write(program, descriptor, b"new")
    assert cache.pages[0][:10] == b"new!456789"
    program.call("ftruncate", descriptor, 5)
    assert cache.cut == [5]


def test_an_error_of_the_host_reaches_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    program = Program(new_machine(tmp_path))
    descriptor = opened(program, b"/f")
    monkeypatch.setattr(os, "pread", lambda *_: fail(errno.EIO))
    assert program.call("read", descriptor, program.room(10), 10) == -errno.EIO


def test_reading_a_directory_while_it_is_emptied(program: Program) -> None:
    """``rm -r``: every name is seen once, whatever was removed before."""
    for number in range(40):
        program.call("mknod", b"/tmp/%02d" % number, 0o100644, 0)
    descriptor, seen = opened(program, b"/tmp", os.O_DIRECTORY), []
    room = program.room(100)
    while (length := program.call("getdents64", descriptor, room, 100)) > 0:
        for name in entry_names(program.get(room, length)):
            seen.append(name)
            assert program.call("unlink", b"/tmp/" + name) == 0
    assert seen == [b"%02d" % number for number in range(40)]
    assert program.call("rmdir", b"/tmp") == 0
    assert program.call("getdents64", descriptor, room, 10) == 0


def test_the_old_form_of_directory_entries(program: Program) -> None:
    descriptor, room = opened(program, b"/", os.O_DIRECTORY), program.room(200)
    assert program.call("getdents", descriptor, room, 10) == -errno.EINVAL
    length = program.call("getdents", descriptor, room, 200)
    data, at, found = program.get(room, length), 0, []
    while at < length:
        size = int.from_bytes(data[at + 8 : at + 10], "little")
        name = data[at + 10 : at + size].partition(b"\0")[0]
        found.append((name, data[at + size - 1]))
        at += size
    assert found == [(name, 4) for name in (b".", b"..", b"dev", b"proc", b"tmp")]
    assert at == length


def test_statfs_tells_the_bounds(program: Program) -> None:
    room = program.room(84)
    opened(program, b"/tmp/f", RDWR)
    assert program.call("statfs64", b"/tmp", 84, room) == 0
    blocks = int.from_bytes(program.get(room + 8, 8), "little")
    files, free = (int.from_bytes(program.get(room + at, 8), "little") for at in (32, 40))
    quota = program.system.files.quota
    assert (blocks, files, files - free) == (quota.max_pages, quota.max_inodes, 1)
    assert program.call("statfs64", b"/tmp", 64, room) == -errno.EINVAL
