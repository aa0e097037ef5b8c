# SPDX-License-Identifier: GPL-2.0-or-later
"""Address spaces in C: ``mm_struct``, ``vm_area_struct``, and what they are made of.

Models linux-2.4.22 ``include/linux/sched.h: struct mm_struct``, ``include/linux/mm.h: struct
vm_area_struct``, ``struct vm_operations_struct``, ``include/linux/rbtree.h``,
``include/asm-i386/rwsem.h`` and ``include/asm-i386/mmu.h`` (book 4.3, 4.4).
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import ATOMIC, INT, UINT, ULONG, CType, pointer, struct
from kernel_model.structs.mmzone import LIST_HEAD, spinlock_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi

VM_READ: Final = 0x00000001
VM_WRITE: Final = 0x00000002
VM_EXEC: Final = 0x00000004
VM_SHARED: Final = 0x00000008
VM_MAYREAD: Final = 0x00000010
VM_MAYWRITE: Final = 0x00000020
VM_MAYEXEC: Final = 0x00000040
VM_MAYSHARE: Final = 0x00000080
VM_GROWSDOWN: Final = 0x00000100
VM_GROWSUP: Final = 0x00000200
VM_SHM: Final = 0x00000400
VM_DENYWRITE: Final = 0x00000800
VM_EXECUTABLE: Final = 0x00001000
VM_LOCKED: Final = 0x00002000
VM_IO: Final = 0x00004000
VM_SEQ_READ: Final = 0x00008000
VM_RAND_READ: Final = 0x00010000
VM_DONTCOPY: Final = 0x00020000
VM_DONTEXPAND: Final = 0x00040000
VM_RESERVED: Final = 0x00080000

VM_ACCESS: Final = VM_READ | VM_WRITE | VM_EXEC
"""What may be done now; the same bits as ``PROT_READ``, ``PROT_WRITE`` and ``PROT_EXEC``."""
VM_DATA_DEFAULT_FLAGS: Final = VM_ACCESS | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
VM_STACK_FLAGS: Final = VM_DATA_DEFAULT_FLAGS | VM_GROWSDOWN

DEFAULT_MAX_MAP_COUNT: Final = 65536

RB_RED: Final = 0
RB_BLACK: Final = 1

RB_NODE: Final = struct(
    "rb_node_t",
    [
        ("rb_parent", pointer("struct rb_node_t")),
        ("rb_color", INT),
        ("rb_right", pointer("struct rb_node_t")),
        ("rb_left", pointer("struct rb_node_t")),
    ],
)
RB_ROOT: Final = struct("rb_root_t", [("rb_node", pointer("struct rb_node_t"))])

MM_CONTEXT: Final = struct("mm_context_t", [("segments", pointer("void")), ("cpuvalid", ULONG)])
"""The local descriptor table of a process; this kernel never gives it one."""

VM_OPERATIONS_STRUCT: Final = struct(
    "struct vm_operations_struct",
    [("open", pointer("void")), ("close", pointer("void")), ("nopage", pointer("void"))],
)

VM_AREA_STRUCT: Final = struct(
    "struct vm_area_struct",
    [
        ("vm_mm", pointer("struct mm_struct")),
        ("vm_start", ULONG),
        ("vm_end", ULONG),
        ("vm_next", pointer("struct vm_area_struct")),
        ("vm_page_prot", ULONG),
        ("vm_flags", ULONG),
        ("vm_rb", RB_NODE),
        ("vm_next_share", pointer("struct vm_area_struct")),
        ("vm_pprev_share", pointer("struct vm_area_struct *")),
        ("vm_ops", pointer("struct vm_operations_struct")),
        ("vm_pgoff", ULONG),
        ("vm_file", pointer("struct file")),
        ("vm_raend", ULONG),
        ("vm_private_data", pointer("void")),
    ],
)


def rw_semaphore(abi: "Abi") -> CType:
    return struct(
        "struct rw_semaphore",
        [("count", INT), ("wait_lock", spinlock_t(abi)), ("wait_list", LIST_HEAD)],
    )


def mm_struct(abi: "Abi") -> CType:
    return struct(
        "struct mm_struct",
        [
            ("mmap", pointer("struct vm_area_struct")),
            ("mm_rb", RB_ROOT),
            ("mmap_cache", pointer("struct vm_area_struct")),
            ("pgd", pointer("void")),
            ("mm_users", ATOMIC),
            ("mm_count", ATOMIC),
            ("map_count", INT),
            ("mmap_sem", rw_semaphore(abi)),
            ("page_table_lock", spinlock_t(abi)),
            ("mmlist", LIST_HEAD),
            ("start_code", ULONG),
            ("end_code", ULONG),
            ("start_data", ULONG),
            ("end_data", ULONG),
            ("start_brk", ULONG),
            ("brk", ULONG),
            ("start_stack", ULONG),
            ("arg_start", ULONG),
            ("arg_end", ULONG),
            ("env_start", ULONG),
            ("env_end", ULONG),
            ("rss", ULONG),
            ("total_vm", ULONG),
            ("locked_vm", ULONG),
            ("def_flags", ULONG),
            ("cpu_vm_mask", ULONG),
            ("swap_address", ULONG),
            ("dumpable", UINT),
            ("context", MM_CONTEXT),
        ],
    )
