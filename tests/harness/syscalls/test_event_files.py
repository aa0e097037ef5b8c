# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters, sockets and futexes where their calls are at an edge."""

import errno
from pathlib import Path

import pytest

from harness.vfs.flags import O_NONBLOCK
from tests.harness.syscalls.program import Program, new_machine

AF_UNIX = SOCK_STREAM = 1
FUTEX_WAIT, FUTEX_WAKE = 0, 1
EFD_SEMAPHORE = 1
HIGHEST = (1 << 64) - 2


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(new_machine(tmp_path))


def add(program: Program, counter: int, value: int, rest: bytes = b"") -> int:
    data = value.to_bytes(8, "little") + rest
    return program.call("write", counter, program.put(data), len(data))


def value(program: Program, counter: int) -> int:
    place = program.room(8)
    assert program.call("read", counter, place, 8) == 8
    return int.from_bytes(program.get(place, 8), "little")


def test_a_counter_takes_eight_bytes_and_no_others(program: Program) -> None:
    counter = program.call("eventfd2", 0, 0)
    assert add(program, counter, 5) == 8
    assert add(program, counter, 5, b"\xff" * 8) == -errno.EINVAL
    assert program.call("write", counter, program.put(b"1234567"), 7) == -errno.EINVAL
    assert value(program, counter) == 5


def test_what_a_counter_refused_is_forgotten(program: Program) -> None:
    """Who wanted to add much and was interrupted keeps nobody from adding little."""
    counter = program.call("eventfd2", 0, EFD_SEMAPHORE)
    assert add(program, counter, HIGHEST - 1) == 8
    much, little = (program.put(n.to_bytes(8, "little")) for n in (5, 2))
    program.start("write", counter, much, 8).go().interrupt()
    waiting = program.start("write", counter, little, 8).go()
    assert waiting.result is None
    assert value(program, counter) == 1
    assert waiting.go().result == 8


def test_all_sockets_together_hold_only_so_much(program: Program) -> None:
    quota = program.system.files.quota
    quota.max_buffered = 10_000
    data = program.put(bytes(4000))
    pairs = []
    for _ in range(3):
        place = program.room(8)
        assert program.call("socketpair", AF_UNIX, SOCK_STREAM | O_NONBLOCK, 0, place) == 0
        numbers = program.get(place, 8)
        pairs.append([int.from_bytes(numbers[at : at + 4], "little") for at in (0, 4)])
    sent = [program.call("write", one, data, 4000) for one, _ in pairs]
    assert sent == [4000, 4000, -errno.ENOBUFS]
    assert program.call("read", pairs[0][1], data, 3000) == 3000
    assert program.call("write", pairs[2][0], data, 4000) == 4000
    for number in (number for pair in pairs for number in pair):
        assert program.call("close", number) == 0
    assert quota.buffered == 0


def test_who_wakes_none_wakes_one(program: Program) -> None:
    place = program.room(4)
    assert program.call("futex", place, FUTEX_WAKE, 0, 0, 0, 0) == 0
    waiting = program.start("futex", place, FUTEX_WAIT, 0, 0, 0, 0).go()
    assert program.call("futex", place, FUTEX_WAKE, 0, 0, 0, 0) == 1
    assert waiting.go().result == 0
