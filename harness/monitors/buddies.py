# SPDX-License-Identifier: GPL-2.0-or-later
"""A census of frames: where every frame of a machine is, held against the ledger.

:func:`check_machine` reads the free lists and bitmaps of every zone (``mm/page_alloc.c``, book
6.1, 6.3) straight from RAM. Each frame that ``mem_map`` describes is exactly one of: in a block
of one free list, owned in the ledger, reserved.

What can fail: :class:`FramesInconsistent`, which names the zone and the first frame that is not.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.monitors.frames import FrameLedger
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone, for_each_zone
from kernel_model.structs.mmzone import MAX_ORDER

__all__ = ["FramesInconsistent", "check_machine"]

PAGE_OFFSET: Final = 0xC0000000
RESERVED, LRU, ACTIVE = 1 << 14, 1 << 6, 1 << 7

Blocks = list[npt.NDArray[np.int64]]


class FramesInconsistent(MmucheckError):
    """Free lists, bitmaps, ``mem_map`` and the ledger contradict each other."""

    concerns = "__alloc_pages(), rmqueue(), __free_pages_ok(), mm/page_alloc.c (book 6)"


def _hold(condition: Any, said: str) -> None:
    """``said`` must be so."""
    if not condition:
        raise FramesInconsistent(said)


def free_blocks(kernel: Kernel, zone: Zone) -> Blocks:
    """For each order the free blocks, as numbers of frames from the start of the zone."""
    size, base = kernel.image.structs.page.size, int(zone.view.zone_mem_map)
    found = []
    for order in range(MAX_ORDER):
        entries = _list(kernel, zone, order)
        frames = (np.array(entries, np.int64) - base) // size
        where = f"{zone.name}: the free list of order {order}"
        _hold(np.all(frames * size + base == entries), f"{where} names what is no struct page")
        found.append(frames)
    return found


def _list(kernel: Kernel, zone: Zone, order: int) -> list[int]:
    """The ``struct page *`` of the free list of ``order``; every link leads back."""
    words = kernel.ram.words
    head = previous = zone.free_list(order)
    entries: list[int] = []
    wrong = ""
    while not wrong:
        entry = words[previous - PAGE_OFFSET >> 2]
        if not kernel.ram.contains(entry - PAGE_OFFSET, 8):
            wrong = f"leaves RAM behind {previous:#x}"
        elif words[(entry - PAGE_OFFSET >> 2) + 1] != previous:
            wrong = f"has {entry:#x}, which does not point back to {previous:#x}"
        elif entry == head:
            return entries
        elif len(entries) > zone.size:
            wrong = "never ends"
        entries.append(entry)
        previous = entry
    raise FramesInconsistent(f"{zone.name}: the free list of order {order} {wrong}")


def check_buddies(kernel: Kernel, zone: Zone, blocks: Blocks) -> None:
    """Blocks are aligned, no two buddies are both free, lists and pair bits agree."""
    for order, frames in enumerate(blocks):
        _hold(not np.any(frames & (1 << order) - 1), f"{zone.name}: order {order} misaligned")
        pairs, count = np.unique(frames >> order + 1, return_counts=True)
        if order == MAX_ORDER - 1:
            continue
        _hold(np.all(count == 1), f"{zone.name}: order {order}, both halves of a pair are free")
        nbytes = ((zone.size - 1 >> order + 4) + 1 + 3) & ~3
        raw = kernel.ram.read(int(zone.view.free_area[order].map) - PAGE_OFFSET, nbytes)
        bits = np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little"))
        _hold(np.array_equal(bits, pairs), f"{zone.name}: order {order}, list is not bitmap")


def free_frames(kernel: Kernel, zone: Zone) -> npt.NDArray[np.int64]:
    """The free frames of a zone, from its start; every invariant of its lists is checked."""
    blocks = free_blocks(kernel, zone)
    check_buddies(kernel, zone, blocks)
    spread = [
        (frames[:, None] + np.arange(1 << order)).ravel() for order, frames in enumerate(blocks)
    ]
    frames = np.sort(np.concatenate(spread))
    _hold(np.all(np.diff(frames) > 0), f"{zone.name}: a frame is in two free blocks")
    _hold(len(frames) == zone.free_pages, f"{zone.name}: free_pages is not the sum of the lists")
    return frames


def check_zone_frames(kernel: Kernel, ledger: FrameLedger, zone: Zone) -> int:
    """One owner for each frame of a zone. Returns how many frames the ledger says are owned."""
    memmap, start = kernel.allocator.memmap, zone.start_pfn
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    flags, counts = rows[:, memmap.flags_word], rows[:, memmap.count_word]
    free, owned = np.zeros(zone.size, np.bool_), np.zeros(zone.size, np.bool_)
    free[free_frames(kernel, zone)] = True
    owners = np.fromiter(ledger._owners, np.int64, len(ledger._owners)) - start
    owned[owners[(owners >= 0) & (owners < zone.size)]] = True
    reserved = flags & RESERVED != 0
    claims = free.astype(np.int8) + owned + reserved
    wrong = np.flatnonzero(claims != 1)
    if len(wrong):
        frame = wrong[0]
        says = f"free {free[frame]}, owned {owned[frame]}, reserved {reserved[frame]}"
        raise FramesInconsistent(f"frame {start + frame:#x} of {zone.name}: {says}")
    _hold(not np.any(counts[free]), f"{zone.name}: a free frame has users")
    _hold(not np.any(flags[free] & (LRU | ACTIVE)), f"{zone.name}: a free frame is on a list")
    _hold(not np.any(rows[free, memmap.mapping_word]), f"{zone.name}: a free frame is cached")
    _hold(np.all(owned[flags & LRU != 0]), f"{zone.name}: a frame on a list has no owner")
    return int(np.count_nonzero(owned))


def check_machine(kernel: Kernel, ledger: FrameLedger) -> None:
    """Every frame of every zone; and the ledger knows no frame that is in no zone."""
    zones = list(for_each_zone(kernel.image))
    owned = sum(check_zone_frames(kernel, ledger, zone) for zone in zones)
    _hold(owned == len(ledger._owners), "the ledger knows frames that no zone has")
    statics, lru = kernel.statics, kernel.allocator.lru
    for name in ("active", "inactive"):
        listed = sum(1 for _ in lru.pages(getattr(lru, f"{name}_list")))
        counted = int(getattr(statics, f"nr_{name}_pages"))
        _hold(listed == counted, f"{name}_list has {listed} pages, nr_{name}_pages is {counted}")
