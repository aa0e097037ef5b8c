# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may send what to whom: kill(2), tgkill(2), sigqueue(3)."""

import errno
import struct

import pytest

from harness.signals import SigInfo
from harness.signals.numbers import bit
from tests.harness.syscalls.program import Program, new_machine

USR1, CONT = 10, 18
EPERM, ESRCH, EINVAL = -errno.EPERM, -errno.ESRCH, -errno.EINVAL


@pytest.fixture
def family() -> list[Program]:
    """PIDs 1 to 5; 4 and 5 are a group, 5 a thread of 4."""
    machine = new_machine()
    family = [Program(machine, pid) for pid in range(1, 6)]
    family[4].signals = family[3].signals.thread()
    family[4].tgid = family[4].group = 4
    return family


def waiting(family: list[Program]) -> list[int]:
    """The PIDs that have SIGUSR1 waiting."""
    return [program.pid for program in family if program.signals.pending & bit(USR1)]


@pytest.mark.parametrize(
    ("pid", "expected"),
    [(3, [3]), (0, [2]), (-1, [3, 4, 5]), (-4, [4, 5]), (5, [4, 5]), (2, [2])],
)
def test_whom_kill_means(family: list[Program], pid: int, expected: list[int]) -> None:
    assert family[1].call("kill", pid, USR1) == 0
    assert waiting(family) == expected


def test_nobody_there(family: list[Program]) -> None:
    for pid in (99, -99, 0x7FFFFFFF, 0x80000000):
        assert family[1].call("kill", pid, USR1) == ESRCH
    assert family[1].call("tgkill", 3, 4, USR1) == ESRCH
    assert family[1].call("tgkill", 0, 4, USR1) == EINVAL
    assert family[1].call("kill", 3, 65) == EINVAL
    assert waiting(family) == []


def test_a_thread_alone(family: list[Program]) -> None:
    assert family[1].call("tgkill", 4, 5, USR1) == 0
    assert waiting(family) == [5]
    info = family[4].signals.dequeue()
    assert info == SigInfo(USR1, -6, struct.pack("<ii", 2, 0))


def set_ids(program: Program, uid: int, euid: int, suid: int) -> None:
    credentials = program.fs.credentials
    credentials.uid, credentials.euid, credentials.suid = uid, euid, suid


@pytest.mark.parametrize(
    ("mine", "others", "allowed"),
    [
        ((5, 5, 5), (5, 0, 0), True),
        ((5, 5, 5), (0, 0, 5), True),
        ((5, 5, 5), (0, 5, 0), False),
        ((6, 5, 5), (6, 0, 0), True),
        ((5, 5, 6), (6, 6, 6), False),
        ((5, 0, 5), (7, 7, 7), True),
    ],
)
def test_who_may(
    family: list[Program], mine: tuple[int, ...], others: tuple[int, ...], allowed: bool
) -> None:
    set_ids(family[1], *mine)
    set_ids(family[2], *others)
    for signal in (0, USR1):
        assert family[1].call("kill", 3, signal) == (0 if allowed else EPERM)
    assert waiting(family) == ([3] if allowed else [])


def test_going_on_may_be_asked_for_in_the_session(family: list[Program]) -> None:
    set_ids(family[1], 5, 5, 5)
    family[2].session = 9
    assert family[1].call("kill", 3, CONT) == EPERM
    family[2].session = family[1].session
    assert family[1].call("kill", 3, CONT) == 0
    assert family[1].call("kill", 3, USR1) == EPERM


def test_of_a_group_one_is_enough(family: list[Program]) -> None:
    for program in family:
        program.group = 7
    set_ids(family[1], 5, 5, 5)
    set_ids(family[3], 5, 5, 5)
    assert family[1].call("kill", -7, USR1) == 0
    assert waiting(family) == [2, 4, 5]
    set_ids(family[1], 8, 8, 8)
    family[1].group = 1
    assert family[1].call("kill", -7, USR1) == EPERM


@pytest.mark.parametrize(("code", "forged"), [(-1, False), (-2, False), (0, True), (128, True)])
def test_nobody_speaks_for_the_kernel(family: list[Program], code: int, forged: bool) -> None:
    info = family[1].put(struct.pack("<iiiIII", 99, 0, code, 2, 0, 77).ljust(128, b"\0"))
    expected = EPERM if forged else 0
    assert family[1].call("rt_sigqueueinfo", 3, USR1, info) == expected
    assert family[1].call("rt_tgsigqueueinfo", 4, 4, USR1, info) == expected
    assert family[1].call("rt_sigqueueinfo", 2, USR1, info) == 0
    assert family[1].call("rt_sigqueueinfo", 3, USR1, 0) == -errno.EFAULT
    assert waiting(family) == ([2] if forged else [2, 3, 4])
    taken = family[1].signals.dequeue()
    assert taken is not None
    assert (taken.signo, taken.code, taken.fields[8]) == (USR1, code, 77)


def test_a_full_queue_is_told(family: list[Program]) -> None:
    family[2].signals.set_blocked(bit(40))
    info = family[1].put(struct.pack("<iii", 40, 0, -1).ljust(128, b"\0"))
    results = [family[1].call("rt_sigqueueinfo", 3, 40, info) for _ in range(1025)]
    assert results == [0] * 1024 + [-errno.EAGAIN]
