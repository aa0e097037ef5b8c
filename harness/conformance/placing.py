# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives each case its slot: addresses, entries with frames in them, batches.

Cases that share CR0, CR4, the PDPTE and what is done between the touches share batches of at
most ``layout.SLOTS``. The records written here are all that the guest knows of a case; what it
must come to is worked out from the same slots by :mod:`harness.conformance.check`.

Nothing here can fail for cases of one mode, at most ``layout.MAX_CASES`` of them.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.architecture import PTE_PS
from harness.conformance import layout
from harness.conformance.cases import Cases, lookup
from harness.conformance.expected import U32, U64, touches
from harness.conformance.flags import (
    ACCESSES,
    CHANGES,
    FLUSH_INVLPG,
    MODIFY,
    NOTHING,
    USER,
    WRITE,
    WRITE_ACROSS,
    Mode,
)
from harness.paging_modes import PagingMode

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_OFFSETS: Final = lookup(ACCESSES, "offset").astype(np.int64)
_ACROSS: Final = lookup(ACCESSES, "across")
_IMPLICIT: Final = lookup(ACCESSES, "implicit")
_ENTRY: Final = lookup(CHANGES, "entry").astype(np.uint32)
_CLEAR: Final = lookup(CHANGES, lambda change: np.uint64(change.clear))
_SET: Final = lookup(CHANGES, lambda change: np.uint64(change.set))
_OPS: Final = np.array(
    [layout.OP_NONE, layout.OP_NONE, layout.OP_CR3, layout.OP_PGE, layout.OP_PG], np.uint32
)
_ALIAS_ACROSS: Final = layout.OFFSET_ACROSS & ~3
_STORED: Final = 0x5AFE0000
"""What a store stores, with the number of the slot in it."""
_ADDED: Final = 0x01000000


@dataclass(frozen=True, slots=True)
class Placed:
    """Cases in the order in which they run, and where each one lies.

    ``frame`` counts frames from ``layout.FRAMES``; ``large``: the PDE maps them itself.
    """

    cases: Cases
    order: I64
    mode: Mode
    slot: I64
    va: I64
    frame: I64
    high: Bools
    large: Bools
    addresses: tuple[U64, U64, U64]
    """What PDE and PTEs have besides their flags."""
    value: U32
    first: I64
    """Row of the first case of each batch."""

    def __len__(self) -> int:
        return len(self.cases)


def place(cases: Cases, mode: Mode, shape: PagingMode | None) -> Placed:
    """Put ``cases``, all of ``mode``, into slots."""
    key = _batch_key(cases)
    order = np.argsort(key, kind="stable")
    cases, key = cases[order], key[order]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    lengths = np.diff(np.concatenate((starts, [len(cases)])))
    within = np.arange(len(cases)) - np.repeat(starts, lengths)
    slot = within % layout.SLOTS
    first = np.flatnonzero(slot == 0)
    size, shift = mode.entry_size, layout.DIRECTORY_SHIFT[mode.entry_size]
    group, number = np.divmod(slot, layout.SLOTS_PER_TABLE[size])
    group_base = layout.FRAMES + (group << shift)
    page = number * layout.PAGES_PER_SLOT << 12
    offset = _OFFSETS[cases["access"]]
    frame_address = group_base + page
    if shape is None:
        va = frame_address + offset
        large = np.zeros(len(cases), np.bool_)
    else:
        va = (layout.FIRST_SLOT[size] + slot << shift) + page + offset
        large = (cases["pde"] & np.uint64(PTE_PS) != 0) & (shape.levels[-2].large is not None)
    pde_address = np.where(large, group_base, layout.CASE_TABLES + (group << 12))
    return Placed(
        cases=cases,
        order=order,
        mode=mode,
        slot=slot,
        va=va,
        frame=frame_address - layout.FRAMES >> 12,
        high=_high(cases, mode, large),
        large=large,
        addresses=tuple(
            address.astype(np.uint64)
            for address in (pde_address, frame_address, frame_address + 4096)
        ),  # type: ignore[arg-type]
        value=_values(cases, slot),
        first=first,
    )


