# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the VMA of an address, and the place for a new one.

Models linux-2.4.22 ``mm/mmap.c: find_vma()``, ``find_vma_prev()``, ``find_vma_prepare()`` and
``include/linux/mm.h: find_vma_intersection()`` (book 4.4). In RAM: the red-black tree
``mm->mm_rb``, ordered by address, and ``mm->mmap_cache``, the VMA that was found last. A page
fault asks :meth:`Finder.find_vma` each time, so it reads words and makes no objects.

What can fail: a list that disagrees with its tree is a :class:`KernelBug`.
"""

from typing import Final, NamedTuple

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.rbtree import RB_LEFT_BYTES, RB_RIGHT_BYTES
from kernel_model.structs.mm import VM_AREA_STRUCT

VM_RB: Final = VM_AREA_STRUCT.offset("vm_rb")
_START: Final = VM_AREA_STRUCT.word("vm_start")
_END: Final = VM_AREA_STRUCT.word("vm_end")
_NEXT: Final = VM_AREA_STRUCT.word("vm_next")
_RIGHT: Final = VM_RB + RB_RIGHT_BYTES >> 2
_LEFT: Final = VM_RB + RB_LEFT_BYTES >> 2


class Place(NamedTuple):
    """Where a VMA goes: behind ``prev`` in the list, below ``rb_parent`` where ``rb_link`` is.

    ``vma`` is the first that ends above the address. When the address lies inside it, there is
    no place: the other three are 0.
    """

    vma: int
    prev: int
    rb_link: int
    rb_parent: int


class Finder:
    """Looks VMAs up; 0 is none."""

    def __init__(self, areas: Areas) -> None:
        mm = areas.image.structs.mm_struct
        self._words = areas.words
        self._mmap = mm.word("mmap")
        self._rb_root = mm.offset("mm_rb")
        self._root = mm.word("mm_rb")
        self._cache = mm.word("mmap_cache")

    def find_vma(self, mm: int, addr: int) -> int:
        """The first VMA that ends above ``addr``; it need not begin below it."""
        if not mm:
            return 0
        words = self._words
        base = mm - PAGE_OFFSET >> 2
        vma = words[base + self._cache]
        if vma:
            at = vma - PAGE_OFFSET >> 2
            if words[at + _START] <= addr < words[at + _END]:
                return vma
        return self._search(base, addr)

    def _search(self, base: int, addr: int) -> int:
        words = self._words
        found, node = 0, words[base + self._root]
        while node:
            at = node - VM_RB - PAGE_OFFSET >> 2
            if words[at + _END] > addr:
                found = node - VM_RB
                if words[at + _START] <= addr:
                    break
                node = words[at + _LEFT]
            else:
                node = words[at + _RIGHT]
        if found:
            words[base + self._cache] = found
        return found

    def find_vma_intersection(self, mm: int, start: int, end: int) -> int:
        """The first VMA that has an address from ``start`` to below ``end``."""
        vma = self.find_vma(mm, start)
        if vma and end <= self._words[(vma - PAGE_OFFSET >> 2) + _START]:
            return 0
        return vma

    def find_vma_prev(self, mm: int, addr: int) -> tuple[int, int]:
        """What ``find_vma()`` finds, and the VMA before it; the cache is left alone.

        Behind the last VMA both are 0: then nothing says which one is the last.
        """
        words, base = self._words, mm - PAGE_OFFSET >> 2
        vma = prev = turned_right = 0
        node = words[base + self._root]
        while node:
            at = node - VM_RB - PAGE_OFFSET >> 2
            if words[at + _END] > addr:
                vma, prev = node - VM_RB, turned_right
                if words[at + _START] <= addr:
                    break
                node = words[at + _LEFT]
            else:
                turned_right = node - VM_RB
                node = words[at + _RIGHT]
        if not vma:
            return 0, 0
        prev = self._rightmost(words[(vma - PAGE_OFFSET >> 2) + _LEFT]) or prev
        listed = (prev - PAGE_OFFSET >> 2) + _NEXT if prev else base + self._mmap
        if words[listed] != vma:
            raise KernelBug("mmap.c", 734, "the list of VMAs and their tree differ")
        return vma, prev

    def _rightmost(self, node: int) -> int:
        """The last VMA of a subtree; 0 when there is none."""
        if not node:
            return 0
        while right := self._words[(node - VM_RB - PAGE_OFFSET >> 2) + _RIGHT]:
            node = right
        return node - VM_RB

    def find_vma_prepare(self, mm: int, addr: int) -> Place:
        """Where a VMA that begins at ``addr`` would go."""
        words = self._words
        link, parent, vma, prev = mm + self._rb_root, 0, 0, 0
        while node := words[link - PAGE_OFFSET >> 2]:
            parent = node
            at = node - VM_RB - PAGE_OFFSET >> 2
            if words[at + _END] > addr:
                vma = node - VM_RB
                if words[at + _START] <= addr:
                    return Place(vma, 0, 0, 0)
                link = node + RB_LEFT_BYTES
            else:
                prev = node - VM_RB
                link = node + RB_RIGHT_BYTES
        return Place(vma, prev, link, parent)
