# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmalloc fault without a CPU: which faults it serves, and what it writes where.

Entries are read straight from RAM, at addresses worked out here from the Intel manual's index
bits.
"""

import pytest

from kernel_model.arch_i386.fault import FaultKind
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel, boot

SHAPES = pytest.mark.parametrize(
    "highmem", [Highmem.NONE, Highmem.GB4, Highmem.GB64], ids=["nohm", "hm", "pae"]
)
TABLE = 4 * MIB
REGS = 0xC0380000 - 60
"""Where a trap from ring 3 leaves its registers on the first process's stack; all zero here."""


def booted(highmem: Highmem = Highmem.NONE, **choices: object) -> Kernel:
    return boot(KernelConfig(ram=32 * MIB, highmem=highmem, **choices))  # type: ignore[arg-type]


def directory_entry(kernel: Kernel, directory: int, va: int) -> int:
    """The entry that hangs a page table into ``directory``: of two levels the only one."""
    if not kernel.config.pae:
        return kernel.ram.read32(directory + (va >> 22) * 4)
    middle = kernel.ram.read64(directory + (va >> 30) * 8) & ~0xFFF
    return kernel.ram.read64(middle + (va >> 21 & 511) * 8)


def new_area(kernel: Kernel) -> int:
    """8 KiB under a page-directory entry of their own, high up in the vmalloc range."""
    taken = kernel.vmalloc.get_vm_area(3 * TABLE, 1)
    addr = kernel.vmalloc.vmalloc(8192)
    assert taken >> 22 < addr >> 22
    return addr


@pytest.mark.book("7.2", "4.6")
@pytest.mark.parametrize("highmem", [Highmem.NONE, Highmem.GB4], ids=["nohm", "hm"])
def test_the_entry_is_copied_and_nothing_else(highmem: Highmem) -> None:
    kernel = booted(highmem)
    pgd = kernel.page_tables.pgd_alloc()
    addr = new_area(kernel)
    before = bytearray(kernel.ram.read(pgd, 4096))
    kernel.processor.load_cr3(pgd)
    assert kernel.page_faults.do_page_fault(REGS, 0, addr + 0x123) is FaultKind.VMALLOC
    slot = (addr >> 22) * 4
    before[slot : slot + 4] = kernel.ram.read(SWAPPER_PG_DIR + slot, 4)
    assert bytes(before[slot : slot + 4]) != bytes(4)
    assert kernel.ram.read(pgd, 4096) == before, "more than one entry has changed"
    assert kernel.page_faults.do_page_fault(REGS, 2, addr) is FaultKind.VMALLOC, (
        "again, as on 2 CPUs"
    )


@pytest.mark.book("7.2")
def test_pae_directories_share_the_middle_directory() -> None:
    """One entry holds the whole kernel part: what vmalloc adds is there without a fault."""
    kernel = booted(Highmem.GB64)
    pgd = kernel.page_tables.pgd_alloc()
    addr = new_area(kernel)
    assert directory_entry(kernel, pgd, addr) == directory_entry(kernel, SWAPPER_PG_DIR, addr) != 0


@pytest.mark.book("7.2")
def test_pae_fills_both_levels_of_a_directory_with_its_own() -> None:
    kernel = booted(Highmem.GB64)
    addr = new_area(kernel)
    kernel.ram.fill(8 * MIB, 4096)
    kernel.processor.load_cr3(8 * MIB + 0x20)
    assert kernel.page_faults.do_page_fault(REGS, 0, addr) is FaultKind.VMALLOC
    assert kernel.ram.read64(8 * MIB + 0x20 + 24) == kernel.ram.read64(SWAPPER_PG_DIR + 24)
    own = 9 * MIB
    kernel.ram.fill(own, 4096)
    kernel.ram.write64(8 * MIB + 0x20 + 24, own | 1)
    assert kernel.page_faults.do_page_fault(REGS, 0, addr) is FaultKind.VMALLOC
    assert directory_entry(kernel, 8 * MIB + 0x20, addr) != 0


@SHAPES
@pytest.mark.book("4.6")
@pytest.mark.parametrize("error_code", range(8))
def test_only_an_absent_page_touched_by_ring_0_is_served(highmem: Highmem, error_code: int) -> None:
    kernel = booted(highmem)
    pgd = kernel.page_tables.pgd_alloc()
    addr = new_area(kernel)
    kernel.processor.load_cr3(pgd)
    before = directory_entry(kernel, pgd, addr)
    served = kernel.page_faults.do_page_fault(REGS, error_code, addr)
    assert (served is FaultKind.VMALLOC) == (error_code in (0, 2))
    if served is not FaultKind.VMALLOC:
        assert directory_entry(kernel, pgd, addr) == before


@SHAPES
def test_user_addresses_are_not_the_kernels_to_mend(highmem: Highmem) -> None:
    kernel = booted(highmem)
    pgd = kernel.page_tables.pgd_alloc()
    kernel.processor.load_cr3(pgd)
    before = kernel.ram.read(pgd, 4096)
    for address in (0, 0x08048000, 0xBFFFFFFF):
        assert kernel.page_faults.do_page_fault(REGS, 0, address) is FaultKind.OOPS
    assert kernel.ram.read(pgd, 4096) == before


@SHAPES
def test_what_init_mm_does_not_map_is_an_error(highmem: Highmem) -> None:
    kernel = booted(highmem)
    pgd = kernel.page_tables.pgd_alloc()
    addr = new_area(kernel)
    kernel.processor.load_cr3(pgd)
    faults = kernel.page_faults
    assert faults.do_page_fault(REGS, 0, addr + 4 * TABLE) is FaultKind.OOPS, "no table"
    assert faults.do_page_fault(REGS, 0, addr + 8192) is FaultKind.OOPS, "the guard page"
    kernel.vmalloc.vfree(addr)
    assert faults.do_page_fault(REGS, 0, addr) is FaultKind.OOPS, "a freed page"
    assert faults.do_page_fault(REGS, 2, 0xFFFFF000) is FaultKind.OOPS, "the last page"


def test_two_levels_drop_a_stale_entry_on_the_way_to_the_oops() -> None:
    """The copy comes before the check, as a folded middle directory is always present."""
    kernel = booted()
    pgd = kernel.page_tables.pgd_alloc()
    kernel.processor.load_cr3(pgd)
    kernel.ram.write32(pgd + 0x3E0 * 4, 0x00800062)
    assert kernel.page_faults.do_page_fault(REGS, 0, 0xF8000000) is FaultKind.OOPS
    assert directory_entry(kernel, pgd, 0xF8000000) == 0


@pytest.mark.parametrize("highmem", [Highmem.NONE, Highmem.GB64], ids=["nohm", "pae"])
def test_a_large_page_has_no_page_table(highmem: Highmem) -> None:
    """Its bytes are not taken for entries, whatever they hold."""
    kernel = booted(highmem)
    kernel.ram.fill(24 * MIB, 4 * MIB, 0xFF)
    pgd = kernel.page_tables.pgd_alloc()
    kernel.processor.load_cr3(pgd)
    assert directory_entry(kernel, pgd, 0xC1800000) & 0x80
    assert kernel.page_faults.do_page_fault(REGS, 0, 0xC1800000) is FaultKind.OOPS
