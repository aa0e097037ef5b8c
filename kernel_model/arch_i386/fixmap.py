# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses fixed at compile time at the top of the linear address space.

Models linux-2.4.22 ``include/asm-i386/fixmap.h``, ``highmem.h`` (PKMAP) and the end of
vmalloc space in ``pgtable.h`` (book 3.6.2, 4.1). Slot 0 lies highest: slot n is at
``FIXADDR_TOP - n * PAGE_SIZE``. Which slots exist depends on the kernel's build; the order is
data, in :func:`fixed_addresses`.
"""

from dataclasses import dataclass
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.config import Highmem, KernelConfig

FIXADDR_TOP: Final = 0xFFFFE000
PKMAP_BASE: Final = 0xFE000000
VMALLOC_OFFSET: Final = 8 << 20
MAX_IO_APICS: Final = 8
KM_TYPE_NR: Final = 8
NR_FIX_BTMAPS: Final = 16


def fix_to_virt(slot: int) -> int:
    """Linear address of a slot (``__fix_to_virt``)."""
    return FIXADDR_TOP - (slot << PAGE_SHIFT)


@dataclass(frozen=True, slots=True)
class FixedAddresses:
    """The ``enum fixed_addresses`` of one build: first slot of each name, and the ends."""

    slots: dict[str, int]
    end_of_permanent: int
    end: int

    @property
    def start(self) -> int:
        """``FIXADDR_START``: lowest permanent fixed address."""
        return FIXADDR_TOP - (self.end_of_permanent << PAGE_SHIFT)

    @property
    def lowest(self) -> int:
        """Linear address of the last slot, the boot-time ones included."""
        return fix_to_virt(self.end - 1)


def fixed_addresses(config: KernelConfig) -> FixedAddresses:
    """Which slots the kernel's build has, in order."""
    highmem = config.highmem is not Highmem.NONE
    apic = config.apic or config.smp
    permanent = (
        ("FIX_APIC_BASE", 1 if apic else 0),
        ("FIX_IO_APIC_BASE_0", MAX_IO_APICS if apic else 0),
        ("FIX_F00F_IDT", 1 if config.f00f_bug else 0),
        ("FIX_KMAP_BEGIN", KM_TYPE_NR * config.nr_cpus if highmem else 0),
    )
    slots: dict[str, int] = {}
    position = 0
    for name, count in permanent:
        if count:
            slots[name] = position
        position += count
    slots["FIX_BTMAP_END"] = position
    slots["FIX_BTMAP_BEGIN"] = position + NR_FIX_BTMAPS - 1
    return FixedAddresses(slots, position, position + NR_FIX_BTMAPS)


def last_pkmap(pae: bool) -> int:
    """``LAST_PKMAP``: pages in the window for ``kmap()``, one page table's worth."""
    return 512 if pae else 1024


def vmalloc_end(config: KernelConfig) -> int:
    """``VMALLOC_END``: two pages below the kmap window, or below the fixed addresses."""
    if config.highmem is not Highmem.NONE:
        return PKMAP_BASE - 2 * PAGE_SIZE
    return fixed_addresses(config).start - 2 * PAGE_SIZE


def vmalloc_start(high_memory: int) -> int:
    """``VMALLOC_START``: a gap of at least 8 MiB above the direct map, then 8 MiB aligned."""
    return high_memory + 2 * VMALLOC_OFFSET - 1 & ~(VMALLOC_OFFSET - 1)
