# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs on a CPU whose paging is off, over the model of mm/nommu.c."""

import pytest

from harness.elf import load_elf
from harness.guests import guest_path
from harness.machine import GuestDied, GuestStopped, Limits
from harness.nommu import NoMmuMachine
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.config import KernelConfig
from kernel_model.errors import BadInput
from kernel_model.image import KernelImage
from kernel_model.mm.nommu import NoMmu
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
