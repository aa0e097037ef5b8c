# SPDX-License-Identifier: GPL-2.0-or-later
"""The provisional page tables, seen through a walk of the test's own."""

import pytest

from kernel_model.arch_i386.head import startup_32
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.ram import Ram


def walk(ram: Ram, vaddr: int) -> tuple[int, int] | None:
    """(physical address, flags of both levels combined) through 0x101000, two levels."""
    pde = ram.read32(0x101000 + (vaddr >> 22) * 4)
    if not pde & 1:
        return None
    pte = ram.read32((pde & ~0xFFF) + (vaddr >> 12 & 0x3FF) * 4)
    return ((pte & ~0xFFF) + (vaddr & 0xFFF), pde & pte & 7) if pte & 1 else None


@pytest.mark.book("3.6.1")
@pytest.mark.parametrize("highmem", list(Highmem))
def test_the_first_8_mib_appear_at_0_and_at_3_gib_and_nothing_else_does(highmem: Highmem) -> None:
    ram = Kernel(KernelConfig(highmem=highmem)).ram
    for start in (0, 0xC0000000):
        for offset in range(0, 8 * MIB, 4096):
            assert walk(ram, start + offset) == (offset, 7)
    for pde in set(range(1024)) - {0, 1, 768, 769}:
        assert walk(ram, pde << 22) is None
        assert ram.read32(0x101000 + pde * 4) == 0


def test_a_dirty_directory_is_cleaned_and_nothing_else_touched() -> None:
    ram = Ram(8 * MIB)
    ram.fill(0, 8 * MIB, 0xFF)
    startup_32(ram)
    assert ram.read(0, 0x101000) == b"\xff" * 0x101000
    assert ram.read(0x104000, 0x10000) == b"\xff" * 0x10000
    assert sum(1 for entry in ram.table(0x101000) if entry) == 4


@pytest.mark.book("3.6.1")
def test_boot_replaces_none_of_the_provisional_tables_themselves() -> None:
    kernel = Kernel(KernelConfig(cpu_model="486"))
    before = kernel.ram.read(0x102000, 0x2000)
    kernel.start_kernel()
    assert kernel.ram.read(0x102000, 0x2000) == before
