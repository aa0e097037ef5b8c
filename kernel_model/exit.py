# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a process, as far as memory goes.

Models linux-2.4.22 ``kernel/exit.c: exit_mm()`` (book 4.3.3). The process lets go of its address
space and becomes a thread that borrows it, until the next process runs. In RAM: ``mm`` of the
task, counts of the ``mm_struct``. Nothing here can fail.
"""

from kernel_model.arch_i386.mmu_context import MmuContext
from kernel_model.errors import KernelBug
from kernel_model.fork import Fork
from kernel_model.image import KernelImage


class Exit:
    """Ends the current process."""

    def __init__(self, image: KernelImage, fork: Fork, context: MmuContext) -> None:
        self._image = image
        self._fork = fork
        self._context = context

    def exit_mm(self) -> None:
        """Leave the address space; if nobody else is in it, everything it has mapped goes."""
        task = self._image.current_task
        mm = int(task.mm)
        if not mm:
            return
        self._image.at(self._image.structs.mm_struct, mm).mm_count += 1
        if mm != task.active_mm:
            raise KernelBug("exit.c", 0, "a process has another address space active")
        task.mm = 0
        self._context.enter_lazy_tlb(mm)
        self._fork.mmput(mm)
