# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels and CPUs with one fault each, for ``--mmu-backend planted_backends:NAME``."""

from typing import Any

from harness.conformance.subject import UnicornSubject
from harness.cpu.unicorn_cpu import UnicornCpu
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.ram import Ram

USER, WRITE, PRESENT, DIRTY = 4, 2, 1, 0x40


class Honest(Kernel):
    """Nothing is wrong with it."""


class UserBitLost(Kernel):
    """``set_pte()`` makes every page the kernel's."""

    def __init__(self, config: KernelConfig) -> None:
        super().__init__(config)
        set_pte = self.tables.set_pte
        self.tables.set_pte = lambda ptep, pte: set_pte(ptep, pte & ~USER)  # type: ignore[method-assign]


class OpenKernel(Kernel):
    """``pagetable_init()`` lets programs into the direct map."""

    def __init__(self, config: KernelConfig) -> None:
        super().__init__(config)
        set_pmd = self.tables.set_pmd
        self.tables.set_pmd = lambda pmdp, pmd: set_pmd(pmdp, pmd | USER if pmd else 0)  # type: ignore[method-assign]


class NoFlush(Kernel):
    """``flush_tlb_page()`` and ``flush_tlb_range()`` do nothing."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        self.tlb.flush_tlb_page = lambda mm, vaddr: None  # type: ignore[method-assign]
        self.tlb.flush_tlb_range = lambda mm, start, end: None  # type: ignore[method-assign]
        self.tlb.flush_tlb_mm = lambda mm: None  # type: ignore[method-assign]


class NoFlushOfKernelPages(Kernel):
    """``flush_tlb_all()``, which ``vfree()`` relies on, does nothing."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        self.tlb.flush_tlb_all = lambda: None  # type: ignore[method-assign]


class SharedForever(Kernel):
    """``copy_page_range()`` leaves the right to write to both sides."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        copy, tables = self.memory.copy_page_range, self.tables
        set_pte = tables.set_pte

        def copy_page_range(*arguments: Any) -> Any:
            tables.set_pte = lambda ptep, pte: set_pte(ptep, pte | WRITE)  # type: ignore[method-assign]
            try:
                return copy(*arguments)
            finally:
                tables.set_pte = set_pte  # type: ignore[method-assign]

        self.memory.copy_page_range = copy_page_range  # type: ignore[method-assign]


class KeepsPageTables(Kernel):
    """A page table is taken out of the directory, by ``pte_free()`` (2.4) or
    ``clear_page_range()`` (2.6), and kept."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        self.page_tables.pte_free = lambda pmdp: self.tables.set_pmd(pmdp, 0)  # type: ignore[method-assign]
        tables: Any = self.memory.tables
        detach = getattr(tables, "detach_table", None)

        def detach_table(pmdp: int) -> int:
            table: int = detach(pmdp)
            self.allocator.get_page(self.allocator.memmap.page(table >> 12))
            return table

        if detach is not None:
            tables.detach_table = detach_table


class ProtectsNothing(Kernel):
    """``sys_mprotect()`` says yes, and that is all."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        self.spaces.sys_mprotect = lambda start, length, prot: 0  # type: ignore[method-assign]


class KeepsAreas(Kernel):
    """``vfree()`` does nothing."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        self.vmalloc.vfree = lambda addr: None  # type: ignore[method-assign]


class LosesFrames(Kernel):
    """A block of order 2 that is freed is not."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        free = self.allocator.free_pages
        self.allocator.free_pages = lambda page, order: None if order == 2 else free(page, order)  # type: ignore[method-assign]


class GivesTwice(Kernel):
    """Every fiftieth object is given out again."""

    def start_kernel(self, *arguments: Any, **more: Any) -> None:
        super().start_kernel(*arguments, **more)
        slab, given = self.slab, []
        alloc = slab.kmem_cache_alloc

        def kmem_cache_alloc(cachep: int, flags: int) -> int:
            given.append((cachep, alloc(cachep, flags)))
            if len(given) % 50 == 0 and given[-2][0] == cachep:
                slab.kmem_cache_free(*given.pop())
            return given[-1][1]

        slab.kmem_cache_alloc = kmem_cache_alloc  # type: ignore[method-assign]


class LyingCpu(UnicornCpu):
    """Tells every fault's error code without W."""

    def __init__(self, ram: Ram, model: str = "pentium3") -> None:
        super().__init__(ram, model)
        deliver = self.on_trap
        self.on_trap = lambda vector, code, software: deliver(vector, code & ~2, software)


class DeafCpu(UnicornCpu):
    """INVLPG does nothing, as the kernel asks for it."""

    def flush_tlb_one(self, vaddr: int) -> None:
        """Nothing."""


def lying_subject() -> UnicornSubject:
    """The matrix alone, on the lying CPU."""
    from harness.conformance.subject import MODEL, conformance_ram

    return UnicornSubject(LyingCpu(conformance_ram(), MODEL))
