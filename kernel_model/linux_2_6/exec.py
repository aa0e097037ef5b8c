# SPDX-License-Identifier: GPL-2.0-or-later
"""A new program in 2.6.

Models the memory side of linux-2.6.11 ``fs/exec.c: exec_mmap()``, ``setup_arg_pages()`` where it
differs from 2.4 (book 4.8): the address space is always a fresh one, which is laid out by the limit
of the stack; the stack has room below the arguments from the beginning, and is charged.
"""

from typing import ClassVar, Final

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.exec import Exec
from kernel_model.mm.mmap.linux_2_6 import AddressSpaces

EXTRA_STACK_VM_PAGES: Final = 20


class Exec26(Exec):
    """``exec`` of one machine, for the current process."""

    _spare_stack: ClassVar[int] = EXTRA_STACK_VM_PAGES * PAGE_SIZE
    _spaces: AddressSpaces

    def exec_mmap(self) -> int:
        """Give the current process an empty address space. 0, or ``-ENOMEM``."""
        task = self._image.current_task
        if error := self._replace_mm(int(task.mm)):
            return error
        mm = int(task.mm)
        self._spaces.arch_pick_mmap_layout(mm)
        space = self._areas.mm(mm)
        space.free_area_cache = space.mmap_base
        return 0
