# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of sets of files, and timers that are files, at their limits."""

import errno
import itertools
import struct
from pathlib import Path

import pytest

from harness.vfs.epoll import EPOLLET, Interest
from harness.vfs.timerfd import TimerFile
from tests.harness.syscalls.program import Program, new_machine

ADD, EPOLLIN = 1, 1
SECOND = 10**9


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(new_machine(tmp_path))


def add(program: Program, outer: int, inner: int) -> int:
    event = program.put(struct.pack("<IQ", EPOLLIN, inner))
    return program.call("epoll_ctl", outer, ADD, inner, event)


@pytest.mark.parametrize("downwards", [True, False])
def test_sets_lie_in_each_other_to_a_depth(program: Program, downwards: bool) -> None:
    """Whichever end one begins at."""
    sets = [program.call("epoll_create1", 0) for _ in range(6)]
    pairs = list(itertools.pairwise(sets))
    answers = [add(program, *pair) for pair in (pairs if downwards else pairs[::-1])]
    assert answers[:4] == [0, 0, 0, -errno.ELOOP]


def test_a_set_in_itself(program: Program) -> None:
    one, other = (program.call("epoll_create1", 0) for _ in range(2))
    assert add(program, one, other) == 0
    assert add(program, other, one) == -errno.ELOOP


def test_ways_through_sets_are_few(program: Program) -> None:
    """Each level has the next many times: who asks what is ready would go n * n * n ways."""
    sets = [program.call("epoll_create1", 0) for _ in range(4)]
    refused = 0
    for _ in range(40):
        for outer, inner in itertools.pairwise(sets):
            refused += add(program, outer, program.call("dup", inner)) == -errno.EINVAL
    assert refused
    events = program.room(16)
    assert program.call("epoll_wait", sets[0], events, 1, 0) == 0


def test_files_in_sets_are_counted(program: Program) -> None:
    quota = program.system.files.quota
    quota.max_watches = 3
    one, other = (program.call("epoll_create1", 0) for _ in range(2))
    counter = program.call("eventfd2", 0, 0)
    copies = [program.call("dup", counter) for _ in range(4)]
    assert [add(program, one, copy) for copy in copies] == [0, 0, 0, -errno.ENOSPC]
    assert program.call("close", one) == 0
    assert quota.watches == 0
    assert add(program, other, counter) == 0


class Clock:
    def __init__(self) -> None:
        self.now = 0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timer(program: Program, clock: Clock) -> TimerFile:
    return TimerFile(program.system.files.pipes, 0, 1, lambda: clock.now)


def test_a_timer_that_was_read_will_not_go_off_again(timer: TimerFile, clock: Clock) -> None:
    timer.set(5 * SECOND, 0)
    assert timer.next_event() == 5 * SECOND
    clock.now = 5 * SECOND
    assert timer.next_event() is None
    assert timer.read(8) == struct.pack("<Q", 1)
    assert timer.next_event() is None, "else the clock would wait for a moment in the past"


def test_a_timer_that_repeats_goes_off_next_in_the_future(timer: TimerFile, clock: Clock) -> None:
    timer.set(5, 10)
    clock.now = 27
    assert timer.read(8) == struct.pack("<Q", 3)
    assert timer.next_event() == 35


def test_a_count_has_64_bits(timer: TimerFile, clock: Clock) -> None:
    timer.set(1, 1)
    clock.now = (1 << 64) + 5
    assert timer.read(8) == struct.pack("<Q", 5)


def test_a_timer_armed_anew_is_told_of_anew(timer: TimerFile, clock: Clock) -> None:
    interest = Interest(3, timer, EPOLLIN | EPOLLET, 0)
    for _ in range(3):
        timer.set(clock.now + 10, 0)
        assert not interest.ready
        clock.now += 10
        assert interest.ready == EPOLLIN
        interest.tell()
        assert not interest.ready
        timer.read(8)
