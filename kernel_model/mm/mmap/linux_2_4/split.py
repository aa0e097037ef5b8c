# SPDX-License-Identifier: GPL-2.0-or-later
"""Cutting a VMA so that one part can get other flags.

Models what ``mprotect_fixup_*()`` of linux-2.4.22 ``mm/mprotect.c``, ``mlock_fixup_*()`` of
``mm/mlock.c`` and ``madvise_fixup_*()`` of ``mm/filemap.c`` have in common (book 4.4).
Offsets advance with the start of a part, in anonymous VMAs too.

What can fail: False when there is no memory for a new VMA; then nothing has changed.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.errno import EAGAIN, ENOMEM
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.linux_2_4.link import BuggingLinks


class FlagSplitter:
    """Makes one VMA two or three."""

    def __init__(self, areas: Areas, links: BuggingLinks) -> None:
        self._areas = areas
        self._links = links

    def set_flags(self, vma: int, newflags: int, *, protection: bool) -> None:
        """New flags, and with ``protection`` also what follows from them for the PTEs."""
        area = self._areas.vma(vma)
        area.vm_flags = newflags
        if protection:
            area.vm_page_prot = PROTECTION_MAP[newflags & 0xF]

    def _part(self, vma: int, start: int, end: int) -> int:
        """A copy of a VMA for a part of it, not yet linked; 0: no memory."""
        new = self._areas.alloc()
        if new:
            self._areas.copy(new, vma)
            self._cut(new, start, end)
            self._areas.vma(new).vm_raend = 0
        return new

    def _cut(self, vma: int, start: int, end: int) -> None:
        area = self._areas.vma(vma)
        area.vm_pgoff += start - area.vm_start >> PAGE_SHIFT
        area.vm_start, area.vm_end = start, end

    def head(self, vma: int, end: int, newflags: int, *, protection: bool) -> bool:
        """The part below ``end`` gets new flags, in a VMA of its own."""
        area = self._areas.vma(vma)
        new = self._part(vma, area.vm_start, end)
        if not new:
            return False
        self.set_flags(new, newflags, protection=protection)
        self._areas.share_file(new)
        self._cut(vma, end, area.vm_end)
        self._links.insert_vm_struct_locked(area.vm_mm, new)
        return True

    def tail(self, vma: int, start: int, newflags: int, *, protection: bool) -> int:
        """The part from ``start`` on gets new flags. Returns its VMA, 0: no memory."""
        area = self._areas.vma(vma)
        new = self._part(vma, start, area.vm_end)
        if not new:
            return 0
        self.set_flags(new, newflags, protection=protection)
        self._areas.share_file(new)
        area.vm_end = start
        self._links.insert_vm_struct_locked(area.vm_mm, new)
        return new

    def middle(self, vma: int, start: int, end: int, newflags: int, *, protection: bool) -> int:
        """The VMA keeps the part in the middle, with new flags; both ends become VMAs.

        Returns the upper end's, 0: no memory.
        """
        area = self._areas.vma(vma)
        left = self._part(vma, area.vm_start, start)
        if not left:
            return 0
        right = self._part(vma, end, area.vm_end)
        if not right:
            self._areas.free(left)
            return 0
        for part in (left, right):
            self._areas.share_file(part)
        self._cut(vma, start, end)
        area.vm_raend = 0
        self.set_flags(vma, newflags, protection=protection)
        for part in (left, right):
            self._links.insert_vm_struct_locked(area.vm_mm, part)
        return right

    def carve(self, vma: int, start: int, end: int, newflags: int) -> bool:
        """Give the part of a VMA in a range other flags, and leave the PTEs as they are."""
        area = self._areas.vma(vma)
        if start == area.vm_start and end == area.vm_end:
            self.set_flags(vma, newflags, protection=False)
            return True
        if start == area.vm_start:
            return self.head(vma, end, newflags, protection=False)
        if end == area.vm_end:
            return bool(self.tail(vma, start, newflags, protection=False))
        return bool(self.middle(vma, start, end, newflags, protection=False))

    def madvise_behavior(self, vma: int, start: int, end: int, newflags: int) -> int:
        """The same for advice, and reading ahead begins anew: 0, or a negative error."""
        area = self._areas.vma(vma)
        if self._areas.mm(area.vm_mm).map_count > self._areas.statics.max_map_count:
            return -ENOMEM
        whole = start == area.vm_start and end == area.vm_end
        if not self.carve(vma, start, end, newflags):
            return -EAGAIN
        if whole:
            area.vm_raend = 0
        return 0
