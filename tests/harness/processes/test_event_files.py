# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters, timers, signals, sets of files, pairs of sockets: ``guest/user/event_files.c`` prints
what it prints on a real kernel.
"""

import contextlib

import pytest

from harness.machine import GuestStopped, Limits
from harness.processes.checking import Check
from harness.processes.scheduler import Deadlock
from harness.signals.signalfd import SignalFile
from harness.vfs.epoll import EpollFile, Interest
from harness.vfs.eventfd import EventFile
from harness.vfs.filesystem import FileSystem
from harness.vfs.socket_pair import Socket
from harness.vfs.timerfd import TimerFile
from tests.harness.processes.recorded import recorded, run_program
from tests.harness.processes.releases import MACHINES

EXPECTED = recorded("linux-i386-programs", "event_files")


@MACHINES
def test_what_it_prints(release: str, ram: int) -> None:
    printed = run_program("event_files", ram, release=release)
    assert (printed.output, printed.status) == (EXPECTED, 0)
    assert not printed.statistics.unknown_calls


FAULTS = {
    "a counter has never room": (EventFile, "can_write", lambda file, data: False),
    "nobody waits for timers": (FileSystem, "next_event", lambda files: None),
    "a timer goes off once": (TimerFile, "_gone_off", lambda file: int(file._expiry == 0)),
    "every edge is a new one": (Interest, "told", property(lambda one: None, lambda one, n: None)),
    "no edge is": (Interest, "tell", lambda interest: None),
    "sets may lie in each other": (EpollFile, "contains", lambda file, other: False),
    "a signal is not taken": (SignalFile, "_waiting", 0),
    "a socket that is closed says nothing": (Socket, "released", lambda socket: None),
    "nobody is told of a shutdown": (Socket, "_shut", lambda socket, ways: None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_in_what_it_prints(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Or the program comes to no end."""
    monkeypatch.setattr(*FAULTS[fault])
    limits = Limits(instructions=20_000_000)
    with contextlib.suppress(GuestStopped, Deadlock, RecursionError):
        output = run_program("event_files", check=Check.NONE, limits=limits).output
        assert output != EXPECTED
