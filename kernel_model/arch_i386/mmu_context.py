# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing the address space that the CPU works in.

Models linux-2.4.22 ``include/asm-i386/mmu_context.h`` (book 4.1, 4.3): ``switch_mm()`` loads CR3,
which drops the translations of the old space; a thread of the kernel has none of its own and goes
on with the last one, lazily. In RAM: ``mm->cpu_vm_mask``, the CPUs that have the space loaded.
Nothing here can fail.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage


class MmuContext:
    """Address spaces as the CPU has them loaded; an ``mm`` is a kernel virtual address."""

    def __init__(self, image: KernelImage, tlb: Tlb) -> None:
        self._image = image
        self._words = image.ram.words
        self.tlb = tlb
        mm = image.structs.mm_struct
        self._pgd, self._cpu_vm_mask = mm.word("pgd"), mm.word("cpu_vm_mask")

    def switch_mm(self, prev: int, following: int) -> None:
        """Load ``following`` instead of ``prev``; nothing to do if it is the same."""
        if prev == following:
            return
        cpu = 1 << int(self._image.current_task.processor)
        words = self._words
        words[(prev - PAGE_OFFSET >> 2) + self._cpu_vm_mask] &= ~cpu
        at = following - PAGE_OFFSET >> 2
        words[at + self._cpu_vm_mask] |= cpu
        self.tlb.processor.load_cr3(virt_to_phys(words[at + self._pgd]))

    def activate_mm(self, prev: int, following: int) -> None:
        """A process gets another address space (``exec``)."""
        self.switch_mm(prev, following)

    def enter_lazy_tlb(self, mm: int) -> None:
        """A thread of the kernel borrows ``mm``: it stays loaded, and a uniprocessor has nothing
        to write down."""
