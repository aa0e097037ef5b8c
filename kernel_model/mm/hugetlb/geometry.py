# SPDX-License-Identifier: GPL-2.0-or-later
"""How large a huge page is.

Models linux-2.6.11 ``include/asm-i386/page.h: HPAGE_SHIFT`` and ``arch/i386/mm/hugetlbpage.c:
is_aligned_hugepage_range()`` (book 3.10): what one entry of the middle directory maps. Pure
arithmetic.
"""

from dataclasses import dataclass

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.arch_i386.pgtable import THREE_LEVEL, TWO_LEVEL
from kernel_model.errno import EINVAL


@dataclass(frozen=True, slots=True)
class HugePages:
    """The huge pages of a kernel with two levels of page tables, or with three."""

    shift: int
    """``HPAGE_SHIFT``."""

    @classmethod
    def of(cls, *, pae: bool) -> "HugePages":
        return cls((THREE_LEVEL if pae else TWO_LEVEL).pmd_shift)

    @property
    def size(self) -> int:
        """``HPAGE_SIZE``, in bytes."""
        return 1 << self.shift

    @property
    def order(self) -> int:
        """``HUGETLB_PAGE_ORDER``."""
        return self.shift - PAGE_SHIFT

    @property
    def frames(self) -> int:
        """Frames of a huge page."""
        return 1 << self.order

    def is_aligned_hugepage_range(self, addr: int, length: int) -> int:
        """0, or ``-EINVAL`` for a range that is not made of whole huge pages."""
        return -EINVAL if (addr | length) & self.size - 1 else 0

    def align(self, addr: int) -> int:
        """``addr``, or the next beginning of a huge page above it."""
        return -(-addr // self.size) * self.size
