# SPDX-License-Identifier: GPL-2.0-or-later
"""Doubly linked circular lists in RAM.

Models linux-2.4.22 ``include/linux/list.h``. A list is named by the kernel virtual address of
its head, an entry by that of its ``struct list_head``: ``next`` in the first word, ``prev`` in
the second. Taking an entry off a list clears both, as the kernel does.

What can fail: walking a list whose links were overwritten ends in an
:class:`~kernel_model.errors.EndlessLoop` where the kernel would never return, or in an
IndexError where a link leads out of RAM.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import EndlessLoop
from kernel_model.ram import Ram

_LONGEST: Final = 1 << 25
"""More than the entries of 8 bytes that any list has: ``mem_map`` itself has fewer."""


class Lists:
    """List operations over the words of ``ram``."""

    def __init__(self, ram: Ram) -> None:
        self._words = ram.words
        self._longest = min(len(ram.words) // 2, _LONGEST)

    def init(self, head: int) -> None:
        """``INIT_LIST_HEAD``: an empty list."""
        index = head - PAGE_OFFSET >> 2
        self._words[index] = self._words[index + 1] = head

    def first(self, head: int) -> int:
        """The first entry; the head itself when the list is empty."""
        return self._words[head - PAGE_OFFSET >> 2]

    def last(self, head: int) -> int:
        """The last entry; the head itself when the list is empty."""
        return self._words[(head - PAGE_OFFSET >> 2) + 1]

    def empty(self, head: int) -> bool:
        return self._words[head - PAGE_OFFSET >> 2] == head

    def add(self, entry: int, head: int) -> None:
        """``list_add``: right behind the head."""
        words = self._words
        at, first = entry - PAGE_OFFSET >> 2, head - PAGE_OFFSET >> 2
        following = words[first]
        words[(following - PAGE_OFFSET >> 2) + 1] = entry
        words[at] = following
        words[at + 1] = head
        words[first] = entry

    def add_tail(self, entry: int, head: int) -> None:
        """``list_add_tail``: right before the head."""
        self.add(entry, self.last(head))

    def delete(self, entry: int) -> None:
        """``list_del``."""
        words = self._words
        at = entry - PAGE_OFFSET >> 2
        following, previous = words[at], words[at + 1]
        words[(following - PAGE_OFFSET >> 2) + 1] = previous
        words[previous - PAGE_OFFSET >> 2] = following
        words[at] = words[at + 1] = 0

    def delete_init(self, entry: int) -> None:
        """``list_del_init``: afterwards the entry is an empty list of its own."""
        self.delete(entry)
        self.init(entry)

    def entries(self, head: int) -> Iterator[int]:
        """Every entry from the first to the last. The list must not change meanwhile."""
        entry = self.first(head)
        for _ in range(self._longest):
            if entry == head:
                return
            yield entry
            entry = self._words[entry - PAGE_OFFSET >> 2]
        raise EndlessLoop(f"the list at {head:#x} never comes back to its head")
