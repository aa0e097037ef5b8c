# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that send, block and handle signals print what they print on a real kernel."""

import pytest

from tests.harness.processes.recorded import recorded, run_program
from tests.harness.processes.releases import MACHINES

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
@MACHINES
def test_what_it_prints(name: str, release: str, ram: int) -> None:
    printed = run_program(name, ram, release=release)
    assert printed.output == recorded("linux-i386-signals", name)
    assert printed.status == PROGRAMS[name]
