# SPDX-License-Identifier: GPL-2.0-or-later
"""Address spaces in C, as 2.6 has them (book 3.10, 4.8).

Models linux-2.6.11 ``include/linux/sched.h: struct mm_struct``, ``include/linux/mm.h: struct
vm_area_struct``, ``include/linux/rmap.h: struct anon_vma``, ``include/linux/prio_tree.h``,
``include/linux/rbtree.h`` and ``include/asm-i386/mmu.h``. Fields that nobody here uses are gathered
into arrays, so that the others stand where the kernel has them.
"""

from typing import TYPE_CHECKING, Final

from kernel_model.structs.declare import (
    ATOMIC,
    INT,
    UINT,
    ULONG,
    USHORT,
    CType,
    array,
    pointer,
    struct,
)
from kernel_model.structs.fs import semaphore
from kernel_model.structs.linux_2_6 import nommu
from kernel_model.structs.mm import (
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_WRITE,
    rw_semaphore,
)
from kernel_model.structs.mmzone import LIST_HEAD, spinlock_t

if TYPE_CHECKING:
    from kernel_model.structs import Abi

VM_LOCKED: Final = 0x00002000
VM_IO: Final = 0x00004000
VM_SEQ_READ: Final = 0x00008000
VM_RAND_READ: Final = 0x00010000
VM_DONTCOPY: Final = 0x00020000
VM_DONTEXPAND: Final = 0x00040000
VM_RESERVED: Final = 0x00080000
VM_ACCOUNT: Final = 0x00100000
"""The mapping counts against what may be committed."""
VM_HUGETLB: Final = 0x00400000
VM_NONLINEAR: Final = 0x00800000
"""``remap_file_pages()`` was here: page and offset no longer go together."""

VM_DATA_DEFAULT_FLAGS: Final = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
"""Data is code only for a program that wants ``READ_IMPLIES_EXEC``, which is not modelled."""

PAGE_MAPPING_ANON: Final = 1
"""Bit 0 of ``page->mapping``: the rest points to a ``struct anon_vma``."""
AT_VECTOR_WORDS: Final = 42

RB_NODE: Final = struct(
    "struct rb_node",
    [
        ("rb_parent", pointer("struct rb_node")),
        ("rb_color", INT),
        ("rb_right", pointer("struct rb_node")),
        ("rb_left", pointer("struct rb_node")),
    ],
)
RB_ROOT: Final = struct("struct rb_root", [("rb_node", pointer("struct rb_node"))])

RAW_PRIO_TREE_NODE: Final = struct(
    "struct raw_prio_tree_node",
    [
        ("left", pointer("struct prio_tree_node")),
        ("right", pointer("struct prio_tree_node")),
        ("parent", pointer("struct prio_tree_node")),
    ],
)
PRIO_TREE_NODE: Final = struct(
    "struct prio_tree_node",
    [
        ("left", pointer("struct prio_tree_node")),
        ("right", pointer("struct prio_tree_node")),
        ("parent", pointer("struct prio_tree_node")),
        ("start", ULONG),
        ("last", ULONG),
    ],
)
"""The first three words are a ``struct raw_prio_tree_node``, all that a VMA has."""
PRIO_TREE_ROOT: Final = struct(
    "struct prio_tree_root",
    [
        ("prio_tree_node", pointer("struct prio_tree_node")),
        ("index_bits", USHORT),
        ("raw", USHORT),
    ],
)


def anon_vma(abi: "Abi") -> CType:
    return struct("struct anon_vma", [("lock", spinlock_t(abi)), ("head", LIST_HEAD)])


def mm_context_t(abi: "Abi") -> CType:
    if not abi.mmu:
        return nommu.MM_CONTEXT
    return struct(
        "mm_context_t", [("size", INT), ("sem", semaphore(abi)), ("ldt", pointer("void"))]
    )


VM_OPERATIONS_STRUCT: Final = struct(
    "struct vm_operations_struct",
    [
        ("open", pointer("void")),
        ("close", pointer("void")),
        ("nopage", pointer("void")),
        ("populate", pointer("void")),
    ],
)

VM_AREA_SHARED: Final = struct(
    "struct vm_area_shared",
    [
        ("list", LIST_HEAD),
        ("parent", pointer("void")),
        ("head", pointer("struct vm_area_struct")),
    ],
)
"""A VMA's place among those of its file: on a list (``vm_set``); or in the prio tree, whose node
then takes the first three words."""

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
        ("shared", VM_AREA_SHARED),
        ("anon_vma_node", LIST_HEAD),
        ("anon_vma", pointer("struct anon_vma")),
        ("vm_ops", pointer("struct vm_operations_struct")),
        ("vm_pgoff", ULONG),
        ("vm_file", pointer("struct file")),
        ("vm_private_data", pointer("void")),
        ("vm_truncate_count", ULONG),
    ],
)


def vm_area_struct(abi: "Abi") -> CType:
    return VM_AREA_STRUCT if abi.mmu else nommu.counted(VM_AREA_STRUCT)


def mm_struct(abi: "Abi") -> CType:
    asynchronous_io = 44 if abi.smp else 40
    """Words of ``default_kioctx``, which brings its own locks."""
    locks = [("unused_ioctx_list_lock", ULONG)] if abi.smp else []
    return struct(
        "struct mm_struct",
        [
            ("mmap", pointer("struct vm_area_struct")),
            ("mm_rb", RB_ROOT),
            ("mmap_cache", pointer("struct vm_area_struct")),
            ("get_unmapped_area", pointer("void")),
            ("unmap_area", pointer("void")),
            ("mmap_base", ULONG),
            ("free_area_cache", ULONG),
            ("pgd", pointer("void")),
            ("mm_users", ATOMIC),
            ("mm_count", ATOMIC),
            ("map_count", INT),
            ("mmap_sem", rw_semaphore(abi)),
            ("page_table_lock", spinlock_t(abi)),
            ("mmlist", LIST_HEAD),
            *((name, ULONG) for name in ("start_code", "end_code", "start_data", "end_data")),
            *((name, ULONG) for name in ("start_brk", "brk", "start_stack")),
            *((name, ULONG) for name in ("arg_start", "arg_end", "env_start", "env_end")),
            *((name, ULONG) for name in ("rss", "anon_rss", "total_vm", "locked_vm")),
            *((name, ULONG) for name in ("shared_vm", "exec_vm", "stack_vm", "reserved_vm")),
            ("def_flags", ULONG),
            ("nr_ptes", ULONG),
            ("saved_auxv", array(ULONG, AT_VECTOR_WORDS)),
            ("dumpable", UINT),
            ("cpu_vm_mask", ULONG),
            ("context", mm_context_t(abi)),
            ("swap_token_time", ULONG),
            ("recent_pagein", UINT),
            ("core_waiters", INT),
            ("core_startup_done", pointer("void")),
            ("unused_core_done", array(ULONG, 4 if abi.smp else 3)),
            *locks,
            ("unused_ioctx_list", pointer("void")),
            ("unused_default_kioctx", array(ULONG, asynchronous_io)),
            ("hiwater_rss", ULONG),
            ("hiwater_vm", ULONG),
        ],
    )
