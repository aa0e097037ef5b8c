# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a mapping.

Models linux-2.4.22 ``mm/mmap.c: do_mmap_pgoff()``, ``calc_vm_flags()`` and ``include/linux/mm.h:
do_mmap()`` (book 4.4). The checks come in the kernel's order, so that a request with two
things wrong gets the kernel's answer; what was mapped in the range goes before the last of them.

What can fail: a negative error number instead of an address.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, TASK_SIZE, page_align
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.errno import EACCES, EAGAIN, EINVAL, ENODEV, ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder, Place
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.link import Links
from kernel_model.mm.mmap.pages import PageOperations
from kernel_model.mm.mmap.unmap import Unmapper
from kernel_model.mm.mmap.unmapped_area import UnmappedAreas
from kernel_model.mm.shmem import ShmemFiles
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
    VM_WRITE,
)
from kernel_model.structs.mman import MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, MAP_TYPE, PROT_WRITE

_U32: Final = 0xFFFFFFFF
_MAY: Final = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
_FROM_MAP_FLAGS: Final = VM_GROWSDOWN | VM_DENYWRITE | VM_EXECUTABLE
"""These have the same bits as the ``MAP_`` flags that ask for them."""


def calc_vm_flags(prot: int, flags: int) -> int:
    """``vm_flags`` that a request names itself."""
    return prot & VM_ACCESS | flags & _FROM_MAP_FLAGS


class Mapper:
    """``mmap()`` in the current address space."""

    def __init__(
        self,
        areas: Areas,
        finder: Finder,
        links: Links,
        limits: Limits,
        unmapper: Unmapper,
        unmapped: UnmappedAreas,
        shmem: ShmemFiles,
        pages: PageOperations,
    ) -> None:
        self._areas = areas
        self._finder = finder
        self._links = links
        self._limits = limits
        self._unmapper = unmapper
        self._unmapped = unmapped
        self._shmem = shmem
        self._pages = pages

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
        addr = self._unmapped.get_unmapped_area(file, addr, length, pgoff, flags)
        if addr & ~PAGE_MASK:
            return addr
        vm_flags = calc_vm_flags(prot, flags) | space.def_flags | _MAY
        if vm_flags & VM_LOCKED and self._limits.too_much_locked(mm, length):
            return -EAGAIN
        vm_flags = self._sharing(file, prot, flags, vm_flags)
        if vm_flags < 0:
            return vm_flags
        place = self.clear_old_maps(mm, addr, length)
        if place is None or not self._affordable(mm, length, vm_flags, flags):
            return -ENOMEM
        merged = (
            not file
            and not vm_flags & VM_SHARED
            and place.rb_parent
            and self._links.vma_merge(mm, place, addr, addr + length, vm_flags)
        )
        if not merged:
            error = self._new_area(mm, file, addr, length, flags, vm_flags, pgoff, place)
            if error:
                return error
        self.account(mm, addr, length, vm_flags)
        return addr

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
            place = self._finder.find_vma_prepare(mm, addr)
            if not place.vma or self._areas.vma(place.vma).vm_start >= end:
                return place
            if self._unmapper.do_munmap(mm, addr, length):
                return None

    def _affordable(self, mm: int, length: int, vm_flags: int, flags: int) -> bool:
        """Within the limits. Only private writable memory is memory that must be there."""
        if self._limits.too_large(mm, length):
            return False
        private = vm_flags & (VM_SHARED | VM_WRITE) == VM_WRITE
        if not private or flags & MAP_NORESERVE:
            return True
        return self._limits.vm_enough_memory(length >> PAGE_SHIFT)

    def account(self, mm: int, addr: int, length: int, vm_flags: int) -> None:
        """Count a new mapping; one that is locked gets its pages now."""
        space = self._areas.mm(mm)
        space.total_vm += length >> PAGE_SHIFT
        if vm_flags & VM_LOCKED:
            space.locked_vm += length >> PAGE_SHIFT
            self._pages.make_pages_present(addr, addr + length)

    def fill(self, mm: int, vma: int, addr: int, length: int, vm_flags: int, pgoff: int) -> None:
        """The fields of a new VMA that has no file yet."""
        area = self._areas.vma(vma)
        area.vm_mm, area.vm_start, area.vm_end = mm, addr, addr + length
        area.vm_flags, area.vm_page_prot = vm_flags, PROTECTION_MAP[vm_flags & 0xF]
        area.vm_pgoff = pgoff
        area.vm_ops = area.vm_file = area.vm_private_data = area.vm_raend = 0

    def _new_area(
        self,
        mm: int,
        file: int,
        addr: int,
        length: int,
        flags: int,
        vm_flags: int,
        pgoff: int,
        place: Place,
    ) -> int:
        """A VMA of its own for the mapping. Nonzero: an error, and nothing is left of it."""
        vma = self._areas.alloc()
        if not vma:
            return -ENOMEM
        self.fill(mm, vma, addr, length, vm_flags, pgoff)
        error = 0
        if file:
            error = self._map_file(mm, vma, file)
        elif flags & MAP_SHARED:
            error = self._shmem.shmem_zero_setup(vma)
        if error:
            self._areas.free(vma)
            return error
        if self._areas.vma(vma).vm_start != addr:
            raise KernelBug("mmap.c", 0, "a file's mmap() moved the mapping: not modelled")
        self._links.vma_link(mm, vma, place)
        if file and vm_flags & VM_DENYWRITE:
            self._areas.files.inode(self._areas.files.inode_of(file)).i_writecount += 1
        return 0

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
            self._pages.zap_page_range(mm, area.vm_start, area.vm_end - area.vm_start)
        return error
