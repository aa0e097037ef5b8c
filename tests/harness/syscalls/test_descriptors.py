# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors: duplicates, flags, what a child gets; locks against the host's; bytes."""

import errno
import fcntl
import os
import struct
from pathlib import Path
from random import Random

import pytest

from harness.vfs.locks import FileLocks
from harness.vfs.quota import Quota
from tests.harness.syscalls.program import Program, new_machine

O_CLOEXEC = 0o2000000
F_GETLK64, F_SETLK64, F_SETLKW64 = 12, 13, 14
RDWR = os.O_CREAT | os.O_RDWR


@pytest.fixture
def program() -> Program:
    return Program(new_machine())


def test_duplicates_share_the_position(program: Program) -> None:
    first = program.call("open", b"/f", RDWR, 0o644)
    second = program.call("dup", first)
    assert program.call("write", first, program.put(b"abcdef"), 6) == 6
    assert program.call("lseek", second, 0, os.SEEK_CUR) == 6
    again = program.call("open", b"/f", RDWR, 0)
    assert program.call("lseek", again, 0, os.SEEK_CUR) == 0


def test_the_lowest_free_number_is_given(program: Program) -> None:
    numbers = [program.call("dup", 0) for _ in range(4)]
    assert numbers == [3, 4, 5, 6]
    program.call("close", 4)
    program.call("close", 0)
    assert [program.call("dup", 1) for _ in range(3)] == [0, 4, 7]
    assert program.call("fcntl64", 1, fcntl.F_DUPFD, 100) == 100
    assert program.call("dup", 1) == 8


def test_close_on_exec_is_of_the_descriptor(program: Program) -> None:
    first = program.call("open", b"/", os.O_RDONLY | O_CLOEXEC, 0)
    second = program.call("dup", first)
    third = program.call("dup3", first, 20, O_CLOEXEC)
    assert [program.call("fcntl64", n, 1, 0) for n in (first, second, third)] == [1, 0, 1]
    assert program.call("dup2", third, third) == third
    assert program.call("dup3", third, third, 0) == -errno.EINVAL
    program.files.exec()
    assert list(program.files) == [0, 1, 2, second]


def test_a_child_has_copies(program: Program) -> None:
    descriptor = program.call("open", b"/f", RDWR, 0o644)
    child = program.files.fork()
    program.call("close", descriptor)
    assert child.get(descriptor).count == 1
    child.close_all()
    program.files.close_all()
    assert program.system.files.quota.files == 0


def test_flags_can_be_changed_as_far_as_linux_lets(program: Program) -> None:
    descriptor = program.call("open", b"/f", RDWR, 0o644)
    assert program.call("fcntl64", descriptor, 4, os.O_APPEND | os.O_WRONLY | os.O_CREAT) == 0
    assert program.call("fcntl64", descriptor, 3, 0) == os.O_RDWR | os.O_APPEND
    on = program.put((1).to_bytes(4, "little"))
    assert program.call("ioctl", descriptor, 0x5421, on) == 0
    assert program.call("fcntl64", descriptor, 3, 0) & os.O_NONBLOCK
    assert program.call("ioctl", descriptor, 0x5401, on) == -errno.ENOTTY
    assert program.call("fcntl64", descriptor, 99, 0) == -errno.EINVAL


def test_close_range(program: Program) -> None:
    for _ in range(5):
        program.call("dup", 0)
    assert program.call("close_range", 4, 6, 4) == 0
    assert [program.call("fcntl64", n, 1, 0) for n in (3, 4, 6, 7)] == [0, 1, 1, 0]
    assert program.call("close_range", 3, 0xFFFFFFFF, 0) == 0
    assert list(program.files) == [0, 1, 2]
    assert program.call("close_range", 5, 4, 0) == -errno.EINVAL


