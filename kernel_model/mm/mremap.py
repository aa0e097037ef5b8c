# SPDX-License-Identifier: GPL-2.0-or-later
"""Growing, shrinking and moving a mapping.

Models linux-2.4.22 ``mm/mremap.c: do_mremap()``, ``move_vma()`` (book 4.4). The pages move
through :class:`~kernel_model.mm.mmap.pages.PageOperations`.

What can fail: a negative error instead of an address. With ``MREMAP_FIXED`` whatever was mapped
at the target is gone by then, and a target that could not be cleared is not noticed until the
kernel's own ``BUG()``.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, TASK_SIZE, page_align
from kernel_model.errno import EAGAIN, EFAULT, EINVAL, ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.link import Links, can_vma_merge
from kernel_model.mm.mmap.pages import PageOperations
from kernel_model.mm.mmap.unmap import Unmapper
from kernel_model.mm.mmap.unmapped_area import UnmappedAreas
from kernel_model.structs.mm import VM_DONTEXPAND, VM_LOCKED, VM_SHARED, VM_WRITE
from kernel_model.structs.mman import MAP_NORESERVE, MAP_SHARED, MREMAP_FIXED, MREMAP_MAYMOVE

_U32: Final = 0xFFFFFFFF


class Mremap:
    """``mremap()`` in the current address space."""

    def __init__(
        self,
        areas: Areas,
        finder: Finder,
        links: Links,
        limits: Limits,
        unmapper: Unmapper,
        unmapped: UnmappedAreas,
        pages: PageOperations,
    ) -> None:
        self._areas = areas
        self._finder = finder
        self._links = links
        self._limits = limits
        self._unmapper = unmapper
        self._unmapped = unmapped
        self._pages = pages

    def do_mremap(self, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> int:
        """Make ``old_len`` bytes at ``addr`` ``new_len`` bytes. Where they are now, or an error."""
        if flags & ~(MREMAP_FIXED | MREMAP_MAYMOVE) or addr & ~PAGE_MASK:
            return -EINVAL
        old_len, new_len = page_align(old_len), page_align(new_len)
        fixed = bool(flags & MREMAP_FIXED)
        mm = self._areas.current_mm
        if fixed:
            if not self._valid_target(addr, old_len, new_len, flags, new_addr):
                return -EINVAL
            self._unmapper.do_munmap(mm, new_addr, new_len)
        if old_len >= new_len:
            self._unmapper.do_munmap(mm, addr + new_len & _U32, old_len - new_len)
            if not fixed or new_addr == addr:
                return addr
        vma = self._finder.find_vma(mm, addr)
        if not vma or self._areas.vma(vma).vm_start > addr:
            return -EFAULT
        if error := self._refusal(mm, vma, addr, old_len, new_len, flags):
            return error
        stays = not fixed or addr == new_addr
        if stays and self._expand(mm, vma, addr, old_len, new_len, flags):
            return addr
        if not flags & MREMAP_MAYMOVE:
            return -ENOMEM
        if not fixed:
            area = self._areas.vma(vma)
            map_flags = MAP_SHARED if area.vm_flags & VM_SHARED else 0
            new_addr = self._unmapped.get_unmapped_area(
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

    def _refusal(self, mm: int, vma: int, addr: int, old_len: int, new_len: int, flags: int) -> int:
        """Why the VMA cannot have the new length; 0 when it can. Lengths may also shrink."""
        area, more = self._areas.vma(vma), new_len - old_len & _U32
        if old_len > area.vm_end - addr:
            return -EFAULT
        if area.vm_flags & VM_DONTEXPAND and new_len > old_len:
            return -EFAULT
        if area.vm_flags & VM_LOCKED and self._limits.too_much_locked(mm, more):
            return -EAGAIN
        if self._limits.too_large(mm, more):
            return -ENOMEM
        private = area.vm_flags & (VM_SHARED | VM_WRITE) == VM_WRITE
        if private and not flags & MAP_NORESERVE:
            return 0 if self._limits.vm_enough_memory(more >> PAGE_SHIFT) else -ENOMEM
        return 0

    def _expand(self, mm: int, vma: int, addr: int, old_len: int, new_len: int, flags: int) -> bool:
        """Grow where it is, up to the next VMA. False: it must move, or cannot grow."""
        area, space = self._areas.vma(vma), self._areas.mm(mm)
        if old_len != area.vm_end - addr or (old_len == new_len and flags & MREMAP_MAYMOVE):
            return False
        limit = self._areas.vma(area.vm_next).vm_start if area.vm_next else TASK_SIZE
        if limit - addr & _U32 < new_len:
            return False
        pages = new_len - old_len >> PAGE_SHIFT
        area.vm_end = addr + new_len
        space.total_vm += pages
        if area.vm_flags & VM_LOCKED:
            space.locked_vm += pages
            self._pages.make_pages_present(addr + old_len, addr + new_len)
        return True

    # -- moving --------------------------------------------------------------------------------

    def _move_vma(self, vma: int, addr: int, old_len: int, new_len: int, new_addr: int) -> int:
        """Pages first, then a VMA for them, then the old range goes."""
        area = self._areas.vma(vma)
        mm = area.vm_mm
        merged = self._merge_at_target(mm, vma, new_addr, new_len)
        new_vma = merged or self._areas.alloc()
        if not new_vma:
            return -ENOMEM
        if self._pages.move_page_tables(mm, new_addr, addr, old_len):
            if not merged:
                self._areas.free(new_vma)
            return -ENOMEM
        locked = area.vm_flags & VM_LOCKED
        if not merged:
            self._areas.copy(new_vma, vma)
            new_area = self._areas.vma(new_vma)
            new_area.vm_start, new_area.vm_end = new_addr, new_addr + new_len
            new_area.vm_pgoff += addr - area.vm_start >> PAGE_SHIFT
            new_area.vm_raend = 0
            self._areas.share_file(new_vma)
            self._links.insert_vm_struct(mm, new_vma)
        self._unmapper.do_munmap(mm, addr, old_len)
        space = self._areas.mm(mm)
        space.total_vm += new_len >> PAGE_SHIFT
        if locked:
            space.locked_vm += new_len >> PAGE_SHIFT
            if new_len > old_len:
                self._pages.make_pages_present(new_addr + old_len, new_addr + new_len)
        return new_addr

    def _merge_at_target(self, mm: int, vma: int, new_addr: int, new_len: int) -> int:
        """Let a neighbour of the target grow over it. Returns that VMA, 0: none may."""
        area = self._areas.vma(vma)
        anonymous = not area.vm_file and not area.vm_flags & VM_SHARED
        following, prev = self._finder.find_vma_prev(mm, new_addr)
        if not following:
            # Nothing above the target: the VMA below it is found only this way.
            prev = self._finder.find_vma(mm, new_addr - 1 & _U32)
        if not anonymous:
            return 0
        if prev and self._touches(prev, new_addr, area.vm_flags):
            before = self._areas.vma(prev)
            before.vm_end = new_addr + new_len
            if following and following != before.vm_next:
                raise KernelBug("mremap.c", 143, "not the next VMA follows")
            self._links.absorb_next(mm, prev)
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
