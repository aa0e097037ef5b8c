# SPDX-License-Identifier: GPL-2.0-or-later
"""What kind of pages an address space maps, as 2.6 tells them apart.

Models linux-2.6.11 ``mm/mmap.c: __vm_stat_account()`` (book 4.8): ``shared_vm`` counts pages of
files, ``exec_vm`` those of them that are code, ``stack_vm``, ``reserved_vm``.
"""

from kernel_model.mm.mmap.accounting import Accounting
from kernel_model.structs.linux_2_6.mm import VM_IO, VM_RESERVED
from kernel_model.structs.mm import VM_EXEC, VM_GROWSDOWN, VM_WRITE


class DetailedAccounting(Accounting):
    """:class:`Accounting` by kind."""

    def vm_stat_account(self, mm: int, vm_flags: int, file: int, pages: int) -> None:
        space = self._areas.mm(mm)
        if file:
            space.shared_vm += pages
            if vm_flags & (VM_EXEC | VM_WRITE) == VM_EXEC:
                space.exec_vm += pages
        elif vm_flags & VM_GROWSDOWN:
            space.stack_vm += pages
        if vm_flags & (VM_RESERVED | VM_IO):
            space.reserved_vm += pages
