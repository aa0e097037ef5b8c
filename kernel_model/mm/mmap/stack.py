# SPDX-License-Identifier: GPL-2.0-or-later
"""VMAs that grow downwards when an address below them is touched.

Models linux-2.4.22 ``include/linux/mm.h: expand_stack()`` and ``mm/mmap.c: find_extend_vma()``,
and linux-2.6.11 ``mm/mmap.c: expand_stack()``, ``acct_stack_growth()`` (book 4.6, 4.8). What can
fail: ``expand_stack()`` returns ``-ENOMEM`` at a limit; nothing keeps a stack from growing up to
the VMA below it.
"""

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT
from kernel_model.errno import ENOMEM
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.structs.mm import VM_GROWSDOWN, VM_LOCKED
from kernel_model.structs.sched import RLIMIT_STACK


class Stacks:
    """Grows VMAs with ``VM_GROWSDOWN``."""

    def __init__(self, parts: VmaParts) -> None:
        self._parts = parts
        self._areas = parts.areas
        self._limits = parts.limits

    def expand_stack(self, vma: int, address: int) -> int:
        """Let a VMA begin with the page of ``address``, which lies below it."""
        area = self._areas.vma(vma)
        mm, address = area.vm_mm, address & PAGE_MASK
        if error := self._parts.anon.anon_vma_prepare(vma):
            return error
        if address >= area.vm_start:
            return 0
        grow = area.vm_start - address >> PAGE_SHIFT
        if area.vm_end - address > self._limits.rlim_cur(RLIMIT_STACK):
            return -ENOMEM
        if self._limits.too_large(mm, grow << PAGE_SHIFT):
            return -ENOMEM
        if not self._limits.charge_growth(mm, area.vm_flags, grow):
            return -ENOMEM
        area.vm_start = address
        area.vm_pgoff -= grow
        self._parts.accounting.count(mm, area.vm_flags, area.vm_file, grow)
        return 0

    def find_extend_vma(self, mm: int, addr: int) -> int:
        """The VMA of an address, grown down to it if it may; 0: none."""
        addr &= PAGE_MASK
        vma = self._parts.finder.find_vma(mm, addr)
        if not vma:
            return 0
        area = self._areas.vma(vma)
        start = area.vm_start
        if start <= addr:
            return vma
        if not area.vm_flags & VM_GROWSDOWN or self.expand_stack(vma, addr):
            return 0
        if area.vm_flags & VM_LOCKED:
            self._parts.pages.make_pages_present(addr, start)
        return vma
