# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMAs of a file on two lists: those that share what is written, and the others.

Models linux-2.4.22 ``mapping->i_mmap`` and ``i_mmap_shared`` (book 4.4.2), which are strung
through ``vm_next_share``; ``vm_pprev_share`` is where the pointer to a VMA stands. Newest first.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.mappings import FileMappings
from kernel_model.structs.mm import VM_AREA_STRUCT, VM_SHARED

_NEXT_SHARE: Final = VM_AREA_STRUCT.offset("vm_next_share")


class ShareLists(FileMappings):
    """``i_mmap`` and ``i_mmap_shared`` of every file."""

    def __init__(self, areas: Areas) -> None:
        super().__init__(areas)
        mapping = areas.image.structs.address_space
        self._i_mmap = mapping.offset("i_mmap")
        self._i_mmap_shared = mapping.offset("i_mmap_shared")

    def _insert(self, vma: int, mapping: int) -> None:
        shared = self._areas.vma(vma).vm_flags & VM_SHARED
        self.link_share(vma, mapping + (self._i_mmap_shared if shared else self._i_mmap))

    def _insert_behind(self, new: int, old: int) -> None:
        self.link_share(new, self.next_share_link(old))

    def link_share(self, vma: int, link: int) -> None:
        """Into the list of a mapping, where the pointer at ``link`` points."""
        words, area = self._areas.words, self._areas.vma(vma)
        following = words[link - PAGE_OFFSET >> 2]
        area.vm_next_share, area.vm_pprev_share = following, link
        if following:
            self._areas.vma(following).vm_pprev_share = vma + _NEXT_SHARE
        words[link - PAGE_OFFSET >> 2] = vma

    def next_share_link(self, vma: int) -> int:
        """The pointer to whatever follows ``vma`` in the list of its mapping."""
        return vma + _NEXT_SHARE

    def _remove(self, vma: int, mapping: int) -> None:
        area = self._areas.vma(vma)
        if area.vm_next_share:
            self._areas.vma(area.vm_next_share).vm_pprev_share = area.vm_pprev_share
        self._areas.words[area.vm_pprev_share - PAGE_OFFSET >> 2] = area.vm_next_share
