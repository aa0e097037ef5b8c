# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that send, block and handle signals print what they print on a real kernel."""

from pathlib import Path

import pytest

from harness.guests import guest_path
from harness.machine import Machine
from harness.processes.checking import Check
from harness.processes.linux import Linux, Setup
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from tests.harness.frame_accounting import check_machine

PROGRAMS = {
    "signal_frames": 0,
    "signal_masks": 0,
    "signal_restart": 0,
    "signal_stack": 0,
    "signal_faults": 139,
    "signal_children": 0,
}
"""Program -> exit status."""


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("ram", [8 << 20, 64 << 20], ids=["8M", "64M"])
def test_what_it_prints(name: str, ram: int, data: Path) -> None:
    machine = Machine(Kernel(KernelConfig(ram=ram, swap_pages=512)))
    written = bytearray()
    setup = Setup(
        files={b"/program": guest_path(name).read_bytes()}, output=written.extend, check=Check.FULL
    )
    linux = Linux(machine, setup)
    ended = linux.run(linux.start(b"/program", [b"program"]))
    linux.close()
    assert bytes(written) == (data / "linux-i386-signals" / f"{name}.txt").read_bytes()
    assert ended.exit_status == PROGRAMS[name]
    check_machine(machine.kernel, machine.ledger)
