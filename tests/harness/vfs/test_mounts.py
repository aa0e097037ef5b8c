# SPDX-License-Identifier: GPL-2.0-or-later
"""Which file systems there are, as ``/proc/mounts`` tells, and that mounting changes no file."""

import os
from pathlib import Path

import pytest

from harness.vfs.directory import Directory
from tests.harness.syscalls.program import Program, new_machine

TIMES = (1_000_000_000, 2_000_000_000)


def content(program: Program, path: bytes) -> bytes:
    descriptor, room = program.call("open", path, os.O_RDONLY, 0), program.room(4096)
    length = program.call("read", descriptor, room, 4096)
    program.call("close", descriptor)
    return program.get(room, length)


def test_the_table(tmp_path: Path) -> None:
    program = Program(new_machine())
    program.system.files.mount_folder(b"my files\\", tmp_path)
    expected = (
        b"tmpfs / tmpfs rw 0 0\n"
        b"tmpfs /dev tmpfs rw 0 0\n"
        b"proc /proc proc rw 0 0\n"
        rb"tmpfs /my\040files\134 tmpfs rw 0 0" + b"\n"
    )
    for path in (b"/proc/mounts", b"/proc/self/mounts", b"/proc/1/mounts"):
        assert content(program, path) == expected
    room = program.room(100)
    length = program.call("readlink", b"/proc/mounts", room, 100)
    assert program.get(room, length) == b"self/mounts"


def test_what_a_process_cannot_reach_is_not_told() -> None:
    program = Program(new_machine())
    proc = program.call("open", b"/proc/self", os.O_DIRECTORY, 0)
    program.call("mkdir", b"/tmp/root", 0o755)
    assert program.call("chroot", b"/tmp/root") == 0
    room = program.room(4096)
    descriptor = program.call("openat", proc, b"mounts", os.O_RDONLY, 0)
    assert program.call("read", descriptor, room, 4096) == 0
    assert program.call("chroot", b"/") == 0


def test_a_folder_of_the_host_keeps_its_times(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    os.utime(tmp_path, TIMES)
    root = new_machine(tmp_path).files.root
    status = tmp_path.stat()
    assert (root.atime, root.mtime) == (TIMES[0] * 10**9, TIMES[1] * 10**9)
    assert root.ctime == status.st_ctime_ns
    assert root.nlink == status.st_nlink
    assert isinstance(root.lookup(b"dev"), Directory)


def test_attaching_instead_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the root of another file system becomes an entry like any other."""
    monkeypatch.setattr(Directory, "mount", Directory.attach)
    os.utime(tmp_path, TIMES)
    root = new_machine(tmp_path).files.root
    assert root.mtime != TIMES[1] * 10**9
