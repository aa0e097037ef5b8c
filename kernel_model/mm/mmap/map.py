# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a mapping.

Models ``mm/mmap.c: do_mmap_pgoff()``, ``calc_vm_flags()`` and ``include/linux/mm.h: do_mmap()`` of
linux-2.4.22 and 2.6.11 (book 4.4, 4.8). The checks come in the kernel's order, so that a request
with two things wrong gets the kernel's answer; what was mapped in the range goes before the last
of them.

What can fail: a negative error number instead of an address.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, TASK_SIZE, page_align
from kernel_model.errno import EACCES, EAGAIN, EINVAL, ENODEV, ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.find import Place
from kernel_model.mm.mmap.parts import Content, VmaParts
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE, S_APPEND
from kernel_model.structs.mm import (
    VM_ACCESS,
    VM_DENYWRITE,
    VM_EXECUTABLE,
    VM_GROWSDOWN,
    VM_GROWSUP,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_SHARED,
)
from kernel_model.structs.mman import MAP_PRIVATE, MAP_SHARED, MAP_TYPE, PROT_WRITE

_U32: Final = 0xFFFFFFFF
_MAY: Final = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
_FROM_MAP_FLAGS: Final = VM_GROWSDOWN | VM_DENYWRITE | VM_EXECUTABLE
"""These have the same bits as the ``MAP_`` flags that ask for them."""


def calc_vm_flags(prot: int, flags: int) -> int:
    """``vm_flags`` that a request names itself."""
    return prot & VM_ACCESS | flags & _FROM_MAP_FLAGS