def test_no_more_files_than_the_machine_has() -> None:
    program = Program(new_machine(quota=Quota(max_files=5)))
    assert [program.call("open", b"/", 0, 0) for _ in range(3)] == [3, 4, -errno.ENFILE]
    assert program.call("pipe", program.room(8)) == -errno.ENFILE
    program.call("close", 4)
    assert program.call("pipe", program.room(8)) == -errno.ENFILE
    assert program.call("open", b"/", 0, 0) == 4


# -- locks ---------------------------------------------------------------------------------------


def flock64(kind: int, start: int, length: int) -> bytes:
    return struct.pack("<hhqqi", kind, 0, start, length, 0)


def test_locks_on_ranges_are_the_hosts(tmp_path: Path) -> None:
    """Two processes here; on the host two open files with locks of their own (``F_OFD_SETLK``)."""
    machine = new_machine()
    programs = [Program(machine, pid=pid, base=0x8000000) for pid in (1, 2)]
    ours = [program.call("open", b"/f", RDWR, 0o644) for program in programs]
    host = [os.open(tmp_path / "f", RDWR, 0o644) for _ in range(2)]
    source = Random(3)
    for _ in range(400):
        who, kind = source.randrange(2), source.choice([0, 0, 1, 1, 2])
        start, length = source.randrange(10), source.choice([0, 1, 2, 5])
        program = programs[who]
        address = program.put(flock64(kind, start, length))
        result = program.call("fcntl64", ours[who], F_SETLK64, address)
        native = struct.pack("hhqqi4x", kind, 0, start, length, 0)
        expected = 0
        try:
            fcntl.fcntl(host[who], 37, native)
        except OSError as error:
            expected = -(error.errno or 0)
        assert result == expected
        address = program.put(flock64(1, start, length))
        assert program.call("fcntl64", ours[who], F_GETLK64, address) == 0
        *held, pid = struct.unpack("<hhqqi", program.get(address, 24))
        asked = struct.pack("hhqqi4x", 1, 0, start, length, 0)
        *expected_held, _ = struct.unpack("hhqqi4x", fcntl.fcntl(host[who], 36, asked))
        assert held == expected_held
        assert pid == (0 if held[0] == 2 else programs[1 - who].pid)
    for descriptor in host:
        os.close(descriptor)


def test_a_forgotten_conflict_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLocks, "conflict", lambda self, wanted: None)
    with pytest.raises(AssertionError):
        test_locks_on_ranges_are_the_hosts(tmp_path)


def test_closing_any_descriptor_gives_ranges_back(program: Program) -> None:
    other = Program(program.system, pid=2)
    descriptor = program.call("open", b"/f", RDWR, 0o644)
    theirs = other.call("open", b"/f", RDWR, 0)
    address = program.put(flock64(1, 0, 0))
    assert program.call("fcntl64", descriptor, F_SETLK64, address) == 0
    running = other.start("fcntl64", theirs, F_SETLKW64, other.put(flock64(1, 0, 1))).go()
    assert running.waiting is not None
    program.call("close", program.call("dup", descriptor))
    assert running.go().result == 0


def test_locks_on_whole_files(program: Program) -> None:
    first, second = (program.call("open", b"/f", RDWR, 0o644) for _ in range(2))
    assert program.call("flock", first, 1) == 0
    assert program.call("flock", second, 1) == 0
    assert program.call("flock", second, 2 | 4) == -errno.EWOULDBLOCK
    running = program.start("flock", second, 2).go()
    assert running.waiting is not None
    program.call("close", first)
    assert running.go().result == 0
    assert program.call("flock", second, 3) == -errno.EINVAL


# -- bytes ---------------------------------------------------------------------------------------


