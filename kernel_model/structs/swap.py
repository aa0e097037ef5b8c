# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap areas, and who waits for a page, in C.

Models linux-2.4.22 ``include/linux/swap.h: struct swap_info_struct`` and
``include/linux/wait.h: wait_queue_t``, which is the first part of a ``page_waiter``.
"""

from typing import Final

from kernel_model.structs.declare import INT, UINT, ULONG, pointer, struct
from kernel_model.structs.mmzone import LIST_HEAD

MAX_SWAPFILES: Final = 32

SWAP_INFO_STRUCT: Final = struct(
    "struct swap_info_struct",
    [
        ("flags", UINT),
        ("swap_map", pointer("unsigned short")),
        ("lowest_bit", UINT),
        ("highest_bit", UINT),
        ("cluster_next", UINT),
        ("cluster_nr", UINT),
        ("prio", INT),
        ("pages", INT),
        ("max", ULONG),
        ("next", INT),
    ],
)

PAGE_WAITER: Final = struct(
    "struct page_waiter",
    [
        ("flags", UINT),
        ("task", pointer("struct task_struct")),
        ("task_list", LIST_HEAD),
        ("page", pointer("struct page")),
    ],
)
"""A ``wait_queue_t``, and behind it the frame that its task sleeps for."""
