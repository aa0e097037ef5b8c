# SPDX-License-Identifier: GPL-2.0-or-later
"""The ways between a frame, its ``struct page``, its physical and its kernel virtual address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, phys_to_virt, virt_to_phys
from kernel_model.config import Highmem, KernelConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.mmzone import ZONE_HIGHMEM, for_each_zone
from kernel_model.structs.mmzone import MAX_NR_ZONES

MIB = 1 << 20
KERNELS = {
    "uniform": boot(KernelConfig(ram=64 * MIB)),
    "highmem": boot(KernelConfig(ram=80 * MIB, highmem=Highmem.GB4, highmem_pages=4096)),
    "nodes": boot(KernelConfig(ram=96 * MIB, nodes=3)),
}


@pytest.mark.book("3.7.1")
@given(st.integers(0, 896 * MIB - 1))
def test_physical_and_kernel_virtual_addresses(paddr: int) -> None:
    assert phys_to_virt(paddr) == PAGE_OFFSET + paddr
    assert virt_to_phys(phys_to_virt(paddr)) == paddr


@pytest.mark.book("3.7.2", "2.4", "2.6")
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_frames_and_their_struct_page(kernel: Kernel) -> None:
    """Both ways, for the first, the last and some frames of every zone, against a sum by hand."""
    memmap, size = kernel.allocator.memmap, kernel.image.structs.page.size
    for zone in for_each_zone(kernel.image):
        node = kernel.image.at(kernel.image.structs.pg_data_t, zone.view.zone_pgdat)
        node_start = int(node.node_start_paddr) >> PAGE_SHIFT
        for pfn in (zone.start_pfn, zone.start_pfn + 77, zone.start_pfn + zone.size - 1):
            page = int(node.node_mem_map) + (pfn - node_start) * size
            assert memmap.page(pfn) == page
            assert memmap.pfn(page) == pfn
            assert memmap.zone_number(page) == zone.number
            assert kernel.allocator.page_zone(page).vaddr == zone.vaddr


@pytest.mark.book("3.7.2", "2.7")
def test_page_virtual_is_the_direct_map_and_nothing_in_high_memory() -> None:
    kernel = KERNELS["highmem"]
    word = kernel.image.structs.page.word("virtual")
    for zone in for_each_zone(kernel.image):
        pfn = zone.start_pfn + 5
        page = kernel.allocator.memmap.page(pfn)
        virtual = kernel.ram.words[kernel.allocator.memmap.word(page, word)]
        high = zone.number % MAX_NR_ZONES == ZONE_HIGHMEM
        assert virtual == (0 if high else phys_to_virt(pfn << PAGE_SHIFT))
