# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel boots on the emulated CPU, by the guest's own boot code, on every build."""

from pathlib import Path

import pytest

from harness.architecture import CR4_PAE, CR4_PGE, CR4_PSE
from harness.guests import guest_path
from harness.machine import GuestDied, GuestStopped, Limits, Machine, paging_variant
from kernel_model.arch_i386.processor import X86_CR4_OSFXSR, X86_CR4_OSXMMEXCPT
from kernel_model.config import RELEASES, Highmem, KernelConfig
from kernel_model.errors import BadInput, MmucheckError
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel, boot
from tests.harness.planting import FLAGS_AD

MIB = 1 << 20
CONFIGS = [
    KernelConfig(ram=16 * MIB, cpu_model="486"),
    KernelConfig(ram=16 * MIB, cpu_model="pentium"),
    KernelConfig(ram=64 * MIB),
    KernelConfig(ram=64 * MIB, cpu_model="coreduo"),
    KernelConfig(ram=1024 * MIB, highmem=Highmem.GB4),
    KernelConfig(ram=4096 * MIB, highmem=Highmem.GB64),
    KernelConfig(ram=64 * MIB, nodes=2),
    KernelConfig(release="2.6", ram=16 * MIB, cpu_model="486"),
    KernelConfig(release="2.6", ram=64 * MIB),
    KernelConfig(release="2.6", ram=128 * MIB, highmem=Highmem.GB4, highmem_pages=8192),
    KernelConfig(release="2.6", ram=128 * MIB, highmem=Highmem.GB64, highmem_pages=8192),
    KernelConfig(release="2.6", ram=64 * MIB, nodes=2),
]


EITHER = pytest.mark.usefixtures("either_release")


def name(config: KernelConfig) -> str:
    machine = f"{config.ram // MIB}M-{config.cpu_model}-{config.highmem.value}-{config.nodes}"
    return f"{config.release}-{machine}"


@pytest.fixture(params=CONFIGS, ids=name)
def config(request: pytest.FixtureRequest) -> KernelConfig:
    return request.param


def guest(program: str, config: KernelConfig) -> Path:
    return guest_path(program, paging_variant(config))


@pytest.mark.book("3.6.1", "3.6.2")
def test_the_guest_boots_the_kernel(config: KernelConfig) -> None:
    machine = Machine(Kernel(config))
    assert machine.kernel.started
    control, features = machine.cpu.control, config.features
    assert control.paging
    assert control.write_protect
    assert control.cr3 == SWAPPER_PG_DIR
    expected = CR4_PSE * features.pse | CR4_PGE * features.pge | CR4_PAE * config.pae
    expected |= (X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT) * features.fxsr
    assert control.cr4 == expected == machine.kernel.statics.mmu_cr4_features


def entries(kernel: Kernel) -> list[int]:
    """The page directory; what the CPU notes there of its accesses does not count."""
    return [
        word & ~FLAGS_AD for word in memoryview(kernel.ram.read(SWAPPER_PG_DIR, 4096)).cast("I")
    ]


@pytest.mark.book("3.6.1")
def test_a_cpu_joins_a_kernel_that_is_up(config: KernelConfig) -> None:
    kernel = boot(config)
    directory = entries(kernel)
    machine = Machine(kernel)
    assert machine.cpu.control.cr3 == SWAPPER_PG_DIR
    assert kernel.processor is machine.cpu
    assert entries(kernel) == directory, "the low mapping is zapped again"
    assert machine.cpu.translate(0x1000) is None


@pytest.mark.book("4.1")
def test_the_split_holds_from_both_sides(config: KernelConfig) -> None:
    machine = Machine(Kernel(config), image=guest("split_test", config))
    assert machine.failures == []
    assert machine.exit_status == 0
    lines = machine.console.decode().splitlines()
    assert len(lines) == 27
    assert all(line.startswith("ok") for line in lines)


@pytest.mark.parametrize("release", RELEASES)
def test_a_planted_hole_in_the_split_is_found(release: str) -> None:
    """A kernel page that ring 3 may touch makes split_test fail."""
    kernel = boot(KernelConfig(release=release, ram=16 * MIB))
    entry = SWAPPER_PG_DIR + (0xC0000000 >> 22) * 4
    kernel.ram.write32(entry, kernel.ram.read32(entry) | 4)
    machine = Machine(kernel, image=guest("split_test", kernel.config))
    assert machine.exit_status == 3
    assert "kernel memory" in machine.failures


def test_guest_and_model_agree_on_every_structure(config: KernelConfig) -> None:
    machine = Machine(Kernel(config), image=guest("structs_check", config))
    assert machine.failures == []
    assert machine.exit_status == 0


@EITHER
def test_a_guest_for_another_build_is_noticed() -> None:
    config = KernelConfig(ram=16 * MIB)
    with pytest.raises(BadInput, match="ring 3"):
        Machine(Kernel(config), image=guest_path("hello"))
    with pytest.raises(BadInput, match="no symbol 'nothing'"):
        Machine(Kernel(config)).call("nothing")


@EITHER
def test_a_wild_call_ends_in_a_report() -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    with pytest.raises(GuestDied, match="#PF at 0x00000010, error code 0") as died:
        machine.call(0x10)
    report = died.value.report
    assert report.registers["eip"] == 0x10
    assert report.ring == 0
    assert any("PDE[0]" in line for line in report.walk)


@EITHER
def test_a_loop_is_stopped_by_its_limits() -> None:
    for limits in (Limits(instructions=100_000), Limits(seconds=0.2)):
        machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
        machine.ram.write(0x37F000, b"\xeb\xfe")
        machine.limits = limits
        with pytest.raises(GuestStopped):
            machine.call(0xC037F000)


@EITHER
def test_a_machine_whose_guest_ended_takes_no_calls() -> None:
    config = KernelConfig(ram=16 * MIB)
    machine = Machine(Kernel(config), image=guest("structs_check", config))
    with pytest.raises(MmucheckError, match="ended with status 0"):
        machine.call("kernel_return")
