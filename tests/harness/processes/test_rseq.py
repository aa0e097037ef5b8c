# SPDX-License-Identifier: GPL-2.0-or-later
"""Restartable sequences: ``guest/user/rseq.c`` prints what it prints on a real kernel.

It registers, is preempted and signalled in sections, sound and malformed ones, and has children.
"""

import contextlib

import pytest

from harness.machine import GuestStopped, Limits, Machine
from harness.processes.checking import Check
from harness.processes.linux import Linux, Setup
from harness.signals.rseq import Section
from harness.syscalls import restartable
from harness.syscalls.restartable import AREA_SIZE, RestartableSequences
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from tests import packages
from tests.harness.processes.recorded import recorded, run_program
from tests.harness.processes.releases import MACHINES, on_both

EXPECTED = recorded("linux-i386-programs", "rseq")
GLIBC_SIGNATURE = 0x53053053


@MACHINES
def test_what_it_prints(release: str, ram: int) -> None:
    printed = run_program("rseq", ram, release=release)
    assert (printed.output, printed.status) == (EXPECTED, 0)
    assert not printed.statistics.unknown_calls


def test_a_switch_that_aborts_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: a section that others interrupted goes on for ever."""
    monkeypatch.setattr(RestartableSequences, "interrupted", lambda self: None)
    with pytest.raises(GuestStopped):
        run_program("rseq", check=Check.NONE, limits=Limits(instructions=8_000_000))


def keep(sequences: RestartableSequences, share_memory: bool) -> RestartableSequences:
    return RestartableSequences(sequences.area, sequences.length, sequences.signature)


def drop(sequences: RestartableSequences, share_memory: bool) -> RestartableSequences:
    return RestartableSequences()


FAULTS = {
    "a malformed section is believed": (Section, "sound", True),
    "a section aborts into itself": (Section, "sound", property(lambda self: not self.version)),
    "a child that shares memory keeps the area": (RestartableSequences, "fork", keep),
    "a child has no area": (RestartableSequences, "fork", drop),
    "the wrong word names the node": (restartable, "NODE_ID", 24),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_other_faults_show_in_what_it_prints(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    limits = Limits(instructions=12_000_000)
    with contextlib.suppress(GuestStopped):
        assert run_program("rseq", check=Check.NONE, limits=limits).output != EXPECTED


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("busybox", (b"sh", b"-c", b"true | true")), ("bash", (b"-c", b"(true); true | true"))],
)
@on_both
def test_the_c_library_registers_and_nothing_is_unknown(
    name: str, arguments: tuple[bytes, ...], release: str
) -> None:
    program = packages.program(name).read_bytes()
    machine = Machine(Kernel(KernelConfig(release=release)))
    linux = Linux(machine, Setup(files={b"/program": program}))
    process = linux.start(b"/program", [name.encode(), *arguments])
    registered = []
    remember = linux.returned

    def returned(caller: object, result: int) -> None:
        if process.rseq.area and not registered:
            registered.append(process.rseq)
        remember(caller, result)  # type: ignore[arg-type]

    linux.returned = returned  # type: ignore[method-assign,assignment]
    assert linux.run(process).exit_status == 0
    linux.close()
    # The library of a program that asks for its user's name tries to reach a daemon for that.
    assert not set(linux.unknown_calls) - {"socketcall"}
    assert registered[0].length >= AREA_SIZE
    assert registered[0].signature == GLIBC_SIGNATURE
