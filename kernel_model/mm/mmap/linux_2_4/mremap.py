# SPDX-License-Identifier: GPL-2.0-or-later
"""Growing and moving a mapping, as 2.4 does it.

Models linux-2.4.22 ``mm/mremap.c: move_vma()`` and the checks of its ``do_mremap()`` (book 4.4.7).
Pages first, then a VMA for them, then the old range goes. What can fail: what could not be
unmapped is not noticed, until the kernel's own ``BUG()``.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.linux_2_4.merge import AnonymousMerging, can_vma_merge
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.mm.mremap import Mremap
from kernel_model.structs.mm import VM_SHARED
from kernel_model.structs.mman import MAP_NORESERVE

_U32: Final = 0xFFFFFFFF


class PagesFirstMremap(Mremap):
    """``mremap()`` of 2.4."""

    def __init__(self, parts: VmaParts, merging: AnonymousMerging) -> None:
        super().__init__(parts)
        self._merging = merging

    def _clear(self, addr: int, length: int) -> int:
        """Nobody hears of an error."""
        self._parts.unmapper.do_munmap(self._areas.current_mm, addr, length)
        return 0

    def _charge(self, vma: int, more: int, flags: int) -> int:
        """Nothing is charged, only asked for."""
        private = self._limits.private_writable(self._areas.vma(vma).vm_flags)
        if not private or flags & MAP_NORESERVE:
            return 0
        return 0 if self._limits.vm_enough_memory(more >> PAGE_SHIFT) else -ENOMEM

    def _set_end(self, vma: int, end: int) -> None:
        self._areas.vma(vma).vm_end = end

    def _move_vma(self, vma: int, addr: int, old_len: int, new_len: int, new_addr: int) -> int:
        """Pages first, then a VMA for them, then the old range goes."""
        area = self._areas.vma(vma)
        mm = area.vm_mm
        merged = self._merge_at_target(mm, vma, new_addr, new_len)
        new_vma = merged or self._areas.alloc()
        if not new_vma:
            return -ENOMEM
        if self._parts.pages.move_page_tables(mm, new_addr, addr, old_len):
            if not merged:
                self._areas.free(new_vma)
            return -ENOMEM
        vm_flags, file = area.vm_flags, area.vm_file
        if not merged:
            self._areas.copy(new_vma, vma)
            new_area = self._areas.vma(new_vma)
            new_area.vm_start, new_area.vm_end = new_addr, new_addr + new_len
            new_area.vm_pgoff += addr - area.vm_start >> PAGE_SHIFT
            new_area.vm_raend = 0
            self._areas.share_file(new_vma)
            self._parts.links.insert_vm_struct(mm, new_vma)
        self._parts.unmapper.do_munmap(mm, addr, old_len)
        self._count_moved(mm, vm_flags, file, old_len, new_len, new_addr)
        return new_addr

    def _merge_at_target(self, mm: int, vma: int, new_addr: int, new_len: int) -> int:
        """Let a neighbour of the target grow over it. Returns that VMA, 0: none may."""
        area = self._areas.vma(vma)
        anonymous = not area.vm_file and not area.vm_flags & VM_SHARED
        following, prev = self._parts.finder.find_vma_prev(mm, new_addr)
        if not following:
            # Nothing above the target: the VMA below it is found only this way.
            prev = self._parts.finder.find_vma(mm, new_addr - 1 & _U32)
        if not anonymous:
            return 0
        if prev and self._touches(prev, new_addr, area.vm_flags):
            before = self._areas.vma(prev)
            before.vm_end = new_addr + new_len
            if following and following != before.vm_next:
                raise KernelBug("mremap.c", 143, "not the next VMA follows")
            self._merging.absorb_next(mm, prev)
            return prev
        if following:
            behind = self._areas.vma(following)
            if behind.vm_start == new_addr + new_len and can_vma_merge(behind, area.vm_flags):
                behind.vm_start = new_addr
                return following
        return 0

    def _touches(self, prev: int, new_addr: int, vm_flags: int) -> bool:
        before = self._areas.vma(prev)
        return before.vm_end == new_addr and can_vma_merge(before, vm_flags)
