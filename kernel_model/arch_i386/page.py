# SPDX-License-Identifier: GPL-2.0-or-later
"""Page size and the split of the linear address space.

Models linux-2.4.22 ``include/asm-i386/page.h`` (book 3.7.1, 4.1). Pure arithmetic: nothing
is read, nothing can fail.
"""

from typing import Final

from kernel_model.ram import PAGE_SHIFT, PAGE_SIZE

__all__ = [
    "MAXMEM",
    "MAXMEM_PFN",
    "MAX_NONPAE_PFN",
    "PAGE_MASK",
    "PAGE_OFFSET",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "TASK_SIZE",
    "TASK_UNMAPPED_BASE",
    "VMALLOC_RESERVE",
    "page_align",
    "pfn_down",
    "pfn_up",
    "phys_to_virt",
    "virt_to_phys",
]

PAGE_MASK: Final = 0xFFFFF000
PAGE_OFFSET: Final = 0xC0000000
TASK_SIZE: Final = PAGE_OFFSET
TASK_UNMAPPED_BASE: Final = TASK_SIZE // 3
"""Where the search for room begins when a program names no address."""
VMALLOC_RESERVE: Final = 128 << 20
MAXMEM: Final = -PAGE_OFFSET - VMALLOC_RESERVE & 0xFFFFFFFF
"""Bytes of RAM that the kernel can map directly: 896 MiB."""
MAXMEM_PFN: Final = MAXMEM >> PAGE_SHIFT
MAX_NONPAE_PFN: Final = 1 << 20


def virt_to_phys(vaddr: int) -> int:
    """Physical address of a kernel virtual address in the direct map (``__pa``)."""
    return vaddr - PAGE_OFFSET


def phys_to_virt(paddr: int) -> int:
    """Kernel virtual address of a physical address below 896 MiB (``__va``)."""
    return paddr + PAGE_OFFSET


def page_align(length: int) -> int:
    """``PAGE_ALIGN``: whole pages; what is nearly 4 GiB becomes 0."""
    return length + PAGE_SIZE - 1 & PAGE_MASK


def pfn_up(paddr: int) -> int:
    """First PFN at or above a physical address (``PFN_UP``)."""
    return (paddr + PAGE_SIZE - 1) >> PAGE_SHIFT


def pfn_down(paddr: int) -> int:
    """PFN that holds a physical address (``PFN_DOWN``)."""
    return paddr >> PAGE_SHIFT
