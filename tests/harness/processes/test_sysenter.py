# SPDX-License-Identifier: GPL-2.0-or-later
"""``sysenter`` of a program on Linux 2.4: nothing leads it there, and it finds no kernel.

``guest/user/sysenter.c`` tries it. Truth is the manual (SDM 2B, SYSENTER): IA32_SYSENTER_CS is 0 as
after a reset, so it raises #GP(0); a CPU before the Pentium II does not know it.
"""

from collections.abc import Callable

import pytest

from harness.cpu import execution
from harness.cpu.sysenter import system_enter
from harness.machine import Limits, Machine
from harness.processes.process import Ended
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from tests.harness.running import Running

SIGILL, SIGSEGV = 4, 11
SI_KERNEL, ILL_ILLOPN, NO_ADDRESS = 128, 2, -1


def expected(signal: int, code: int, trap: int, address: int) -> bytes:
    once = (
        f" signal {signal}\n code {code}\n address {address}\n trap {trap}\n error code 0\n"
        " at the instruction 1\n registers kept 1\n"
    )
    both = f"in a block\n{once}by a jump\n{once}"
    return f"AT_SYSINFO 0\n{both}{both}".encode()


GENERAL_PROTECTION = expected(SIGSEGV, SI_KERNEL, 13, NO_ADDRESS)
INVALID_OPCODE = expected(SIGILL, ILL_ILLOPN, 6, 0)
MODELS = {
    "486": (INVALID_OPCODE, SIGILL),
    "pentium": (INVALID_OPCODE, SIGILL),
    "pentium2": (GENERAL_PROTECTION, SIGSEGV),
    "pentium3": (GENERAL_PROTECTION, SIGSEGV),
    "coreduo": (GENERAL_PROTECTION, SIGSEGV),
}


def run(model: str, limits: Limits | None = None) -> tuple[bytes, Ended]:
    machine = Machine(Kernel(KernelConfig(cpu_model=model)))
    running = Running(machine, "sysenter", limits=limits)
    ended = running.run()
    return bytes(running.written), ended


@pytest.mark.parametrize("model", MODELS)
def test_what_a_program_gets(model: str) -> None:
    printed, ended = run(model)
    assert (printed, ended.signal) == MODELS[model]


def test_the_same_while_instructions_are_counted() -> None:
    printed, ended = run("pentium3", Limits(instructions=1_000_000))
    assert (printed, ended.signal) == (GENERAL_PROTECTION, SIGSEGV)


def nothing(cpu: execution.Runnable) -> None:
    """As the emulator has it: an instruction that does nothing."""


def of_any_model(cpu: execution.Runnable) -> None:
    cpu.has_sysenter = True
    system_enter(cpu)


@pytest.mark.parametrize("fault", [nothing, of_any_model])
def test_a_cpu_that_does_otherwise_is_found(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[execution.Runnable], None]
) -> None:
    monkeypatch.setattr(execution, "system_enter", fault)
    assert run("pentium")[0] != INVALID_OPCODE
