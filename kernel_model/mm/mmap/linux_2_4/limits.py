# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether there would be memory, as 2.4 guesses it.

Models linux-2.4.22 ``mm/mmap.c: vm_enough_memory()`` and the checks of ``mm/mlock.c``. In RAM: the
counters of the page cache, of swap, of unused directory entries and inodes.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import ENOMEM, EPERM
from kernel_model.mm.mmap.limits import Limits
from kernel_model.structs.mman import MAP_NORESERVE
from kernel_model.structs.sched import CAP_IPC_LOCK, RLIMIT_MEMLOCK

_U32 = 0xFFFFFFFF


class GuessedMemory(Limits):
    """Each request is compared with what is there now; nothing is charged."""

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

    def vm_unacct_memory(self, pages: int) -> None:
        """Nothing was charged."""

    def charge_mapping(self, pages: int, vm_flags: int, flags: int) -> int:
        if not self.private_writable(vm_flags) or flags & MAP_NORESERVE:
            return vm_flags
        return vm_flags if self.vm_enough_memory(pages) else -ENOMEM

    def charge_growth(self, mm: int, vm_flags: int, pages: int) -> bool:
        """A stack grows unasked."""
        return True

    def refuse_mlock(self, pages: int) -> int:
        """More than the process may lock, or than half of the machine's memory; or no right."""
        limit = self.rlim_cur(RLIMIT_MEMLOCK) >> PAGE_SHIFT
        if pages > limit or pages > int(self._areas.statics.num_physpages) // 2:
            return -ENOMEM
        return 0 if self.capable(CAP_IPC_LOCK) else -EPERM
