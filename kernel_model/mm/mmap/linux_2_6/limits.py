# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is promised when it is mapped, as 2.6 counts it.

Models linux-2.6.11 ``mm/mmap.c: __vm_enough_memory()``, ``acct_stack_growth()`` and ``mm/mlock.c:
can_do_mlock()`` (book 4.8). In RAM: ``vm_committed_space``, in pages, all that is charged;
``overcommit_memory``: 0, what could be reclaimed now must do; 1, always enough; 2, all that is
promised must fit into swap and ``overcommit_ratio`` percent of RAM, the pool of huge pages not
counted. The last 3% are for root.

On several CPUs the kernel adds to ``vm_committed_space`` in batches; here it is always exact.
"""

from collections.abc import Callable
from typing import ClassVar, Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import ENOMEM, EPERM
from kernel_model.mm.hugetlb.geometry import HugePages
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.limits import Limits
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT
from kernel_model.structs.mm import VM_LOCKED, VM_SHARED
from kernel_model.structs.mman import MAP_NORESERVE
from kernel_model.structs.sched import CAP_IPC_LOCK, CAP_SYS_ADMIN, RLIMIT_MEMLOCK

OVERCOMMIT_GUESS: Final = 0
OVERCOMMIT_ALWAYS: Final = 1
OVERCOMMIT_NEVER: Final = 2
_U32: Final = 0xFFFFFFFF
_ROOTS_SHARE: Final = 32
"""One page of so many is for root; and of an address space for the others."""


class CommittedMemory(Limits):
    """What may come to be needed is charged; ``VM_ACCOUNT`` says of which mappings."""

    account_flag: ClassVar[int] = VM_ACCOUNT

    def __init__(self, areas: Areas, nr_free_pages: Callable[[], int]) -> None:
        super().__init__(areas, nr_free_pages)
        self._huge = HugePages.of(pae=areas.image.config.pae)

    # -- charging ------------------------------------------------------------------------------

    def vm_enough_memory(self, pages: int) -> bool:
        statics = self._areas.statics
        statics.vm_committed_space += pages
        mode = statics.sysctl_overcommit_memory
        if mode == OVERCOMMIT_ALWAYS:
            return True
        enough = self._reclaimable(pages) if mode == OVERCOMMIT_GUESS else self._allowed()
        if not enough:
            statics.vm_committed_space -= pages
        return enough

    def vm_unacct_memory(self, pages: int) -> None:
        self._areas.statics.vm_committed_space -= pages

    def _without_roots_share(self, pages: int) -> int:
        return pages if self.capable(CAP_SYS_ADMIN) else pages - pages // _ROOTS_SHARE

    def _reclaimable(self, pages: int) -> bool:
        """Whether there is enough now, counting all that could be reclaimed."""
        statics = self._areas.statics
        free = int(statics.nr_pagecache) + int(statics.nr_swap_pages)
        free = self._without_roots_share(free + int(statics.slab_reclaim_pages) & _U32)
        if free > pages:
            return True
        return free + self._without_roots_share(self._nr_free_pages()) & _U32 > pages

    def _allowed(self) -> bool:
        """Whether all that is promised fits into RAM and swap."""
        statics = self._areas.statics
        huge = int(statics.nr_huge_pages) << self._huge.order
        allowed = (int(statics.totalram_pages) - huge) * int(statics.sysctl_overcommit_ratio) & _U32
        allowed = self._without_roots_share(allowed // 100) + int(statics.total_swap_pages)
        allowed -= self._areas.mm(self._areas.current_mm).total_vm // _ROOTS_SHARE
        return int(statics.vm_committed_space) & _U32 < allowed & _U32

    def charge_mapping(self, pages: int, vm_flags: int, flags: int) -> int:
        """A shared mapping is charged to its file; ``MAP_NORESERVE`` asks for no charge."""
        never = self._areas.statics.sysctl_overcommit_memory == OVERCOMMIT_NEVER
        if flags & MAP_NORESERVE and not never:
            return vm_flags
        if vm_flags & VM_SHARED:
            return vm_flags | VM_ACCOUNT
        if not self.private_writable(vm_flags):
            return vm_flags
        return vm_flags | VM_ACCOUNT if self.vm_enough_memory(pages) else -ENOMEM

    def charge_growth(self, mm: int, vm_flags: int, pages: int) -> bool:
        """``acct_stack_growth()``: the charge comes last, for nothing takes it back."""
        if vm_flags & VM_LOCKED and self.too_much_locked(mm, pages << PAGE_SHIFT):
            return False
        return self.vm_enough_memory(pages)

    # -- locking -------------------------------------------------------------------------------

    def can_do_mlock(self) -> bool:
        """Whether the process may lock anything at all."""
        return self.capable(CAP_IPC_LOCK) or bool(self.rlim_cur(RLIMIT_MEMLOCK))

    def too_much_locked(self, mm: int, more: int) -> bool:
        return super().too_much_locked(mm, more) and not self.capable(CAP_IPC_LOCK)

    def refuse_mlock(self, pages: int) -> int:
        if not self.can_do_mlock():
            return -EPERM
        limit = self.rlim_cur(RLIMIT_MEMLOCK) >> PAGE_SHIFT
        return 0 if pages <= limit or self.capable(CAP_IPC_LOCK) else -ENOMEM
