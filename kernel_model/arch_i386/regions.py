# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel means its quarter of the address space to hold.

Models the picture of book 4.1 (the linear address space): the direct map, the vmalloc range,
the kmap window, the fixed addresses. The answer comes from the kernel's limits and records,
never from page tables, for it is what page tables are compared with.
"""

from dataclasses import dataclass

from kernel_model.arch_i386.fixmap import FixedAddresses
from kernel_model.arch_i386.page import MAXMEM, PAGE_OFFSET, PAGE_SHIFT
from kernel_model.arch_i386.pgtable import THREE_LEVEL, TWO_LEVEL
from kernel_model.events import Rights
from kernel_model.image import KernelImage


@dataclass(frozen=True, slots=True)
class KernelMapping:
    """``size`` bytes at ``vaddr`` that mean the RAM (or the device) at ``paddr``."""

    vaddr: int
    paddr: int
    size: int
    rights: Rights
    purpose: str


def direct_map(image: KernelImage) -> KernelMapping:
    """Low memory at PAGE_OFFSET.

    It ends where low memory ends; made of large pages, it runs on to the end of the last of
    them, over addresses where there may be no RAM.
    """
    end = int(image.statics.max_low_pfn) << PAGE_SHIFT
    if image.config.features.pse:
        large = (THREE_LEVEL if image.config.pae else TWO_LEVEL).pmd_size
        end = -(-end // large) * large
    return KernelMapping(
        PAGE_OFFSET, 0, min(end, MAXMEM), Rights(write=True, user=False), "direct map"
    )


def kernel_mappings(image: KernelImage, fixed: FixedAddresses) -> list[KernelMapping]:
    """All that a freshly booted kernel has mapped: its slots above are still empty."""
    return [direct_map(image)]
