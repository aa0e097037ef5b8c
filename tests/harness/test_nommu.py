# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs on a CPU whose paging is off, over the model of mm/nommu.c."""

import pytest

from harness.elf import load_elf
from harness.guests import guest_path
from harness.machine import GuestDied, GuestStopped, Limits
from harness.nommu import NoMmuMachine
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.arch_i386.signal import SIGKILL
from kernel_model.config import KernelConfig
from kernel_model.errno import ENOMEM
from kernel_model.errors import BadInput
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.nommu import NoMmu
from kernel_model.structs.mman import MAP_PRIVATE
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.slab_settling import settle
from tests.kernel_model.mm.test_nommu import Blocks

pytestmark = pytest.mark.book("3.10")
CR0_PG = 1 << 31


@pytest.fixture
def machine() -> NoMmuMachine:
    image = KernelImage(KernelConfig(ram=16 << 20, release="2.6", mmu=False))
    return NoMmuMachine(image, Blocks())


def program(name: str):  # type: ignore[no-untyped-def]
    return load_elf(guest_path(name))


def test_a_program_maps_fills_and_gives_back(machine: NoMmuMachine) -> None:
    held = dict(machine.memory.held)  # type: ignore[attr-defined]
    status = machine.run(program("nommu_maps_pie"))
    lines = machine.output.decode().splitlines()
    assert status == 0, machine.output.decode()
    assert len(lines) == 18
    assert all(line.startswith("ok ") for line in lines)
    assert not machine.cpu.control.cr0 & CR0_PG
    assert machine.memory.held == held, "all memory came back"  # type: ignore[attr-defined]


def test_one_program_after_another(machine: NoMmuMachine) -> None:
    for _ in range(3):
        assert machine.run(program("hello_pie")) == 0
    assert machine.output == b"hello, ring 3\n" * 3


def test_a_program_of_one_address_cannot_be_loaded(machine: NoMmuMachine) -> None:
    with pytest.raises(BadInput, match="linked to a fixed address"):
        machine.run(program("hello"))


def test_no_block_is_large_enough(machine: NoMmuMachine) -> None:
    machine.memory.refuse_after = 1  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="no block"):
        machine.run(program("hello_pie"))


def test_a_limit_ends_a_program(machine: NoMmuMachine) -> None:
    machine.limits = Limits(instructions=50)
    with pytest.raises(GuestStopped, match="limit on instructions"):
        machine.run(program("nommu_maps_pie"))


@pytest.mark.parametrize(
    ("name", "line"),
    [("do_munmap", "FAIL no part of a mapping"), ("_allocate", "FAIL anonymous memory")],
)
def test_the_program_sees_planted_faults(
    machine: NoMmuMachine, name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(NoMmu, name)

    def part_of_it(nommu: NoMmu, mm: int, addr: int, length: int) -> int:
        real(nommu, mm, addr, length)
        return 0

    def not_cleared(nommu: NoMmu, view, file: int, length: int, pgoff: int) -> int:  # type: ignore[no-untyped-def]
        error = real(nommu, view, file, length, pgoff)
        if not error:
            nommu._image.ram.write8(virt_to_phys(int(view.vm_start)), 1)
        return int(error)

    monkeypatch.setattr(NoMmu, name, {"do_munmap": part_of_it, "_allocate": not_cleared}[name])
    assert machine.run(program("nommu_maps_pie")) > 0
    assert line in machine.output.decode()


def test_a_trap_ends_the_program_with_a_report(machine: NoMmuMachine) -> None:
    """Address 0 holds no code that goes anywhere good."""
    image = program("hello_pie")
    broken = machine._load(image)
    machine.ram.write(broken.image.entry, b"\x0f\x0b")
    with pytest.raises(GuestDied, match="#UD"):
        machine.enter(broken, [b"broken"])


@pytest.fixture
def booted() -> NoMmuMachine:
    return NoMmuMachine.boot(KernelConfig(ram=16 << 20, release="2.6", mmu=False))


def test_a_kernel_boots_without_page_tables(booted: NoMmuMachine) -> None:
    kernel = booted.kernel
    assert kernel.started
    assert not any(kernel.ram.table(SWAPPER_PG_DIR)), "nobody wrote a page directory"
    assert not hasattr(kernel, "page_faults")
    assert kernel.slab.find("size-1048576"), "mappings come from kmalloc(), up to 1 MiB"


def test_programs_on_a_booted_kernel_leave_no_frame_behind(booted: NoMmuMachine) -> None:
    kernel, ledger = booted.kernel, booted.ledger
    settle(kernel.slab)
    before = ledger.owned_frames()
    for name in ("nommu_maps_pie", "hello_pie", "nommu_maps_pie"):
        assert booted.run(program(name)) == 0
    settle(kernel.slab)
    assert ledger.owned_frames() == before
    check_machine(kernel, ledger)


@pytest.mark.parametrize("pages", [32, 64, 128, 256])
def test_a_mapping_is_one_block_of_kmalloc(booted: NoMmuMachine, pages: int) -> None:
    mm = booted.memory.kmalloc(booted.image.structs.mm_struct.size, 0xD0)
    booted.ram.fill(virt_to_phys(mm), booted.image.structs.mm_struct.size)
    at = booted.nommu.do_mmap_pgoff(mm, 0, 0, pages << 12, 3, MAP_PRIVATE, 0)
    assert booted.memory.ksize(at) == pages << 12
    assert not at & (pages << 12) - 1
    assert booted.nommu.do_mmap_pgoff(mm, 0, 0, (256 << 12) + 1, 3, MAP_PRIVATE, 0) == -ENOMEM
    booted.nommu.exit_mmap(mm)


def test_memory_that_is_out_ends_the_program_alone(booted: NoMmuMachine) -> None:
    settle(booted.kernel.slab)
    before = booted.ledger.owned_frames()
    for _ in range(2):
        assert booted.run(program("greedy_pie"), [b"greedy", b"mmap"]) == 128 + SIGKILL
        assert "Out of Memory: Killed process 1 (greedy_pie" in booted.kernel.log
    settle(booted.kernel.slab)
    assert booted.ledger.owned_frames() == before
    assert booted.run(program("hello_pie")) == 0
