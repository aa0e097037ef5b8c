# SPDX-License-Identifier: GPL-2.0-or-later
"""Growing, shrinking and moving a mapping.

Models what ``mm/mremap.c: do_mremap()`` of linux-2.4.22 and 2.6.11 have in common (book 4.4); how a
VMA grows where it is, and how it moves, is each release's own. The pages move through
:class:`~kernel_model.mm.mmap.pages.PageOperations`.

What can fail: a negative error instead of an address. With ``MREMAP_FIXED`` whatever was mapped
at the target is gone by then.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, TASK_SIZE, page_align
from kernel_model.errno import EAGAIN, EFAULT, EINVAL, ENOMEM
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.structs.mm import VM_DONTEXPAND, VM_LOCKED, VM_SHARED
from kernel_model.structs.mman import MAP_SHARED, MREMAP_FIXED, MREMAP_MAYMOVE

_U32: Final = 0xFFFFFFFF


class Mremap(ABC):
    """``mremap()`` in the current address space."""

    _shared_flag: ClassVar[int] = VM_SHARED
    """What makes the new place one of a shared mapping."""

    def __init__(self, parts: VmaParts) -> None:
        self._parts = parts
        self._areas = parts.areas
        self._limits = parts.limits

    def do_mremap(self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
        """Make ``old_len`` bytes at ``addr`` ``new_len`` bytes. Where they are now, or an error."""
        if flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE) or addr & ~PAGE_MASK:
            return -EINVAL
        old_len, new_len = page_align(old_len), page_align(new_len)
        if not self._sensible(new_len):
            return -EINVAL
        fixed = bool(flags & MREMAP_FIXED)
        if fixed:
            if not self._valid_target(addr, old_len, new_len, flags, new_addr):
                return -EINVAL
            if error := self._clear(new_addr, new_len):
                return error
        if old_len >= new_len:
            if old_len > new_len and (
                error := self._clear(addr + new_len & _U32, old_len - new_len)
            ):
                return error
            if not fixed or new_addr == addr:
                return addr
        return self._grow_or_move(addr, old_len, new_len, flags, new_addr)

    def _sensible(self, new_len: int) -> bool:
        """Whether the new length can be meant."""
        return True

    @abstractmethod
    def _clear(self, addr: int, length: int) -> int:
        """Unmap a range; an error that the caller shall hear of, or 0."""

    def _grow_or_move(
        self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
    ) -> int:
        """The mapping stays as long as it was, or becomes longer. Where it is now, or an error."""
        mm = self._areas.current_mm
        vma = self._parts.finder.find_vma(mm, addr)
        if not vma or self._areas.vma(vma).vm_start > addr:
            return -EFAULT
        more = new_len - old_len & _U32
        if error := self._refusal(mm, vma, addr, old_len, new_len):
            return error
        charged = self._charge(vma, more, flags)
        if charged < 0:
            return charged
        where = self._settle(vma, addr, old_len, new_len, flags, new_addr)
        if where & ~PAGE_MASK:
            # An error; or an address that is no page's, from a search for so many bytes.
            self._limits.vm_unacct_memory(charged)
        return where

    def _settle(
        self, vma: int, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
    ) -> int:
        """Let the mapping have its new length where it is, or elsewhere."""
        stays = not flags & MREMAP_FIXED or addr == new_addr
        if stays and self._room_behind(vma, addr, old_len, new_len, flags):
            self._expand(vma, addr, old_len, new_len)
            return addr
        if not flags & MREMAP_MAYMOVE:
            return -ENOMEM
        if not flags & MREMAP_FIXED:
            area = self._areas.vma(vma)
            map_flags = MAP_SHARED if area.vm_flags & self._shared_flag else 0
            new_addr = self._parts.unmapped.get_unmapped_area(
                area.vm_file, 0, new_len, area.vm_pgoff, map_flags
            )
            if new_addr & ~PAGE_MASK:
                return new_addr
        return self._move_vma(vma, addr, old_len, new_len, new_addr)

    @staticmethod
    def _valid_target(addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> bool:
        """Whether a fixed target is a place in user space apart from the source."""
        if new_addr & ~PAGE_MASK or not flags & MREMAP_MAYMOVE:
            return False
        if new_len > TASK_SIZE or new_addr > TASK_SIZE - new_len:
            return False
        if new_addr <= addr < new_addr + new_len:
            return False
        return not addr <= new_addr < (addr + old_len & _U32)

    def _refusal(self, mm: int, vma: int, addr: int, old_len: int, new_len: int) -> int:
        """Why the VMA cannot have the new length; 0 when it can. Lengths may also shrink."""
        area, more = self._areas.vma(vma), new_len - old_len & _U32
        if old_len > area.vm_end - addr:
            return -EFAULT
        if area.vm_flags & VM_DONTEXPAND and new_len > old_len:
            return -EFAULT
        if area.vm_flags & VM_LOCKED and self._limits.too_much_locked(mm, more):
            return -EAGAIN
        return -ENOMEM if self._limits.too_large(mm, more) else 0

    @abstractmethod
    def _charge(self, vma: int, more: int, flags: int) -> int:
        """Ask the machine for memory for so many bytes more: pages charged, or an error."""

    def _room_behind(self, vma: int, addr: int, old_len: int, new_len: int, flags: int) -> bool:
        """Whether it can grow where it is, up to the next VMA. False: it must move, or cannot."""
        area = self._areas.vma(vma)
        if old_len != area.vm_end - addr or (old_len == new_len and flags & MREMAP_MAYMOVE):
            return False
        limit = self._areas.vma(area.vm_next).vm_start if area.vm_next else TASK_SIZE
        return limit - addr & _U32 >= new_len

    def _expand(self, vma: int, addr: int, old_len: int, new_len: int) -> None:
        """Let a VMA that ends with the range end with the longer one."""
        area = self._areas.vma(vma)
        self._set_end(vma, addr + new_len)
        pages = new_len - old_len >> PAGE_SHIFT
        self._parts.accounting.count(area.vm_mm, area.vm_flags, area.vm_file, pages)
        if area.vm_flags & VM_LOCKED:
            self._parts.pages.make_pages_present(addr + old_len, addr + new_len)

    @abstractmethod
    def _set_end(self, vma: int, end: int) -> None:
        """Nothing is mapped between the end of a VMA and ``end``."""

    @abstractmethod
    def _move_vma(self, vma: int, addr: int, old_len: int, new_len: int, new_addr: int) -> int:
        """``move_vma()``: a VMA at the target, its pages there, the old range gone."""

    def _count_moved(
        self, mm: int, vm_flags: int, file: int, old_len: int, new_len: int, new_addr: int
    ) -> None:
        """Count what is mapped at the target; what is new there comes now if it is locked."""
        self._parts.accounting.count(mm, vm_flags, file, new_len >> PAGE_SHIFT)
        if vm_flags & VM_LOCKED and new_len > old_len:
            self._parts.pages.make_pages_present(new_addr + old_len, new_addr + new_len)
