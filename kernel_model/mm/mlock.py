# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeping the pages of a range in memory.

Models ``mm/mlock.c`` of linux-2.4.22, of which 2.6.11 replaces some steps (book 4.4, 4.8). In RAM:
``VM_LOCKED`` of each VMA, ``mm->locked_vm`` in pages, ``mm->def_flags`` for mappings to come. VMAs
are cut, never merged.

What can fail: a negative error. The part of the range before the place that failed has changed
by then.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, page_align
from kernel_model.errno import EAGAIN, EINVAL, ENOMEM, EPERM
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.structs.mm import VM_LOCKED
from kernel_model.structs.mman import MCL_CURRENT, MCL_FUTURE
from kernel_model.structs.sched import CAP_IPC_LOCK

_U32: Final = 0xFFFFFFFF


class Mlock:
    """``mlock()``, ``mlockall()`` and their opposites in the current address space."""

    def __init__(self, parts: VmaParts) -> None:
        self._parts = parts
        self._areas = parts.areas
        self._limits = parts.limits

    # -- ranges --------------------------------------------------------------------------------

    def sys_mlock(self, start: int, length: int) -> int:
        """Lock every page that has a byte of the range; 0, or a negative error."""
        length = page_align(length + (start & ~PAGE_MASK))
        locked = (length >> PAGE_SHIFT) + self._areas.mm(self._areas.current_mm).locked_vm
        if error := self._limits.refuse_mlock(locked):
            return error
        return self._do_mlock(start & PAGE_MASK, length, on=True)

    def sys_munlock(self, start: int, length: int) -> int:
        """Unlock them."""
        length = page_align(length + (start & ~PAGE_MASK))
        return self._do_mlock(start & PAGE_MASK, length, on=False)

    def _do_mlock(self, start: int, length: int, *, on: bool) -> int:
        end = start + length
        if end > _U32:
            return -EINVAL
        if end == start:
            return 0
        vma = self._parts.finder.find_vma(self._areas.current_mm, start)
        while vma and self._areas.vma(vma).vm_start <= start:
            area = self._areas.vma(vma)
            newflags = area.vm_flags | VM_LOCKED if on else area.vm_flags & ~VM_LOCKED
            stop, following = min(area.vm_end, end), area.vm_next
            if error := self._fixup(vma, start, stop, newflags):
                return error
            if stop == end:
                return 0
            start, vma = stop, following
        return -ENOMEM

    def _fixup(self, vma: int, start: int, end: int, newflags: int) -> int:
        """``mlock_fixup()``: one VMA, or the part of it that is in the range."""
        area = self._areas.vma(vma)
        if newflags == area.vm_flags:
            return 0
        if not self._parts.splitter.carve(vma, start, end, newflags):
            return -EAGAIN
        space, pages = self._areas.mm(area.vm_mm), end - start >> PAGE_SHIFT
        if not newflags & VM_LOCKED:
            space.locked_vm -= pages
            return 0
        space.locked_vm += pages
        return self._bring_in(start, end, newflags)

    def _bring_in(self, start: int, end: int, newflags: int) -> int:
        """Let the pages come. Nobody hears of it when some did not: 0."""
        self._parts.pages.make_pages_present(start, end)
        return 0

    # -- everything ----------------------------------------------------------------------------

    def sys_mlockall(self, flags: int) -> int:
        """Lock what there is, what will come, or both; 0, or a negative error."""
        if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE):
            return -EINVAL
        if error := self._limits.refuse_mlock(self._locked_by(flags)):
            return error
        return self._do_mlockall(flags)

    def _locked_by(self, flags: int) -> int:
        """How many pages count against the limit."""
        return self._areas.mm(self._areas.current_mm).total_vm

    def sys_munlockall(self) -> int:
        """Unlock everything, and what comes will not be locked. Even that takes a privilege."""
        return self._do_mlockall(0) if self._limits.capable(CAP_IPC_LOCK) else -EPERM

    def _do_mlockall(self, flags: int) -> int:
        """``MCL_FUTURE`` alone unlocks what there is. Whole VMAs change, so nothing can fail."""
        mm = self._areas.current_mm
        self._areas.mm(mm).def_flags = VM_LOCKED if flags & MCL_FUTURE else 0
        for vma in self._areas.list(mm):
            area = self._areas.vma(vma)
            now = flags & MCL_CURRENT
            newflags = area.vm_flags | VM_LOCKED if now else area.vm_flags & ~VM_LOCKED
            self._fixup(vma, area.vm_start, area.vm_end, newflags)
        return 0
