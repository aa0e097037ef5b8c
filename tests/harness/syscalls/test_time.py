# SPDX-License-Identifier: GPL-2.0-or-later
"""Clocks, sleeping, futexes, names, random numbers, ``prctl``."""

import errno
import struct
from random import Random

import pytest

from harness.syscalls.requests import ERESTART_RESTARTBLOCK, ERESTARTNOHAND
from harness.syscalls.structures import NewUtsname, Sysinfo
from tests.harness.syscalls.program import START, Program, new_machine

SECOND = 1_000_000_000


@pytest.fixture
def program() -> Program:
    """At time 0."""
    program = Program(new_machine())
    program.system.clock.now = 0
    return program


def timespec(program: Program, seconds: int, nanoseconds: int = 0, code: str = "i") -> int:
    return program.put(struct.pack(f"<{code}{code}", seconds, nanoseconds))


# -- clocks --------------------------------------------------------------------------------------


def test_every_form_tells_the_same_time(program: Program) -> None:
    seconds, room = START // SECOND, program.room(16)
    assert program.call("time", room) == seconds
    assert program.get(room, 4) == struct.pack("<i", seconds)
    for call, code, unit in (
        ("clock_gettime", "<ii", 1),
        ("clock_gettime64", "<qq", 1),
    ):
        assert program.call(call, 0, room) == 0
        assert struct.unpack(code, program.get(room, struct.calcsize(code)))[0] == seconds * unit
    assert program.call("gettimeofday", room, 0) == 0
    assert struct.unpack("<ii", program.get(room, 8))[0] == seconds
    program.system.clock.now = 5 * SECOND
    assert program.call("clock_gettime", 1, room) == 0
    assert struct.unpack("<ii", program.get(room, 8)) == (5, 0)
    assert program.call("times", room) == 500
    assert struct.unpack("<4i", program.get(room, 16)) == (150, 0, 0, 0)
    assert program.call("clock_gettime", 2, room) == 0
    assert struct.unpack("<ii", program.get(room, 8)) == (1, 500_000_000)


def test_nobody_sets_the_clock(program: Program) -> None:
    assert program.call("clock_settime", 0, timespec(program, 1)) == -errno.EPERM
    assert program.call("settimeofday", 0, 0) == -errno.EPERM
    assert program.call("clock_gettime", 99, program.room(8)) == -errno.EINVAL
    assert program.call("clock_gettime", 0, 0) == -errno.EFAULT


# -- sleeping ------------------------------------------------------------------------------------


def test_sleep_ends_at_its_time(program: Program) -> None:
    assert program.call("nanosleep", timespec(program, 2, 5), 0) == 0
    assert program.system.clock.now == 2 * SECOND + 5
    until = timespec(program, 3, 0, "q")
    assert program.call("clock_nanosleep_time64", 1, 1, until, 0) == 0
    assert program.system.clock.now == 3 * SECOND
    assert program.call("nanosleep", timespec(program, -1), 0) == -errno.EINVAL
    assert program.call("nanosleep", timespec(program, 0, SECOND), 0) == -errno.EINVAL
    assert program.call("clock_nanosleep", 2, 0, timespec(program, 1), 0) == -errno.EOPNOTSUPP


def test_an_interrupted_sleep_goes_on_where_it_was(program: Program) -> None:
    rest = program.room(8)
    running = program.start("nanosleep", timespec(program, 10), rest)
    running._may_go_on = lambda request: request.condition()  # type: ignore[method-assign]
    running.go()
    program.system.clock.now = 4 * SECOND
    assert running.interrupt().result == -ERESTART_RESTARTBLOCK
    assert struct.unpack("<ii", program.get(rest, 8)) == (6, 0)
    assert running.restart is not None
    program.restart = running.restart.restart
    assert program.call("restart_syscall") == 0
    assert program.system.clock.now == 10 * SECOND
    assert program.call("restart_syscall") == -errno.EINTR


def test_an_absolute_sleep_is_started_again(program: Program) -> None:
    running = program.start("clock_nanosleep", 1, 1, timespec(program, 10), 0)
    running._may_go_on = lambda request: request.condition()  # type: ignore[method-assign]
    assert running.go().interrupt().result == -ERESTARTNOHAND


# -- futexes -------------------------------------------------------------------------------------

WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAIT_BITSET, WAKE_BITSET = 0, 1, 3, 4, 9, 10
PRIVATE = 128


class Thread(Program):
    """A task in the memory of another."""

    def __init__(self, first: Program, pid: int) -> None:
        super().__init__(first.system, pid=pid)
        self.user = first.user
        self._first = first

    @property
    def address_space(self) -> int:
        return self._first.pid


def test_who_waits_is_woken_in_order(program: Program) -> None:
    word = program.put((7).to_bytes(4, "little"))
    threads = [Thread(program, pid) for pid in (2, 3, 4)]
    assert program.call("futex", word, WAIT, 8, 0) == -errno.EAGAIN
    waiting = [thread.start("futex", word, WAIT | PRIVATE, 7, 0).go() for thread in threads]
    assert program.call("futex", word, WAKE, 2) == 0
    assert program.call("futex", word, WAKE | PRIVATE, 2) == 2
    assert [running.go().result for running in waiting] == [0, 0, None]
    assert program.call("futex", word + 4, WAKE | PRIVATE, 9) == 0
    assert program.call("futex", word, WAKE_BITSET | PRIVATE, 9, 0, 0, 2) == 1
    assert waiting[2].go().result == 0
    assert not program.system.futexes.waiters


