# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's final page tables, walked by the test itself, and when they are flushed."""

import numpy as np
import pytest

from kernel_model.arch_i386.fixmap import PKMAP_BASE, fixed_addresses
from kernel_model.arch_i386.layout import zone_sizes
from kernel_model.arch_i386.processor import (
    X86_CR4_OSFXSR,
    X86_CR4_OSXMMEXCPT,
    X86_CR4_PAE,
    X86_CR4_PGE,
    X86_CR4_PSE,
    NoProcessor,
)
from kernel_model.config import CPU_MODELS, MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel, boot

PAGE_OFFSET = 0xC0000000
SWAPPER = 0x101000
EMPTY_ZERO_PAGE = 0x104000
MACHINES = [
    (model, highmem)
    for model, features in CPU_MODELS.items()
    for highmem in Highmem
    if features.pae or highmem is not Highmem.GB64
]
ALL_MACHINES = pytest.mark.parametrize(("model", "highmem"), MACHINES)


def walk(kernel: Kernel, vaddr: int) -> tuple[int, int, int] | None:
    """(physical address, page size, entry) by the manual's rules; ``None`` if not present."""
    ram = kernel.ram
    if kernel.config.pae:
        pdpte = ram.read64(SWAPPER + (vaddr >> 30) * 8)
        if not pdpte & 1:
            return None
        levels, read, table, width = (21, 12), ram.read64, pdpte & ~0xFFF, 8
        masks = {21: 511, 12: 511}
    else:
        levels, read, table, width = (22, 12), ram.read32, SWAPPER, 4
        masks = {22: 1023, 12: 1023}
    for shift in levels:
        entry = read(table + (vaddr >> shift & masks[shift]) * width)
        if not entry & 1:
            return None
        if shift == 12 or entry & 0x80:
            size = 1 << shift
            return (entry & -size & 0xFFFFFF000) + (vaddr & size - 1), size, entry
        table = entry & 0xFFFFFF000
    raise AssertionError("a page table of page tables")


