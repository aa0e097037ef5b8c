# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes as memory management sees them: their descriptors, and changing between them.

Models linux-2.4.22 ``include/asm-i386/processor.h: alloc_task_struct()`` and the part of
``kernel/sched.c: schedule()`` that concerns memory (book 4.1, 4.3). In RAM: a ``task_struct`` at
the lower end of two frames, the kernel stack above it; ``mm`` and ``active_mm``, with the counts
of the latter. Who runs next is decided elsewhere.

What can fail: :meth:`Tasks.alloc_task_struct` returns 0 when memory is out.
"""

from collections.abc import Callable
from typing import Any

from kernel_model.arch_i386.mmu_context import MmuContext
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.structs.sched import TASK_COMM_LEN

TASK_STRUCT_ORDER = 1


class Tasks:
    """The processes of one machine; a task is a kernel virtual address."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        context: MmuContext,
        mmdrop: Callable[[int], None],
    ) -> None:
        self._image = image
        self._allocator = allocator
        self._context = context
        self._mmdrop = mmdrop
        self._bytes = image.structs.task_struct.size

    def view(self, task: int) -> Any:
        """The ``struct task_struct``."""
        return self._image.at(self._image.structs.task_struct, task)

    def alloc_task_struct(self) -> int:
        """Memory for a descriptor and its kernel stack, 8 KiB aligned to their size."""
        return self._allocator.get_free_pages(
            self._image.constants.gfp.kernel, TASK_STRUCT_ORDER, "task_struct"
        )

    def free_task_struct(self, task: int) -> None:
        self._allocator.free_pages_at(task, TASK_STRUCT_ORDER)

    def dup_task_struct(self) -> int:
        """A descriptor for a child, so far like that of the current process; 0: no memory."""
        task = self.alloc_task_struct()
        if task:
            ram = self._image.ram
            current = ram.read(virt_to_phys(self._image.current), self._bytes)
            ram.write(virt_to_phys(task), current)
            view = self.view(task)
            local_pages = task + self._image.structs.task_struct.offset("local_pages")
            view.local_pages.next = view.local_pages.prev = local_pages
            view.nr_local_pages = view.min_flt = view.maj_flt = 0
        return task

    def set_name(self, task: int, name: str) -> None:
        """``task->comm``, cut to 15 bytes."""
        text = name.encode("latin-1", "replace")[: TASK_COMM_LEN - 1].ljust(TASK_COMM_LEN, b"\0")
        self.view(task).comm[:] = list(text)

    def context_switch(self, following: int) -> None:
        """Let ``following`` be the current process, in its address space or a borrowed one.

        A thread of the kernel takes the space that is loaded, and holds on to it (``mm_count``);
        the process that runs after it lets go of it for the thread.
        """
        prev = self._image.current_task
        view = self.view(following)
        oldmm, mm = int(prev.active_mm), int(view.mm)
        if not mm:
            if view.active_mm:
                raise KernelBug("sched.c", 0, "a thread that does not run has an active_mm")
            view.active_mm = oldmm
            self._count(oldmm, 1)
            self._context.enter_lazy_tlb(oldmm)
        else:
            if view.active_mm != mm:
                raise KernelBug("sched.c", 0, "a process has another address space active")
            self._context.switch_mm(oldmm, mm)
        self._image.switch_to(following)
        if not prev.mm:
            prev.active_mm = 0
            self._mmdrop(oldmm)

    def leave_borrowed_mm(self) -> None:
        """Let the current thread of the kernel borrow ``init_mm`` and nothing else.

        The kernel lets go of a dead process's address space only when the next one runs. A
        machine on which none runs any more would never be as it was before.
        """
        task, init_mm = self._image.current_task, self._image.symbol("init_mm")
        borrowed = int(task.active_mm)
        if task.mm or borrowed == init_mm:
            return
        self._count(init_mm, 1)
        task.active_mm = init_mm
        self._context.switch_mm(borrowed, init_mm)
        self._mmdrop(borrowed)

    def _count(self, mm: int, more: int) -> None:
        self._image.at(self._image.structs.mm_struct, mm).mm_count += more
