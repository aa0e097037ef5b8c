# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of a process descriptor that memory management uses, and resource limits.

Models fields of linux-2.4.22 ``include/linux/sched.h: struct task_struct`` and of its
``thread``; it is no layout of the whole structure. ``include/linux/resource.h`` and
``include/asm-i386/resource.h`` give the limits.
"""

from typing import Final

from kernel_model.structs.declare import INT, UCHAR, UINT, ULONG, array, pointer, struct
from kernel_model.structs.mmzone import LIST_HEAD

RLIMIT_CPU: Final = 0
RLIMIT_FSIZE: Final = 1
RLIMIT_DATA: Final = 2
RLIMIT_STACK: Final = 3
RLIMIT_CORE: Final = 4
RLIMIT_RSS: Final = 5
RLIMIT_NPROC: Final = 6
RLIMIT_NOFILE: Final = 7
RLIMIT_MEMLOCK: Final = 8
RLIMIT_AS: Final = 9
RLIMIT_LOCKS: Final = 10
RLIM_NLIMITS: Final = 11
RLIM_INFINITY: Final = 0xFFFFFFFF

CLONE_VM: Final = 0x00000100
CLONE_FS: Final = 0x00000200
CLONE_FILES: Final = 0x00000400
CLONE_SIGHAND: Final = 0x00000800
CLONE_VFORK: Final = 0x00004000
CLONE_PARENT: Final = 0x00008000
CLONE_THREAD: Final = 0x00010000
CLONE_SETTLS: Final = 0x00080000
CLONE_PARENT_SETTID: Final = 0x00100000
CLONE_CHILD_CLEARTID: Final = 0x00200000
CLONE_CHILD_SETTID: Final = 0x01000000
"""What ``clone()`` shares and does; those from ``CLONE_SETTLS`` on came with 2.6."""

CAP_IPC_LOCK: Final = 14
CAP_SETPCAP: Final = 8
CAP_SYS_ADMIN: Final = 21

TASK_COMM_LEN: Final = 16
I387_WORDS: Final = 128
"""``union i387_union``, as FXSAVE writes it: at a multiple of 16 bytes, and so in front here."""

RLIMIT: Final = struct("struct rlimit", [("rlim_cur", ULONG), ("rlim_max", ULONG)])

TASK_STRUCT: Final = struct(
    "struct task_struct",
    [
        ("i387", array(ULONG, I387_WORDS)),
        ("flags", ULONG),
        ("addr_limit", ULONG),
        ("local_pages", LIST_HEAD),
        ("allocation_order", UINT),
        ("nr_local_pages", INT),
        ("processor", INT),
        ("mm", pointer("struct mm_struct")),
        ("active_mm", pointer("struct mm_struct")),
        ("pid", INT),
        ("comm", array(UCHAR, TASK_COMM_LEN)),
        ("min_flt", ULONG),
        ("maj_flt", ULONG),
        ("cr2", ULONG),
        ("trap_no", ULONG),
        ("error_code", ULONG),
        ("cap_effective", UINT),
        ("rlim", array(RLIMIT, RLIM_NLIMITS)),
    ],
)
