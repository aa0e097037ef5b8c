# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMA layer of a machine, put together: every operation by its kernel name.

Models the interface of ``mm/mmap.c``, ``mm/mprotect.c``, ``mm/mremap.c`` and ``mm/mlock.c`` (book
chapter 4). What it is put together from says the release
(:mod:`kernel_model.mm.mmap.linux_2_4`, :mod:`kernel_model.mm.mmap.linux_2_6`). An ``mm``, a ``vma``
and a ``file`` are kernel virtual addresses, 0 is NULL; what takes no ``mm`` works on that of the
current process. An address or 0 is success, a number below 0 an error.

The kernel's ``mmap_sem``, ``page_table_lock`` and ``i_mmap_lock`` guard all this; nothing sleeps
and nobody else runs here, so they are only laid out.
"""

from collections.abc import Callable

from kernel_model.errno import ENOSYS
from kernel_model.mm.advise import Advise
from kernel_model.mm.mlock import Mlock
from kernel_model.mm.mmap.brk import Brk
from kernel_model.mm.mmap.map import Mapper
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.mm.mmap.stack import Stacks
from kernel_model.mm.mprotect import Mprotect
from kernel_model.mm.mremap import Mremap

RemapFilePages = Callable[[int, int, int, int, int], int]
"""``sys_remap_file_pages(start, size, prot, pgoff, flags)``."""


def no_such_call(start: int, size: int, prot: int, pgoff: int, flags: int) -> int:
    """Pages in any order came with 2.6."""
    return -ENOSYS


class AddressSpaces:
    """All address spaces of a machine."""

    def __init__(
        self,
        parts: VmaParts,
        *,
        mapper: Mapper,
        brk: Brk,
        mprotect: Mprotect,
        mremap: Mremap,
        mlock: Mlock,
        exit_mmap: Callable[[int], None],
        remap_file_pages: RemapFilePages = no_such_call,
    ) -> None:
        self.parts = parts
        self.files = parts.areas.files
        self.pages = parts.pages
        self.areas = parts.areas
        self.limits = parts.limits
        self.links = parts.links
        self.shmem = parts.shmem
        stacks = Stacks(parts)

        self.find_vma = parts.finder.find_vma
        self.find_vma_prev = parts.finder.find_vma_prev
        self.find_vma_intersection = parts.finder.find_vma_intersection
        self.find_vma_prepare = parts.finder.find_vma_prepare
        self.find_extend_vma = stacks.find_extend_vma
        self.expand_stack = stacks.expand_stack
        self.get_unmapped_area = parts.unmapped.get_unmapped_area
        self.insert_vm_struct = parts.links.insert_vm_struct
        self.do_mmap = mapper.do_mmap
        self.do_mmap_pgoff = mapper.do_mmap_pgoff
        self.do_munmap = parts.unmapper.do_munmap
        self.do_brk = brk.do_brk
        self.sys_brk = brk.sys_brk
        self.sys_mprotect = mprotect.sys_mprotect
        self.do_mremap = mremap.do_mremap
        self.sys_mlock = mlock.sys_mlock
        self.sys_munlock = mlock.sys_munlock
        self.sys_mlockall = mlock.sys_mlockall
        self.sys_munlockall = mlock.sys_munlockall
        self.advise = Advise(parts)
        self.sys_remap_file_pages = remap_file_pages
        self.exit_mmap = exit_mmap
        self.vm_enough_memory = parts.limits.vm_enough_memory
