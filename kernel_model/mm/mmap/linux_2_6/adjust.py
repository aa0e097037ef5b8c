# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving the edges of VMAs.

Models linux-2.6.11 ``mm/mmap.c: vma_adjust()``, ``split_vma()`` (book 4.8). While the edge between
two VMAs moves, both are out of their file's tree; the one that gets pages of the other's joins its
``anon_vma``. What can fail: ``split_vma()`` returns ``-ENOMEM`` without memory for a VMA, or when
there are as many as there may be; then nothing has changed.
"""

from typing import NamedTuple

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import EAGAIN, EINVAL, ENOMEM
from kernel_model.mm.hugetlb.geometry import HugePages
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.linux_2_6.link import RefusingLinks
from kernel_model.structs.linux_2_6.mm import VM_HUGETLB


class Effect(NamedTuple):
    """What moving the end of a VMA does to the VMA behind it."""

    removes: bool = False
    """It goes, for the other has grown over all of it."""
    shift: int = 0
    """So many pages its beginning moves up; below 0: down."""
    importer: int = 0
    """Which of the two gets pages of the other."""


class Adjuster:
    """Changes VMAs that are linked."""

    def __init__(self, areas: Areas, links: RefusingLinks) -> None:
        self._areas = areas
        self._links = links
        self._mappings = links.mappings
        self._anon = links.anon
        self._huge = HugePages.of(pae=areas.image.config.pae)

    # -- moving edges --------------------------------------------------------------------------

    def vma_adjust(self, vma: int, start: int, end: int, pgoff: int) -> None:
        """Give a VMA new edges, and the VMA behind it those that follow from them.

        A VMA may grow over two others.
        """
        area, reached = self._areas.vma(vma), 0
        while reached != end:
            following = area.vm_next
            effect = self._effect(vma, following, end)
            reached = self._areas.vma(following).vm_end if effect.removes else end
            self._import_anon_vma(vma, following, effect)
            self._move_edges(vma, following, start, reached, pgoff, effect.shift)
            if effect.removes:
                self._remove(vma, following)

    def _split_off(self, vma: int, start: int, end: int, pgoff: int, part: int) -> None:
        """``vma_adjust()`` with ``insert``: a VMA keeps what ``part`` does not take, and that is
        linked."""
        area = self._areas.vma(vma)
        self._areas.vma(part).vm_truncate_count = area.vm_truncate_count
        self._mappings.link(part)
        self._move_edges(vma, 0, start, end, pgoff, 0)
        self._links.insert_part(area.vm_mm, part)

    def _effect(self, vma: int, following: int, end: int) -> Effect:
        if not following:
            return Effect()
        area, behind = self._areas.vma(vma), self._areas.vma(following)
        if end >= behind.vm_end:
            return Effect(removes=True, importer=vma)
        if end > behind.vm_start:
            return Effect(shift=end - behind.vm_start >> PAGE_SHIFT, importer=vma)
        if end < area.vm_end:
            return Effect(shift=-(area.vm_end - end >> PAGE_SHIFT), importer=following)
        return Effect()

    def _import_anon_vma(self, vma: int, following: int, effect: Effect) -> None:
        """Who gets pages of a VMA that has an ``anon_vma`` must be found by it."""
        if not effect.importer:
            return
        area, behind = self._areas.vma(vma), self._areas.vma(following)
        importer = self._areas.vma(effect.importer)
        if area.vm_file and area.vm_truncate_count != behind.vm_truncate_count:
            # A truncation that is under way shall look at all of it again.
            importer.vm_truncate_count = 0
        anon_vma = area.anon_vma or behind.anon_vma
        if anon_vma and not importer.anon_vma:
            self._anon.join(effect.importer, anon_vma)

    def _move_edges(
        self, vma: int, following: int, start: int, end: int, pgoff: int, shift: int
    ) -> None:
        self._mappings.take_out(vma)
        if shift:
            self._mappings.take_out(following)
        area = self._areas.vma(vma)
        area.vm_start, area.vm_end, area.vm_pgoff = start, end, pgoff
        if shift:
            behind = self._areas.vma(following)
            behind.vm_start += shift << PAGE_SHIFT
            behind.vm_pgoff += shift
            self._mappings.put_back(following)
        self._mappings.put_back(vma)

    def _remove(self, vma: int, following: int) -> None:
        """A VMA has grown over all of the one behind it."""
        mm, file = self._areas.vma(vma).vm_mm, self._areas.vma(following).vm_file
        self._links.vma_unlink(mm, following, vma)
        self._mappings.remove(following)
        self._anon.merge(vma, following)
        if file:
            self._areas.files.fput(file)
        self._areas.mm(mm).map_count -= 1
        self._areas.free(following)

    # -- cutting -------------------------------------------------------------------------------

    def split_vma(self, mm: int, vma: int, addr: int, *, new_below: bool) -> int:
        """Cut a VMA at ``addr``; the new one is the part below it, or that above. 0,
        ``-ENOMEM``, or ``-EINVAL`` within a huge page."""
        if self._areas.vma(vma).vm_flags & VM_HUGETLB and addr & self._huge.size - 1:
            return -EINVAL
        if self._areas.mm(mm).map_count >= self._areas.statics.max_map_count:
            return -ENOMEM
        new = self._areas.alloc()
        if not new:
            return -ENOMEM
        self._areas.copy(new, vma)
        area, part = self._areas.vma(vma), self._areas.vma(new)
        pages = addr - area.vm_start >> PAGE_SHIFT
        if new_below:
            part.vm_end = addr
        else:
            part.vm_start = addr
            part.vm_pgoff += pages
        self._areas.share_file(new)
        if new_below:
            self._split_off(vma, addr, area.vm_end, area.vm_pgoff + pages, new)
        else:
            self._split_off(vma, area.vm_start, addr, area.vm_pgoff, new)
        return 0

    def isolate(self, vma: int, start: int, end: int) -> int:
        """Cut off what of a VMA lies outside a range: 0, or ``-ENOMEM`` half way through."""
        area = self._areas.vma(vma)
        if start != area.vm_start and (
            error := self.split_vma(area.vm_mm, vma, start, new_below=True)
        ):
            return error
        if end != area.vm_end:
            return self.split_vma(area.vm_mm, vma, end, new_below=False)
        return 0

    # -- parts with other flags ----------------------------------------------------------------

    def carve(self, vma: int, start: int, end: int, newflags: int) -> bool:
        """Give the part of a VMA in a range other flags, and leave the PTEs as they are."""
        if self.isolate(vma, start, end):
            return False
        self._areas.vma(vma).vm_flags = newflags
        return True

    def madvise_behavior(self, vma: int, start: int, end: int, newflags: int) -> int:
        """The same for advice: 0, or ``-EAGAIN``."""
        return 0 if self.carve(vma, start, end, newflags) else -EAGAIN
