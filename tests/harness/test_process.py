# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-3 programs: what they print, how they end, and that nothing of them stays."""

import pytest

from harness.machine import Limits, Machine
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.config import Highmem, KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import for_each_zone
from tests.harness.frame_accounting import check_machine
from tests.harness.running import Running
from tests.harness.test_machine import CONFIGS, MIB, name
from tests.kernel_model.mm.user_spaces import UserSpaces

KERNEL = 0xC0101000

ENDINGS = {
    "read_kernel": (0x5, KERNEL, "#PF"),
    "write_kernel": (0x7, KERNEL, "#PF"),
    "jump_kernel": (0x5, KERNEL, "#PF"),
    "read_null": (0x4, 0, "#PF"),
    "write_null": (0x6, 0, "#PF"),
    "jump_null": (0x4, 0, "#PF"),
    "write_text": (0x7, None, "#PF"),
    "port_io": (0x0, None, "#GP"),
}
"""Program -> error code, CR2, and trap of the deed its name tells."""


@pytest.fixture(params=CONFIGS, ids=name)
def machine(request: pytest.FixtureRequest) -> Machine:
    return Machine(Kernel(request.param))


@pytest.mark.parametrize("program", ["hello", "hello_pie"])
def test_a_program_runs_and_ends(machine: Machine, program: str) -> None:
    running = Running(machine, program)
    ended = running.run()
    assert (ended.status, ended.signal) == (0, 0)
    assert bytes(running.written) == b"hello, ring 3\n"


@pytest.mark.book("4.1", "4.6")
def test_trespassers_end_by_the_right_fault(machine: Machine) -> None:
    for program, (error_code, cr2, trap) in ENDINGS.items():
        ended = Running(machine, program).run()
        assert ended.signal == 11, program
        assert ended.report is not None
        assert ended.report.reason.startswith(trap), program
        assert ended.report.ring == 3
        if trap == "#PF":
            assert f"error code {error_code} " in ended.report.reason, program
        if cr2 is not None:
            assert ended.report.control["cr2"] == cr2, program


@pytest.mark.book("3.5")
def test_nothing_of_a_program_stays(machine: Machine) -> None:
    spaces, statics = UserSpaces(machine.kernel), machine.kernel.statics
    free, owners = spaces.free_frames(), _owners(machine)
    for _ in range(3):
        Running(machine, "hello").run()
        assert spaces.free_frames() == free
        assert _owners(machine) == owners
        assert statics.nr_inactive_pages == statics.nr_active_pages == 0
        assert machine.cpu.control.cr3 == 0x101000
        check_machine(machine.kernel, machine.ledger)


def _owners(machine: Machine) -> dict[int, str]:
    frames, ledger = range(machine.ram.frames), machine.ledger
    return {pfn: owner for pfn in frames if (owner := ledger.owner(pfn)) is not None}


def test_a_program_that_does_not_fit_is_refused_and_leaves_nothing() -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    allocator = machine.kernel.allocator
    held = []
    while allocator.nr_free_pages() > 40 and (page := allocator.alloc_page(0x20)):
        held.append(page)
    free = UserSpaces(machine.kernel).free_frames()
    with pytest.raises(BadInput, match="more --ram"):
        Running(machine, "hello")
    assert UserSpaces(machine.kernel).free_frames() == free


def test_arguments_reach_the_stack() -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    running = Running(machine, "hello", b"one", b"two")
    linux, esp = running.linux, int(running.process.registers.esp)
    linux.scheduler.enter(running.process)
    assert linux.uaccess.get_user(esp) == 3
    first = linux.uaccess.get_user(esp + 8)
    assert linux.uaccess.copy_from_user(first or 0, 4) == b"one\0"
    assert linux.uaccess.strncpy_from_user(first or 0, 100) == b"one"
    linux.close()
    with pytest.raises(BadInput, match="arguments are longer than 128 KiB"):
        Running(machine, "hello", b"x" * 140_000)


def test_swap_brings_pages_back_under_a_running_program() -> None:
    """Every page that it has when it starts is pushed out; it must not notice."""
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB, swap_pages=1024)))
    kernel, running = machine.kernel, Running(machine, "hello")
    zones = [kernel.allocator.zone(zone.vaddr) for zone in for_each_zone(kernel.image)]
    for zone in zones * 4:
        kernel.vmscan.refill_inactive(1000)
        kernel.swapper.swap_out(zone)
        kernel.vmscan.shrink_cache(1000, zone, 0x1F0, 1)
    assert kernel.spaces.areas.mm(running.process.mm).rss == 0
    assert kernel.statics.nr_swap_pages < kernel.config.swap_pages - 1
    ended = running.run()
    assert ended.status == 0
    assert bytes(running.written) == b"hello, ring 3\n"
    assert machine.faults[FaultKind.MAJOR] > 1
    assert kernel.statics.nr_swap_pages == kernel.config.swap_pages - 1


def test_limits_stop_a_program() -> None:
    machine = Machine(Kernel(KernelConfig(ram=64 * MIB, highmem=Highmem.NONE)))
    with pytest.raises(Exception, match="limit on instructions"):
        Running(machine, "hello", limits=Limits(instructions=50)).run()
