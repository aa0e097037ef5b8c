# SPDX-License-Identifier: GPL-2.0-or-later
"""A census of frames: where every frame of a machine is, held against the ledger.

:func:`check_machine` reads the free lists of every zone (``mm/page_alloc.c``, book 6.1, 6.3)
straight from RAM, and what says beside them that a block is free: in 2.4 bitmaps of pairs, in 2.6
the block itself (book 6.7). Each frame that ``mem_map`` describes is exactly one of: in a block of
one free list, on a CPU's list of free frames, owned in the ledger, reserved.

What can fail: :class:`FramesInconsistent`, which names the zone and the first frame that is not;
:class:`~harness.monitors.kmap_slots.SlotLeaked`.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.monitors.frames import FrameLedger
from harness.monitors.kmap_slots import KmapSlots
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.mmzone import Zone26
from kernel_model.mm.mmzone import Zone, for_each_zone

__all__ = ["FramesInconsistent", "check_machine"]

PAGE_OFFSET: Final = 0xC0000000

Blocks = list[npt.NDArray[np.int64]]
_NO_FRAMES: Final = np.empty(0, np.int64)


class FramesInconsistent(MmucheckError):
    """Free lists, bitmaps, ``mem_map`` and the ledger contradict each other."""

    concerns = "__alloc_pages(), rmqueue(), __free_pages_ok(), mm/page_alloc.c (book 6)"


def _hold(condition: Any, said: str) -> None:
    """``said`` must be so."""
    if not condition:
        raise FramesInconsistent(said)


def free_blocks(kernel: Kernel, zone: Zone) -> Blocks:
    """For each order the free blocks, as numbers of frames from the start of the zone."""
    return [
        _frames(kernel, zone, zone.free_list(order), f"free list of order {order}")
        for order in range(kernel.image.constants.max_order)
    ]


def _frames(kernel: Kernel, zone: Zone, head: int, name: str) -> npt.NDArray[np.int64]:
    """The frames on a list of a zone, as numbers from its start."""
    entries = _list(kernel, zone, head, name)
    if not entries:
        return _NO_FRAMES
    page = kernel.image.structs.page
    pages = np.array(entries, np.int64) - page.offset(kernel.image.constants.fields.page_links)
    base = int(zone.view.zone_mem_map)
    frames = (pages - base) // page.size
    right = frames * page.size + base == pages
    _hold(np.all(right), f"{zone.name}: the {name} names what is no struct page")
    return frames


def _list(kernel: Kernel, zone: Zone, head: int, name: str) -> list[int]:
    """The entries of a list; every link leads back."""
    words = kernel.ram.words
    previous = head
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
    raise FramesInconsistent(f"{zone.name}: the {name} {wrong}")


def check_buddies(kernel: Kernel, zone: Zone, blocks: Blocks) -> None:
    """Blocks are aligned, no two buddies are both free, and each is said to be free."""
    for order, frames in enumerate(blocks):
        if len(frames):
            _hold(not np.any(frames & (1 << order) - 1), f"{zone.name}: order {order} misaligned")
        if len(frames) > 1 and order < len(blocks) - 1:
            _, count = np.unique(frames >> order + 1, return_counts=True)
            _hold(np.all(count == 1), f"{zone.name}: order {order}, both halves of a pair are free")
    if isinstance(zone, Zone26):
        _check_orders(kernel, zone, blocks)
    else:
        _check_bitmaps(kernel, zone, blocks)


def _check_orders(kernel: Kernel, zone: Zone26, blocks: Blocks) -> None:
    """2.6: each block's first frame has ``PG_private`` and its order, ``nr_free`` counts them."""
    memmap, private = kernel.allocator.memmap, kernel.image.constants.page_flags.mask("private")
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    for order, frames in enumerate(blocks):
        counted = zone.nr_free(order)
        if not len(frames) == counted == 0:
            where = f"{zone.name}: order {order}"
            marked = np.all(rows[frames, memmap.flags_word] & private)
            _hold(marked, f"{where}, a block is not marked")
            named = np.all(rows[frames, memmap.buffers_word] == order)
            _hold(named, f"{where}, a block says another")
            _hold(len(frames) == counted, f"{where}: {len(frames)} blocks, nr_free is {counted}")


def _check_bitmaps(kernel: Kernel, zone: Zone, blocks: Blocks) -> None:
    """2.4: a bit is set where one of a pair is free."""
    for order, frames in enumerate(blocks[:-1]):
        pairs = np.unique(frames >> order + 1)
        nbytes = ((zone.size - 1 >> order + 4) + 1 + 3) & ~3
        raw = kernel.ram.read(int(zone.view.free_area[order].map) - PAGE_OFFSET, nbytes)
        bits = np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little"))
        _hold(np.array_equal(bits, pairs), f"{zone.name}: order {order}, list is not bitmap")


def free_frames(kernel: Kernel, zone: Zone) -> npt.NDArray[np.int64]:
    """The free frames of a zone, from its start; every invariant of its lists is checked."""
    blocks = free_blocks(kernel, zone)
    check_buddies(kernel, zone, blocks)
    spread = [
        (frames[:, None] + np.arange(1 << order)).ravel()
        for order, frames in enumerate(blocks)
        if len(frames)
    ]
    whole = sum(map(len, spread))
    _hold(whole == zone.free_pages, f"{zone.name}: free_pages is not the sum of the lists")
    frames = np.sort(np.concatenate([_NO_FRAMES, *spread, *_kept_by_cpus(kernel, zone)]))
    _hold(np.all(np.diff(frames) > 0), f"{zone.name}: a frame is free twice")
    return frames


