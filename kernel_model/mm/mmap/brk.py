# SPDX-License-Identifier: GPL-2.0-or-later
"""The heap of a program.

Models linux-2.4.22 ``mm/mmap.c: sys_brk()``, ``do_brk()`` (book 4.4). In RAM: ``mm->brk``, and
the VMAs between ``start_brk`` and it. What can fail: ``do_brk()`` returns a negative error;
``sys_brk()`` then returns the old end, which is how a program sees it.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, page_align
from kernel_model.errno import EAGAIN, ENOMEM
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.link import Links
from kernel_model.mm.mmap.map import Mapper
from kernel_model.mm.mmap.unmap import Unmapper
from kernel_model.structs.mm import VM_DATA_DEFAULT_FLAGS, VM_LOCKED
from kernel_model.structs.sched import RLIM_INFINITY, RLIMIT_DATA

_U32: Final = 0xFFFFFFFF


class Brk:
    """``brk()`` in the current address space."""

    def __init__(
        self,
        areas: Areas,
        finder: Finder,
        links: Links,
        limits: Limits,
        unmapper: Unmapper,
        mapper: Mapper,
    ) -> None:
        self._areas = areas
        self._finder = finder
        self._links = links
        self._limits = limits
        self._unmapper = unmapper
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
            return not self._unmapper.do_munmap(mm, new, old - new)
        limit = self._limits.rlim_cur(RLIMIT_DATA)
        if limit < RLIM_INFINITY and brk - space.start_data & _U32 > limit:
            return False
        if self._finder.find_vma_intersection(mm, old, new + PAGE_SIZE & _U32):
            return False
        length = new - old & _U32
        return self._limits.vm_enough_memory(length >> PAGE_SHIFT) and (
            self.do_brk(old, length) == old
        )

    def do_brk(self, addr: int, length: int) -> int:
        """Map zeros at ``addr``, as a heap has them. Returns ``addr``, or an error.

        Nobody checks here that the range lies in user space.
        """
        length = page_align(length)
        if not length:
            return addr
        mm = self._areas.current_mm
        space, end = self._areas.mm(mm), addr + length & _U32
        if space.def_flags & VM_LOCKED and self._limits.too_much_locked(mm, length):
            return -EAGAIN
        place = self._mapper.clear_old_maps(mm, addr, length)
        if place is None or self._limits.too_large(mm, length):
            return -ENOMEM
        if space.map_count > self._areas.statics.max_map_count:
            return -ENOMEM
        if not self._limits.vm_enough_memory(length >> PAGE_SHIFT):
            return -ENOMEM
        vm_flags = VM_DATA_DEFAULT_FLAGS | space.def_flags
        if not place.rb_parent or not self._links.vma_merge(mm, place, addr, end, vm_flags):
            vma = self._areas.alloc()
            if not vma:
                return -ENOMEM
            self._mapper.fill(mm, vma, addr, length, vm_flags, 0)
            self._links.vma_link(mm, vma, place)
        self._mapper.account(mm, addr, length, vm_flags)
        return addr
