# SPDX-License-Identifier: GPL-2.0-or-later
"""Address spaces and their VMAs as views over RAM, and the memory that VMAs come from.

Models ``include/linux/mm.h: struct vm_area_struct``, ``include/linux/sched.h: struct mm_struct`` of
linux-2.4.22 and 2.6.11 (book 4.3, 4.4, 4.8). In RAM: both, the first from the slab cache
``vm_area_cachep``. An ``mm`` or a ``vma`` is a kernel virtual address; :meth:`Areas.vma` and
:meth:`Areas.mm` are views of what stands there, and stay good for the address.

What can fail: :meth:`Areas.alloc` returns 0 when memory is out.
"""

from typing import Any, Protocol, cast

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.fs.file_table import Files, ObjectCaches
from kernel_model.image import KernelImage


class VmArea(Protocol):
    """The fields of a ``struct vm_area_struct``; numbers wrap at 32 bits, as in C."""

    vm_mm: int
    vm_start: int
    vm_end: int
    vm_next: int
    vm_page_prot: int
    vm_flags: int
    vm_ops: int
    vm_pgoff: int
    vm_file: int
    vm_private_data: int

    # 2.4 only.
    vm_next_share: int
    vm_pprev_share: int
    vm_raend: int

    # 2.6 only.
    anon_vma: int
    vm_truncate_count: int


class MmStruct(Protocol):
    """The fields of a ``struct mm_struct`` that the VMA layer uses."""

    mmap: int
    mm_rb: Any
    mmap_cache: int
    pgd: int
    mm_users: int
    mm_count: int
    map_count: int
    start_code: int
    end_code: int
    start_data: int
    end_data: int
    start_brk: int
    brk: int
    start_stack: int
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    rss: int
    total_vm: int
    locked_vm: int
    def_flags: int
    cpu_vm_mask: int

    # 2.4 only.
    swap_address: int

    # 2.6 only.
    get_unmapped_area: int
    unmap_area: int
    mmap_base: int
    free_area_cache: int
    anon_rss: int
    shared_vm: int
    exec_vm: int
    stack_vm: int
    reserved_vm: int
    nr_ptes: int


class Areas:
    """The VMAs of every address space of a machine."""

    def __init__(self, image: KernelImage, slab: ObjectCaches, files: Files) -> None:
        self.image = image
        self.statics = image.statics
        self.words = image.ram.words
        self.files = files
        self._slab = slab
        self._gfp_kernel = image.constants.gfp.kernel
        self._vma_words = image.structs.vm_area_struct.size >> 2
        self._vmas: dict[int, VmArea] = {}
        self._mms: dict[int, MmStruct] = {}

    # -- views ---------------------------------------------------------------------------------

    def vma(self, vma: int) -> VmArea:
        view = self._vmas.get(vma)
        if view is None:
            view = cast(VmArea, self.image.at(self.image.structs.vm_area_struct, vma))
            self._vmas[vma] = view
        return view

    def mm(self, mm: int) -> MmStruct:
        view = self._mms.get(mm)
        if view is None:
            view = self._mms[mm] = cast(MmStruct, self.image.at(self.image.structs.mm_struct, mm))
        return view

    @property
    def current_mm(self) -> int:
        """``current->mm``; 0 for a thread of the kernel."""
        return int(self.image.current_task.mm)

    def list(self, mm: int) -> list[int]:
        """The VMAs of an address space, lowest address first."""
        vmas, vma = [], self.mm(mm).mmap
        while vma:
            vmas.append(vma)
            vma = self.vma(vma).vm_next
        return vmas

    # -- memory --------------------------------------------------------------------------------

    def alloc(self) -> int:
        """A VMA of undefined contents; 0 when memory is out."""
        return self._slab.kmem_cache_alloc(int(self.statics.vm_area_cachep), self._gfp_kernel)

    def free(self, vma: int) -> None:
        self._slab.kmem_cache_free(int(self.statics.vm_area_cachep), vma)

    def copy(self, new: int, old: int) -> None:
        """``*new = *old``."""
        to, start = new - PAGE_OFFSET >> 2, old - PAGE_OFFSET >> 2
        self.words[to : to + self._vma_words] = self.words[start : start + self._vma_words]

    def fill(self, vma: int, mm: int, start: int, end: int, vm_flags: int, pgoff: int) -> None:
        """The fields of a new VMA that has no file, nor anything else, yet."""
        self.image.ram.fill(virt_to_phys(vma), self._vma_words << 2)
        area = self.vma(vma)
        area.vm_mm, area.vm_start, area.vm_end = mm, start, end
        area.vm_flags, area.vm_page_prot = vm_flags, PROTECTION_MAP[vm_flags & 0xF]
        area.vm_pgoff = pgoff

    # -- vm_operations -------------------------------------------------------------------------

    def operation(self, vma: int, name: str) -> int:
        """The address of one of ``vma->vm_ops``; 0 when there is none of that name."""
        vm_ops = self.vma(vma).vm_ops
        if not vm_ops:
            return 0
        operations = self.image.at(self.image.structs.vm_operations_struct, vm_ops)
        return int(getattr(operations, name))

    def _operation(self, vma: int, name: str) -> None:
        if function := self.operation(vma, name):
            self.image.functions.call(function, vma)

    def open(self, vma: int) -> None:
        """``vma->vm_ops->open(vma)``, if there is one: a VMA was copied."""
        self._operation(vma, "open")

    def close(self, vma: int) -> None:
        """``vma->vm_ops->close(vma)``, if there is one: a VMA goes."""
        self._operation(vma, "close")

    def share_file(self, vma: int) -> None:
        """A copied VMA uses its file too, and tells whoever provides its pages."""
        if file := self.vma(vma).vm_file:
            self.files.get_file(file)
        self.open(vma)
