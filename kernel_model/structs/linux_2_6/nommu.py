# SPDX-License-Identifier: GPL-2.0-or-later
"""What of an address space is different in C on a machine without an MMU (book 3.10).

Models linux-2.6.11 ``include/asm-m68knommu/mmu.h``, ``include/linux/mm.h: struct vm_list_struct``
and what stands there under ``#ifndef CONFIG_MMU``. All processes share one tree of VMAs; a process
has a list of those that it uses.
"""

from typing import Final

from kernel_model.structs.declare import ATOMIC, ULONG, CType, pointer, struct

VM_LIST_STRUCT: Final = struct(
    "struct vm_list_struct",
    [("next", pointer("struct vm_list_struct")), ("vma", pointer("struct vm_area_struct"))],
)

MM_CONTEXT: Final = struct(
    "mm_context_t", [("vmlist", pointer("struct vm_list_struct")), ("end_brk", ULONG)]
)


def counted(vm_area_struct: CType) -> CType:
    """A VMA with ``vm_usage``: how many entries of lists name it."""
    return struct(vm_area_struct.spelling, [*vm_area_struct.members, ("vm_usage", ATOMIC)])
