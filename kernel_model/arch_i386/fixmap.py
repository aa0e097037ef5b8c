# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses fixed at compile time at the top of the linear address space.

Models linux-2.4.22 and linux-2.6.11 ``include/asm-i386/fixmap.h``, ``highmem.h`` (PKMAP) and
the end of vmalloc space in ``pgtable.h`` (book 3.6.2, 4.1). Slot 0 lies highest: slot n is at
``FIXADDR_TOP - n * PAGE_SIZE``. Which slots exist depends on the kernel's build; the order is
data, in :func:`fixed_addresses`. In 2.6 the kmap window lies right below the slots, in 2.4 it has a
place of its own.
"""

from dataclasses import dataclass
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.config import Highmem, KernelConfig

FIXADDR_TOP: Final = 0xFFFFE000
"""Of 2.4. One page higher in 2.6, whose slot 0 is a hole instead."""
PKMAP_BASE: Final = 0xFE000000
"""Of 2.4. In 2.6 it depends on the slots: :attr:`FixedAddresses.pkmap_base`."""
VMALLOC_OFFSET: Final = 8 << 20
MAX_IO_APICS: Final = 8
KM_TYPE_NR: Final = 8
NR_FIX_BTMAPS: Final = 16


@dataclass(frozen=True, slots=True)
class FixmapPlan:
    """What a release decides about its fixed addresses."""

    top: int
    """``FIXADDR_TOP``."""
    first: tuple[str, ...]
    """Slots that every build has, before all others."""
    last: tuple[str, ...]
    """Slots behind those for ``ioremap()`` during boot."""
    km_type_nr: int
    """``KM_TYPE_NR``: slots of ``kmap_atomic()`` for each CPU."""
    pkmap_base: int
    """Where the kmap window begins; 0: right below the slots."""


PLANS: Final = {
    "2.4": FixmapPlan(FIXADDR_TOP, (), (), KM_TYPE_NR, PKMAP_BASE),
    "2.6": FixmapPlan(0xFFFFF000, ("FIX_HOLE", "FIX_VSYSCALL"), ("FIX_WP_TEST",), 13, 0),
}


@dataclass(frozen=True, slots=True)
class FixedAddresses:
    """The ``enum fixed_addresses`` of one build: first slot of each name, and the ends."""

    slots: dict[str, int]
    end_of_permanent: int
    end: int
    plan: FixmapPlan
    pae: bool

    def to_virt(self, slot: int) -> int:
        """Linear address of a slot (``__fix_to_virt``)."""
        return self.plan.top - (slot << PAGE_SHIFT)

    @property
    def start(self) -> int:
        """``FIXADDR_START``: lowest permanent fixed address."""
        return self.plan.top - (self.end_of_permanent << PAGE_SHIFT)

    @property
    def lowest(self) -> int:
        """Linear address of the last slot, the boot-time ones included."""
        return self.to_virt(self.end - 1)

    @property
    def pkmap_base(self) -> int:
        """``PKMAP_BASE``: a page table's worth of addresses, from where a page table begins."""
        if self.plan.pkmap_base:
            return self.plan.pkmap_base
        pages = last_pkmap(self.pae)
        boot_start = self.plan.top - (self.end << PAGE_SHIFT)
        return boot_start - (pages + 1) * PAGE_SIZE & -(pages << PAGE_SHIFT)


def fixed_addresses(config: KernelConfig) -> FixedAddresses:
    """Which slots the kernel's build has, in order."""
    highmem = config.highmem is not Highmem.NONE
    apic = config.apic or config.smp
    plan = PLANS[config.release]
    permanent = (
        *((name, 1) for name in plan.first),
        ("FIX_APIC_BASE", 1 if apic else 0),
        ("FIX_IO_APIC_BASE_0", MAX_IO_APICS if apic else 0),
        ("FIX_F00F_IDT", 1 if config.f00f_bug else 0),
        ("FIX_KMAP_BEGIN", plan.km_type_nr * config.nr_cpus if highmem else 0),
    )
    slots: dict[str, int] = {}
    position = 0
    for name, count in permanent:
        if count:
            slots[name] = position
        position += count
    slots["FIX_BTMAP_END"] = position
    slots["FIX_BTMAP_BEGIN"] = position + NR_FIX_BTMAPS - 1
    end = position + NR_FIX_BTMAPS
    slots |= {name: end + number for number, name in enumerate(plan.last)}
    return FixedAddresses(slots, position, end + len(plan.last), plan, config.pae)


def last_pkmap(pae: bool) -> int:
    """``LAST_PKMAP``: pages in the window for ``kmap()``, one page table's worth."""
    return 512 if pae else 1024


def vmalloc_end(config: KernelConfig) -> int:
    """``VMALLOC_END``: two pages below the kmap window, or below the fixed addresses."""
    fixed = fixed_addresses(config)
    below = fixed.start if config.highmem is Highmem.NONE else fixed.pkmap_base
    return below - 2 * PAGE_SIZE


def vmalloc_start(high_memory: int) -> int:
    """``VMALLOC_START``: a gap of at least 8 MiB above the direct map, then 8 MiB aligned."""
    return high_memory + 2 * VMALLOC_OFFSET - 1 & ~(VMALLOC_OFFSET - 1)
