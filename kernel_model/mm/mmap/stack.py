# SPDX-License-Identifier: GPL-2.0-or-later
"""VMAs that grow downwards when an address below them is touched.

Models linux-2.4.22 ``include/linux/mm.h: expand_stack()`` and ``mm/mmap.c: find_extend_vma()``
(book 4.6). What can fail: ``expand_stack()`` returns ``-ENOMEM`` at a limit; nothing keeps a
stack from growing up to the VMA below it.
"""

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT
from kernel_model.errno import ENOMEM
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.pages import PageOperations
from kernel_model.structs.mm import VM_GROWSDOWN, VM_LOCKED
from kernel_model.structs.sched import RLIMIT_STACK


class Stacks:
    """Grows VMAs with ``VM_GROWSDOWN``."""

    def __init__(self, areas: Areas, finder: Finder, limits: Limits, pages: PageOperations) -> None:
        self._areas = areas
        self._finder = finder
        self._limits = limits
        self._pages = pages

    def expand_stack(self, vma: int, address: int) -> int:
        """Let a VMA begin with the page of ``address``, which lies below it."""
        area = self._areas.vma(vma)
        space = self._areas.mm(area.vm_mm)
        address &= PAGE_MASK
        grow = area.vm_start - address >> PAGE_SHIFT
        if area.vm_end - address > self._limits.rlim_cur(RLIMIT_STACK):
            return -ENOMEM
        if self._limits.too_large(area.vm_mm, grow << PAGE_SHIFT):
            return -ENOMEM
        area.vm_start = address
        area.vm_pgoff -= grow
        space.total_vm += grow
        if area.vm_flags & VM_LOCKED:
            space.locked_vm += grow
        return 0

    def find_extend_vma(self, mm: int, addr: int) -> int:
        """The VMA of an address, grown down to it if it may; 0: none."""
        addr &= PAGE_MASK
        vma = self._finder.find_vma(mm, addr)
        if not vma:
            return 0
        area = self._areas.vma(vma)
        start = area.vm_start
        if start <= addr:
            return vma
        if not area.vm_flags & VM_GROWSDOWN or self.expand_stack(vma, addr):
            return 0
        if area.vm_flags & VM_LOCKED:
            self._pages.make_pages_present(addr, start)
        return vma
