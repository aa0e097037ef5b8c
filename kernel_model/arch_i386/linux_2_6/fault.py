# SPDX-License-Identifier: GPL-2.0-or-later
"""The page-fault handler where 2.6 has its own way.

Models linux-2.6.11 ``arch/i386/mm/fault.c: do_page_fault()`` (book 4.6). Who holds something that
nobody may sleep with, say a slot of ``kmap_atomic()``, gets no page: serving the fault could sleep.
Nothing here can fail.
"""

from functools import cached_property

from kernel_model.arch_i386.fault import FaultKind, PageFaults
from kernel_model.arch_i386.signal import SEGV_MAPERR
from kernel_model.linux_2_6.preempt import Preemption


class PageFaults26(PageFaults):
    """:class:`PageFaults` that serves no fault while the CPU must not change hands."""

    @cached_property
    def _preemption(self) -> Preemption:
        return Preemption(self._image)

    def _serving_mm(self) -> int:
        return 0 if self._preemption.preempt_count() else super()._serving_mm()

    def _without_mm(self, regs: int, error_code: int, address: int) -> FaultKind:
        return self._bad_area(regs, error_code, address, SEGV_MAPERR)
