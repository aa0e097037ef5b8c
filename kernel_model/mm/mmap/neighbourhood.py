# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMAs around a range that has been unmapped.

Models what ``mm/mmap.c: free_pgtables()`` of linux-2.4.22 and 2.6.11 looks for (book 4.4): how far
page tables may be freed, so that none goes that a neighbour still needs.
"""

from kernel_model.mm.mmap.areas import Areas

_NOTHING_ABOVE = 1 << 32


def between(areas: Areas, mm: int, prev: int, start: int) -> tuple[int, int]:
    """Where the VMA before ``start`` ends, and where the one behind it begins.

    ``prev`` lies before ``start``, nobody says how far; 0: no VMA does. Without a neighbour the
    ends of the address space.
    """
    if not prev:
        prev = areas.mm(mm).mmap
        if not prev:
            return 0, _NOTHING_ABOVE
        if areas.vma(prev).vm_end > start:
            return 0, areas.vma(prev).vm_start
    following = areas.vma(prev).vm_next
    while following and areas.vma(following).vm_start < start:
        prev, following = following, areas.vma(following).vm_next
    above = areas.vma(following).vm_start if following else _NOTHING_ABOVE
    return areas.vma(prev).vm_end, above
