# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the pages of a shmem file are that are swapped out.

Models linux-2.4.22 ``mm/shmem.c``: ``shmem_swp_entry()``, ``shmem_swp_alloc()``,
``shmem_truncate()``. In RAM: a ``swp_entry_t`` for each page of the file, 0 while the page is
not out. The first 16 stand in the inode itself. ``i_indirect`` is a frame of pointers: each of
its first 512 leads to a frame of 1,024 entries, each of the others to a frame of pointers to
such frames.

What can fail: no memory for such a frame; the frames made so far stay, until the file is cut.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.structs.fs import SHMEM_NR_DIRECT

ENTRIES_PER_PAGE: Final = 1024
_MIDDLE: Final = ENTRIES_PER_PAGE // 2
"""The first pointer of ``i_indirect`` that leads to pointers."""
SHMEM_MAX_INDEX: Final = SHMEM_NR_DIRECT + _MIDDLE * ENTRIES_PER_PAGE * (ENTRIES_PER_PAGE + 1)
PURPOSE: Final = "shmem index"


def path_of(index: int) -> tuple[tuple[int, ...], int]:
    """(places of the pointers below ``i_indirect``, place of the entry in the last frame)."""
    block, entry = divmod(index - SHMEM_NR_DIRECT, ENTRIES_PER_PAGE)
    if block < _MIDDLE:
        return (block,), entry
    middle, block = divmod(block - _MIDDLE, ENTRIES_PER_PAGE)
    return (_MIDDLE + middle, block), entry


def shmem_info(image: KernelImage, inode: int) -> Any:
    """The ``struct shmem_inode_info`` of an inode."""
    return image.at(image.structs.shmem_inode_info, inode + image.structs.shmem_info)


