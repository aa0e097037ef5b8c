# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a signal by default, when it is forced, and of a call that it ended.

Default actions are those of signal(7).
"""

import errno

import pytest

from harness.signals import (
    Died,
    GoesOn,
    SigInfo,
    Stopped,
    exception_info,
    force_sig_info,
    kernel_info,
)
from harness.signals.numbers import SIG_IGN, bit
from harness.signals.siginfo import fault_info
from harness.syscalls.requests import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOHAND,
    ERESTARTNOINTR,
    ERESTARTSYS,
    RestartSystemCall,
)
from harness.syscalls.task import RLIM_INFINITY
from tests.harness.signals.ring3 import HANDLER, SITE, Ring3, recorded

CORE = {3, 4, 5, 6, 7, 8, 11, 24, 25, 31}
IGNORED = {17, 18, 23, 28}
STOPS = {19, 20, 21, 22}
SA_RESTART = 1 << 28
USR1, SEGV, CONT = 10, 11, 18


@pytest.mark.parametrize("signal", range(1, 65))
def test_default_action(signal: int) -> None:
    ring3 = Ring3()
    ring3.program.limits.values[4] = (RLIM_INFINITY, RLIM_INFINITY)
    ring3.kill_self(signal)
    if signal in IGNORED:
        assert ring3.next == GoesOn(0)
    elif signal in STOPS:
        assert ring3.next == Stopped(signal)
        assert ring3.signals.stopped
    else:
        assert isinstance(ring3.next, Died)
        assert (ring3.next.signal, ring3.next.core) == (signal, signal in CORE)


def test_core_is_told_only_where_one_may_be_left() -> None:
    ring3 = Ring3()
    ring3.kill_self(6)
    assert isinstance(ring3.next, Died)
    assert not ring3.next.core


@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_a_fault_cannot_be_escaped(how: str) -> None:
    """The last case of ``signal_faults.c``: it ends there."""
    assert recorded("signal_faults")[-1] == "kills"
    ring3 = Ring3()
    handler = ring3.handler(lambda signal, frame: None)
    ring3.set_action(SEGV, SIG_IGN if how == "ignored" else handler)
    if how == "blocked":
        ring3.block(0, bit(SEGV))
    force_sig_info(ring3.program, fault_info(SEGV, 1, 0x1234))
    assert isinstance(ring3.deliver(), Died)


def test_a_fault_goes_to_its_handler_with_what_the_cpu_said() -> None:
    ring3, seen = Ring3(), []

    def handler(signal: int, frame: int) -> None:
        seen.append((signal, ring3.words(frame + 16, 4), ring3.words(frame + 144 + 20 + 48, 2)))
        seen.append(ring3.words(frame + 144 + 20 + 84, 1)[0])

    ring3.set_action(SEGV, ring3.handler(handler), 4)
    ring3.program.faulted = (0x1234, 14, 6)
    force_sig_info(ring3.program, fault_info(SEGV, 1, 0x1234))
    ring3.deliver()
    ring3.run_handler()
    assert seen == [(SEGV, [SEGV, 0, 1, 0x1234], [14, 6]), 0x1234]


# -- exceptions ----------------------------------------------------------------------------------

NAMES = {
    "division by 0": 0,
    "one step": 1,
    "int3": 3,
    "ud2": 6,
    "hlt": 13,
    "x87 division by 0": 16,
}


@pytest.mark.parametrize("name", NAMES)
def test_exceptions_are_the_signals_that_linux_makes_of_them(name: str) -> None:
    lines = recorded("signal_faults")
    at = lines.index(name)
    facts = dict(line.strip().rsplit(" ", 1) for line in lines[at + 1 : at + 4])
    ring3 = Ring3()
    ring3.regs.eip = 0x08049000
    ring3.program.fpu = bytes.fromhex("7b030438") + ring3.program.fpu[4:]
    info = exception_info(ring3.program, NAMES[name])
    assert (info.signo, info.code) == (int(facts["signal"]), int(facts["code"]))
    assert info.address == (0x08049000 if facts["address of the instruction"] == "1" else 0)


def test_sse_exceptions_come_from_mxcsr() -> None:
    ring3 = Ring3()
    image = bytearray(ring3.program.fpu)
    image[24:28] = (0x1F80 & ~(1 << 10) | 1 << 3).to_bytes(4, "little")
    ring3.program.fpu = bytes(image)
    assert (exception_info(ring3.program, 19).signo, exception_info(ring3.program, 19).code) == (
        8,
        4,
    )


# -- what becomes of the call --------------------------------------------------------------------

AGAIN, FAILS = "again", "EINTR"


@pytest.mark.parametrize(
    ("code", "flags", "without", "handled"),
    [
        (ERESTARTSYS, 0, AGAIN, FAILS),
        (ERESTARTSYS, SA_RESTART, AGAIN, AGAIN),
        (ERESTARTNOINTR, 0, AGAIN, AGAIN),
        (ERESTARTNOHAND, SA_RESTART, AGAIN, FAILS),
        (ERESTART_RESTARTBLOCK, SA_RESTART, AGAIN, FAILS),
    ],
)
def test_restart(code: int, flags: int, without: str, handled: str) -> None:
    for signal, expected in ((None, without), (USR1, handled)):
        ring3 = Ring3()
        ring3.set_action(USR1, ring3.handler(lambda signal, frame: None), flags)
        regs = ring3.regs
        regs.eip, regs.orig_eax, regs.eax = SITE + 2, 3, 0x12345678
        if signal:
            ring3.signals.send(kernel_info(signal))
        ring3.deliver(RestartSystemCall(code, lambda: iter(())))
        if signal:
            assert regs.eip == HANDLER
            context = regs.esp + 8
            eax, eip = ring3.words(context + 44, 1)[0], ring3.words(context + 56, 1)[0]
        else:
            eax, eip = regs.eax, regs.eip
        if expected == FAILS:
            assert (eax, eip) == (-errno.EINTR & 0xFFFFFFFF, SITE + 2)
            assert ring3.program.restart is None
        else:
            assert eip == SITE
            assert eax == (0 if code == ERESTART_RESTARTBLOCK else 3)
            assert (ring3.program.restart is None) == (code != ERESTART_RESTARTBLOCK)


def test_only_the_first_handler_decides_about_the_call() -> None:
    """Two signals wait: one frame is put on the other, and the call is made again once."""
    ring3, seen = Ring3(), []
    for signal in (10, 12):
        ring3.set_action(signal, ring3.handler(lambda s, frame: seen.append(s)), SA_RESTART)
    for signal in (10, 12):
        ring3.signals.send(kernel_info(signal))
    ring3.regs.eip, ring3.regs.orig_eax = SITE + 2, 3
    assert ring3.deliver(RestartSystemCall(ERESTARTSYS)) == GoesOn(2)
    ring3._run_handlers()
    assert seen == [12, 10]
    assert (ring3.regs.eip, ring3.regs.eax) == (SITE, 3)


def test_a_stopped_process_makes_its_call_again_when_it_goes_on() -> None:
    ring3, outcome = Ring3(), RestartSystemCall(ERESTARTSYS)
    ring3.regs.eip, ring3.regs.orig_eax = SITE + 2, 3
    ring3.signals.send(SigInfo(20))
    assert ring3.deliver(outcome) == Stopped(20)
    assert (ring3.signals.stopped, ring3.regs.eip) == (True, SITE + 2)
    ring3.signals.send(SigInfo(CONT))
    assert not ring3.signals.stopped
    assert ring3.signals.wants_handling
    assert ring3.deliver(outcome) == GoesOn(0)
    assert (ring3.regs.eip, ring3.regs.eax) == (SITE, 3)
    assert not ring3.signals.wants_handling
