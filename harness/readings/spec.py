# SPDX-License-Identifier: GPL-2.0-or-later
"""What the architecture says of an address space: the reference walk over RAM.

:class:`SpecView` holds one walk of everything (:mod:`harness.mmu_sweep`), spread over the pages,
and answers for single addresses by the scalar walk (:mod:`harness.mmu_spec`).

What can fail: registers of long mode raise
:class:`~harness.mmu_faults.UnsupportedPaging`.
"""

from typing import Final

import numpy as np

from harness.architecture import Access, ControlRegisters, Ring
from harness.cpu.interface import Cpu
from harness.mappings import I64, PAGE_SHIFT, Pages
from harness.mmu_faults import BadTable
from harness.mmu_spec import MmuFeatures, ReservedPdpte, Walk, check_pdptes, walk
from harness.mmu_sweep import sweep
from harness.paging_modes import PagingMode, paging_mode
from harness.readings.reading import UNSAID, Reading, read_pages
from kernel_model.config import CPU_MODELS
from kernel_model.ram import Ram

__all__ = ["NAME", "SpecView", "mmu_features"]

NAME: Final = "spec"
_PDPTE_SHIFT: Final = 30


def mmu_features(cpu: Cpu) -> MmuFeatures:
    """What the MMU of ``cpu`` offers: the spec is read with the CPU's own features.

    One with another width than Unicorn's says so in an attribute ``physical_bits``.
    """
    from harness.cpu.unicorn_cpu import PHYSICAL_BITS

    features = CPU_MODELS[cpu.model]
    width = getattr(cpu, "physical_bits", PHYSICAL_BITS)
    return MmuFeatures(physical_bits=width, nx=features.nx, pge=features.pge)


class SpecView:
    """One address space, walked at one moment."""

    def __init__(self, ram: Ram, registers: ControlRegisters, features: MmuFeatures) -> None:
        self.ram = ram
        self.registers = registers
        self.features = features
        self.mode: PagingMode | None = paging_mode(registers, features)
        self.mappings = sweep(np.frombuffer(ram.buffer, np.uint32), registers, features, ram.ranges)
        self.pages: Pages = self.mappings.pages()
        self.refused = self._refused_pdptes()

    def _refused_pdptes(self) -> tuple[ReservedPdpte, ...]:
        try:
            return check_pdptes(self.ram, self.registers, self.features)
        except BadTable:
            return ()

    @property
    def pages_per_directory_entry(self) -> int:
        """Pages of 4 KiB under one entry of the page directory."""
        if self.mode is None:
            return 1024
        return 1 << self.mode.levels[-2].shift - PAGE_SHIFT

    def reading(self, pages: I64) -> Reading:
        """The answers about ``pages``.

        Nothing is said of the pages under a PDPTE with address bits that the CPU does not have:
        the load of CR3 would have been refused.
        """
        reading = read_pages(NAME, self.pages, pages, self.registers)
        for pdpte in self.refused:
            if pdpte.reserved >> self.features.physical_bits:
                reading.answers[:, pages >> _PDPTE_SHIFT - PAGE_SHIFT == pdpte.index] = UNSAID
        return reading

    def table_absent(self, va: int) -> bool:
        """Whether the walk of ``va`` ends at an absent entry before it comes to a page table."""
        steps = self.walk(va).steps
        return bool(steps) and not steps[-1].present and steps[-1].level != "PTE"

    def walk(self, va: int, access: Access = Access.READ, ring: Ring = Ring.KERNEL) -> Walk:
        """The scalar walk, every step of it."""
        return walk(self.ram, self.registers, va, access, ring, self.features)
