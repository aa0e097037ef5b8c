# SPDX-License-Identifier: GPL-2.0-or-later
"""``mprotect()`` of one VMA, as 2.4 does it.

Models linux-2.4.22 ``mm/mprotect.c: mprotect_fixup()`` and its kin (book 4.4.6). Only zeros merge:
with the VMA before when the part begins with it, with the one behind at the end of the range.
"""

from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.errno import ENOMEM
from kernel_model.mm.mmap.linux_2_4.merge import AnonymousMerging, can_vma_merge
from kernel_model.mm.mmap.linux_2_4.split import FlagSplitter
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.mm.mprotect import Mprotect
from kernel_model.structs.mm import VM_SHARED


class PiecewiseMprotect(Mprotect):
    """Four cases: all of a VMA, its head, its tail, its middle."""

    def __init__(self, parts: VmaParts, merging: AnonymousMerging, splitter: FlagSplitter) -> None:
        super().__init__(parts)
        self._merging = merging
        self._splitter = splitter

    def _protect(self, start: int, end: int, prot: int) -> int:
        vma, prev = self._parts.finder.find_vma_prev(self._areas.current_mm, start)
        last = self._protect_from(vma, prev, start, end, prot)
        if last < 0:
            return last
        area = self._areas.vma(last)
        if area.vm_end == end and not area.vm_file and not area.vm_flags & VM_SHARED:
            self._merging.absorb_next(area.vm_mm, last)
        return 0

    def _fixup(self, vma: int, prev: int, start: int, end: int, newflags: int) -> int:
        area = self._areas.vma(vma)
        if newflags == area.vm_flags:
            return vma
        before = self._mergeable(vma, prev, newflags)
        if start == area.vm_start and end == area.vm_end:
            last = self._all(vma, prev, newflags, merge=before)
        elif start == area.vm_start:
            last = self._head(vma, prev, end, newflags, merge=before)
        elif end == area.vm_end:
            last = self._splitter.tail(vma, start, newflags, protection=True)
        else:
            last = self._splitter.middle(vma, start, end, newflags, protection=True)
        if not last:
            return -ENOMEM
        newprot = PROTECTION_MAP[newflags & 0xF]
        self._parts.pages.change_protection(start, end, newprot, newflags)
        return last

    def _mergeable(self, vma: int, prev: int, newflags: int) -> bool:
        """Whether the VMA before takes over what gets ``newflags``."""
        if not prev:
            return False
        area, before = self._areas.vma(vma), self._areas.vma(prev)
        return (
            before.vm_end == area.vm_start
            and can_vma_merge(before, newflags)
            and not area.vm_file
            and not area.vm_flags & VM_SHARED
        )

    def _all(self, vma: int, prev: int, newflags: int, *, merge: bool) -> int:
        if not merge:
            self._splitter.set_flags(vma, newflags, protection=True)
            return vma
        area = self._areas.vma(vma)
        mm = area.vm_mm
        self._areas.vma(prev).vm_end = area.vm_end
        self._parts.links.vma_unlink(mm, vma, prev)
        self._areas.free(vma)
        self._areas.mm(mm).map_count -= 1
        return prev

    def _head(self, vma: int, prev: int, end: int, newflags: int, *, merge: bool) -> int:
        """The VMA before may grow over the part; ``vm_pgoff`` of the rest stays as it was."""
        if merge:
            self._areas.vma(prev).vm_end = self._areas.vma(vma).vm_start = end
            return vma
        return vma if self._splitter.head(vma, end, newflags, protection=True) else 0
