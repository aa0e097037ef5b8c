# SPDX-License-Identifier: GPL-2.0-or-later
"""No reverse map: Linux 2.4 goes through all page tables when it wants a frame back.

Nothing is kept, and nothing can fail.
"""


class NoReverseMap:
    """A :class:`~kernel_model.mm.rmap.interface.ReverseMap` that keeps no books."""

    def prepare(self, vma: int) -> bool:
        return True

    def reserve(self) -> bool:
        return True

    def ready(self) -> bool:
        return True

    def add_anon(self, page: int, vma: int, vaddr: int, ptep: int) -> None:
        """Nobody asks."""

    def add_file(self, page: int, ptep: int) -> None:
        """Nobody asks."""

    def duplicate(self, mm: int, page: int, ptep: int) -> None:
        """Nobody asks."""

    def remove(self, mm: int, page: int, ptep: int) -> None:
        """Nobody asks."""

    def moved(self, page: int, source: int, to: int) -> None:
        """Nobody asks."""

    def table_made(self, mm: int, vaddr: int, paddr: int) -> None:
        """Nobody asks."""

    def table_freed(self, table: int) -> None:
        """Nobody asks."""
