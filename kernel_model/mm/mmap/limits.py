# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a process may have, and whether the machine would have it.

Models ``vm_enough_memory()`` and the checks against the limits of the current process that
``mm/`` makes in linux-2.4.22 and 2.6.11 (book 4.4, 4.8). In RAM: the limits and privileges of the
current task. Sums wrap at 32 bits, as in the kernel. Nothing is ever promised in 2.4; in 2.6 what
a mapping may come to need is charged when it is made.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.mm.mmap.areas import Areas
from kernel_model.structs.mm import VM_SHARED, VM_WRITE
from kernel_model.structs.sched import RLIMIT_AS, RLIMIT_MEMLOCK

_U32 = 0xFFFFFFFF


class Limits(ABC):
    """The limits of the current process and of the machine."""

    account_flag: ClassVar[int] = 0
    """The bit of ``vm_flags`` that says that a mapping was charged; 0: none ever is."""

    def __init__(self, areas: Areas, nr_free_pages: Callable[[], int]) -> None:
        self._areas = areas
        self._nr_free_pages = nr_free_pages

    def rlim_cur(self, resource: int) -> int:
        """``current->rlim[resource].rlim_cur``."""
        return int(self._areas.image.current_task.rlim[resource].rlim_cur)

    def capable(self, capability: int) -> bool:
        """Whether the current process has a privilege."""
        return bool(self._areas.image.current_task.cap_effective >> capability & 1)

    # -- limits of the process -----------------------------------------------------------------

    def too_large(self, mm: int, more: int) -> bool:
        """Whether ``more`` bytes would break ``RLIMIT_AS``."""
        total = (self._areas.mm(mm).total_vm << PAGE_SHIFT) + more & _U32
        return total > self.rlim_cur(RLIMIT_AS)

    def too_much_locked(self, mm: int, more: int) -> bool:
        """Whether locking ``more`` bytes would break ``RLIMIT_MEMLOCK``."""
        locked = (self._areas.mm(mm).locked_vm << PAGE_SHIFT) + more & _U32
        return locked > self.rlim_cur(RLIMIT_MEMLOCK)

    @abstractmethod
    def refuse_mlock(self, pages: int) -> int:
        """Why ``mlock()`` may not make it ``pages`` locked ones in all; 0: it may."""

    # -- the machine's memory ------------------------------------------------------------------

    @abstractmethod
    def vm_enough_memory(self, pages: int) -> bool:
        """Whether so many pages more can be had; then they are charged, if anything is."""

    @abstractmethod
    def vm_unacct_memory(self, pages: int) -> None:
        """Take back a charge."""

    @abstractmethod
    def charge_mapping(self, pages: int, vm_flags: int, flags: int) -> int:
        """Whether there is memory for a new mapping: its ``vm_flags``, or a negative error."""

    @abstractmethod
    def charge_growth(self, mm: int, vm_flags: int, pages: int) -> bool:
        """Whether a stack may grow by so many pages."""

    def uncharge_mapping(self, pages: int, vm_flags: int) -> None:
        """A mapping that was charged did not come to be."""
        if vm_flags & self.account_flag and not vm_flags & VM_SHARED:
            self.vm_unacct_memory(pages)

    @staticmethod
    def private_writable(vm_flags: int) -> bool:
        """Whether each page may come to need memory of its own."""
        return vm_flags & (VM_SHARED | VM_WRITE) == VM_WRITE
