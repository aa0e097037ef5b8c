# SPDX-License-Identifier: GPL-2.0-or-later
"""What the architecture says of each case: pure, in columns, without any machine.

The same walk as :mod:`harness.mmu_spec`, which the tests hold against this one case by case,
driven by the same formats (:mod:`harness.paging_modes`), but over the flags of a hundred
thousand cases at once. Source: Intel SDM volume 3A, sections 4.3 to 4.8 and 4.10.

A second touch may meet what the first one left in the TLB. :class:`Expected` has both answers,
by the entries as they are (``late``) and as they were (``stale``), and says where the second
is allowed: section 4.10.4 promises the new one only after a flush, or where nothing could have
been cached. Nothing here can fail.
"""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.architecture import (
    PF_FETCH,
    PF_PRESENT,
    PF_RESERVED,
    PF_USER,
    PF_WRITE,
    PTE_A,
    PTE_D,
    PTE_G,
    PTE_NX,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from harness.conformance import layout
from harness.conformance.cases import Cases, lookup
from harness.conformance.flags import (
    ACCESSES,
    AFTER_FETCH,
    AFTER_KERNEL_READ,
    CHANGES,
    FETCH,
    FLUSH_CR3,
    FLUSH_NONE,
    KERNEL,
    NOTHING,
    READ,
    READ_ACROSS,
    USER,
)
from harness.paging_modes import PagingMode

Bools = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

_P: Final = np.uint64(PTE_P)
_A: Final = np.uint64(PTE_A)
_D: Final = np.uint64(PTE_D)
_ZERO: Final = np.uint64(0)

_WRITES: Final = lookup(ACCESSES, "write")
_FETCHES: Final = lookup(ACCESSES, "fetch")
_ACROSS: Final = lookup(ACCESSES, "across")
_IMPLICIT: Final = lookup(ACCESSES, "implicit")
_CHANGED: Final = lookup(CHANGES, "entry")
_CLEARED: Final = lookup(CHANGES, lambda change: np.uint64(change.clear))
_SET: Final = lookup(CHANGES, lambda change: np.uint64(change.set))


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of each case, or masks of their bits."""

    pdpte: U64
    pde: U64
    pte: U64
    second: U64

    def __or__(self, other: "Entries") -> "Entries":
        return Entries(*(getattr(self, f.name) | getattr(other, f.name) for f in fields(Entries)))


@dataclass(frozen=True, slots=True)
class Met:
    """What one touch meets. ``page`` is the page that faulted, of a word across two.

    ``sets`` are the A and D flags that the CPU must set, ``may_set`` those that it may set on
    the way to a fault; ``cacheable``: a translation exists, whether or not it permits the touch.
    """

    fault: Bools
    error_code: U32
    page: U8
    sets: Entries
    may_set: Entries
    cacheable: Bools


@dataclass(frozen=True, slots=True)
class Touches:
    """Access and ring of a first or second touch."""

    access: U8
    ring: U8


@dataclass(frozen=True, slots=True)
class Expected:
    """What each case must give.

    ``refused``: the load of CR3 itself raises #GP, and nothing is touched. ``twice``: there is a
    second touch, ``late``, and where ``lenient``, ``stale`` is as good an answer.
    """

    refused: Bools
    twice: Bools
    first: Met
    late: Met
    stale: Met
    lenient: Bools
    after: Entries
    unsure: Entries
    """Bits of ``after`` about which nothing is said."""
    moved: Bools
    """The page has another frame when the second touch comes."""


def touches(cases: Cases) -> tuple[Touches, Touches]:
    """The first and the second touch of each case; the second counts where there are two."""
    last = Touches(cases["access"], cases["ring"])
    before = cases["before"]
    alone = before == NOTHING
    access = np.where(before == AFTER_FETCH, FETCH, READ).astype(np.uint8)
    access = np.where(_ACROSS[cases["access"]], READ_ACROSS, access).astype(np.uint8)
    ring = np.where(before == AFTER_KERNEL_READ, KERNEL, cases["ring"]).astype(np.uint8)
    first = Touches(np.where(alone, last.access, access), np.where(alone, last.ring, ring))
    return first, last


def expect(cases: Cases, mode: PagingMode | None) -> Expected:
    """What the architecture says of ``cases``, all of the one ``mode``; None is paging off."""
    first_touch, last_touch = touches(cases)
    change = _changes(cases)
    before = Entries(*(cases[f.name] for f in fields(Entries)))
    refused = _refused(mode, before)
    write_protect = cases["wp"] != 0
    twice = (cases["before"] != NOTHING) & ~refused
    first = _touch(mode, write_protect, before, first_touch)
    marked = before | first.sets
    changed = Entries(
        *(
            getattr(marked, f.name) & ~clear | put
            for f, (clear, put) in zip(fields(Entries), change, strict=True)
        )
    )
    late = _touch(mode, write_protect, _latched(cases, before, changed), last_touch)
    stale = _touch(mode, write_protect, marked, last_touch)
    lenient = twice & _may_be_cached(cases, mode, before, first)
    after = _where(twice, changed | late.sets, _where(refused, before, marked))
    unsure = _where(twice, _kept(first.may_set, change) | late.may_set, first.may_set)
    both = np.where(lenient, _A | _D, _ZERO)
    unsure = unsure | Entries(_ZERO * both, both, both, both)
    moved = twice & (_SET[cases["change"]] >> np.uint64(12) & np.uint64(1) != 0)
    return Expected(refused, twice, first, late, stale, lenient, after, unsure, moved)


def _changes(cases: Cases) -> list[tuple[U64, U64]]:
    """For each entry, in the order of :class:`Entries`: the bits cleared and set in between."""
    number = cases["change"]
    which = _CHANGED[number]
    kinds = (layout.CHANGE_PDPTE, layout.CHANGE_PDE, layout.CHANGE_PTE, -1)
    return [
        (
            np.where(which == kind, _CLEARED[number], _ZERO),
            np.where(which == kind, _SET[number], _ZERO),
        )
        for kind in kinds
    ]


def _kept(entries: Entries, change: list[tuple[U64, U64]]) -> Entries:
    values = (getattr(entries, f.name) for f in fields(Entries))
    return Entries(*(value & ~clear for value, (clear, _) in zip(values, change, strict=True)))


def _where(which: Bools, yes: Entries, no: Entries) -> Entries:
    return Entries(
        *(np.where(which, getattr(yes, f.name), getattr(no, f.name)) for f in fields(Entries))
    )


def _refused(mode: PagingMode | None, entries: Entries) -> Bools:
    """Section 4.4.1: the load of CR3 checks the PDPTEs."""
    present = entries.pdpte & _P != 0
    reserved = np.uint64(mode.pdpte_reserved if mode else 0)
    return np.asarray(present & (entries.pdpte & reserved != 0))


def _latched(cases: Cases, before: Entries, changed: Entries) -> Entries:
    """Section 4.4.1: PDPTEs are registers; what is in memory counts when CR3 is loaded next."""
    loaded = cases["flush"] >= FLUSH_CR3
    pdpte = np.where(loaded, changed.pdpte, before.pdpte)
    return Entries(pdpte, changed.pde, changed.pte, changed.second)


def _may_be_cached(cases: Cases, mode: PagingMode | None, before: Entries, first: Met) -> Bools:
    """Whether the TLB may hold the old translation when the second touch comes."""
    if mode is None:
        return np.zeros(len(cases), np.bool_)
    large = _large(mode, before.pde)
    leaf = np.where(large, before.pde, before.pte)
    kept_by_cr3 = (leaf & np.uint64(PTE_G) != 0) & (cases["pge"] != 0)
    flush = cases["flush"]
    held = (flush == FLUSH_NONE) | (flush == FLUSH_CR3) & kept_by_cr3
    changed = _CHANGED[cases["change"]]
    return np.asarray(
        first.cacheable & held & (changed != layout.CHANGE_NONE) & (changed != layout.CHANGE_PDPTE)
    )


def _large(mode: PagingMode, pde: U64) -> Bools:
    has_large = mode.levels[-2].large is not None
    return np.asarray((pde & np.uint64(PTE_PS) != 0) & has_large)


def _touch(mode: PagingMode | None, write_protect: Bools, entries: Entries, touch: Touches) -> Met:
    """One touch: one page, or two for a word across them."""
    count = len(write_protect)
    nothing = np.zeros(count, np.uint64)
    if mode is None:
        none = Entries(nothing, nothing, nothing, nothing)
        no = np.zeros(count, np.bool_)
        zeros = np.zeros(count, np.uint8)
        return Met(no, zeros.astype(np.uint32), zeros, none, none, ~no)
    page = _Page(mode, write_protect, touch)
    one = page.walk(entries.pdpte, entries.pde, entries.pte)
    if not _ACROSS[touch.access].any():
        sets = Entries(nothing, one.pde_sets, one.pte_sets, nothing)
        may = Entries(nothing, one.pde_may, one.pte_may, nothing)
        return Met(one.fault, one.error_code, np.zeros(count, np.uint8), sets, may, one.cacheable)
    across = _ACROSS[touch.access]
    two = page.walk(entries.pdpte, entries.pde, entries.second)
    second_fault = across & ~one.fault & two.fault
    fault = one.fault | second_fault
    done = ~fault
    sets = Entries(
        nothing,
        np.where(done, one.pde_sets, _ZERO),
        np.where(done, one.pte_sets, _ZERO),
        np.where(done & across, two.pte_sets, _ZERO),
    )
    # The first page's walk is over when the second one's fault is found.
    may = Entries(
        nothing,
        np.where(second_fault, one.pde_sets & _A, one.pde_may),
        np.where(second_fault, one.pte_sets & _A, one.pte_may),
        np.where(fault & across & ~one.fault, two.pte_may, _ZERO),
    )
    return Met(
        fault,
        np.where(second_fault, two.error_code, one.error_code),
        second_fault.astype(np.uint8),
        sets,
        may,
        one.cacheable,
    )


@dataclass(frozen=True, slots=True)
class _Walked:
    fault: Bools
    error_code: U32
    pde_sets: U64
    pte_sets: U64
    pde_may: U64
    pte_may: U64
    cacheable: Bools


class _Page:
    """The walk for one page of each case."""

    def __init__(self, mode: PagingMode, write_protect: Bools, touch: Touches) -> None:
        self._mode = mode
        self._write = _WRITES[touch.access]
        self._fetch = _FETCHES[touch.access]
        self._user = (touch.ring == USER) & ~_IMPLICIT[touch.access]
        self._checked_write = self._write & (self._user | write_protect)
        self._kind = (
            np.where(self._write, np.uint32(PF_WRITE), np.uint32(0))
            | np.where(self._user, np.uint32(PF_USER), np.uint32(0))
            | np.where(self._fetch & mode.nx, np.uint32(PF_FETCH), np.uint32(0))
        )
        self._leaf_sets = np.where(self._write, _A | _D, _A)

    def walk(self, pdpte: U64, pde: U64, pte: U64) -> _Walked:
        """Sections 4.3, 4.4 (translation), 4.6 (rights), 4.7 (error codes), 4.8 (A and D)."""
        directory = self._mode.levels[-2]
        table = self._mode.levels[-1]
        large = _large(self._mode, pde)
        large_reserved = directory.large.reserved if directory.large else 0
        pde_there = pde & _P != 0
        if self._mode.entry_size == 8:
            pde_there &= pdpte & _P != 0
        reserved = np.where(large, np.uint64(large_reserved), np.uint64(directory.plain.reserved))
        pde_reserved = pde_there & (pde & reserved != 0)
        to_table = pde_there & ~pde_reserved & ~large
        pte_there = pte & _P != 0
        pte_reserved = to_table & pte_there & (pte & np.uint64(table.plain.reserved) != 0)
        bad = pde_reserved | pte_reserved
        cacheable = pde_there & ~bad & (large | pte_there)
        both = np.where(large, pde, pde & pte)
        no_execute = np.where(large, pde, pde | pte) & np.uint64(PTE_NX) != 0
        denied = cacheable & (
            self._user & (both & np.uint64(PTE_US) == 0)
            | self._checked_write & (both & np.uint64(PTE_RW) == 0)
            | self._fetch & no_execute & self._mode.nx
        )
        fault = ~cacheable | denied
        cause = np.where(denied, np.uint32(PF_PRESENT), np.uint32(0))
        cause = np.where(bad, np.uint32(PF_PRESENT | PF_RESERVED), cause)
        pde_sets = np.where(large, self._leaf_sets, _A)
        done = ~fault
        return _Walked(
            fault,
            np.where(fault, cause | self._kind, np.uint32(0)),
            np.where(done, pde_sets, _ZERO),
            np.where(done & ~large, self._leaf_sets, _ZERO),
            np.where(fault & pde_there & ~pde_reserved, _A, _ZERO),
            np.where(fault & to_table & pte_there & ~pte_reserved, _A, _ZERO),
            cacheable,
        )
