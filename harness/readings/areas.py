# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMAs of an address space allow: the most that any of its user pages may be.

Intent says which frame a page holds; that it may be there at all, only its VMA says
(``struct vm_area_struct``, book 4.4). So the VMAs are read from RAM here: the ``mm_struct`` by
its page directory from the slabs of ``mm_cachep``, its VMAs from ``mm->mmap``. Not every release
has all address spaces on a list: ``init_mm.mmlist`` of 2.6 has those with pages in swap. Nothing is
shared with :mod:`kernel_model.mm.mmap`, and the red-black tree is not looked at.

What can fail: :class:`~kernel_model.errors.MmucheckError` for a list that leaves RAM or has no
end, and for slabs that contradict themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.mappings import I64, PAGE_SHIFT, RIGHT_PRESENT, RIGHT_USER, RIGHT_WRITE, U16
from harness.monitors.slabs import objects_in_use
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel

__all__ = ["NAME", "Areas", "areas_of"]

NAME: Final = "VMAs"
_PAGE_OFFSET: Final = 0xC0000000
_READ, _WRITE, _EXECUTE = 1, 2, 4
_LONGEST: Final = 1 << 17
"""Entries of a list: VMAs are at most 65536."""


@dataclass(frozen=True, slots=True)
class Areas:
    """The VMAs of one address space, in order: page numbers ``start`` to below ``end``."""

    start: I64
    end: I64
    flags: I64

    def index(self, pages: I64) -> I64:
        """Which VMA each page lies in; -1: in none."""
        found = np.searchsorted(self.start, pages, "right") - 1
        inside = found >= 0
        inside[inside] = pages[inside] < self.end[found[inside]]
        return np.where(inside, found, -1)

    def rights(self, pages: I64) -> U16:
        """The most that each page may be, in ``RIGHT_*`` bits.

        The i386 cannot let a page be written but not read, or read but not executed.
        """
        index = self.index(pages)
        inside = index >= 0
        flags = np.zeros(len(pages), np.int64)
        flags[inside] = self.flags[index[inside]]
        accessible = flags & (_READ | _WRITE | _EXECUTE) != 0
        rights = np.where(accessible, RIGHT_PRESENT | RIGHT_USER, 0)
        return np.asarray(rights | np.where(flags & _WRITE, RIGHT_WRITE, 0), np.uint16)

    def exceeded(self, pages: I64, rights: U16) -> npt.NDArray[np.bool_]:
        """Which pages are in no VMA, or have more ``rights`` than theirs gives."""
        more = rights & ~self.rights(pages) & (RIGHT_PRESENT | RIGHT_WRITE | RIGHT_USER)
        return np.asarray((more != 0) | (self.index(pages) < 0))


def areas_of(kernel: Kernel, pgd: int) -> Areas:
    """The VMAs of the ``mm_struct`` whose page directory has the physical address ``pgd``.

    One that is nowhere has none: nobody runs in it any more.
    """
    structs = kernel.image.structs
    mm_struct, vma = structs.mm_struct, structs.vm_area_struct
    directory, first = mm_struct.offset("pgd"), mm_struct.offset("mmap")
    rows: list[tuple[int, ...]] = []
    for mm in sorted(objects_in_use(kernel, int(kernel.statics.mm_cachep))):
        if _word(kernel, mm + directory) == pgd + _PAGE_OFFSET:
            fields = [vma.offset(name) for name in ("vm_start", "vm_end", "vm_flags")]
            rows += [
                tuple(_word(kernel, area + field) for field in fields)
                for area in _list(kernel, mm + first, vma.offset("vm_next"))
            ]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return Areas(columns[0] >> PAGE_SHIFT, columns[1] >> PAGE_SHIFT, columns[2])


def _list(kernel: Kernel, head: int, link: int) -> Iterator[int]:
    """The objects of a list that begins at ``head``: each has the next one at offset ``link``."""
    entry = _word(kernel, head)
    for _ in range(_LONGEST):
        if not entry:
            return
        yield entry
        entry = _word(kernel, entry + link)
    raise MmucheckError(f"the list at {head:#x} never ends")


def _word(kernel: Kernel, vaddr: int) -> int:
    paddr = vaddr - _PAGE_OFFSET
    if paddr % 4 or not kernel.ram.contains(paddr, 4):
        raise MmucheckError(f"a list of VMAs leaves RAM: {vaddr:#x}")
    return kernel.ram.words[paddr >> 2]
