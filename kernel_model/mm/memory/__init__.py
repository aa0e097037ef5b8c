# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of user address spaces.

Models linux-2.4.22 and linux-2.6.11 ``mm/memory.c`` (book 3.3 to 3.5, 4.6). :class:`Memory` is all
of it for one machine, put together from its parts: page tables
(:mod:`~kernel_model.mm.memory.tables`), faults (:mod:`~kernel_model.mm.memory.fault`), sharing
pages (:mod:`~kernel_model.mm.memory.copy`), changing entries
(:mod:`~kernel_model.mm.memory.change`), mapping devices (:mod:`~kernel_model.mm.memory.remap`),
and looking from the kernel (:mod:`~kernel_model.mm.memory.follow`). Taking pages away, and what
else the releases do in their own way, stands in :mod:`~kernel_model.mm.memory.linux_2_4` and
:mod:`~kernel_model.mm.memory.linux_2_6`.

The events that these parts announce say what each address was meant to hold, from the VMA and
from what happened to the page; the page tables are what gets checked.
"""

from kernel_model.mm.memory.fault import NOPAGE_OOM, NOPAGE_SIGBUS, Fault
from kernel_model.mm.memory.memory import Memory

__all__ = ["NOPAGE_OOM", "NOPAGE_SIGBUS", "Fault", "Memory"]