def test_vectors(program: Program) -> None:
    descriptor = program.call("open", b"/f", RDWR, 0o644)
    parts = [program.put(text) for text in (b"one", b"", b"three")]
    vector = program.put(struct.pack("<6I", parts[0], 3, 0xFFFF0000, 0, parts[2], 5))
    assert program.call("writev", descriptor, vector, 3) == -errno.EFAULT
    vector = program.put(struct.pack("<6I", parts[0], 3, parts[1], 0, parts[2], 5))
    assert program.call("writev", descriptor, vector, 3) == 8
    rooms = [program.room(4), program.room(16)]
    vector = program.put(struct.pack("<4I", rooms[0], 4, rooms[1], 16))
    assert program.call("preadv", descriptor, vector, 2, 1, 0) == 7
    assert (program.get(rooms[0], 4), program.get(rooms[1], 3)) == (b"neth", b"ree")
    assert program.call("readv", descriptor, vector, 1025) == -errno.EINVAL
    vector = program.put(struct.pack("<4I", rooms[0], 0x7FFFFFFF, rooms[1], 0x7FFFFFFF))
    assert program.call("readv", descriptor, vector, 2) == -errno.EINVAL


def test_long_transfers_go_in_pieces(program: Program) -> None:
    """None larger than a chunk, all of them together whole."""
    size = 300_000
    content = Random(1).randbytes(size)
    descriptor = program.call("open", b"/f", RDWR, 0o644)
    address = program.put(content)
    assert program.call("write", descriptor, address, size) == size
    program.user.write(address, bytes(size))
    running = program.start("pread64", descriptor, address, size, 0, 0).go()
    assert running.result == size
    assert running.requests > size // (1 << 16)
    same = program.get(address, size) == content
    assert same


def test_a_signal_ends_a_long_read_of_a_device(program: Program) -> None:
    descriptor = program.call("open", b"/dev/zero", os.O_RDONLY, 0)
    program.interrupt = True
    assert program.call("read", descriptor, program.room(200_000), 200_000) == 1 << 16
    program.interrupt = False
    assert program.call("read", descriptor, program.room(200_000), 200_000) == 200_000


def test_what_the_program_may_not_read_is_written_up_to_there(program: Program) -> None:
    descriptor = program.call("open", b"/f", RDWR, 0o644)
    edge = program.base + program.size - 5
    program.user.write(edge, b"final")
    assert program.call("write", descriptor, edge, 100) == 5
    assert program.call("write", descriptor, edge + 5, 100) == -errno.EFAULT
    assert program.call("write", descriptor, 0xBFFFFFFF, 2) == -errno.EFAULT
    assert program.call("write", descriptor, 0, 0) == 0
    assert program.call("pread64", descriptor, edge, 100, 0, 0) == 5


def test_small_files_only_without_the_flag_for_large_ones(program: Program) -> None:
    descriptor = program.call("open", b"/f", RDWR | 0o100000, 0o644)
    assert program.call("ftruncate64", descriptor, 0x80000000, 0) == 0
    assert program.call("open", b"/f", os.O_RDWR, 0) == -errno.EOVERFLOW
    assert program.call("lseek", descriptor, 0, os.SEEK_END) == -errno.EOVERFLOW
    assert program.call("stat", b"/f", program.room(64)) == -errno.EOVERFLOW
    assert program.call("stat64", b"/f", program.room(96)) == 0
    assert program.call("ftruncate64", descriptor, 0, 0x800) == -errno.EFBIG
    small = program.call("open", b"/g", RDWR, 0o644)
    assert program.call("pwrite64", small, program.room(8), 8, 0x7FFFFFFB, 0) == 4
    assert program.call("pwrite64", small, program.room(8), 8, 0x7FFFFFFF, 0) == -errno.EFBIG


def test_sendfile(program: Program) -> None:
    source = program.call("open", b"/f", RDWR, 0o644)
    program.call("write", source, program.put(b"0123456789"), 10)
    target = program.call("open", b"/g", RDWR, 0o644)
    offset = program.put((4).to_bytes(8, "little"))
    assert program.call("sendfile64", target, source, offset, 1 << 31) == 6
    assert program.get(offset, 8) == (10).to_bytes(8, "little")
    program.call("lseek", source, 2, os.SEEK_SET)
    assert program.call("sendfile", 1, source, 0, 3) == 3
    assert bytes(program.output) == b"234"
    assert program.call("lseek", source, 0, os.SEEK_CUR) == 5
    assert program.call("sendfile", target, 0, 0, 3) == -errno.EINVAL