def _kept_by_cpus(kernel: Kernel, zone: Zone) -> Iterator[npt.NDArray[np.int64]]:
    """2.6: the free frames that each CPU keeps, hot and cold ones."""
    for cpu, kept in enumerate(zone.pagesets if isinstance(zone, Zone26) else ()):
        for kind, pcp in zip(("hot", "cold"), kept, strict=True):
            name = f"list of {kind} frames of CPU {cpu}"
            frames = _frames(kernel, zone, pcp.list, name)
            said = f"{zone.name}: the {name} has {len(frames)}, its count is {pcp.count}"
            _hold(len(frames) == pcp.count, said)
            yield frames


def check_zone_frames(kernel: Kernel, ledger: FrameLedger, zone: Zone) -> int:
    """One owner for each frame of a zone. Returns how many frames the ledger says are owned."""
    memmap, start = kernel.allocator.memmap, zone.start_pfn
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    flags, counts = rows[:, memmap.flags_word], rows[:, memmap.count_word]
    free, owned = np.zeros(zone.size, np.bool_), np.zeros(zone.size, np.bool_)
    free[free_frames(kernel, zone)] = True
    owners = np.fromiter(ledger._owners, np.int64, len(ledger._owners)) - start
    owned[owners[(owners >= 0) & (owners < zone.size)]] = True
    strange = np.flatnonzero(flags >> memmap.zone_shift != zone.number)
    if len(strange):
        raise FramesInconsistent(f"frame {start + strange[0]:#x} of {zone.name} names another zone")
    bits, constants = kernel.image.constants.page_flags, kernel.image.constants
    reserved, lru = flags & bits.mask("reserved") != 0, flags & bits.mask("lru") != 0
    claims = free.astype(np.int8) + owned + reserved
    wrong = np.flatnonzero(claims != 1)
    if len(wrong):
        frame = wrong[0]
        says = f"free {free[frame]}, owned {owned[frame]}, reserved {reserved[frame]}"
        raise FramesInconsistent(f"frame {start + frame:#x} of {zone.name}: {says}")
    unused = counts[free] == constants.unused_count
    _hold(np.all(unused), f"{zone.name}: a free frame has users")
    listed = flags[free] & bits.mask("lru", "active")
    _hold(not np.any(listed), f"{zone.name}: a free frame is on a list")
    _hold(not np.any(rows[free, memmap.mapping_word]), f"{zone.name}: a free frame is cached")
    _hold(np.all(owned[lru]), f"{zone.name}: a frame on a list has no owner")
    return int(np.count_nonzero(owned))


def check_machine(kernel: Kernel, ledger: FrameLedger) -> None:
    """Every frame of every zone; the ledger knows no frame that is in no zone; and no frame is
    mapped for a moment that has passed."""
    zones = [_of_release(kernel, zone) for zone in for_each_zone(kernel.image)]
    owned = sum(_check_place(kernel, ledger, zone) for zone in zones)
    _hold(owned == len(ledger._owners), "the ledger knows frames that no zone has")
    for name, head, counted in _lru_lists(kernel, zones):
        listed = sum(1 for _ in kernel.allocator.lru.pages(head))
        _hold(listed == counted, f"{name}_list has {listed} pages, {counted} are counted")
    if slots := KmapSlots.of(kernel.image.events):
        slots.check()


def _check_place(kernel: Kernel, ledger: FrameLedger, zone: Zone) -> int:
    """:func:`check_zone_frames`, with the name of the node."""
    try:
        return check_zone_frames(kernel, ledger, zone)
    except FramesInconsistent as wrong:
        raise FramesInconsistent(f"{_node(kernel, zone)}{wrong}") from None


def _node(kernel: Kernel, zone: Zone) -> str:
    """The node of a zone, where several have such a zone."""
    if kernel.config.nodes == 1:
        return ""
    node = kernel.image.at(kernel.image.structs.pg_data_t, int(zone.view.zone_pgdat))
    return f"node {node.node_id}: "


def _of_release(kernel: Kernel, zone: Zone) -> Zone:
    """The zone with what its release keeps of it."""
    return zone if kernel.image.constants.has_bitmaps else Zone26(kernel.image, zone.vaddr)


def _lru_lists(kernel: Kernel, zones: list[Zone]) -> Iterator[tuple[str, int, int]]:
    """Name, head and counted length of each list: 2.4 has two, 2.6 two of each zone."""
    statics, lru = kernel.statics, kernel.allocator.lru
    for name in ("active", "inactive"):
        if kernel.image.constants.has_bitmaps:
            yield name, getattr(lru, f"{name}_list"), int(getattr(statics, f"nr_{name}_pages"))
            continue
        offset = kernel.image.structs.zone_t.offset(f"{name}_list")
        for zone in zones:
            counted = int(getattr(zone.view, f"nr_{name}"))
            yield f"{_node(kernel, zone)}{zone.name}: {name}", zone.vaddr + offset, counted