def _batch_key(cases: Cases) -> U64:
    """Cases with the same key may share a batch."""
    op = _OPS[cases["flush"]]
    pointer = np.where(_ENTRY[cases["change"]] == layout.CHANGE_PDPTE, cases["change"], 0)
    small = [op, pointer, cases["wp"], cases["pge"], cases["before"] == NOTHING]
    key = np.zeros(len(cases), np.uint64)
    for column in small:
        key = key * np.uint64(64) + column.astype(np.uint64)
    _, pdpte = np.unique(cases["pdpte"], return_inverse=True)
    return np.asarray(key + (pdpte.astype(np.uint64) << np.uint64(40)))


def _high(cases: Cases, mode: Mode, large: Bools) -> Bools:
    if mode.pae:
        return np.asarray(np.where(large, cases["pde"], cases["pte"]) >> np.uint64(32) & 1 != 0)
    return np.asarray(large & (cases["pde"] >> np.uint64(13) & np.uint64(1) != 0))


def _values(cases: Cases, slot: I64) -> U32:
    """What a case stores or adds; unlike any stamp, and unlike its neighbours'."""
    stored = np.isin(cases["access"], [WRITE, WRITE_ACROSS])
    added = cases["access"] == MODIFY
    value = np.where(stored, _STORED + slot, 0) + np.where(added, _ADDED + slot, 0)
    return np.asarray(value.astype(np.uint32))


def write_records(placed: Placed, records: Any, batches: Any) -> int:
    """Fill the guest's tables; the number of batches."""
    cases = placed.cases
    table = records[: len(cases)]
    for name, address in zip(("pde", "pte", "second"), placed.addresses, strict=True):
        table[name] = cases[name] | address
    table["va"] = placed.va
    table["value"] = placed.value
    table["slot"] = placed.slot
    table["touches"] = _touch_words(cases)
    number = cases["change"]
    flush = np.where(cases["flush"] == FLUSH_INVLPG, layout.FLUSH_INVLPG, layout.FLUSH_NONE)
    table["change"] = _ENTRY[number] | flush.astype(np.uint32) << np.uint32(8)
    table["keep"] = ~_CLEAR[number]
    table["set"] = _SET[number]
    base = np.where(placed.high, layout.WINDOW, layout.FRAMES)
    offset = np.where(_ACROSS[cases["access"]], _ALIAS_ACROSS, _OFFSETS[cases["access"]])
    table["alias"] = base + (placed.frame << 12) + offset
    return _write_batches(placed, batches, table["touches"])


def _touch_words(cases: Cases) -> U32:
    """Access and ring code of both touches, a byte each."""
    first, last = touches(cases)
    word = np.zeros(len(cases), np.uint32)
    for number, touch in enumerate((first, last)):
        alone = _IMPLICIT[touch.access]
        user = touch.ring == USER
        ring = np.where(user, layout.RING_USER, layout.RING_KERNEL)
        ring = np.where(alone, ring + layout.RING_KERNEL_ALONE, ring)
        code = touch.access | ring.astype(np.uint32) << np.uint32(8)
        if number:
            code = np.where(cases["before"] == NOTHING, 0xFFFF, code)
        word |= code.astype(np.uint32) << np.uint32(16 * number)
    return word


def _write_batches(placed: Placed, batches: Any, touch_words: U32) -> int:
    cases, first = placed.cases, placed.first
    count = len(first)
    table = batches[:count]
    table["first"] = first
    table["count"] = np.diff(np.concatenate((first, [len(cases)])))
    head = cases[first]
    for name in ("cr0", "cr4", "efer"):
        by_flags = np.array(
            [
                getattr(placed.mode.registers(bool(wp), bool(pge)), name)
                for wp in range(2)
                for pge in range(2)
            ],
            np.uint32,
        )
        table[name] = by_flags[head["wp"] * 2 + head["pge"]]
    table["op"] = np.where(head["before"] == NOTHING, layout.OP_NONE, _OPS[head["flush"]])
    table["pdpte"] = head["pdpte"]
    passes = np.zeros(len(cases), np.uint32)
    for touch in range(2):
        ring = touch_words >> np.uint32(16 * touch + 8) & np.uint32(0xFF)
        bit = np.uint32(1) << (np.uint32(4 * touch) + (ring & np.uint32(3)))
        passes |= np.where(ring < 4, bit, np.uint32(0))
    table["passes"] = np.bitwise_or.reduceat(passes, first)
    return count
