# SPDX-License-Identifier: GPL-2.0-or-later
"""How many pages an address space maps, and of what kind.

Models the counters of ``struct mm_struct`` that ``mm/`` keeps, ``total_vm`` and ``locked_vm``, in
pages (book 4.3).
"""

from kernel_model.mm.mmap.areas import Areas
from kernel_model.structs.mm import VM_LOCKED


class Accounting:
    """The counters of every address space."""

    def __init__(self, areas: Areas) -> None:
        self._areas = areas

    def count(self, mm: int, vm_flags: int, file: int, pages: int) -> None:
        """So many pages more of a mapping with these flags; below 0: less."""
        space = self._areas.mm(mm)
        space.total_vm += pages
        if vm_flags & VM_LOCKED:
            space.locked_vm += pages
        self.vm_stat_account(mm, vm_flags, file, pages)

    def vm_stat_account(self, mm: int, vm_flags: int, file: int, pages: int) -> None:
        """Count them by kind: 2.4 knows none."""
