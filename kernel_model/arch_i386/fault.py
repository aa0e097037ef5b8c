# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults: what the kernel makes of one, and whether the instruction may run again.

Models linux-2.4.22 ``arch/i386/mm/fault.c: do_page_fault()`` (book 4.5, 4.6, 7.2). A fault of a
process is held against its VMAs, and ends with a page, a signal, or a killed process; one of the
kernel that its exception table knows goes on at the fixup; any other is an oops, in the kernel's
log. The vmalloc fault: a new entry of the kernel's part goes into ``swapper_pg_dir`` alone, and
every other page directory gets it when code of ring 0 first touches an address below it while
that directory is loaded.

In RAM: ``thread.cr2``, ``error_code`` and ``trap_no``, ``min_flt`` and ``maj_flt`` of the current
process; the saved registers, whose EIP a fixup changes; page directories. Nothing here raises.
"""

import enum
from collections.abc import Callable
from typing import Final, Protocol

from kernel_model.arch_i386.extable import ExceptionTable
from kernel_model.arch_i386.oops import OopsReport
from kernel_model.arch_i386.page import PAGE_OFFSET, TASK_SIZE
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import pmd_large, pmd_present, pte_present
from kernel_model.arch_i386.signal import (
    BUS_ADRERR,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SIGBUS,
    SIGKILL,
    SIGSEGV,
    SigInfo,
)
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.memory.fault import Fault
from kernel_model.structs.mm import VM_EXEC, VM_GROWSDOWN, VM_READ, VM_WRITE
from kernel_model.structs.ptrace import PT_REGS

__all__ = ["ERROR_PROTECTION", "ERROR_USER", "ERROR_WRITE", "FaultKind", "PageFaults"]

ERROR_PROTECTION: Final = 1 << 0
"""Bit 0 of the error code: the page is there, and may not be used so."""
ERROR_WRITE: Final = 1 << 1
ERROR_USER: Final = 1 << 2
STACK_SLACK: Final = 32
"""How far below ESP a program may touch its stack: ``enter`` and ``pusha`` do so."""
PID_INIT: Final = 1
_PAGE_FAULT: Final = 14
_EIP: Final = PT_REGS.word("eip")
_ESP: Final = PT_REGS.word("esp")


_SERVED: Final = frozenset({"vmalloc fault", "minor fault", "major fault", "fixup"})


class FaultKind(enum.Enum):
    """What became of a fault."""

    VMALLOC = "vmalloc fault"
    MINOR = "minor fault"
    MAJOR = "major fault"
    FIXUP = "fixup"
    SIGNAL = "signal"
    KILLED = "killed for lack of memory"
    OOPS = "oops"

    # Each member exists once, so its identity will do: an enum's own hash is Python code.
    __hash__ = object.__hash__

    def __init__(self, text: str) -> None:
        self.served = text in _SERVED
        """Whether the code that faulted goes on, there or at its fixup."""


class UserSpace(Protocol):
    """The VMAs of the machine."""

    @property
    def find_vma(self) -> Callable[[int, int], int]:
        """``(mm, address)``: the first VMA that ends above it."""

    @property
    def expand_stack(self) -> Callable[[int, int], int]:
        """``(vma, address)``: let a VMA grow down to it; nonzero: it may not."""


HandleMmFault = Callable[[int, int, int, bool], Fault]


class PageFaults:
    """The page-fault handler of one machine."""

    def __init__(
        self,
        image: KernelImage,
        tables: PageTables,
        tlb: Tlb,
        spaces: UserSpace,
        handle_mm_fault: HandleMmFault,
        exception_table: ExceptionTable,
        yield_cpu: Callable[[], None],
    ) -> None:
        self._image = image
        self._words = image.ram.words
        self._events = image.events
        self._tables = tables
        self._tlb = tlb
        self._find_vma, self._expand_stack = spaces.find_vma, spaces.expand_stack
        self._handle_mm_fault = handle_mm_fault
        self._exception_table = exception_table
        self._yield_cpu = yield_cpu
        self._oops = OopsReport(image)
        self.stack_growths = 0
        """How often a stack has grown."""
        self.force_sig_info: Callable[[SigInfo], None] = lambda info: None
        """Called with what a process gets for its fault."""
        task, vma = image.structs.task_struct, image.structs.vm_area_struct
        self._mm, self._min_flt = task.word("mm"), task.word("min_flt")
        self._maj_flt = task.word("maj_flt")
        self._vm_start, self._vm_flags = vma.word("vm_start"), vma.word("vm_flags")

    def do_page_fault(self, regs: int, error_code: int, address: int) -> FaultKind:
        """Deal with the fault at ``address``; ``regs`` is the ``struct pt_regs *`` it left.

        Only an absent page touched by ring 0 can be the kernel's own to mend. Ring 3 must not be
        able to fill entries of the kernel's part, and a protection fault says that they are there.
        """
        if address >= TASK_SIZE and not error_code & (ERROR_PROTECTION | ERROR_USER):
            if self._vmalloc_fault(address):
                return FaultKind.VMALLOC
            return self._no_context(regs, error_code, address)
        words = self._words
        mm = self._serving_mm()
        if not mm:
            return self._without_mm(regs, error_code, address)
        vma = self._find_vma(mm, address)
        if not vma:
            return self._bad_area(regs, error_code, address, SEGV_MAPERR)
        at = vma - PAGE_OFFSET >> 2
        if words[at + self._vm_start] > address and not self._grows(regs, error_code, vma, address):
            return self._bad_area(regs, error_code, address, SEGV_MAPERR)
        write = error_code & ERROR_WRITE
        # A read of a page that is there can only fail for its rights, whatever the VMA says.
        wanted = VM_WRITE if write else VM_READ | VM_EXEC
        if not words[at + self._vm_flags] & wanted or error_code & 3 == ERROR_PROTECTION:
            return self._bad_area(regs, error_code, address, SEGV_ACCERR)
        return self._good_area(mm, vma, regs, error_code, address)

    def _serving_mm(self) -> int:
        """The address space in which a fault may be served now; 0: there is none."""
        return self._words[(self._image.current - PAGE_OFFSET >> 2) + self._mm]

    def _without_mm(self, regs: int, error_code: int, address: int) -> FaultKind:
        """A fault of a low address in a kernel thread."""
        return self._no_context(regs, error_code, address)

    def _grows(self, regs: int, error_code: int, vma: int, address: int) -> bool:
        """Whether the address lies below a stack that grows down to it now."""
        if not self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags] & VM_GROWSDOWN:
            return False
        esp = self._words[(regs - PAGE_OFFSET >> 2) + _ESP] if error_code & ERROR_USER else 0
        grown = address + STACK_SLACK >= esp and not self._expand_stack(vma, address)
        self.stack_growths += grown
        return grown

    def _good_area(self, mm: int, vma: int, regs: int, error_code: int, address: int) -> FaultKind:
        task = self._image.current - PAGE_OFFSET >> 2
        while True:
            fault = self._handle_mm_fault(mm, vma, address, bool(error_code & ERROR_WRITE))
            if fault is Fault.MINOR:
                self._words[task + self._min_flt] += 1
                return FaultKind.MINOR
            if fault is Fault.MAJOR:
                self._words[task + self._maj_flt] += 1
                return FaultKind.MAJOR
            if fault is Fault.SIGBUS:
                return self._do_sigbus(regs, error_code, address)
            if self._image.current_task.pid != PID_INIT:
                return self._out_of_memory(regs, error_code, address)
            # init is not killed: it waits until others have freed memory.
            self._yield_cpu()

    # -- what ends badly ------------------------------------------------------------------------

    def _remember(self, error_code: int, address: int) -> None:
        """What a debugger or a signal handler may ask of the fault."""
        task = self._image.current_task
        task.cr2, task.error_code, task.trap_no = address, error_code, _PAGE_FAULT

    def _bad_area(self, regs: int, error_code: int, address: int, code: int) -> FaultKind:
        if not error_code & ERROR_USER:
            return self._no_context(regs, error_code, address)
        # A program shall not learn what is mapped above TASK_SIZE: there it always looks present.
        self._remember(error_code | (address >= TASK_SIZE), address)
        self.force_sig_info(SigInfo(SIGSEGV, code, address))
        return FaultKind.SIGNAL

    def _do_sigbus(self, regs: int, error_code: int, address: int) -> FaultKind:
        """The process gets its signal even if its system call did it, which then has a fixup."""
        self._remember(error_code, address)
        self.force_sig_info(SigInfo(SIGBUS, BUS_ADRERR, address))
        if not error_code & ERROR_USER:
            return self._no_context(regs, error_code, address)
        return FaultKind.SIGNAL

    def _out_of_memory(self, regs: int, error_code: int, address: int) -> FaultKind:
        self._image.printk(f"VM: killing process {self._image.current_name}\n")
        if not error_code & ERROR_USER:
            return self._no_context(regs, error_code, address)
        self.force_sig_info(SigInfo(SIGKILL, 0, address))
        return FaultKind.KILLED

    def _no_context(self, regs: int, error_code: int, address: int) -> FaultKind:
        """The kernel itself faulted: where it foresaw that, it goes on; else it is a bug."""
        eip = (regs - PAGE_OFFSET >> 2) + _EIP
        fixup = self._exception_table.search(self._words[eip])
        if fixup:
            self._words[eip] = fixup
            return FaultKind.FIXUP
        self._oops.page_fault(regs, error_code, address, self._tlb.processor.read_cr3())
        return FaultKind.OOPS

    # -- the kernel's own part -------------------------------------------------------------------

    def _vmalloc_fault(self, address: int) -> bool:
        """Copy what ``init_mm`` has for ``address`` into the loaded directory.

        The directory comes from CR3 and not from ``current->mm``: the fault may strike in the
        middle of a task switch. False: ``init_mm`` maps nothing there either.
        """
        tables = self._tables
        pgd = self._tlb.processor.read_cr3()
        pgdp, pgdp_k = (tables.pgd_offset(root, address) for root in (pgd, SWAPPER_PG_DIR))
        if not tables.pgd_present(tables.entry(pgdp_k)):
            return False
        tables.set_pgd(pgdp, tables.entry(pgdp_k))
        # With three levels the whole middle directory comes with its entry: 2.4.22 copies the
        # middle entry too, onto itself.
        pmdp = tables.pmd_offset(pgdp_k, address)
        pmd = tables.entry(pmdp)
        # Large pages map low memory, which every directory has; 2.4.22 would take the page's
        # own bytes for a page table here.
        if not pmd_present(pmd) or pmd_large(pmd):
            return False
        size = tables.shape.pgdir_size
        self._events.kernel_tables_shared(pgd, address & -size, size)
        return pte_present(tables.entry(tables.pte_offset(pmdp, address)))
