# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user page may be used for, from its VMA alone.

The answer goes to whoever keeps book (:mod:`kernel_model.events`), to be held against the
page-table entry: so it is worked out from ``vm_flags`` and from what happened to the page, and
never from the entry or from ``vm_page_prot``.
"""

from typing import Final

from kernel_model.events import Rights
from kernel_model.structs.mm import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

_NOTHING: Final = Rights(write=False, user=False, access=False)
_READ_ONLY: Final = Rights(write=False, user=True)
_READ_WRITE: Final = Rights(write=True, user=True)


def user_rights(vm_flags: int, *, own: bool = False) -> Rights:
    """The rights of a page in a VMA with ``vm_flags``.

    ``own``: the process wrote to it, so that nobody shares the frame any more. Without that a
    page of a private mapping is read-only, however the VMA may be written to: its first write
    must fault. The i386 cannot keep a page from being executed, or from being read when it may
    be written.
    """
    if not vm_flags & (VM_READ | VM_WRITE | VM_EXEC):
        return _NOTHING
    if vm_flags & VM_WRITE and (own or vm_flags & VM_SHARED):
        return _READ_WRITE
    return _READ_ONLY
