# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeping the pages of a range in memory.

Models linux-2.4.22 ``mm/mlock.c`` (book 4.4). In RAM: ``VM_LOCKED`` of each VMA,
``mm->locked_vm`` in pages, ``mm->def_flags`` for mappings to come. VMAs are cut, never merged.

What can fail: a negative error. The part of the range before the place that failed has changed
by then.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, page_align
from kernel_model.errno import EAGAIN, EINVAL, ENOMEM, EPERM
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.pages import PageOperations
from kernel_model.mm.mmap.split import Splitter
from kernel_model.structs.mm import VM_LOCKED
from kernel_model.structs.mman import MCL_CURRENT, MCL_FUTURE
from kernel_model.structs.sched import CAP_IPC_LOCK, RLIMIT_MEMLOCK

_U32: Final = 0xFFFFFFFF


class Mlock:
    """``mlock()``, ``mlockall()`` and their opposites in the current address space."""

    def __init__(
        self,
        areas: Areas,
        finder: Finder,
        limits: Limits,
        splitter: Splitter,
        pages: PageOperations,
    ) -> None:
        self._areas = areas
        self._finder = finder
        self._limits = limits
        self._splitter = splitter
        self._pages = pages

    # -- ranges --------------------------------------------------------------------------------

    def sys_mlock(self, start: int, length: int) -> int:
        """Lock every page that has a byte of the range; 0, or a negative error."""
        length = page_align(length + (start & ~PAGE_MASK))
        locked = (length >> PAGE_SHIFT) + self._areas.mm(self._areas.current_mm).locked_vm
        if self._beyond_limits(locked):
            return -ENOMEM
        return self._do_mlock(start & PAGE_MASK, length, on=True)

    def sys_munlock(self, start: int, length: int) -> int:
        """Unlock them."""
        length = page_align(length + (start & ~PAGE_MASK))
        return self._do_mlock(start & PAGE_MASK, length, on=False)

    def _beyond_limits(self, pages: int) -> bool:
        """More than the process may lock, or than half of the machine's memory."""
        limit = self._limits.rlim_cur(RLIMIT_MEMLOCK) >> PAGE_SHIFT
        return pages > limit or pages > int(self._areas.statics.num_physpages) // 2

    def _do_mlock(self, start: int, length: int, *, on: bool) -> int:
        if on and not self._limits.capable(CAP_IPC_LOCK):
            return -EPERM
        end = start + length
        if end > _U32:
            return -EINVAL
        if end == start:
            return 0
        vma = self._finder.find_vma(self._areas.current_mm, start)
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
        area, splitter = self._areas.vma(vma), self._splitter
        if newflags == area.vm_flags:
            return 0
        done = True
        if start == area.vm_start and end == area.vm_end:
            splitter.set_flags(vma, newflags, protection=False)
        elif start == area.vm_start:
            done = splitter.head(vma, end, newflags, protection=False)
        elif end == area.vm_end:
            done = bool(splitter.tail(vma, start, newflags, protection=False))
        else:
            done = bool(splitter.middle(vma, start, end, newflags, protection=False))
        if not done:
            return -EAGAIN
        space, pages = self._areas.mm(area.vm_mm), end - start >> PAGE_SHIFT
        if newflags & VM_LOCKED:
            space.locked_vm += pages
            self._pages.make_pages_present(start, end)
        else:
            space.locked_vm -= pages
        return 0

    # -- everything ----------------------------------------------------------------------------

    def sys_mlockall(self, flags: int) -> int:
        """Lock what there is, what will come, or both; 0, or a negative error."""
        if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE):
            return -EINVAL
        if self._beyond_limits(self._areas.mm(self._areas.current_mm).total_vm):
            return -ENOMEM
        return self._do_mlockall(flags)

    def sys_munlockall(self) -> int:
        """Unlock everything, and what comes will not be locked."""
        return self._do_mlockall(0)

    def _do_mlockall(self, flags: int) -> int:
        """``MCL_FUTURE`` alone unlocks what there is. Whole VMAs change, so nothing can fail."""
        if not self._limits.capable(CAP_IPC_LOCK):
            return -EPERM
        mm = self._areas.current_mm
        self._areas.mm(mm).def_flags = VM_LOCKED if flags & MCL_FUTURE else 0
        for vma in self._areas.list(mm):
            area = self._areas.vma(vma)
            now = flags & MCL_CURRENT
            newflags = area.vm_flags | VM_LOCKED if now else area.vm_flags & ~VM_LOCKED
            self._fixup(vma, area.vm_start, area.vm_end, newflags)
        return 0
