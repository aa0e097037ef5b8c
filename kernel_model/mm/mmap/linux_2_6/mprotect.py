# SPDX-License-Identifier: GPL-2.0-or-later
"""``mprotect()``, as 2.6 does it.

Models linux-2.6.11 ``mm/mprotect.c: mprotect_fixup()`` and what its ``sys_mprotect()`` has besides
(book 4.8). Any VMA may merge with its neighbours. A private mapping that becomes writable is
charged, and stays so when it does not remain writable. Huge pages
keep their protection. With ``PROT_GROWSDOWN`` the range begins
where the stack does.
"""

from typing import ClassVar

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.errno import EACCES, EINVAL, ENOMEM
from kernel_model.mm.mmap.areas import VmArea
from kernel_model.mm.mmap.linux_2_6.adjust import Adjuster
from kernel_model.mm.mmap.linux_2_6.merge import OffsetMerging
from kernel_model.mm.mmap.parts import Content, VmaParts
from kernel_model.mm.mprotect import Mprotect
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT, VM_HUGETLB
from kernel_model.structs.mm import VM_GROWSDOWN, VM_GROWSUP, VM_SHARED, VM_WRITE
from kernel_model.structs.mman import PROT_GROWSDOWN, PROT_GROWSUP, PROT_SEM

_GROWS = PROT_GROWSDOWN | PROT_GROWSUP


class MergingMprotect(Mprotect):
    """First see who may merge, then cut."""

    _prot_bits: ClassVar[int] = Mprotect._prot_bits | PROT_SEM | _GROWS
    _wrapped: ClassVar[int] = -ENOMEM

    def __init__(self, parts: VmaParts, merging: OffsetMerging, adjuster: Adjuster) -> None:
        super().__init__(parts)
        self._merging = merging
        self._adjuster = adjuster

    def sys_mprotect(self, start: int, length: int, prot: int) -> int:
        """0, or a negative error."""
        if prot & _GROWS == _GROWS:
            return -EINVAL
        return super().sys_mprotect(start, length, prot)

    def _protect(self, start: int, end: int, prot: int) -> int:
        vma, prev = self._parts.finder.find_vma_prev(self._areas.current_mm, start)
        if not vma:
            return -ENOMEM
        area = self._areas.vma(vma)
        if prot & PROT_GROWSDOWN:
            if area.vm_start >= end:
                return -ENOMEM
            start = area.vm_start
            if not area.vm_flags & VM_GROWSDOWN:
                return -EINVAL
        elif area.vm_start > start:
            return -ENOMEM
        elif prot & PROT_GROWSUP:
            end = area.vm_end
            if not area.vm_flags & VM_GROWSUP:
                return -EINVAL
        if start > area.vm_start:
            prev = vma
        return min(self._protect_from(vma, prev, start, end, prot), 0)

    def _refusal(self, area: VmArea) -> int:
        return -EACCES if area.vm_flags & VM_HUGETLB else 0

    def _fixup(self, vma: int, prev: int, start: int, end: int, newflags: int) -> int:
        area = self._areas.vma(vma)
        oldflags, pages = area.vm_flags, end - start >> PAGE_SHIFT
        if newflags == oldflags:
            return vma
        charged = pages if self._becomes_writable(oldflags, newflags) else 0
        if charged:
            if not self._parts.limits.vm_enough_memory(charged):
                return -ENOMEM
            newflags |= VM_ACCOUNT
        pgoff = area.vm_pgoff + (start - area.vm_start >> PAGE_SHIFT)
        content = Content(newflags, area.vm_file, pgoff, area.anon_vma)
        changed = self._merging.merge_behind(area.vm_mm, prev, start, end, content)
        if not changed:
            if error := self._adjuster.isolate(vma, start, end):
                self._parts.limits.vm_unacct_memory(charged)
                return error
            changed = vma
        self._set_flags(changed, start, end, oldflags, newflags)
        return changed

    @staticmethod
    def _becomes_writable(oldflags: int, newflags: int) -> bool:
        """Whether private pages that nobody was charged for may now be copied."""
        charged = oldflags & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_HUGETLB)
        return bool(newflags & VM_WRITE and not charged)

    def _set_flags(self, vma: int, start: int, end: int, oldflags: int, newflags: int) -> None:
        area, newprot = self._areas.vma(vma), PROTECTION_MAP[newflags & 0xF]
        area.vm_flags, area.vm_page_prot = newflags, newprot
        self._parts.pages.change_protection(start, end, newprot, newflags)
        pages, count = end - start >> PAGE_SHIFT, self._parts.accounting.vm_stat_account
        count(area.vm_mm, oldflags, area.vm_file, -pages)
        count(area.vm_mm, newflags, area.vm_file, pages)
