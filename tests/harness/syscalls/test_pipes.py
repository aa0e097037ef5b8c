# SPDX-License-Identifier: GPL-2.0-or-later
"""Pipes, FIFOs, ``poll`` and ``select``: against the host's, and what waits for what."""

import errno
import fcntl
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from harness.syscalls.requests import ERESTARTNOHAND, ERESTARTSYS
from harness.vfs.flags import O_NONBLOCK
from harness.vfs.pipe import PIPE_BUF, PIPE_SIZE, PipeEnd
from tests.harness.syscalls.program import Program, new_machine

EVENTS = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM


@pytest.fixture
def program() -> Program:
    return Program(new_machine())


def pipe(program: Program, flags: int = 0) -> tuple[int, int]:
    room = program.room(8)
    assert program.call("pipe2", room, flags) == 0
    reader, writer = struct.unpack("<II", program.get(room, 8))
    return reader, writer


def write(program: Program, descriptor: int, data: bytes) -> int:
    return program.call("write", descriptor, program.put(data), len(data))


def read(program: Program, descriptor: int, count: int) -> int | bytes:
    room = program.room(max(1, count))
    result = program.call("read", descriptor, room, count)
    return result if result < 0 else program.get(room, result)


def child_of(program: Program, pid: int) -> Program:
    """A process with the same files."""
    child = Program(program.system, pid=pid, parent=program.pid)
    child.files.close_all()
    child.files = program.files.fork()
    return child


# -- against the host ----------------------------------------------------------------------------


class HostPipe:
    """The same operations by the host's kernel."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK)
        assert fcntl.fcntl(self.reader, 1032) == PIPE_SIZE

    def do(self, operation: str, number: int) -> object:
        try:
            if operation == "write":
                return os.write(self.writer, bytes(number))
            if operation == "read":
                return len(os.read(self.reader, number))
            if operation == "close":
                os.close(self.writer if number else self.reader)
                return 0
            return self._poll()
        except OSError as error:
            return -(error.errno or errno.EIO)

    def _poll(self) -> list[tuple[int, int]]:
        poll = select.poll()
        for descriptor in (self.reader, self.writer):
            if _open(descriptor):
                poll.register(descriptor, EVENTS)
        return [(int(fd == self.writer), mask) for fd, mask in sorted(poll.poll(0))]


def _open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class OurPipe:
    def __init__(self) -> None:
        self.program = Program(new_machine())
        self.ends = pipe(self.program, O_NONBLOCK)

    def do(self, operation: str, number: int) -> object:
        program, (reader, writer) = self.program, self.ends
        if operation == "write":
            return write(program, writer, bytes(number))
        if operation == "read":
            data = read(program, reader, number)
            return data if isinstance(data, int) else len(data)
        if operation == "close":
            return program.call("close", self.ends[number])
        open_ends = [fd for fd in self.ends if fd in program.files.files]
        room = program.put(b"".join(struct.pack("<iHH", fd, EVENTS, 0) for fd in open_ends))
        program.call("poll", room, len(open_ends), 0)
        answer = struct.iter_unpack("<iHH", program.get(room, 8 * len(open_ends)))
        return [(int(fd == writer), mask) for fd, _, mask in answer if mask]


def scripts(source: Random) -> Iterator[tuple[str, int]]:
    """Whole pages only: the host's pipe has 16 slots of a page each, whatever is in them."""
    for _ in range(60):
        operation = source.choice(["write", "write", "read", "poll"])
        yield operation, 4096 * source.choice([1, 1, 2, 8, 16, 20])
    yield "close", source.randrange(2)
    for operation in ("poll", "read", "write", "poll"):
        yield operation, 4096


def test_pipes_are_the_hosts() -> None:
    for seed in range(20):
        ours, host = OurPipe(), HostPipe()
        for operation, number in scripts(Random(seed)):
            expected = host.do(operation, number)
            assert ours.do(operation, number) == expected, (seed, operation, number)
            if operation == "close":
                closed = number
        os.close(host.reader if closed else host.writer)


def test_a_pipe_of_another_size_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.vfs.pipe.PIPE_SIZE", PIPE_SIZE // 2)
    with pytest.raises(AssertionError):
        test_pipes_are_the_hosts()


# -- waiting -------------------------------------------------------------------------------------


