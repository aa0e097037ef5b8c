# SPDX-License-Identifier: GPL-2.0-or-later
"""A program of ours, run on the model, and what it printed on a real kernel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.guests import guest_path
from harness.machine import Limits, Machine
from harness.processes.checking import Check
from harness.processes.linux import Linux, Setup
from harness.processes.watching import Statistics
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from tests.harness.frame_accounting import check_machine

DATA = Path(__file__).parents[2] / "data"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Printed:
    """What a run printed, its exit status, and what was counted."""

    output: bytes
    status: int
    statistics: Statistics


def recorded(directory: str, name: str) -> bytes:
    return (DATA / directory / f"{name}.txt").read_bytes()


def run_program(
    name: str,
    ram: int = 64 * MIB,
    check: Check = Check.FULL,
    limits: Limits | None = None,
    prepare: Callable[[Linux], None] = lambda linux: None,
    release: str = "2.4",
    cpu_model: str = "pentium3",
) -> Printed:
    """Run it; every frame has afterwards the owner that it should have."""
    config = KernelConfig(ram=ram, release=release, cpu_model=cpu_model, swap_pages=512)
    machine = Machine(Kernel(config))
    written = bytearray()
    setup = Setup(
        files={b"/program": guest_path(name).read_bytes()},
        output=written.extend,
        check=check,
        limits=limits or Limits(),
    )
    linux = Linux(machine, setup)
    prepare(linux)
    try:
        ended = linux.run(linux.start(b"/program", [b"program"]))
    finally:
        linux.close()
    check_machine(machine.kernel, machine.ledger)
    return Printed(bytes(written), ended.exit_status, linux.watching.statistics())
