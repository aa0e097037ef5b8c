# SPDX-License-Identifier: GPL-2.0-or-later
"""Which VMAs may map a page that is no file's: the lists that such pages point to.

Models linux-2.6.11 ``mm/rmap.c: anon_vma_prepare()``, ``anon_vma_link()``, ``anon_vma_unlink()``,
``__anon_vma_merge()`` and ``include/linux/rmap.h`` (book 3.10). A ``struct anon_vma`` is the head
of a list of VMAs: one that was written to first, those that were cut or copied from it, and
neighbours that may merge with it one day. All of them count pages alike: a page at index
``vm_pgoff`` of one would be there in each.

In RAM: ``struct anon_vma`` from ``anon_vma_cachep``; ``vma->anon_vma`` and ``anon_vma_node``. A VMA
without pages of its own has 0 and is on no list.

What can fail: ``anon_vma_prepare()`` returns ``-ENOMEM`` when memory is out.
"""

from collections.abc import Callable, Iterator
from typing import Final

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errno import ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.linux_2_6.preempt import Preemption
from kernel_model.lists import Lists
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.slab.flags import SLAB_CTOR_CONSTRUCTOR, SLAB_CTOR_VERIFY
from kernel_model.mm.slab.objects import Constructor
from kernel_model.structs.linux_2_6.mm import VM_AREA_STRUCT

ANON_VMA_NODE: Final = VM_AREA_STRUCT.offset("anon_vma_node")
"""Bytes from a VMA to its entry in the list."""


def anon_vma_ctor(image: KernelImage) -> Constructor:
    """What ``anon_vma_cachep`` keeps its objects as while they are free: an empty list, unlocked.
    They may be looked at even then."""
    lists, kind = Lists(image.ram), image.structs.anon_vma
    head = kind.offset("head")

    def construct(objp: int, _cachep: int, flags: int) -> None:
        if flags & (SLAB_CTOR_VERIFY | SLAB_CTOR_CONSTRUCTOR) == SLAB_CTOR_CONSTRUCTOR:
            image.ram.fill(virt_to_phys(objp), kind.size)
            lists.init(objp + head)

    return construct


class AnonVmas:
    """The lists of one machine. An ``anon_vma`` is a kernel virtual address; 0 is none.

    ``find_mergeable`` is ``find_mergeable_anon_vma()``.
    """

    def __init__(
        self, areas: Areas, slab: ObjectCaches, find_mergeable: Callable[[int], int]
    ) -> None:
        self._areas = areas
        self._slab = slab
        self._gfp_kernel = areas.image.constants.gfp.kernel
        self._preemption = Preemption(areas.image)
        self._find_mergeable = find_mergeable
        self._lists = Lists(areas.image.ram)
        self._head = areas.image.structs.anon_vma.offset("head")

    def anon_vma_prepare(self, vma: int) -> int:
        """A VMA is about to get its first page of its own: 0, or ``-ENOMEM``.

        It joins the list of a neighbour that it may merge with, so that lists keep nobody apart.
        """
        self._preemption.might_sleep("anon_vma_prepare()")
        if self._areas.vma(vma).anon_vma:
            return 0
        anon_vma = self._find_mergeable(vma) or self._alloc()
        if not anon_vma:
            return -ENOMEM
        self.join(vma, anon_vma)
        return 0

    def _alloc(self) -> int:
        """``anon_vma_alloc()``: the constructor of the cache has made its list empty."""
        cachep = int(self._areas.statics.anon_vma_cachep)
        return self._slab.kmem_cache_alloc(cachep, self._gfp_kernel)

    def join(self, vma: int, anon_vma: int) -> None:
        """Put a VMA on a list, in front."""
        self._areas.vma(vma).anon_vma = anon_vma
        self._lists.add(vma + ANON_VMA_NODE, anon_vma + self._head)

    def link(self, vma: int) -> None:
        """``anon_vma_link()``: a VMA that was copied from one on a list joins it."""
        if anon_vma := self._areas.vma(vma).anon_vma:
            self.join(vma, anon_vma)

    def merge(self, vma: int, following: int) -> None:
        """``__anon_vma_merge()``: a VMA has taken over the one behind it, which leaves."""
        area, next_area = self._areas.vma(vma), self._areas.vma(following)
        if not next_area.anon_vma:
            return
        if area.anon_vma != next_area.anon_vma:
            raise KernelBug("rmap.c", 0, "VMAs of different anon_vmas have been merged")
        self._lists.delete(following + ANON_VMA_NODE)

    def unlink(self, vma: int) -> None:
        """``anon_vma_unlink()``: a VMA goes, with the last one the list."""
        anon_vma = self._areas.vma(vma).anon_vma
        if not anon_vma:
            return
        self._lists.delete(vma + ANON_VMA_NODE)
        if self._lists.empty(anon_vma + self._head):
            self._slab.kmem_cache_free(int(self._areas.statics.anon_vma_cachep), anon_vma)

    def vmas(self, anon_vma: int) -> Iterator[int]:
        """The VMAs on a list, the last that came first. It must not change meanwhile."""
        for entry in self._lists.entries(anon_vma + self._head):
            yield entry - ANON_VMA_NODE
