# SPDX-License-Identifier: GPL-2.0-or-later
"""Ring-3 programs: what they print, how they end, and that nothing of them stays."""

import pytest

from harness.architecture import CR0_PG, ControlRegisters
from harness.elf import load_elf
from harness.guests import guest_path
from harness.machine import Limits, Machine
from harness.mmu_spec import walk
from harness.monitors.frames import FrameLedger
from harness.process import Process
from kernel_model.config import Highmem, KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from kernel_model.mm.buddy import Buddy
from tests.harness.test_machine import CONFIGS, MIB, name

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


def process(machine: Machine, program: str, *arguments: bytes) -> Process:
    return Process(machine, load_elf(guest_path(program)), [program.encode(), *arguments])


@pytest.mark.parametrize("program", ["hello", "hello_pie"])
def test_a_program_runs_and_ends(machine: Machine, program: str) -> None:
    running = process(machine, program)
    ended = running.run()
    assert (ended.status, ended.signal) == (0, 0)
    assert bytes(running.written[1]) == b"hello, ring 3\n"


@pytest.mark.book("4.1", "4.6")
def test_trespassers_end_by_the_right_fault(machine: Machine) -> None:
    for program, (error_code, cr2, trap) in ENDINGS.items():
        ended = process(machine, program).run()
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
    ledger = FrameLedger().listen(machine.kernel.image.events)
    process(machine, "hello").run()
    allocator = machine.kernel.allocator
    cached = machine.kernel.statics.boot_cpu_data.pgtable_cache_sz
    free = allocator.nr_free_pages()
    for _ in range(3):
        process(machine, "hello").run()
    assert allocator.nr_free_pages() == free
    assert machine.kernel.statics.boot_cpu_data.pgtable_cache_sz == cached
    assert machine.kernel.statics.nr_inactive_pages == 0
    assert machine.cpu.control.cr3 == 0x101000
    assert all(owner in ("page table", "page directory") for owner in _owners(ledger, machine))


def _owners(ledger: FrameLedger, machine: Machine) -> set[str]:
    frames = range(machine.ram.frames)
    return {owner for pfn in frames if (owner := ledger.owner(pfn)) is not None}


def test_a_program_that_does_not_fit_is_refused_and_leaves_nothing() -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    allocator = machine.kernel.allocator
    held = []
    while allocator.nr_free_pages() > 40 and (page := allocator.alloc_page(0x20)):
        held.append(page)
    free = allocator.nr_free_pages()
    with pytest.raises(BadInput, match="more --ram"):
        process(machine, "hello")
    tables = machine.kernel.statics.boot_cpu_data.pgtable_cache_sz
    assert allocator.nr_free_pages() + tables == free


def test_arguments_reach_the_stack() -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    running = process(machine, "hello", b"one", b"two")
    machine.cpu.load_cr3(running.pgd)
    assert int.from_bytes(running.read(running.esp, 4), "little") == 3
    first = int.from_bytes(running.read(running.esp + 8, 4), "little")
    assert running.read(first, 4) == b"one\0"
    running.release()
    with pytest.raises(BadInput, match="longer than half of the stack"):
        process(machine, "hello", b"x" * 80_000)


def test_swap_brings_pages_back_under_a_running_program() -> None:
    """Every page of the program is pushed out before it runs; it must not notice."""
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB, swap_pages=1024)))
    running = process(machine, "hello")
    vmscan, zone = machine.kernel.vmscan, _zone_of(machine, running)
    for _ in range(4):
        machine.kernel.user_memory.swap_out(zone)
        vmscan.shrink_cache(1000, zone, 0x1F0, 1)
    used = machine.kernel.config.swap_pages - 1 - machine.kernel.statics.nr_swap_pages
    assert used == len(running.pages)
    ended = running.run()
    assert ended.status == 0
    assert bytes(running.written[1]) == b"hello, ring 3\n"
    assert machine.kernel.statics.nr_swap_pages == machine.kernel.config.swap_pages - 1


def _zone_of(machine: Machine, running: Process) -> Buddy:
    """The zone that the program's pages lie in."""
    paddr = walk(machine.ram, ControlRegisters(CR0_PG | 1, running.pgd, 0x90), running.esp).paddr
    assert paddr is not None
    allocator = machine.kernel.allocator
    return allocator.page_zone(allocator.memmap.page(paddr >> 12))


def test_limits_stop_a_program() -> None:
    machine = Machine(Kernel(KernelConfig(ram=64 * MIB, highmem=Highmem.NONE)))
    machine.limits = Limits(instructions=50)
    with pytest.raises(Exception, match="limit on instructions"):
        process(machine, "hello").run()