@ALL_MACHINES
@pytest.mark.parametrize("ram", [16, 37, 960])
@pytest.mark.book("3.6.2", "3.7.1")
def test_low_memory_is_mapped_at_3_gib_with_the_largest_pages_the_cpu_has(
    model: str, highmem: Highmem, ram: int
) -> None:
    kernel = boot(KernelConfig(ram=ram * MIB + 0x5000, cpu_model=model, highmem=highmem))
    features = kernel.config.features
    low = min(ram * MIB + 0x5000, 896 * MIB)
    large = 2 * MIB if highmem is Highmem.GB64 else 4 * MIB
    flags = 0x163 if not features.pse else 0x1E3 if features.pge else 0x0E3
    probes = {0, 0xFFF, 0x1000, 0x9F000, MIB, large - 1, large, low - 0x1000, low - 1}
    probes |= {int(at) for at in np.random.default_rng(7).integers(0, low, 40)}
    for paddr in sorted(probes):
        found = walk(kernel, PAGE_OFFSET + paddr)
        assert found is not None
        assert found[:2] == (paddr, large if features.pse else 4096)
        assert found[2] & 0xFFF == flags
    end = -(-low // large) * large if features.pse else low
    for beyond in (end, end + large, 900 * MIB):
        assert walk(kernel, PAGE_OFFSET + beyond) is None


@ALL_MACHINES
@pytest.mark.book("3.6.2", "4.1")
def test_after_boot_user_space_is_empty_and_null_faults(model: str, highmem: Highmem) -> None:
    kernel = boot(KernelConfig(cpu_model=model, highmem=highmem))
    for vaddr in (0, 0x1000, MIB, 0x8048000, 0x40000000, 0xBFFFFFFF):
        assert walk(kernel, vaddr) is None
    entries = (
        kernel.ram.table(SWAPPER, 4, np.uint64)[:3]
        if kernel.config.pae
        else kernel.ram.table(SWAPPER)[:768]
    )
    expected = EMPTY_ZERO_PAGE | 1 if kernel.config.pae else 0
    assert {int(entry) for entry in entries} == {expected}
    assert not any(kernel.ram.read(EMPTY_ZERO_PAGE, 4096))


@ALL_MACHINES
@pytest.mark.book("3.6.2")
def test_fixmap_and_kmap_have_empty_page_tables_and_the_rest_has_none(
    model: str, highmem: Highmem
) -> None:
    kernel = boot(KernelConfig(cpu_model=model, highmem=highmem, ram=20 * MIB))
    tables, large = kernel.tables, kernel.tables.shape.pmd_size
    fixed = fixed_addresses(kernel.config)
    with_table = set(range(fixed.lowest & -large, 1 << 32, large))
    if highmem is not Highmem.NONE:
        with_table.add(PKMAP_BASE)
    for vaddr in range(PAGE_OFFSET + 32 * MIB, 1 << 32, large):
        pmd = tables.entry(tables.pmd_offset(tables.pgd_offset(SWAPPER, vaddr), vaddr))
        if vaddr in with_table:
            assert pmd & 0xFFF == 0x063
            assert not any(kernel.ram.read(pmd & ~0xFFF, 4096))
        else:
            assert pmd == 0
    if highmem is not Highmem.NONE:
        pkmap = tables.pmd_offset(tables.pgd_offset(SWAPPER, PKMAP_BASE), PKMAP_BASE)
        table = tables.entry(pkmap) & ~0xFFF
        assert kernel.statics.pkmap_page_table == PAGE_OFFSET + table
        slot = fixed.slots["FIX_KMAP_BEGIN"]
        vaddr = 0xFFFFE000 - slot * 4096
        pmdp = tables.pmd_offset(tables.pgd_offset(SWAPPER, vaddr), vaddr)
        assert kernel.statics.kmap_pte == PAGE_OFFSET + tables.pte_offset(pmdp, vaddr)


def test_three_level_directories_are_whole_pages_of_boot_memory() -> None:
    kernel = boot(KernelConfig(highmem=Highmem.GB64))
    entries = [int(entry) for entry in kernel.ram.table(SWAPPER, 4, np.uint64)]
    assert entries[3] & 0xFFF == 1
    assert entries[3] & ~0xFFF != EMPTY_ZERO_PAGE
    assert not any(kernel.ram.table((entries[3] & ~0xFFF) + 64 * MIB // (2 * MIB) * 8, 100))


class Watcher(NoProcessor):
    """Notes every order to the CPU, and what the first user entry was at that time."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.orders: list[tuple[str, int]] = []

    def note(self, order: str) -> None:
        self.orders.append((order, self.kernel.ram.read32(SWAPPER)))

    def load_cr3(self, paddr: int) -> None:
        super().load_cr3(paddr)
        self.note("cr3")

    def flush_tlb_all(self) -> None:
        self.note("flush")

    def flush_tlb_global(self) -> None:
        self.note("flush global")


@ALL_MACHINES
@pytest.mark.book("3.6.2", "3.8")
def test_the_tlb_is_flushed_after_each_change_of_the_tables(model: str, highmem: Highmem) -> None:
    kernel = Kernel(KernelConfig(cpu_model=model, highmem=highmem))
    processor = Watcher(kernel)
    kernel.start_kernel(processor)
    features = kernel.config.features
    flush = "flush global" if features.pge else "flush"
    assert [order for order, _ in processor.orders] == ["cr3", flush, flush]
    (_, at_load), _, (_, at_end) = processor.orders
    assert at_load != 0
    assert at_end == (EMPTY_ZERO_PAGE | 1 if kernel.config.pae else 0)
    cr4 = features.pse * X86_CR4_PSE | features.pge * X86_CR4_PGE | kernel.config.pae * X86_CR4_PAE
    cr4 |= features.fxsr * (X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT)
    assert processor.read_cr4() == kernel.statics.mmu_cr4_features == cr4
    assert processor.read_cr3() == SWAPPER


@pytest.mark.book("3.6.2")
@pytest.mark.parametrize("highmem", list(Highmem))
def test_another_cpu_may_join_by_low_addresses_which_then_go_again(highmem: Highmem) -> None:
    kernel = boot(KernelConfig(highmem=highmem))
    kernel.prepare_secondary()
    for vaddr in (0, 0x106000, 4 * MIB, 8 * MIB - 1):
        low, high = walk(kernel, vaddr), walk(kernel, PAGE_OFFSET + vaddr)
        assert low == high
    processor = Watcher(kernel)
    kernel.attach(processor)
    assert walk(kernel, 0) is None
    assert [order for order, _ in processor.orders] == ["flush global"]
    assert kernel.processor is processor


def test_an_smp_kernel_with_no_other_cpu_yet_has_no_low_mapping_either() -> None:
    kernel = boot(KernelConfig(nr_cpus=2))
    assert walk(kernel, MIB) is None
    kernel.prepare_secondary()
    assert walk(kernel, MIB) == walk(kernel, PAGE_OFFSET + MIB)
    kernel.attach(NoProcessor())
    assert walk(kernel, MIB) is None


@pytest.mark.book("2.2.2", "2.3")
@pytest.mark.parametrize(
    ("low", "high", "sizes"),
    [
        (15, 15, (15, 0, 0)),
        (16, 16, (16, 0, 0)),
        (17, 17, (16, 1, 0)),
        (896, 896, (16, 880, 0)),
        (896, 4096, (16, 880, 3200)),
        (15, 100, (15, 0, 0)),
        (64, 100, (16, 48, 36)),
    ],
)
def test_zones_are_cut_at_16_mib_and_at_the_end_of_low_memory(
    low: int, high: int, sizes: tuple[int, int, int]
) -> None:
    found = [frames >> 8 for frames in zone_sizes(low << 8, high << 8)]
    assert tuple(found) == sizes


@pytest.mark.book("5.6")
@pytest.mark.parametrize("highmem", list(Highmem))
def test_the_totals_add_up(highmem: Highmem) -> None:
    kernel = Kernel(KernelConfig(ram=1100 * MIB, highmem=highmem))
    kernel.start_kernel(until="mem_init")
    statics = kernel.statics
    high = 0 if highmem is Highmem.NONE else 204 * 256
    assert statics.totalhigh_pages == high
    assert statics.totalram_pages == kernel.allocator.nr_free_pages()
    assert statics.num_physpages == statics.max_mapnr == 896 * 256 + high
    assert statics.num_mappedpages == statics.max_low_pfn == 896 * 256
    assert statics.high_memory == 0xF8000000
    if high:
        memmap = kernel.allocator.memmap
        assert memmap.pfn(statics.highmem_start_page) == 896 * 256
