# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that say which frame they are: to a load, to a store and to a fetch.

A stamp is twelve bytes, ``mov $imm32,%eax; nop; ret``, placed so that the imm32 is an aligned
word which names the frame. A load of the word and a call of the code both come back with the
name; a store replaces the word, which is then found in that frame and in no other.

The same bytes fit into unused entries of page tables: none of the words that are the low half
of an entry has bit 0, so that no stamp is a present entry. That is what the ``nop`` is for.

Frames that cannot be changed while the CPU works with them, or tables without four unused
entries in a row, keep their contents. A word they hold anyway serves as witness of loads, if
no other such frame shows the same word and it stays the same; stores and fetches that should
succeed are left out there.

Nothing here can fail.
"""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.architecture import PTE_A, PTE_D, Ring
from harness.mappings import I64, PAGE_SHIFT, U32
from kernel_model.ram import Ram

__all__ = ["FrameWitnesses", "recognise", "stamp_words", "stamped", "stored_words"]

FRAME_WORDS: Final = 1 << PAGE_SHIFT - 2
USUAL_SLOT: Final = 0x3F0
"""The word of a frame at which its stamp begins, if nothing speaks against it."""
_SLOT_WORDS: Final = 4
_OPCODE: Final = 0xB8 << 24
"""``mov $imm32,%eax``; the imm32 is the next word."""
_END: Final = 0xC390
"""``nop; ret``."""
_TAG_SHIFT: Final = 25
_TAG_STAMP: Final = 0x2D
_TAG_STORED: Final = {Ring.KERNEL: 0x35, Ring.USER: 0x55}
_ALL_BITS: Final = 0xFFFFFFFF

Bools = npt.NDArray[np.bool_]


def stamp_words(pfns: I64) -> U32:
    """The word that names each frame. 36 physical address bits are 24 bits of PFN."""
    return (pfns << 1 | _TAG_STAMP << _TAG_SHIFT).astype(np.uint32)


def stored_words(pfns: I64, ring: Ring) -> U32:
    """The word that a store from ``ring`` puts into each frame."""
    return (pfns << 1 | _TAG_STORED[ring] << _TAG_SHIFT).astype(np.uint32)


def recognise(words: U32, frames: int) -> I64:
    """The frame that each word names as its stamp, -1 for any other word."""
    pfns = words.astype(np.int64) >> 1 & (1 << _TAG_SHIFT - 1) - 1
    known = (words == stamp_words(pfns)) & (pfns < frames)
    return np.where(known, pfns, -1)


@dataclass(frozen=True, slots=True)
class FrameWitnesses:
    """Where each frame shows which one it is.

    ``special`` are the PFNs (sorted) that do so in their own way: the data word's index is
    ``word`` (-1: there is none), ``stampable`` or natural; of a natural witness the bits in
    ``mask`` are compared. All other frames have the usual slot.
    """

    special: I64
    word: I64
    stampable: Bools
    mask: U32

    @staticmethod
    def choose(ram: Ram, tables: I64, entry_bytes: int, untouchable: I64) -> "FrameWitnesses":
        """``tables`` are page tables in use with entries of ``entry_bytes``; the frames in
        ``untouchable`` must not change at all. Both are PFNs, sorted, in RAM."""
        rows = np.frombuffer(ram.buffer, np.uint32).reshape(-1, FRAME_WORDS)
        special = np.union1d(tables, untouchable)
        word = np.full(len(special), -1, np.int64)
        stampable = np.zeros(len(special), np.bool_)
        mask = np.full(len(special), _ALL_BITS, np.uint32)
        is_table = np.isin(special, tables)
        mask[is_table] = _ALL_BITS & ~(PTE_A | PTE_D)
        shown: set[int] = set()
        for place, pfn in enumerate(special.tolist()):
            slot = _unused_slot(rows[pfn], entry_bytes) if is_table[place] else -1
            if slot >= 0 and pfn not in untouchable:
                word[place], stampable[place] = slot + 1, True
            else:
                word[place] = _natural_word(rows[pfn], int(mask[place]), shown)
        return FrameWitnesses(special, word, stampable, mask)

    def _place(self, pfns: I64) -> tuple[I64, Bools]:
        """Index into ``special`` for each PFN, and whether it is there at all."""
        if not len(self.special):
            return np.zeros(len(pfns), np.int64), np.zeros(len(pfns), np.bool_)
        place = np.minimum(np.searchsorted(self.special, pfns), len(self.special) - 1)
        return place, self.special[place] == pfns

    def data_words(self, pfns: I64) -> I64:
        """Index of the data word in each frame, -1 where nothing tells it from others."""
        if not len(self.special):
            return np.full(len(pfns), USUAL_SLOT + 1, np.int64)
        place, found = self._place(pfns)
        return np.where(found, self.word[place], USUAL_SLOT + 1)

    def stampable_at(self, pfns: I64) -> Bools:
        if not len(self.special):
            return np.ones(len(pfns), np.bool_)
        place, found = self._place(pfns)
        return ~found | self.stampable[place]

    def masks(self, pfns: I64) -> U32:
        """The bits of the data word that a load must bring back."""
        if not len(self.special):
            return np.full(len(pfns), _ALL_BITS, np.uint32)
        place, found = self._place(pfns)
        return np.where(found, self.mask[place], np.uint32(_ALL_BITS))


def _unused_slot(row: U32, entry_bytes: int) -> int:
    """The last four words in a row, aligned, that are unused entries of a table; -1 if none."""
    low_halves = row.reshape(-1, _SLOT_WORDS)[:, :: entry_bytes // 4]
    unused = np.flatnonzero(((low_halves & np.uint32(1)) == 0).all(axis=1))
    return int(unused[-1]) * _SLOT_WORDS if len(unused) else -1


def _natural_word(row: U32, mask: int, shown: set[int]) -> int:
    """The last word that is not 0 and that no other frame shows; -1 if there is none."""
    for index in np.flatnonzero(row & np.uint32(mask))[::-1].tolist():
        value = int(row[index]) & mask
        if value not in shown:
            shown.add(value)
            return int(index)
    return -1


@contextmanager
def stamped(ram: Ram, pfns: I64, data_words: I64) -> Iterator[None]:
    """Stamp the frames ``pfns`` (each once, stampable); afterwards they are as they were.

    A frame of zeros is given back to the host: a machine's memory must not grow to its full
    size because somebody looked at it.
    """
    words = np.frombuffer(ram.buffer, np.uint32)
    place = pfns * FRAME_WORDS + data_words
    three = place[:, np.newaxis] + np.array([-1, 0, 1])
    saved = words[three]
    words[three] = np.column_stack(
        (
            np.full(len(pfns), _OPCODE, np.uint32),
            stamp_words(pfns),
            np.full(len(pfns), _END, np.uint32),
        )
    )
    try:
        yield
    finally:
        words[three] = saved
        _release_zeros(ram, np.sort(pfns))


def _release_zeros(ram: Ram, pfns: I64) -> None:
    """Give the host pages behind frames of zeros back. Their contents stay zeros."""
    rows = np.frombuffer(ram.buffer, np.uint64).reshape(-1, FRAME_WORDS // 2)
    for first, last in _consecutive(pfns):
        blank = np.bitwise_or.reduce(rows[first : last + 1], axis=1) == 0
        for start, end in _consecutive(np.flatnonzero(blank) + first):
            length = end + 1 - start << PAGE_SHIFT
            ram.buffer.madvise(mmap.MADV_DONTNEED, start << PAGE_SHIFT, length)


def _consecutive(numbers: I64) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers; ``numbers`` is sorted."""
    if not len(numbers):
        return
    gaps = np.flatnonzero(np.diff(numbers) != 1)
    firsts = numbers[np.concatenate(([0], gaps + 1))].tolist()
    lasts = numbers[np.concatenate((gaps, [len(numbers) - 1]))].tolist()
    yield from zip(firsts, lasts, strict=True)
