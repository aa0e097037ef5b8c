# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMA layer asks of reverse mapping.

2.6 keeps VMAs on lists by which a page that is no file's finds who may map it
(:mod:`kernel_model.mm.rmap.anon_vma`); 2.4 has nothing of the kind (book 3.10).
"""

from typing import Protocol


class AnonLinks(Protocol):
    """Those lists."""

    def anon_vma_prepare(self, vma: int) -> int:
        """Let a VMA be on one: 0, or ``-ENOMEM``."""

    def link(self, vma: int) -> None:
        """``anon_vma_link()``: a VMA that was copied from one on a list joins it."""


class NoAnonLinks:
    """There are none."""

    def anon_vma_prepare(self, vma: int) -> int:
        return 0

    def link(self, vma: int) -> None:
        """Nothing to join."""