def test_a_reader_waits_for_bytes_and_for_the_end(program: Program) -> None:
    reader, writer = pipe(program)
    child = child_of(program, 2)
    child.call("close", writer)
    room = child.room(100)
    running = child.start("read", reader, room, 100).go()
    assert running.waiting is not None
    assert write(program, writer, b"hello") == 5
    assert running.go().result == 5
    assert child.get(room, 5) == b"hello"
    running = child.start("read", reader, room, 100).go()
    assert running.waiting is not None
    program.call("close", writer)
    assert running.go().result == 0


def test_a_writer_waits_for_room_and_goes_on_in_parts(program: Program) -> None:
    reader, writer = pipe(program)
    size = 3 * PIPE_SIZE + 100
    running = program.start("write", writer, program.put(bytes(size)), size).go()
    assert running.waiting is not None
    child, total = child_of(program, 2), 0
    while running.result is None:
        data = read(child, reader, 10_000)
        assert isinstance(data, bytes)
        total += len(data)
        running.go()
    assert running.result == size
    rest = read(child, reader, PIPE_SIZE)
    assert isinstance(rest, bytes)
    assert total + len(rest) == size


def test_up_to_pipe_buf_goes_whole_or_not_at_all(program: Program) -> None:
    reader, writer = pipe(program, O_NONBLOCK)
    assert write(program, writer, bytes(PIPE_SIZE - 10)) == PIPE_SIZE - 10
    assert write(program, writer, bytes(11)) == -errno.EAGAIN
    assert write(program, writer, bytes(PIPE_BUF)) == -errno.EAGAIN
    assert write(program, writer, bytes(PIPE_BUF + 1)) == 10
    assert write(program, writer, b"x") == -errno.EAGAIN
    assert read(program, reader, 10) == bytes(10)
    assert write(program, writer, bytes(10)) == 10


def test_writing_where_nobody_reads_is_a_signal(program: Program) -> None:
    reader, writer = pipe(program)
    program.call("close", reader)
    assert write(program, writer, b"x") == -errno.EPIPE
    assert program.sent == [13]


def test_a_writer_wakes_when_the_reader_goes(program: Program) -> None:
    reader, writer = pipe(program)
    size = PIPE_SIZE + 1
    running = program.start("write", writer, program.put(bytes(size)), size).go()
    program.call("close", reader)
    assert running.go().result == PIPE_SIZE
    assert program.sent == [13]


def test_signals_interrupt_waiting(program: Program) -> None:
    reader, writer = pipe(program)
    room = program.room(10)
    assert program.start("read", reader, room, 10).go().interrupt().result == -ERESTARTSYS
    size = PIPE_SIZE + 1
    running = program.start("write", writer, program.put(bytes(size)), size).go()
    assert running.interrupt().result == PIPE_SIZE
    entry = program.put(struct.pack("<iHH", writer, select.POLLOUT, 0))
    assert program.start("poll", entry, 1, -1).go().interrupt().result == -ERESTARTNOHAND


def test_what_faults_is_read_again(program: Program) -> None:
    reader, writer = pipe(program)
    write(program, writer, b"0123456789")
    edge = program.base + program.size - 4
    assert program.call("read", reader, edge, 10) == 4
    assert program.call("read", reader, program.base + program.size, 10) == -errno.EFAULT
    assert read(program, reader, 10) == b"456789"


def test_a_closed_file_that_somebody_waits_in_stays(program: Program) -> None:
    reader, writer = pipe(program)
    room = program.room(10)
    running = program.start("read", reader, room, 10).go()
    file = program.files.get(reader)
    program.call("close", reader)
    assert file.count == 1
    write(program, writer, b"late")
    assert running.go().result == 4
    assert file.count == 0


# -- FIFOs ---------------------------------------------------------------------------------------


def test_openers_of_a_fifo_wait_for_each_other(program: Program) -> None:
    assert program.call("mknod", b"/fifo", 0o010644, 0) == 0
    other = Program(program.system, pid=2)
    reading = program.start("open", b"/fifo", os.O_RDONLY, 0).go()
    assert reading.waiting is not None
    writing = other.call("open", b"/fifo", os.O_WRONLY, 0)
    descriptor = reading.go().result
    assert descriptor is not None
    assert write(other, writing, b"met") == 3
    assert read(program, descriptor, 10) == b"met"
    other.call("close", writing)
    assert read(program, descriptor, 10) == b""


