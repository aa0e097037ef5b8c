# SPDX-License-Identifier: GPL-2.0-or-later
"""Filling the free lists of 2.6 at boot, by way of the CPU's lists.

Models the effect of linux-2.6.11 ``mm/bootmem.c: free_all_bootmem_core()`` and of
``arch/i386/mm/init.c: set_highmem_pages_init()`` on a zone (book 5.7, 6.7): 32 frames that one word
of the boot map says are free go to the zone as a block; others one by one to the hot list of the
CPU that boots, from which a batch of the oldest goes on whenever it is full. A machine of 64 GiB
has 16 million frames, so the outcome of it all is computed at once: :func:`free_frames` leaves
lists, their order and counters as the way one by one leaves them. A zone is filled once.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.buddy import NOBODY
from kernel_model.mm.linux_2_6.mmzone import HOT, MemMap26, PerCpuPages, Zone26

WORD: Final = 32
"""Frames for which a word of the boot map stands."""
_WORD_ORDER: Final = 5

Frames = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def whole_words(free: Mask) -> Mask:
    """Which words of 32 frames are free from end to end; a last word that is cut is none."""
    words = len(free) // WORD
    return np.asarray(free[: words * WORD].reshape(words, WORD).all(axis=1))


def free_frames(
    image: KernelImage,
    memmap: MemMap26,
    zone: Zone26,
    free: Mask,
    late: Frames | None = None,
    *,
    by_word: bool,
) -> int:
    """Free the frames marked in ``free`` (one flag a frame of the zone), whose lists are empty.

    ``by_word``: whole words of 32 go as blocks. ``late`` are frames that follow one by one behind
    all of them. Returns the number of frames.
    """
    late = np.empty(0, np.int64) if late is None else late
    words = whole_words(free) if by_word else np.zeros(0, np.bool_)
    single = free.copy()
    single[: len(words) * WORD] &= ~np.repeat(words, WORD)
    alone = np.concatenate((np.flatnonzero(single), late)).astype(np.int64)
    # When each event happened: a word at its first frame, a single at itself, the late at the end.
    moments = np.concatenate((np.flatnonzero(single), len(free) + np.arange(len(late))))
    whole = np.flatnonzero(words).astype(np.int64) * WORD
    hot = zone.pagesets[int(image.current_task.processor)][HOT]
    passed, when = _through_list(hot, alone, moments)
    time = np.zeros(len(free), np.int64)
    time[alone[:passed]] = when
    for frame in range(WORD if len(whole) else 0):
        time[whole + frame] = whole * (hot.batch + 1)
    kept = np.zeros(len(free), np.bool_)
    kept[alone[passed:]] = True
    given = free.copy()
    given[late] = True
    _clear(image, memmap, zone, given)
    _coalesce(image, memmap, zone, given & ~kept, time)
    _fill_list(memmap, zone, hot, alone[passed:])
    return int(np.count_nonzero(given))


def _through_list(hot: PerCpuPages, alone: Frames, moments: Frames) -> tuple[int, Frames]:
    """How many single frames leave the CPU's list again, and when each of them does.

    The list goes over when it holds ``high`` frames and one more comes; then ``batch`` frames
    leave it together, the oldest first.
    """
    high, batch = hot.high, hot.batch
    flushes = max((len(alone) - 1 - high) // batch + 1, 0)
    passed = flushes * batch
    triggers = moments[high : high + passed : batch][:flushes]
    when = np.repeat(triggers * (batch + 1), batch) + np.tile(np.arange(batch), flushes) + 1
    return passed, when


def _clear(image: KernelImage, memmap: MemMap26, zone: Zone26, given: Mask) -> None:
    """The frames are no longer reserved, and have no user."""
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    flags = image.constants.page_flags
    keep = np.uint32(~flags.mask("reserved", "dirty") & 0xFFFFFFFF)
    frames = np.flatnonzero(given)
    rows[frames, memmap.flags_word] &= keep
    rows[frames, memmap.count_word] = NOBODY


def _coalesce(image: KernelImage, memmap: MemMap26, zone: Zone26, free: Mask, time: Frames) -> None:
    """Make blocks of the frames marked in ``free``; those complete last stand first."""
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    private = np.uint32(image.constants.page_flags.mask("private"))
    orders, whole = image.constants.max_order, free
    for order in range(orders):
        if order < orders - 1:
            if len(whole) % 2:
                whole, time = np.append(whole, False), np.append(time, 0)
            merged = whole[0::2] & whole[1::2]
            alone = whole & ~np.repeat(merged, 2)
        else:
            alone = whole
        blocks = np.flatnonzero(alone)
        blocks = blocks[np.argsort(-time[blocks], kind="stable")]
        heads = blocks.astype(np.int64) << order
        rows[heads, memmap.flags_word] |= private
        rows[heads, memmap.buffers_word] = order
        _link(memmap, zone, zone.free_list(order), heads)
        zone.view.free_area[order].nr_free = len(heads)
        if order < orders - 1:
            whole, time = merged, np.maximum(time[0::2], time[1::2])
    zone.free_pages += int(np.count_nonzero(free))


def _link(memmap: MemMap26, zone: Zone26, head: int, frames: Frames) -> None:
    """Chain frames of the zone into an empty list, in this order."""
    if not len(frames):
        return
    first = int(zone.view.zone_mem_map) + memmap.list_word * 4
    entries = first + frames * memmap.page_bytes
    ring = np.concatenate(([head], entries, [head]))
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    rows[frames, memmap.list_word] = ring[2:]
    rows[frames, memmap.list_word + 1] = ring[:-2]
    at = head - PAGE_OFFSET >> 2
    memmap.words[at], memmap.words[at + 1] = int(entries[0]), int(entries[-1])


def _fill_list(memmap: MemMap26, zone: Zone26, hot: PerCpuPages, kept: Frames) -> None:
    """The frames that stay on the CPU's list; the one that came last stands first."""
    _link(memmap, zone, hot.list, kept[::-1])
    hot.count = len(kept)
