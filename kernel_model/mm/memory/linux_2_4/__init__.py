# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of user address spaces, where 2.4 has its own way (book 4.4, 4.6).

Models linux-2.4.22 ``mm/memory.c``. What both releases do alike stands in
:mod:`kernel_model.mm.memory`.
"""

from kernel_model.mm.memory.linux_2_4.memory import Memory24

__all__ = ["Memory24"]