def test_a_writer_that_came_and_went_lets_the_reader_in(program: Program) -> None:
    program.call("mknod", b"/fifo", 0o010644, 0)
    other = Program(program.system, pid=2)
    reading = program.start("open", b"/fifo", os.O_RDONLY, 0).go()
    writing = other.start("open", b"/fifo", os.O_WRONLY, 0).go()
    assert writing.result is not None
    other.call("close", writing.result)
    assert reading.go().result is not None


def test_an_interrupted_opener_leaves_nothing(program: Program) -> None:
    program.call("mknod", b"/fifo", 0o010644, 0)
    before = program.system.files.quota.files
    running = program.start("open", b"/fifo", os.O_WRONLY, 0).go()
    assert running.interrupt().result == -ERESTARTSYS
    assert program.system.files.quota.files == before
    assert program.call("open", b"/fifo", os.O_WRONLY | O_NONBLOCK, 0) == -errno.ENXIO


def test_a_pipe_opened_again_by_its_descriptor_does_not_wait(program: Program) -> None:
    reader, writer = pipe(program)
    write(program, writer, b"x")
    program.call("close", writer)
    again = program.call("open", b"/proc/self/fd/%d" % reader, os.O_RDONLY, 0)
    assert again > 0
    assert isinstance(program.files.get(again), PipeEnd)
    assert read(program, again, 5) == b"x"


# -- select and timeouts -------------------------------------------------------------------------


def test_select_tells_which_are_ready(program: Program) -> None:
    reader, writer = pipe(program)
    bits = (1 << reader | 1 << writer).to_bytes(4, "little")
    reading, writing = program.put(bits), program.put(bits)
    assert program.call("_newselect", 32, reading, writing, 0, 0) == 1
    assert program.get(reading, 4) == bytes(4)
    assert program.get(writing, 4) == (1 << writer).to_bytes(4, "little")
    write(program, writer, b"x")
    reading = program.put(bits)
    assert program.call("_newselect", 32, reading, 0, 0, 0) == 1
    assert program.get(reading, 4) == (1 << reader).to_bytes(4, "little")
    closed = program.put((1 << 20).to_bytes(4, "little"))
    assert program.call("_newselect", 32, closed, 0, 0, 0) == -errno.EBADF


def test_timeouts_end_and_tell_what_is_left(program: Program) -> None:
    reader, writer = pipe(program)
    del writer
    clock = program.system.clock
    entry, before = program.put(struct.pack("<iHH", reader, 1, 0)), clock.now
    assert program.call("poll", entry, 1, 250) == 0
    assert clock.now == before + 250_000_000
    time = program.put(struct.pack("<ii", 1, 500_000_000))
    assert program.call("ppoll", entry, 1, time, 0, 8) == 0
    assert program.get(time, 8) == bytes(8)
    ready = program.put(struct.pack("<iHH", 1, select.POLLOUT, 0))
    time = program.put(struct.pack("<ii", 1, 500_000_000))
    assert program.call("ppoll", ready, 1, time, 0, 8) == 1
    assert program.get(time, 8) == struct.pack("<ii", 1, 500_000_000)


def test_a_signal_mask_goes_with_the_wait(program: Program) -> None:
    reader, _ = pipe(program)
    entry = program.put(struct.pack("<iHH", reader, 1, 0))
    running = program.start("ppoll", entry, 1, 0, program.put(b"\x00\x40" + bytes(6)), 8).go()
    assert running.waiting is not None
    assert running.waiting.signal_mask == b"\x00\x40" + bytes(6)
    assert program.call("ppoll", entry, 1, 0, program.room(8), 4) == -errno.EINVAL


def test_input_of_the_host_is_read_when_it_comes(tmp_path: Path) -> None:
    del tmp_path
    reader, writer = os.pipe()
    machine = new_machine()
    program = Program(machine)
    program.files.close_all()
    program.files = machine.files.standard_streams(
        program.output.extend, program.error.extend, host_input=reader
    )
    room = program.room(100)
    running = program.start("read", 0, room, 100).go()
    assert running.waiting is not None
    assert running.waiting.host_descriptors == (reader,)
    os.write(writer, b"typed\n")
    assert running.go().result == 6
    os.close(writer)
    assert read(program, 0, 10) == b""
    os.close(reader)
