# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-3 programs: what they print, how they end, and that nothing of them stays."""

import pytest

from harness.machine import Limits, Machine
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.config import RELEASES, Highmem, KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from tests.harness.frame_accounting import check_machine
from tests.harness.made_to_reclaim import MADE_TO_RECLAIM
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
    spaces, lru = UserSpaces(machine.kernel), machine.kernel.allocator.lru
    reclaiming = MADE_TO_RECLAIM[machine.kernel.config.release]
    reclaiming.settle(machine.kernel)
    free, owners = spaces.free_frames(), _owners(machine)
    for _ in range(3):
        Running(machine, "hello").run()
        reclaiming.settle(machine.kernel)
        assert spaces.free_frames() == free
        assert _owners(machine) == owners
        assert lru.nr_inactive() == lru.nr_active() == 0
        assert machine.cpu.control.cr3 == 0x101000
        check_machine(machine.kernel, machine.ledger)


def _owners(machine: Machine) -> dict[int, str]:
    frames, ledger = range(machine.ram.frames), machine.ledger
    return {pfn: owner for pfn in frames if (owner := ledger.owner(pfn)) is not None}


EITHER = pytest.mark.usefixtures("either_release")
FAST_ON_BOTH = pytest.mark.parametrize("either_release", RELEASES, indirect=True)


def test_a_program_that_does_not_fit_is_refused_and_leaves_nothing() -> None:
    """2.6 would wait for ever for memory that nobody has to give; 2.4 tells the caller."""
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    allocator = machine.kernel.allocator
    held = []
    while allocator.nr_free_pages() > 40 and (page := allocator.alloc_page(0x20)):
        held.append(page)
    free = UserSpaces(machine.kernel).free_frames()
    with pytest.raises(BadInput, match="more --ram"):
        Running(machine, "hello")
    assert UserSpaces(machine.kernel).free_frames() == free


@EITHER
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


@FAST_ON_BOTH
def test_swap_brings_pages_back_under_a_running_program(either_release: str) -> None:
    """Every page that it has when it starts is pushed out; it must not notice."""
    reclaiming = MADE_TO_RECLAIM[either_release]
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB, swap_pages=1024)))
    kernel, running = machine.kernel, Running(machine, "hello")
    reclaiming.unmap_all(kernel)
    reclaiming.free_all(kernel)
    assert kernel.spaces.areas.mm(running.process.mm).rss == 0
    assert kernel.statics.nr_swap_pages < kernel.config.swap_pages - 1
    ended = running.run()
    assert ended.status == 0
    assert bytes(running.written) == b"hello, ring 3\n"
    assert machine.faults[FaultKind.MAJOR] > 1
    assert kernel.statics.nr_swap_pages == kernel.config.swap_pages - 1


@EITHER
def test_limits_stop_a_program() -> None:
    machine = Machine(Kernel(KernelConfig(ram=64 * MIB, highmem=Highmem.NONE)))
    with pytest.raises(Exception, match="limit on instructions"):
        Running(machine, "hello", limits=Limits(instructions=50)).run()
