# SPDX-License-Identifier: GPL-2.0-or-later
"""What a PTE holds of a page that is not there: a swap slot, or in 2.6 a page of a file.

Models linux-2.4.22 ``include/asm-i386/pgtable.h`` (``SWP_ENTRY``) and linux-2.6.11
``include/linux/swapops.h``, ``include/asm-i386/pgtable-2level.h`` and ``pgtable-3level.h`` (book
3.10, 4.6). Pure arithmetic. The bits that say "present" stay clear in all of them.

In 2.4 a ``swp_entry_t`` is what the PTE holds. In 2.6 it looks the same on all architectures, and a
PTE with the dirty bit but without "present" holds a page number of a file, for which
``remap_file_pages()`` chose the address.
"""

from typing import Final, Protocol

PAGE_FILE: Final = 0x040
_SWP_TYPE_SHIFT: Final = 27
_SWP_OFFSET_MASK: Final = (1 << _SWP_TYPE_SHIFT) - 1


class AbsentPtes(Protocol):
    """How a release writes down pages that are not there."""

    def swp_entry(self, area: int, offset: int) -> int:
        """The ``swp_entry_t`` of a slot of an area."""

    def swp_type(self, entry: int) -> int:
        """The area of an entry."""

    def swp_offset(self, entry: int) -> int:
        """The slot of an entry."""

    def pte_file(self, pte: int) -> bool:
        """Whether a PTE that is neither none nor present holds a file's page, not a slot."""

    def pte_to_swp_entry(self, pte: int) -> int:
        """The slot that a PTE holds."""

    def swp_entry_to_pte(self, entry: int) -> int:
        """The PTE for a slot."""


class SwapPtes:
    """2.4: an entry has the area in bits 1 to 6 and the slot from bit 8 on, and is the PTE."""

    def swp_entry(self, area: int, offset: int) -> int:
        return area << 1 | offset << 8

    def swp_type(self, entry: int) -> int:
        return entry >> 1 & 0x3F

    def swp_offset(self, entry: int) -> int:
        return entry >> 8

    def pte_file(self, pte: int) -> bool:
        return False

    def pte_to_swp_entry(self, pte: int) -> int:
        return pte

    def swp_entry_to_pte(self, entry: int) -> int:
        return entry


class _PortableEntries:
    """2.6: the area in the upper 5 bits, the slot in the others."""

    def swp_entry(self, area: int, offset: int) -> int:
        return area << _SWP_TYPE_SHIFT | offset & _SWP_OFFSET_MASK

    def swp_type(self, entry: int) -> int:
        return entry >> _SWP_TYPE_SHIFT

    def swp_offset(self, entry: int) -> int:
        return entry & _SWP_OFFSET_MASK

    def pte_file(self, pte: int) -> bool:
        return bool(pte & PAGE_FILE)


class TwoLevelPtes(_PortableEntries):
    """2.6 with PTEs of 32 bits: bits 0, 6 and 7 are taken, so a file's page number of 29 bits is
    cut in two."""

    file_bits: Final = 29

    def pte_to_swp_entry(self, pte: int) -> int:
        return self.swp_entry(pte >> 1 & 0x1F, pte >> 8)

    def swp_entry_to_pte(self, entry: int) -> int:
        return self.swp_type(entry) << 1 | self.swp_offset(entry) << 8

    def pte_to_pgoff(self, pte: int) -> int:
        """The page of the file that a PTE holds."""
        return (pte >> 1 & 0x1F) + (pte >> 8 << 5)

    def pgoff_to_pte(self, pgoff: int) -> int:
        """The PTE for a page of the file that is not there."""
        return (pgoff & 0x1F) << 1 | pgoff >> 5 << 8 | PAGE_FILE


class ThreeLevelPtes(_PortableEntries):
    """2.6 with PAE: everything stands in the upper half of the PTE."""

    file_bits: Final = 32

    def pte_to_swp_entry(self, pte: int) -> int:
        return self.swp_entry(pte >> 32 & 0x1F, pte >> 37)

    def swp_entry_to_pte(self, entry: int) -> int:
        return (self.swp_type(entry) | self.swp_offset(entry) << 5) << 32

    def pte_to_pgoff(self, pte: int) -> int:
        return pte >> 32

    def pgoff_to_pte(self, pgoff: int) -> int:
        return pgoff << 32 | PAGE_FILE


FilePtes = TwoLevelPtes | ThreeLevelPtes
"""What 2.6 has: an :class:`AbsentPtes` that can also write down a file's page."""


def file_ptes(pae: bool) -> FilePtes:
    """That of a build of 2.6."""
    return ThreeLevelPtes() if pae else TwoLevelPtes()
