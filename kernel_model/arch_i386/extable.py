# SPDX-License-Identifier: GPL-2.0-or-later
"""Which instructions of the kernel may fault, and where to go on when they do.

Models linux-2.4.22 ``arch/i386/mm/extable.c: search_exception_table()`` (book 4.5, 4.7). In
RAM, in the kernel's image: ``__ex_table``, pairs of (address of the instruction, address of its
fixup) in ascending order, put together by the linker. Nothing here can fail: an instruction that
stands in no entry has no fixup, 0.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.ram import Ram


class ExceptionTable:
    """``__start___ex_table`` to ``__stop___ex_table``, kernel virtual addresses."""

    def __init__(self, ram: Ram) -> None:
        self._words = ram.words
        self.start = self.stop = 0

    def place(self, start: int, stop: int) -> None:
        """The kernel's image was loaded, with its table from ``start`` to ``stop``."""
        self.start, self.stop = start, stop

    def search(self, eip: int) -> int:
        """``search_exception_table()``: the fixup of the instruction at ``eip``; 0: none."""
        words, first = self._words, self.start - PAGE_OFFSET >> 2
        low, high = 0, (self.stop - self.start >> 3) - 1
        while low <= high:
            middle = (low + high) // 2
            instruction = words[first + 2 * middle]
            if instruction == eip:
                return words[first + 2 * middle + 1]
            if instruction < eip:
                low = middle + 1
            else:
                high = middle - 1
        return 0
