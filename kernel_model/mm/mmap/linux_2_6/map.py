# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``mmap()`` and ``brk()`` do besides in 2.6.

Models linux-2.6.11 ``mm/mmap.c: do_mmap_pgoff()``, ``sys_brk()``, ``do_brk()`` where they differ
from 2.4 (book 4.8): ``MAP_LOCKED`` and ``MAP_POPULATE``; a heap stays in user space.
"""

from kernel_model.arch_i386.page import TASK_SIZE, page_align
from kernel_model.errno import EINVAL, EPERM
from kernel_model.mm.address_spaces import RemapFilePages
from kernel_model.mm.mmap.brk import Brk
from kernel_model.mm.mmap.linux_2_6.limits import CommittedMemory
from kernel_model.mm.mmap.linux_2_6.pages import PageOperations
from kernel_model.mm.mmap.map import Mapper, calc_vm_flags
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.structs.mm import VM_LOCKED
from kernel_model.structs.mman import MAP_LOCKED, MAP_NONBLOCK, MAP_POPULATE


class PopulatingMapper(Mapper):
    """``mmap()`` of 2.6."""

    def __init__(
        self,
        parts: VmaParts,
        limits: CommittedMemory,
        remap_file_pages: RemapFilePages,
        pages: PageOperations,
    ) -> None:
        super().__init__(parts)
        self._pages = pages
        self._committed = limits
        self._remap_file_pages = remap_file_pages

    def _requested(self, prot: int, flags: int) -> int:
        if not flags & MAP_LOCKED:
            return calc_vm_flags(prot, flags)
        return calc_vm_flags(prot, flags) | VM_LOCKED if self._committed.can_do_mlock() else -EPERM

    def _charge(self, file: int, pages: int, vm_flags: int, flags: int) -> int:
        """Huge pages come from their pool, which has been paid for."""
        if self._areas.files.is_file_hugepages(file):
            return vm_flags
        return super()._charge(file, pages, vm_flags, flags)

    def _unmap_failed(self, mm: int, vma: int) -> None:
        area = self._areas.vma(vma)
        gather = self._pages.tlb_gather_mmu(mm, full_mm_flush=False)
        gather.unmap_vmas([vma], area.vm_start, area.vm_end)
        gather.tlb_finish_mmu(area.vm_start, area.vm_end)

    def _mapped(self, addr: int, length: int, flags: int, pgoff: int) -> None:
        """Bring the pages in, if that was asked for; nobody hears whether it worked."""
        if flags & MAP_POPULATE:
            self._remap_file_pages(addr, length, 0, pgoff, flags & MAP_NONBLOCK)


class UserSpaceBrk(Brk):
    """``brk()`` of 2.6."""

    def _worth_trying(self, length: int) -> bool:
        """``do_brk()`` finds out, and charges."""
        return True

    def do_brk(self, addr: int, length: int) -> int:
        """Map zeros at ``addr``, as a heap has them, in user space. ``addr``, or an error."""
        if page_align(length) and addr + page_align(length) > TASK_SIZE:
            return -EINVAL
        return super().do_brk(addr, length)