def test_another_address_space_is_another_futex(program: Program) -> None:
    word = program.put(bytes(4))
    other = Program(program.system, pid=2)
    waiting = other.start("futex", word, WAIT, 0, 0)
    other.user.write(word, bytes(4))
    waiting.go()
    assert program.call("futex", word, WAKE, 9) == 0
    assert waiting.interrupt().result is not None
    assert not program.system.futexes.waiters


def test_waiting_has_an_end(program: Program) -> None:
    word = program.put(bytes(4))
    assert program.call("futex", word, WAIT, 0, timespec(program, 1)) == -errno.ETIMEDOUT
    assert program.system.clock.now == SECOND
    until = timespec(program, 3, 0, "q")
    call = program.call("futex_time64", word, WAIT_BITSET, 0, until, 0, 0xFFFFFFFF)
    assert call == -errno.ETIMEDOUT
    assert program.system.clock.now == 3 * SECOND
    assert not program.system.futexes.waiters


def test_waiters_move(program: Program) -> None:
    first, second = program.put(bytes(4)), program.put(bytes(4))
    threads = [Thread(program, pid) for pid in (2, 3, 4)]
    waiting = [thread.start("futex", first, WAIT, 0, 0).go() for thread in threads]
    assert program.call("futex", first, CMP_REQUEUE, 1, 1, second, 9) == -errno.EAGAIN
    assert program.call("futex", first, CMP_REQUEUE, 1, 1, second, 0) == 2
    assert program.call("futex", second, WAKE, 9) == 1
    assert [running.go().result for running in waiting] == [0, 0, None]


def test_futexes_that_are_none(program: Program) -> None:
    assert program.call("futex", program.base + 1, WAIT, 0, 0) == -errno.EINVAL
    assert program.call("futex", 0x1000, WAIT, 0, 0) == -errno.EFAULT
    assert program.call("futex", 0xC0000000, WAKE, 1) == -errno.EFAULT
    assert program.call("futex", program.base, 77, 0) == -errno.ENOSYS


def test_what_a_library_announces(program: Program) -> None:
    assert program.call("set_tid_address", 0x1234) == program.pid
    assert program.clear_child_tid == 0x1234
    assert program.call("set_robust_list", 0x5678, 12) == 0
    assert program.call("set_robust_list", 0x5678, 24) == -errno.EINVAL
    head, length = program.room(4), program.room(4)
    assert program.call("get_robust_list", 0, head, length) == 0
    assert program.get(head, 4) == (0x5678).to_bytes(4, "little")
    assert program.call("sched_yield") == 0


# -- the machine ---------------------------------------------------------------------------------


def test_names(program: Program) -> None:
    room = program.room(390)
    assert program.call("uname", room) == 0
    names = NewUtsname.from_buffer_copy(program.get(room, 390))
    assert (names.sysname, names.machine, names.domainname) == (b"Linux", b"i686", b"(none)")
    version = tuple(int(part) for part in names.release.split(b"."))
    assert version >= (3, 2, 0), "static programs of today refuse an older kernel"
    assert program.call("sethostname", program.put(b"other"), 5) == 0
    program.call("oldolduname", room)
    assert program.get(room, 45)[9:15] == b"other\0"
    assert program.call("sethostname", room, 65) == -errno.EINVAL


def test_random_numbers_come_from_the_seed() -> None:
    def drawn() -> bytes:
        program = Program(new_machine())
        room = program.room(100_000)
        assert program.call("getrandom", room, 100_000, 0) == 100_000
        return program.get(room, 100_000)

    first, second = drawn(), drawn()
    same = first == second
    assert same
    assert len(set(first)) == 256
    expected = Random(1).randbytes(16)
    assert first[:16] == expected
    program = Program(new_machine())
    assert program.call("getrandom", program.base + program.size - 3, 10, 0) == 3
    assert program.call("getrandom", 0, 10, 0) == -errno.EFAULT
    assert program.call("getrandom", program.base, 10, 8) == -errno.EINVAL


def test_memory_and_processors(program: Program) -> None:
    room = program.room(64)
    assert program.call("sysinfo", room) == 0
    info = Sysinfo.from_buffer_copy(program.get(room, 64))
    assert (info.totalram, info.freeram, info.freeswap) == (4096 << 12, 1024 << 12, 7 << 12)
    assert (info.mem_unit, info.procs) == (1, 1)
    assert program.call("sched_getaffinity", 0, 128, room) == 4
    assert program.get(room, 4) == b"\1\0\0\0"
    assert program.call("sched_getaffinity", 0, 2, room) == -errno.EINVAL
    assert program.call("sched_getscheduler", 99) == -errno.ESRCH
    assert program.call("getcpu", room, 0, 0) == 0


def test_prctl(program: Program) -> None:
    room = program.room(16)
    assert program.call("prctl", 15, b"a name that is far too long") == 0
    assert program.call("prctl", 16, room) == 0
    assert program.get(room, 16) == b"a name that is \0"
    assert program.call("prctl", 39, 0, 0, 0, 0) == 0
    assert program.call("prctl", 38, 1, 0, 0, 0) == 0
    assert program.call("prctl", 39, 0, 0, 0, 0) == 1
    assert program.call("prctl", 38, 0, 0, 0, 0) == -errno.EINVAL
    assert program.call("prctl", 999, 0) == -errno.EINVAL
    assert program.call("personality", 0xFFFFFFFF) == 0
    assert program.call("personality", 8) == 0
    assert program.call("personality", 0xFFFFFFFF) == 8
