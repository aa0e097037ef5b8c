# SPDX-License-Identifier: GPL-2.0-or-later
"""Growing and moving a mapping, as 2.6 does it.

Models linux-2.6.11 ``mm/mremap.c: move_vma()``, what its ``do_mremap()`` checks besides, and
``mm/mmap.c: copy_vma()`` (book 4.8). A VMA first, then its pages, then the old range goes; it gives
back no charge, since the pages live on. Anonymous pages keep their offsets where they move.
"""

from typing import ClassVar, Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.mm.mmap.linux_2_6.adjust import Adjuster
from kernel_model.mm.mmap.parts import Content, VmaParts
from kernel_model.mm.mremap import Mremap
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT, VM_HUGETLB
from kernel_model.structs.mm import VM_MAYSHARE

_U32: Final = 0xFFFFFFFF
_SPARE: Final = 3
"""VMAs that unmapping the old range may need."""


class VmaFirstMremap(Mremap):
    """``mremap()`` of 2.6."""

    _shared_flag: ClassVar[int] = VM_MAYSHARE

    def __init__(self, parts: VmaParts, adjuster: Adjuster) -> None:
        super().__init__(parts)
        self._adjuster = adjuster

    def _sensible(self, new_len: int) -> bool:
        """A mapping of no length is none."""
        return bool(new_len)

    def _clear(self, addr: int, length: int) -> int:
        return self._parts.unmapper.do_munmap(self._areas.current_mm, addr, length)

    def _grow_or_move(
        self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
    ) -> int:
        """What was longer has been cut by now."""
        return super()._grow_or_move(addr, min(old_len, new_len), new_len, flags, new_addr)

    def _refusal(self, mm: int, vma: int, addr: int, old_len: int, new_len: int) -> int:
        """Huge pages stay where they are."""
        if self._areas.vma(vma).vm_flags & VM_HUGETLB:
            return -EINVAL
        return super()._refusal(mm, vma, addr, old_len, new_len)

    def _charge(self, vma: int, more: int, flags: int) -> int:
        if not self._areas.vma(vma).vm_flags & VM_ACCOUNT:
            return 0
        pages = more >> PAGE_SHIFT
        return pages if self._limits.vm_enough_memory(pages) else -ENOMEM

    def _set_end(self, vma: int, end: int) -> None:
        area = self._areas.vma(vma)
        self._adjuster.vma_adjust(vma, area.vm_start, end, area.vm_pgoff)

    # -- moving --------------------------------------------------------------------------------

    def _move_vma(self, vma: int, addr: int, old_len: int, new_len: int, new_addr: int) -> int:
        """Without memory for page tables the new range is what goes."""
        area = self._areas.vma(vma)
        mm, vm_flags, file = area.vm_mm, area.vm_flags, area.vm_file
        if self._areas.mm(mm).map_count >= self._areas.statics.max_map_count - _SPARE:
            return -ENOMEM
        pgoff = area.vm_pgoff + (addr - area.vm_start >> PAGE_SHIFT)
        new_vma, vma = self._copy_vma(vma, new_addr, new_len, pgoff)
        if not new_vma:
            return -ENOMEM
        where, gone, gone_len = new_addr, addr, old_len
        if self._parts.pages.move_page_tables(mm, new_addr, addr, old_len):
            where, gone, gone_len, vma = -ENOMEM, new_addr, new_len, new_vma
        self._unmap_uncharged(mm, vma, vm_flags, gone, gone_len)
        self._count_moved(mm, vm_flags, file, gone_len, new_len, where)
        return where

    def _copy_vma(self, vma: int, addr: int, length: int, pgoff: int) -> tuple[int, int]:
        """``copy_vma()``: (a VMA at the target, 0: no memory; the one that has the source now).

        Zeros that nobody has written to yet may move to the page of their new address.
        """
        area = self._areas.vma(vma)
        mm, source = area.vm_mm, area.vm_start
        if not area.vm_file and not area.anon_vma:
            pgoff = addr >> PAGE_SHIFT
        place = self._parts.finder.find_vma_prepare(mm, addr)
        content = Content(area.vm_flags, area.vm_file, pgoff, area.anon_vma)
        merged = self._parts.merging.vma_merge(mm, place, addr, addr + length, content)
        if merged:
            view = self._areas.vma(merged)
            return merged, merged if view.vm_start <= source < view.vm_end else vma
        new = self._areas.alloc()
        if new:
            self._areas.copy(new, vma)
            view = self._areas.vma(new)
            view.vm_start, view.vm_end, view.vm_pgoff = addr, addr + length, pgoff
            self._areas.share_file(new)
            self._parts.links.vma_link(mm, new, place)
        return new, vma

    def _unmap_uncharged(self, mm: int, vma: int, vm_flags: int, addr: int, length: int) -> None:
        """Unmap a range of a VMA without giving back its charge, only that of what is left."""
        area, excess, inside = self._areas.vma(vma), 0, False
        if vm_flags & VM_ACCOUNT:
            area.vm_flags &= ~VM_ACCOUNT
            excess = area.vm_end - area.vm_start - length
            inside = addr > area.vm_start and addr + length < area.vm_end
        if self._parts.unmapper.do_munmap(mm, addr, length) < 0:
            self._limits.vm_unacct_memory(excess >> PAGE_SHIFT)
            return
        if excess:
            area.vm_flags |= VM_ACCOUNT
            if inside:
                self._areas.vma(area.vm_next).vm_flags |= VM_ACCOUNT
