# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes on a kernel with or without a CPU, named by their page directories.

Each page is a mapping of its own, so that tests can say of every page what may be done with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.suites.giving_back import give_back
from kernel_model.arch_i386.page import PAGE_SIZE, TASK_SIZE
from kernel_model.arch_i386.pgtable import PAGE_RW
from kernel_model.kernel import Kernel
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.memory import Fault
from kernel_model.structs.mm import VM_READ, VM_WRITE
from kernel_model.structs.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
)

PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


class UserSpaces:
    """The processes of ``kernel``; a space is the physical address of its page directory."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.tasks: dict[int, int] = {}
        self.thread = 0
        """The last task that :meth:`fork` made with CLONE_VM."""

    # -- processes -----------------------------------------------------------------------------

    def start(self) -> int:
        """A process with an empty address space; 0: no memory."""
        kernel = self.kernel
        task = kernel.tasks.dup_task_struct()
        if not task:
            return 0
        view = kernel.tasks.view(task)
        view.mm = view.active_mm = 0
        view.addr_limit, view.pid = TASK_SIZE, 100 + len(self.tasks)
        before, pgd = kernel.image.current, 0
        kernel.tasks.context_switch(task)
        try:
            if not kernel.exec.exec_mmap():
                pgd = kernel.memory.tables.pgd(int(view.mm))
                self.tasks[pgd] = task
        finally:
            kernel.tasks.context_switch(before)
            if not pgd:
                kernel.tasks.free_task_struct(task)
        return pgd

    def fork(self, pgd: int, flags: int = 0) -> int:
        """A child of the process, as ``do_fork()`` makes it of memory's side; 0: no memory.

        With CLONE_VM it is a thread: the same space. It is then known by its task alone, the
        attribute ``thread``.
        """
        kernel = self.kernel
        with self.running(pgd):
            task = kernel.tasks.dup_task_struct()
            if not task:
                return 0
            view = kernel.tasks.view(task)
            view.pid = 100 + len(self.tasks)
            if kernel.fork.copy_mm(flags, view):
                kernel.tasks.free_task_struct(task)
                return 0
        child = kernel.memory.tables.pgd(int(view.mm))
        if child == pgd:
            self.thread = task
        else:
            self.tasks[child] = task
        return child

    def after_exec(self, pgd: int) -> int:
        """The name of the current process, which was ``pgd``: 2.6 gives it a new directory."""
        task = self.tasks.pop(pgd)
        now = self.kernel.memory.tables.pgd(int(self.kernel.tasks.view(task).mm))
        self.tasks[now] = task
        return now

    @contextmanager
    def running(self, pgd: int) -> Iterator[int]:
        """Let the process be current; gives its ``mm``."""
        kernel, before = self.kernel, self.kernel.image.current
        task = self.tasks[pgd]
        if before != task:
            kernel.tasks.context_switch(task)
        try:
            yield int(kernel.image.current_task.mm)
        finally:
            if before != task:
                kernel.tasks.context_switch(before)

    def enter(self, pgd: int) -> None:
        """Let the process be current from now on."""
        self.kernel.tasks.context_switch(self.tasks[pgd])

    def exit(self, pgd: int) -> None:
        kernel, task = self.kernel, self.tasks.pop(pgd)
        if kernel.image.current != task:
            kernel.tasks.context_switch(task)
        kernel.exit.exit_mm()
        kernel.tasks.context_switch(kernel.image.init_task)
        kernel.tasks.free_task_struct(task)

    def mm(self, pgd: int) -> int:
        return int(self.kernel.tasks.view(self.tasks[pgd]).mm)

    # -- pages ---------------------------------------------------------------------------------

    def new_page(self, pgd: int, vaddr: int, prot: int) -> int:
        """Map a page and write to it; ``prot`` is the protection of a PTE. -1: no memory."""
        with self.running(pgd) as mm:
            spaces = self.kernel.spaces
            access = PROT_READ | PROT_WRITE
            if spaces.do_mmap_pgoff(0, vaddr, PAGE_SIZE, access, PRIVATE, 0) != vaddr:
                return -1
            pages, error = self.kernel.memory.get_user_pages(mm, vaddr, 1, write=True)
            if error:
                spaces.do_munmap(mm, vaddr, PAGE_SIZE)
                return -1
            self.kernel.allocator.put_page(pages[0])
            if not prot & PAGE_RW and spaces.sys_mprotect(vaddr, PAGE_SIZE, PROT_READ):
                return -1
        return self.kernel.allocator.memmap.pfn(pages[0])

    def handle_fault(self, pgd: int, vaddr: int, *, write: bool) -> bool:
        """The page fault of a program: whether its VMA allows it, and a page came of it."""
        with self.running(pgd) as mm:
            spaces = self.kernel.spaces
            vma = spaces.find_vma(mm, vaddr)
            if not vma or spaces.areas.vma(vma).vm_start > vaddr:
                return False
            if not spaces.areas.vma(vma).vm_flags & (VM_WRITE if write else VM_READ):
                return False
            return self.kernel.memory.handle_mm_fault(mm, vma, vaddr, write) > Fault.SIGBUS

    def ptep(self, pgd: int, vaddr: int) -> int:
        return self.kernel.memory.tables.pte_offset(pgd, vaddr)

    def page_numbers(self, pgd: int) -> list[int]:
        """The numbers of all pages that are mapped, present or not."""
        areas = self.kernel.spaces.areas
        numbers: list[int] = []
        for vma in areas.list(self.mm(pgd)):
            view = areas.vma(vma)
            numbers += range(view.vm_start >> 12, view.vm_end >> 12)
        return numbers

    def swap_out(self, classzone: Buddy) -> bool:
        return self.kernel.swapper.swap_out(classzone)

    def free_frames(self) -> int:
        """Frames that are free once every cache has given back what it keeps for later."""
        self.kernel.tasks.leave_borrowed_mm()
        give_back(self.kernel)
        return self.kernel.allocator.nr_free_pages()
