# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of user address spaces, where 2.6 has its own way (book 3.10, 4.6, 4.8).

Models linux-2.6.11 ``mm/memory.c``, ``mm/fremap.c`` and ``include/asm-generic/tlb.h``. What both
releases do alike stands in :mod:`kernel_model.mm.memory`.
"""

from kernel_model.mm.memory.linux_2_6.memory import Memory26

__all__ = ["Memory26"]
