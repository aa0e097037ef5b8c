# SPDX-License-Identifier: GPL-2.0-or-later
"""A new program takes the place of the old one: its address space, its stack.

Models the memory side of linux-2.4.22 ``fs/exec.c: exec_mmap()``, ``setup_arg_pages()`` (book
4.3.3). What can fail: ``-ENOMEM``; the old program still has its address space then, unless it
was its only user.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, TASK_SIZE
from kernel_model.arch_i386.pgtable import PAGE_COPY
from kernel_model.errno import ENOMEM
from kernel_model.fork import Fork
from kernel_model.image import KernelImage
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.structs.mm import VM_STACK_FLAGS

STACK_TOP: Final = TASK_SIZE


class Exec:
    """``execve()`` as far as memory goes. ``activate_mm`` makes the CPU run in ``(old, new)``."""

    def __init__(
        self,
        image: KernelImage,
        spaces: AddressSpaces,
        fork: Fork,
        activate_mm: Callable[[int, int], None],
    ) -> None:
        self._image = image
        self._spaces = spaces
        self._fork = fork
        self._activate_mm = activate_mm

    def exec_mmap(self) -> int:
        """Let the current process begin anew; 0, or ``-ENOMEM``.

        The only user of an address space empties it and keeps it.
        """
        task, areas = self._image.current_task, self._spaces.areas
        old = int(task.mm)
        if old and areas.mm(old).mm_users == 1:
            self._spaces.exit_mmap(old)
            return 0
        mm = self._fork.mm_alloc()
        if not mm:
            return -ENOMEM
        self._fork.add_to_mmlist(mm, self._image.symbol("init_mm"))
        borrowed = int(task.active_mm)
        task.mm = task.active_mm = mm
        self._activate_mm(borrowed, mm)
        if old:
            self._fork.mmput(old)
        else:
            self._fork.mmdrop(borrowed)
        return 0

    def setup_arg_pages(self, stack_start: int) -> int:
        """The VMA of the stack, from the page of ``stack_start`` to the top; 0, or ``-ENOMEM``."""
        areas = self._spaces.areas
        mm, vma = areas.current_mm, areas.alloc()
        if not vma:
            return -ENOMEM
        area, start = areas.vma(vma), stack_start & PAGE_MASK
        area.vm_mm, area.vm_start, area.vm_end = mm, start, STACK_TOP
        area.vm_flags, area.vm_page_prot = VM_STACK_FLAGS, PAGE_COPY
        area.vm_ops = area.vm_file = area.vm_pgoff = area.vm_raend = area.vm_private_data = 0
        self._spaces.insert_vm_struct(mm, vma)
        areas.mm(mm).total_vm = STACK_TOP - start >> PAGE_SHIFT
        return 0
