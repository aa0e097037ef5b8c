# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a file in any order, as a program sees them: what 2.6 brought, and what 2.4 answers.

``guest/user/any_order.c`` prints what stands in each page. Truth is what the call is for, written
out here, and the host's kernel where it runs i386 programs.
"""

import shutil
from pathlib import Path

import pytest

from harness.guests import guest_path
from harness.machine import Machine
from harness.monitors.buddies import check_machine
from harness.processes.checking import Check
from harness.processes.linux import Linux, Setup
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from tests import packages
from tests.harness.processes.running import Tree
from tests.harness.running import Running

ENOSYS = 38
IN_ANY_ORDER = """at first: abcdefgh
remap_file_pages 0
order: abcdefgh
remap_file_pages 0
order: ghcdefgh
remap_file_pages 0
order: ghadefgh
remap_file_pages 0
order: ghadefab
in order: aBcdefgh
child: ghadefaB
parent: ghCdefCB
in order: CBcdefgh
remap_file_pages 0
order: CBcdefgh
private -22
with a protection -22
nothing -22
nowhere -22
"""


def printed(release: str) -> str:
    machine = Machine(Kernel(KernelConfig(release=release)))
    running = Running(machine, "any_order")
    assert running.run().status == 0
    return bytes(running.written).decode()


@pytest.mark.book("4.8")
def test_pages_stand_where_they_were_put() -> None:
    assert printed("2.6") == IN_ANY_ORDER


@pytest.mark.book("4.8", "3.10")
@pytest.mark.parametrize("rmap", ["object", "pte_chain"])
def test_whole_address_spaces_are_as_meant(rmap: str) -> None:
    """Model, specification and CPU, at each fault and over all pages at ``fork()`` and the end."""
    machine = Machine(Kernel(KernelConfig(release="2.6", rmap=rmap)))
    path, written = b"/bin/any_order", bytearray()
    files = {path: guest_path("any_order").read_bytes()}
    linux = Linux(machine, Setup(files=files, output=written.extend, check=Check.FULL))
    ended = linux.run(linux.start(path, [path]))
    linux.close()
    assert (ended.status, written.decode()) == (0, IN_ANY_ORDER)
    check_machine(machine.kernel, machine.ledger)


def test_2_4_has_no_such_call() -> None:
    lines = printed("2.4").splitlines()
    answers = [line for line in lines if line.startswith("remap_file_pages")]
    assert answers == [f"remap_file_pages -{ENOSYS}"] * 5
    assert {line for line in lines if line.startswith("order")} <= {
        "order: abcdefgh",
        "order: abcdefgB",
        "order: abCdefgB",
    }


def test_the_host_puts_them_there_as_well(tmp_path: Path) -> None:
    packages.need_native()
    program = Path(shutil.copy(guest_path("any_order"), tmp_path))
    program.chmod(0o755)
    outcome = Tree(tmp_path, {"any_order": program}).natively(["bin/any_order"])
    assert (outcome.status, outcome.output.decode()) == (0, IN_ANY_ORDER)