class SwapEntries:
    """The swap entries of every shmem file of a machine. An inode is an address."""

    def __init__(self, image: KernelImage, allocator: PageAllocator) -> None:
        self._image = image
        self._words = image.ram.words
        self._allocator = allocator
        self._info = image.structs.shmem_inode_info
        self._distance = image.structs.shmem_info

    def info(self, inode: int) -> Any:
        """The ``struct shmem_inode_info``."""
        return shmem_info(self._image, inode)

    def _root(self, inode: int) -> int:
        """Index in ``Ram.words`` of ``i_indirect``."""
        return inode + self._distance + self._info.offset("i_indirect") - PAGE_OFFSET >> 2

    def _direct(self, inode: int) -> int:
        """Index in ``Ram.words`` of ``i_direct[0]``."""
        return inode + self._distance + self._info.offset("i_direct") - PAGE_OFFSET >> 2

    def shmem_swp_entry(self, inode: int, index: int) -> int:
        """Index in ``Ram.words`` of the entry for a page; 0 where its frame is missing."""
        place, missing = self._walk(inode, index)
        return 0 if missing else place

    def _walk(self, inode: int, index: int) -> tuple[int, bool]:
        """(the entry, False), or (the pointer that is still NULL, True)."""
        if index < SHMEM_NR_DIRECT:
            return self._direct(inode) + index, False
        words, at = self._words, self._root(inode)
        pointers, entry = path_of(index)
        for below in (*pointers, entry):
            if not words[at]:
                return at, True
            at = (words[at] - PAGE_OFFSET >> 2) + below
        return at, False

    def shmem_swp_alloc(self, inode: int, index: int) -> int:
        """The same, with the frames it takes; 0 when memory is out."""
        info = self.info(inode)
        while True:
            place, missing = self._walk(inode, index)
            if missing:
                frame = self._allocator.get_zeroed_page(self._image.constants.gfp.user, PURPOSE)
                if not frame:
                    return 0
                self._words[place] = frame
            # Said at once, for cutting the file must find the frame even if there is no next one.
            info.next_index = max(int(info.next_index), index + 1)
            if not missing:
                return place

    # -- cutting -------------------------------------------------------------------------------

    def truncate(self, inode: int, first: int, free_entry: Callable[[int], None]) -> int:
        """Free the entries from page ``first`` on, and the frames that are not needed any more.

        Returns how many entries named a slot.
        """
        info = self.info(inode)
        if first >= info.next_index:
            return 0
        end = int(info.next_index)
        info.next_index = first
        direct = self._direct(inode)
        freed = self._free_entries(direct + first, direct + min(end, SHMEM_NR_DIRECT), free_entry)
        for base, pointer in list(self._leaves(inode)):
            if base + ENTRIES_PER_PAGE <= first:
                continue
            table = self._words[pointer] - PAGE_OFFSET >> 2
            start = table + max(first - base, 0)
            freed += self._free_entries(start, table + ENTRIES_PER_PAGE, free_entry)
            if base >= first:
                self._free_frame(pointer)
        self._free_pointers(inode, first)
        return freed

    def _free_entries(self, start: int, end: int, free_entry: Callable[[int], None]) -> int:
        freed = 0
        for place in range(start, end):
            if entry := self._words[place]:
                self._words[place] = 0
                free_entry(entry)
                freed += 1
        return freed

    def _leaves(self, inode: int) -> Iterator[tuple[int, int]]:
        """(page of its first entry, pointer to it) of each frame of entries, in order."""
        words, root = self._words, self._words[self._root(inode)]
        if not root:
            return
        top = root - PAGE_OFFSET >> 2
        for place in range(_MIDDLE):
            if words[top + place]:
                yield SHMEM_NR_DIRECT + place * ENTRIES_PER_PAGE, top + place
        for middle in range(_MIDDLE):
            if below := words[top + _MIDDLE + middle]:
                table = below - PAGE_OFFSET >> 2
                base = self._base(middle)
                for place in range(ENTRIES_PER_PAGE):
                    if words[table + place]:
                        yield base + place * ENTRIES_PER_PAGE, table + place

    @staticmethod
    def _base(middle: int) -> int:
        """The first page below the pointer to pointers number ``middle``."""
        return SHMEM_NR_DIRECT + (_MIDDLE + middle * ENTRIES_PER_PAGE) * ENTRIES_PER_PAGE

    def _free_pointers(self, inode: int, first: int) -> None:
        """The frames of pointers behind the cut; the outermost goes when nothing needs it."""
        root, words = self._root(inode), self._words
        if not words[root]:
            return
        top = words[root] - PAGE_OFFSET >> 2
        for middle in range(_MIDDLE):
            if words[top + _MIDDLE + middle] and self._base(middle) >= first:
                self._free_frame(top + _MIDDLE + middle)
        if first <= SHMEM_NR_DIRECT:
            self._free_frame(root)

    def _free_frame(self, pointer: int) -> None:
        """Free the frame that the word at ``pointer`` leads to."""
        frame, self._words[pointer] = self._words[pointer], 0
        self._allocator.free_pages_at(frame, 0)

    def entries(self, inode: int) -> Iterator[tuple[int, int]]:
        """(page, swap entry) of each page that is out, in order."""
        end = int(self.info(inode).next_index)
        direct = self._direct(inode)
        for index in range(min(end, SHMEM_NR_DIRECT)):
            if entry := self._words[direct + index]:
                yield index, entry
        for base, pointer in self._leaves(inode):
            table = self._words[pointer] - PAGE_OFFSET >> 2
            for offset in range(ENTRIES_PER_PAGE):
                if entry := self._words[table + offset]:
                    yield base + offset, entry

    def frames(self, inode: int) -> list[int]:
        """Kernel virtual addresses of the frames that the entries of a file take."""
        root = self._words[self._root(inode)]
        if not root:
            return []
        top = root - PAGE_OFFSET >> 2
        middles = [frame for frame in self._words[top + _MIDDLE : top + ENTRIES_PER_PAGE] if frame]
        return [root, *middles, *(self._words[pointer] for _, pointer in self._leaves(inode))]
