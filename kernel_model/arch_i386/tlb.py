# SPDX-License-Identifier: GPL-2.0-or-later
"""The TLB flush API.

Models linux-2.4.22 ``include/asm-i386/pgtable.h`` and ``pgalloc.h`` (book 3.8, table 3.2). The
flushes of caches are those of :mod:`~kernel_model.arch_i386.cacheflush`.
"""

from kernel_model.arch_i386.cacheflush import CacheFlush
from kernel_model.arch_i386.processor import X86_CR4_PGE, Processor
from kernel_model.image import KernelImage


class Tlb:
    """Flushes on the CPU that runs the kernel; ``mm`` is the address of a page directory."""

    def __init__(self, image: KernelImage, processor: Processor) -> None:
        self._statics = image.statics
        self.processor = processor
        self.caches = CacheFlush()

    def flush_tlb(self) -> None:
        """Drop the translations of the current address space (``local_flush_tlb``)."""
        self.processor.flush_tlb_all()

    def flush_tlb_all(self) -> None:
        """Drop everything, the kernel's global pages included."""
        if self._statics.mmu_cr4_features & X86_CR4_PGE:
            self.processor.flush_tlb_global()
        else:
            self.processor.flush_tlb_all()

    def flush_tlb_mm(self, mm: int) -> None:
        """Drop what belongs to ``mm``; nothing is cached of one that is not loaded."""
        if self.processor.read_cr3() == mm:
            self.processor.flush_tlb_all()

    def flush_tlb_range(self, mm: int, start: int, end: int) -> None:
        """Drop the user pages from ``start`` to ``end``. The i386 has no ranged flush."""
        self.flush_tlb_mm(mm)

    def flush_tlb_page(self, mm: int, vaddr: int) -> None:
        """Drop one page of ``mm``."""
        if self.processor.read_cr3() == mm:
            self.processor.flush_tlb_one(vaddr)

    def flush_tlb_pgtables(self, mm: int, start: int, end: int) -> None:
        """Page tables were freed: the i386 caches no upper levels by address, nothing to do."""

    def update_mmu_cache(self, vaddr: int, pte: int) -> None:
        """A PTE was set after a fault: the i386 loads its TLB by itself."""
