# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6 locks otherwise.

Models linux-2.6.11 ``mm/mlock.c`` where it differs from 2.4 (book 4.8): ``MCL_FUTURE`` alone leaves
what there is as it is, unlocking takes no privilege, and who locks hears whether pages came.
"""

from kernel_model.errno import EAGAIN, ENOMEM
from kernel_model.mm.mlock import Mlock
from kernel_model.structs.linux_2_6.mm import VM_IO
from kernel_model.structs.mm import VM_LOCKED
from kernel_model.structs.mman import MCL_CURRENT, MCL_FUTURE


class UnprivilegedMlock(Mlock):
    """``mlock()`` and its kin of 2.6."""

    def _locked_by(self, flags: int) -> int:
        return super()._locked_by(flags) if flags & MCL_CURRENT else 0

    def sys_munlockall(self) -> int:
        """Unlock everything, and what comes will not be locked."""
        return self._do_mlockall(0)

    def _do_mlockall(self, flags: int) -> int:
        """Whole VMAs change, so nothing can fail."""
        if flags == MCL_FUTURE:
            self._areas.mm(self._areas.current_mm).def_flags = VM_LOCKED
            return 0
        return super()._do_mlockall(flags)

    def _bring_in(self, start: int, end: int, newflags: int) -> int:
        if newflags & VM_IO:
            return 0
        error = self._parts.pages.make_pages_present(start, end)
        return -EAGAIN if error == -ENOMEM else error
