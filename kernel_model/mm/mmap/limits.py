# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a process may have, and whether the machine would have it.

Models linux-2.4.22 ``mm/mmap.c: vm_enough_memory()`` and the checks against ``current->rlim``
that ``mm/`` makes. In RAM: the limits of the current task, the counters of the page cache, of
swap, of unused directory entries and inodes. Sums wrap at 32 bits, as in the kernel.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.mm.mmap.areas import Areas
from kernel_model.structs.sched import RLIMIT_AS, RLIMIT_MEMLOCK

_U32 = 0xFFFFFFFF


class Limits:
    """The limits of the current process and of the machine."""

    def __init__(self, areas: Areas, nr_free_pages: Callable[[], int]) -> None:
        self._areas = areas
        self._nr_free_pages = nr_free_pages

    def rlim_cur(self, resource: int) -> int:
        """``current->rlim[resource].rlim_cur``."""
        return int(self._areas.image.current_task.rlim[resource].rlim_cur)

    def capable(self, capability: int) -> bool:
        """Whether the current process has a privilege."""
        return bool(self._areas.image.current_task.cap_effective >> capability & 1)

    def too_large(self, mm: int, more: int) -> bool:
        """Whether ``more`` bytes would break ``RLIMIT_AS``."""
        total = (self._areas.mm(mm).total_vm << PAGE_SHIFT) + more & _U32
        return total > self.rlim_cur(RLIMIT_AS)

    def too_much_locked(self, mm: int, more: int) -> bool:
        """Whether locking ``more`` bytes would break ``RLIMIT_MEMLOCK``."""
        locked = (self._areas.mm(mm).locked_vm << PAGE_SHIFT) + more & _U32
        return locked > self.rlim_cur(RLIMIT_MEMLOCK)

    def vm_enough_memory(self, pages: int) -> bool:
        """Whether ``pages`` more could be had if all that is reclaimable were reclaimed.

        With ``overcommit_memory`` set the answer is always yes. Pages of the swap cache count
        twice: their slots, too, come free with them.
        """
        statics, structs = self._areas.statics, self._areas.image.structs
        if statics.sysctl_overcommit_memory:
            return True
        free = int(statics.page_cache_size) + self._nr_free_pages() + int(statics.nr_swap_pages)
        free += int(statics.swapper_space.nrpages)
        unused = (
            (int(statics.dentry_stat.nr_unused), structs.dentry.size),
            (int(statics.inodes_stat.nr_unused), structs.inode.size),
        )
        free += sum((count * size & _U32) >> PAGE_SHIFT for count, size in unused)
        return free & _U32 > pages & _U32