class Mapper:
    """``mmap()`` in the current address space."""

    def __init__(self, parts: VmaParts) -> None:
        self._parts = parts
        self._areas = parts.areas
        self._limits = parts.limits

    def do_mmap(self, file: int, addr: int, length: int, prot: int, flag: int, offset: int) -> int:
        """The same with an offset in bytes."""
        if offset + page_align(length) > _U32 or offset & ~PAGE_MASK:
            return -EINVAL
        return self.do_mmap_pgoff(file, addr, length, prot, flag, offset >> PAGE_SHIFT)

    def do_mmap_pgoff(
        self, file: int, addr: int, length: int, prot: int, flags: int, pgoff: int
    ) -> int:
        """Map ``length`` bytes of ``file`` from page ``pgoff`` on, or zeros. Where, or an error."""
        if file and not self._areas.files.operation(file, "mmap"):
            return -ENODEV
        if not length:
            return addr
        length = page_align(length)
        if length > TASK_SIZE or not length or pgoff + (length >> PAGE_SHIFT) > _U32:
            return -EINVAL
        mm = self._areas.current_mm
        space = self._areas.mm(mm)
        if space.map_count > self._areas.statics.max_map_count:
            return -ENOMEM
        addr = self._parts.unmapped.get_unmapped_area(file, addr, length, pgoff, flags)
        if addr & ~PAGE_MASK:
            return addr
        vm_flags = self._requested(prot, flags)
        if vm_flags < 0:
            return vm_flags
        vm_flags |= space.def_flags | _MAY
        if vm_flags & VM_LOCKED and self._limits.too_much_locked(mm, length):
            return -EAGAIN
        vm_flags = self._sharing(file, prot, flags, vm_flags)
        if vm_flags < 0:
            return vm_flags
        if not file and not vm_flags & VM_SHARED:
            pgoff = self._parts.merging.anonymous_pgoff(addr, pgoff)
        place = self.clear_old_maps(mm, addr, length)
        if place is None or self._limits.too_large(mm, length):
            return -ENOMEM
        vm_flags = self._charge(file, length >> PAGE_SHIFT, vm_flags, flags)
        if vm_flags < 0:
            return vm_flags
        vma = self._map(mm, place, addr, addr + length, Content(vm_flags, file, pgoff))
        if vma < 0:
            self._limits.uncharge_mapping(length >> PAGE_SHIFT, vm_flags)
            return vma
        area = self._areas.vma(vma)
        self.count(mm, addr, length, area.vm_flags, area.vm_file)
        self._mapped(addr, length, flags, pgoff)
        return addr

    def _requested(self, prot: int, flags: int) -> int:
        """``vm_flags`` that the request names itself, or an error."""
        return calc_vm_flags(prot, flags)

    def _mapped(self, addr: int, length: int, flags: int, pgoff: int) -> None:
        """What else was asked for with the mapping."""

    def _charge(self, file: int, pages: int, vm_flags: int, flags: int) -> int:
        """Ask for what the mapping may come to need: its ``vm_flags``, or an error."""
        return self._limits.charge_mapping(pages, vm_flags, flags)

    def _unmap_failed(self, mm: int, vma: int) -> None:
        """A file did not map all of a VMA, which is not linked: what it did map goes."""
        area = self._areas.vma(vma)
        self._parts.pages.zap_page_range(mm, area.vm_start, area.vm_end - area.vm_start)

    def _sharing(self, file: int, prot: int, flags: int, vm_flags: int) -> int:
        """``vm_flags`` with what follows from shared or private, or an error.

        A shared mapping of a file that was not opened for writing never becomes writable; it
        counts as private but keeps ``VM_MAYSHARE``.
        """
        kind = flags & MAP_TYPE
        if kind not in (MAP_SHARED, MAP_PRIVATE):
            return -EINVAL
        shared = kind == MAP_SHARED
        if shared:
            vm_flags |= VM_SHARED | VM_MAYSHARE
        if not file:
            return vm_flags
        mode = int(self._areas.files.file(file).f_mode)
        if shared:
            if prot & PROT_WRITE and not mode & FMODE_WRITE:
                return -EACCES
            inode = self._areas.files.inode(self._areas.files.inode_of(file))
            if inode.i_flags & S_APPEND and mode & FMODE_WRITE:
                return -EACCES
            if not mode & FMODE_WRITE:
                vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
        return vm_flags if mode & FMODE_READ else -EACCES

    def clear_old_maps(self, mm: int, addr: int, length: int) -> Place | None:
        """Unmap the range, and find the place for a VMA there. None: not even that worked."""
        end = addr + length & _U32
        while True:
            place = self._parts.finder.find_vma_prepare(mm, addr)
            if not place.vma or self._areas.vma(place.vma).vm_start >= end:
                return place
            if self._parts.unmapper.do_munmap(mm, addr, length):
                return None

    def count(self, mm: int, addr: int, length: int, vm_flags: int, file: int) -> None:
        """Count a new mapping; one that is locked gets its pages now."""
        self._parts.accounting.count(mm, vm_flags, file, length >> PAGE_SHIFT)
        if vm_flags & VM_LOCKED:
            self._parts.pages.make_pages_present(addr, addr + length)

    def _map(self, mm: int, place: Place, start: int, end: int, content: Content) -> int:
        """A VMA over the range: a neighbour that grows, or one of its own. Or an error.

        What a file says to the mapping may decide whether it can merge, so it is asked first.
        """
        merging, merged = self._parts.merging, 0
        if not content.file and not content.vm_flags & VM_SHARED:
            merged = merging.vma_merge(mm, place, start, end, content)
        if merged:
            return merged
        vma = self._new_area(mm, start, end, content)
        if vma < 0:
            return vma
        area, files = self._areas.vma(vma), self._areas.files
        if content.file:
            own = Content(area.vm_flags, content.file, area.vm_pgoff)
            merged = merging.vma_merge(mm, place, start, end, own)
        if not merged:
            self._parts.links.vma_link(mm, vma, place)
        if content.file and content.vm_flags & VM_DENYWRITE:
            files.inode(files.inode_of(content.file)).i_writecount += 1
        if merged:
            files.fput(content.file)
            self._areas.free(vma)
        return merged or vma

    def _new_area(self, mm: int, start: int, end: int, content: Content) -> int:
        """A VMA that is not linked yet. Or an error, and nothing is left of it."""
        vma = self._areas.alloc()
        if not vma:
            return -ENOMEM
        self._areas.fill(vma, mm, start, end, content.vm_flags, content.pgoff)
        error = 0
        if content.file:
            error = self._map_file(mm, vma, content.file)
        elif content.vm_flags & VM_SHARED:
            error = self._parts.shmem.shmem_zero_setup(vma)
        if error:
            self._areas.free(vma)
            return error
        area = self._areas.vma(vma)
        if area.vm_start != start:
            raise KernelBug("mmap.c", 0, "a file's mmap() moved the mapping: not modelled")
        if area.vm_flags & VM_SHARED:
            # The pages were charged to the file, if they were.
            area.vm_flags &= ~self._limits.account_flag
        return vma

    def _map_file(self, mm: int, vma: int, file: int) -> int:
        """Let the file say how its pages come. Writing is denied meanwhile if it shall be."""
        area, files = self._areas.vma(vma), self._areas.files
        if area.vm_flags & (VM_GROWSDOWN | VM_GROWSUP):
            return -EINVAL
        denies = area.vm_flags & VM_DENYWRITE
        if denies and (error := files.deny_write_access(file)):
            return error
        area.vm_file = file
        files.get_file(file)
        mmap = files.operation(file, "mmap")
        error = self._areas.image.functions.call(mmap, file, vma)
        if error:
            if denies:
                files.inode(files.inode_of(file)).i_writecount += 1
            area.vm_file = 0
            files.fput(file)
            self._unmap_failed(mm, vma)
        return error
