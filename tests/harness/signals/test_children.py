# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGCHLD: what the parent is told, and which children nobody waits for.

The truth is what ``guest/user/signal_children.c`` printed on a real kernel.
"""

import struct

import pytest

from harness.signals import SigInfo, Stopped, notify_ended
from harness.signals.actions import Action
from harness.signals.numbers import SIG_DFL, SIG_IGN
from tests.harness.signals.ring3 import Ring3, recorded
from tests.harness.syscalls.program import Program, new_machine

CHLD, CONT, STOP = 17, 18, 19
NOCLDSTOP, NOCLDWAIT = 1, 2
HANDLER = 0x400000


@pytest.fixture
def family() -> tuple[Program, Program]:
    machine = new_machine()
    parent, child = Program(machine, 2), Program(machine, 3)
    child.parent_process = parent
    child.fs.credentials.uid = 5
    parent.signals.actions[CHLD] = Action(HANDLER)
    return parent, child


def told(parent: Program) -> tuple[int, int] | None:
    """Code and status, of the child, or nothing."""
    info = parent.signals.dequeue()
    if info is None:
        return None
    pid, uid, status = struct.unpack_from("<iii", info.fields)
    assert (info.signo, pid, uid) == (CHLD, 3, 5)
    return info.code, status


def on_linux(name: str) -> tuple[int, int] | None:
    """What the C program told of the case ``name``."""
    lines = recorded("signal_children")
    at = next(at for at, line in enumerate(lines) if line.rpartition(" ")[0] == name)
    values = [int(line.rpartition(" ")[2], 0) for line in lines[at + 1 : at + 6]]
    _, heard, _, code, status = values
    return (code, status) if heard else None


@pytest.mark.parametrize(
    ("name", "status"), [("exit", 42 << 8), ("killed", 15), ("killed while stopped", 9)]
)
def test_end(family: tuple[Program, Program], name: str, status: int) -> None:
    parent, child = family
    assert not notify_ended(child, status)
    assert told(parent) == on_linux(name)


def test_a_dump_is_told(family: tuple[Program, Program]) -> None:
    parent, child = family
    notify_ended(child, 11 | 0x80)
    assert told(parent) == (3, 11)


@pytest.mark.parametrize(
    ("name", "action", "status"),
    [
        ("reaped by itself", Action(HANDLER, NOCLDWAIT), 5 << 8),
        ("ignored", Action(SIG_IGN), 6 << 8),
    ],
)
def test_nobody_waits(
    family: tuple[Program, Program], name: str, action: Action, status: int
) -> None:
    parent, child = family
    parent.signals.actions[CHLD] = action
    assert notify_ended(child, status)
    assert told(parent) == on_linux(name)


def test_without_a_parent_nobody_waits(family: tuple[Program, Program]) -> None:
    _, child = family
    child.parent_process = None
    assert notify_ended(child, 0)


def test_a_clone_may_send_another_signal_or_none(family: tuple[Program, Program]) -> None:
    parent, child = family
    assert not notify_ended(child, 0, exit_signal=0)
    assert parent.signals.dequeue() is None
    parent.signals.actions[10] = Action(HANDLER)
    assert not notify_ended(child, 0, exit_signal=10)
    info = parent.signals.dequeue()
    assert info is not None
    assert info.signo == 10


@pytest.mark.parametrize(
    ("flags", "stopped", "continued"),
    [(0, "stopped", "continued"), (NOCLDSTOP, "stopped quietly", "continued quietly")],
)
def test_stop_and_going_on(
    family: tuple[Program, Program], flags: int, stopped: str, continued: str
) -> None:
    parent, child = family
    parent.signals.actions[CHLD] = Action(HANDLER, flags)
    ring3, group = Ring3(child), child.signals.group
    child.signals.send(SigInfo(STOP))
    assert ring3.deliver() == Stopped(STOP)
    assert told(parent) == on_linux(stopped)
    assert (group.stop_report, group.continue_report) == (STOP, False)
    child.signals.send(SigInfo(CONT))
    ring3.deliver()
    assert told(parent) == on_linux(continued)
    assert (group.stop_report, group.continue_report) == (0, True)
    ring3.deliver()
    assert parent.signals.dequeue() is None


def test_who_does_not_care_is_not_woken(family: tuple[Program, Program]) -> None:
    parent, child = family
    parent.signals.actions[CHLD] = Action(SIG_DFL)
    assert not notify_ended(child, 0)
    assert not parent.signals.has_deliverable()
