# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel with a little high memory, and a TLB that never forgets as its witness.

Where an address leads is read by the reference walk, not by the model's page-table code.
"""

from harness.architecture import ControlRegisters
from harness.mmu_spec import walk
from kernel_model.arch_i386.highmem import HighMemory
from kernel_model.arch_i386.processor import NoProcessor
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel

PAGE = 4096
CR0_PG_WP_PE = 0x80010001
WINDOW = {Highmem.GB4: 1024, Highmem.GB64: 512}
"""Pages of the PKMAP window: one page table."""


class RememberingTlb(NoProcessor):
    """A CPU whose TLB drops nothing but what it is told to. Every page it holds is global."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[int, int] = {}
        self.flushes: list[str] = []

    def flush_tlb_one(self, vaddr: int) -> None:
        self.flushes.append(f"one {vaddr:#x}")
        self.pages.pop(vaddr, None)

    def flush_tlb_all(self) -> None:
        self.flushes.append("all")
        if not self.read_cr4() & 0x80:
            self.pages.clear()

    def flush_tlb_global(self) -> None:
        self.flushes.append("global")
        self.pages.clear()


class HighmemKernel:
    """A booted kernel of 16 MiB high memory, and what its CPU sees."""

    def __init__(self, highmem: Highmem = Highmem.GB4, **choices: object) -> None:
        fields = {"ram": 96 * MIB, "highmem": highmem, "highmem_pages": 4096} | choices
        self.tlb = RememberingTlb()
        self.kernel = Kernel(KernelConfig(**fields))  # type: ignore[arg-type]
        self.kernel.start_kernel(self.tlb)
        assert isinstance(self.kernel.highmem, HighMemory)
        self.highmem = self.kernel.highmem
        self.pkmaps = self.highmem.pkmaps
        self.memmap = self.kernel.allocator.memmap
        self.tlb.flushes.clear()

    def page(self, number: int) -> int:
        """The high frame with this number, from the start of high memory."""
        return self.memmap.page(int(self.kernel.statics.highstart_pfn) + number)

    def walk(self, vaddr: int) -> int | None:
        """The PFN that ``vaddr`` leads to by the page tables, None for a fault."""
        registers = ControlRegisters(CR0_PG_WP_PE, self.tlb.read_cr3(), self.tlb.read_cr4(), 0)
        paddr = walk(self.kernel.ram, registers, vaddr).paddr
        return None if paddr is None else paddr >> 12

    def access(self, vaddr: int) -> int | None:
        """The PFN that the CPU reaches at ``vaddr``; it remembers where that was."""
        if vaddr not in self.tlb.pages and (pfn := self.walk(vaddr)) is not None:
            self.tlb.pages[vaddr] = pfn
        return self.tlb.pages.get(vaddr)

    def fill_window(self) -> list[int]:
        """Give every entry of the window a user; returns the pages."""
        pages = [self.page(number) for number in range(WINDOW[self.kernel.config.highmem])]
        for page in pages:
            self.highmem.kmap(page)
        return pages
