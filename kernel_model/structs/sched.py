# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of a process descriptor that memory management uses.

Models fields of linux-2.4.22 ``include/linux/sched.h: struct task_struct``; it is no layout of
the whole structure.
"""

from typing import Final

from kernel_model.structs.declare import INT, UINT, ULONG, struct
from kernel_model.structs.mmzone import LIST_HEAD

TASK_STRUCT: Final = struct(
    "struct task_struct",
    [
        ("flags", ULONG),
        ("local_pages", LIST_HEAD),
        ("allocation_order", UINT),
        ("nr_local_pages", INT),
        ("processor", INT),
    ],
)
