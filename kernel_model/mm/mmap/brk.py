# SPDX-License-Identifier: GPL-2.0-or-later
"""The heap of a program.

Models ``mm/mmap.c: sys_brk()``, ``do_brk()`` of linux-2.4.22 and 2.6.11 (book 4.4, 4.8). In RAM:
``mm->brk``, and the VMAs between ``start_brk`` and it. What can fail: ``do_brk()`` returns a
negative error; ``sys_brk()`` then returns the old end, which is how a program sees it.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, page_align
from kernel_model.errno import EAGAIN, ENOMEM
from kernel_model.mm.mmap.map import Mapper
from kernel_model.mm.mmap.parts import Content, VmaParts
from kernel_model.structs.mm import VM_LOCKED
from kernel_model.structs.sched import RLIM_INFINITY, RLIMIT_DATA

_U32: Final = 0xFFFFFFFF


class Brk:
    """``brk()`` in the current address space."""

    def __init__(self, parts: VmaParts, mapper: Mapper) -> None:
        self._parts = parts
        self._areas = parts.areas
        self._limits = parts.limits
        self._mapper = mapper

    def sys_brk(self, brk: int) -> int:
        """Move the end of the heap to ``brk`` if that can be. Returns where it is now."""
        mm = self._areas.current_mm
        space = self._areas.mm(mm)
        if brk >= space.end_code and self._move(mm, brk):
            space.brk = brk
        return space.brk

    def _move(self, mm: int, brk: int) -> bool:
        space = self._areas.mm(mm)
        old, new = page_align(space.brk), page_align(brk)
        if old == new:
            return True
        if brk <= space.brk:
            return not self._parts.unmapper.do_munmap(mm, new, old - new)
        limit = self._limits.rlim_cur(RLIMIT_DATA)
        if limit < RLIM_INFINITY and brk - space.start_data & _U32 > limit:
            return False
        if self._parts.finder.find_vma_intersection(mm, old, new + PAGE_SIZE & _U32):
            return False
        length = new - old & _U32
        return self._worth_trying(length) and self.do_brk(old, length) == old

    def _worth_trying(self, length: int) -> bool:
        """Whether there is memory, which ``do_brk()`` will ask again."""
        return self._limits.vm_enough_memory(length >> PAGE_SHIFT)

    def do_brk(self, addr: int, length: int) -> int:
        """Map zeros at ``addr``, as a heap has them. Returns ``addr``, or an error.

        Nobody checks here that the range lies in user space.
        """
        length = page_align(length)
        if not length:
            return addr
        mm = self._areas.current_mm
        space = self._areas.mm(mm)
        if space.def_flags & VM_LOCKED and self._limits.too_much_locked(mm, length):
            return -EAGAIN
        place = self._mapper.clear_old_maps(mm, addr, length)
        if place is None or self._limits.too_large(mm, length):
            return -ENOMEM
        if space.map_count > self._areas.statics.max_map_count:
            return -ENOMEM
        pages = length >> PAGE_SHIFT
        if not self._limits.vm_enough_memory(pages):
            return -ENOMEM
        vm_flags = self._parts.data_flags | space.def_flags
        content = Content(vm_flags, pgoff=self._parts.merging.anonymous_pgoff(addr, 0))
        end = addr + length & _U32
        if not self._parts.merging.vma_merge(mm, place, addr, end, content):
            vma = self._areas.alloc()
            if not vma:
                self._limits.vm_unacct_memory(pages)
                return -ENOMEM
            self._areas.fill(vma, mm, addr, end, vm_flags, content.pgoff)
            self._parts.links.vma_link(mm, vma, place)
        self._mapper.count(mm, addr, length, vm_flags, 0)
        return addr
