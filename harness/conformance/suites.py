# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cases there are: the product of what a walk looks at, and each other bit by itself.

The bits that decide something (P, RW, US, A, D, PS, G, NX) are combined with each other, with
CR0.WP, CR4.PGE, the access, the ring and what came before. Bits that must decide nothing (PWT,
PCD, PAT, 9 to 11) and reserved bits are set one at a time, over all combinations of rights.
Combinations that differ only where no walk looks are no cases: :func:`_legal`.

``full`` has all that; ``quick`` a part of it that keeps every bit, level, access, ring, change
and flush. Nothing here can fail.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

import numpy as np

from harness.architecture import PTE_A, PTE_D, PTE_G, PTE_NX, PTE_P, PTE_PS, PTE_RW, PTE_US
from harness.conformance import layout
from harness.conformance.cases import Cases, Columns, product, subsets
from harness.conformance.expected import expect
from harness.conformance.flags import (
    ACCESSES,
    AFTER_FETCH,
    AFTER_KERNEL_READ,
    AFTER_READ,
    CHANGES,
    DESCRIPTOR,
    FETCH,
    FLUSH_NONE,
    FLUSHES,
    MODES,
    NOTHING,
    PAT,
    READ,
    READ_ACROSS,
    WRITE,
    WRITE_ACROSS,
    Mode,
)
from harness.paging_modes import MmuFeatures, PagingMode, bits

SUITES: Final = ("quick", "full")
QUICK, FULL = SUITES

_RINGS: Final = [0, 1]
_ONE_PAGE: Final = [n for n, access in enumerate(ACCESSES) if not access.across]
_TWO_PAGES: Final = [READ_ACROSS, WRITE_ACROSS]
_IGNORED: Final = [1 << 3, 1 << 4, 1 << 9, 1 << 10, 1 << 11]
_RIGHTS: Final = PTE_P | PTE_RW | PTE_US
_BIT_32: Final = {4: 1 << 13, 8: 1 << 32}
"""The lowest address bit beyond 4 GiB: of a 4 MiB page with PSE-36, of any entry with PAE."""
_LARGE_PAT: Final = 1 << 12


def suite(
    name: str, features: MmuFeatures, modes: Collection[Mode] = MODES
) -> Iterator[tuple[Mode, Cases]]:
    """The cases of suite ``name``, mode by mode, in parts of at most ``layout.MAX_CASES``."""
    for number, mode in enumerate(MODES):
        if mode not in modes or not _offered(mode, features):
            continue
        for part in _mode_cases(number, mode, features, name == FULL):
            cases = _legal(part, mode.shape(features))
            for start in range(0, len(cases), layout.MAX_CASES):
                yield mode, cases[start : start + layout.MAX_CASES]


def _offered(mode: Mode, features: MmuFeatures) -> bool:
    needs_nx = bool(mode.efer)
    return (features.nx or not needs_nx) and (features.pse36 or mode.name != "pse36")


def _mode_cases(number: int, mode: Mode, features: MmuFeatures, full: bool) -> Iterator[Cases]:
    shape = mode.shape(features)
    if shape is None:
        accesses = list(range(len(ACCESSES)))
        yield product(mode=number, wp=[0, 1], access=accesses, ring=_RINGS, before=[0, 1, 2])
        return
    matrix = _Matrix(number, mode, shape, features, full)
    if full:
        yield from matrix.core()
        yield from matrix.single_bits()
        yield from matrix.stale()
    else:
        parts = [*matrix.core(), *matrix.single_bits(), *matrix.stale()]
        yield np.concatenate(parts)


class _Matrix:
    """The products of one mode with paging."""

    def __init__(
        self, number: int, mode: Mode, shape: PagingMode, features: MmuFeatures, full: bool
    ) -> None:
        self._number = number
        self._mode = mode
        self._shape = shape
        self._features = features
        self._full = full
        self._nx = [PTE_NX] if shape.nx else []
        self._large = shape.levels[-2].large

    def _product(self, **columns: object) -> Cases:
        return product(mode=self._number, **columns)

    # -- what decides ------------------------------------------------------------------------

    def core(self) -> Iterator[Cases]:
        """Entries x WP x PGE x access x ring x what came before."""
        second = [PTE_P | PTE_RW | PTE_US, PTE_P | PTE_RW, PTE_P | PTE_US, 0]
        if self._full:
            second += [_RIGHTS | PTE_A, _RIGHTS | PTE_A | PTE_D, PTE_RW | PTE_US]
        for pde, pte in self._structures():
            for pge in [0, 1] if self._full else [1]:
                common = {"pde": pde, "pte": pte, "pge": pge, "wp": [0, 1], "ring": _RINGS}
                yield self._product(access=_ONE_PAGE, before=self._before(), **common)
                yield self._product(
                    access=_TWO_PAGES, second=second, before=self._before()[:2], **common
                )

    def _before(self) -> list[int]:
        if self._full:
            return [NOTHING, AFTER_READ, AFTER_KERNEL_READ, AFTER_FETCH]
        return [NOTHING, AFTER_READ]

    def _structures(self) -> Iterator[tuple[Columns, Columns]]:
        """Directory and table entries that belong together."""
        absent = np.array([0], np.uint64)
        if self._mode.name == "pse36":
            assert self._large is not None
            rights = [PTE_RW, PTE_US, PTE_A, PTE_D, *([PTE_G, _LARGE_PAT] if self._full else [])]
            yield subsets(rights, PTE_P | PTE_PS | _BIT_32[4]), absent
            return
        rights = [PTE_RW, PTE_US, *self._nx]
        more = [PTE_G, PAT] if self._full else []
        tables = subsets([*rights, PTE_A, *([PTE_D, PTE_G] if self._full else [])], PTE_P)
        pages = subsets([*rights, PTE_A, PTE_D, *more], PTE_P)
        nothing = subsets([PTE_RW, PTE_US, PTE_A, PTE_D]) if self._full else subsets([_RIGHTS ^ 1])
        yield tables, np.concatenate((pages, nothing))
        yield nothing, absent
        if self._large is not None:
            more = [PTE_G, _LARGE_PAT] if self._full else [PTE_G]
            yield subsets([*rights, PTE_A, PTE_D, *more], PTE_P | PTE_PS), absent

    # -- what must decide nothing, and what must not be ----------------------------------------

    def single_bits(self) -> Iterator[Cases]:
        """One more bit over every combination of rights, at each level."""
        rights = subsets([PTE_RW, PTE_US], PTE_P)
        wp = [0, 1] if self._full else [1]
        accesses = list(range(len(ACCESSES))) if self._full else [READ, WRITE, FETCH, DESCRIPTOR]
        common = {"wp": wp, "ring": _RINGS, "access": accesses, "second": [_RIGHTS]}
        directory, table = self._shape.levels[-2], self._shape.levels[-1]
        if self._mode.name != "pse36":
            for bit in self._bits(directory.plain.reserved, [PTE_D, PTE_G]):
                yield self._product(pde=rights | np.uint64(bit), pte=rights, **common)
                yield self._product(pde=[bit], pte=[0], **common)
            for bit in self._page_bits(table.plain.reserved, [PTE_G, PAT]):
                yield self._product(pde=rights, pte=rights | np.uint64(bit), **common)
                yield self._product(pde=rights, pte=[bit], **common)
        if self._large is not None:
            pages = rights | np.uint64(PTE_PS)
            for bit in self._page_bits(self._large.reserved, [PTE_G, _LARGE_PAT]):
                yield self._product(pde=pages | np.uint64(bit), pte=[0], **common)
        if self._mode.pae:
            yield from self._directory_pointers(rights, common)

    def _bits(self, reserved: int, more: list[int]) -> list[int]:
        """Single bits to set: the ignored and the reserved ones, and those in ``more``."""
        return [*_IGNORED, *more] + [1 << n for n in range(64) if reserved >> n & 1]

    def _page_bits(self, reserved: int, more: list[int]) -> list[int]:
        """The same for an entry that maps a page; with PAE, its address bit 32 is one of them."""
        high = [] if reserved & _BIT_32[8] or not self._mode.pae else [_BIT_32[8]]
        return self._bits(reserved, more + high)

    def _directory_pointers(self, rights: Columns, common: Mapping[str, object]) -> Iterator[Cases]:
        reserved = self._shape.pdpte_reserved
        single = [0, *_IGNORED, *(1 << n for n in range(64) if reserved >> n & 1)]
        pdptes = [PTE_P | bit for bit in single]
        yield self._product(pdpte=pdptes, pde=[_RIGHTS], pte=rights, **common)
        yield self._product(pdpte=[0, 1 << 9, 1 << 63], pde=[_RIGHTS], pte=[_RIGHTS], **common)

    # -- what the TLB may hold -----------------------------------------------------------------

    def stale(self) -> Iterator[Cases]:
        """Each change of an entry between two touches, with each flush."""
        numbers = [
            n
            for n, change in enumerate(CHANGES)
            if (change.clear | change.set) & ~PTE_NX or self._shape.nx
            if change.entry != layout.CHANGE_PDPTE or self._mode.pae
        ]
        base = [_RIGHTS, PTE_P | PTE_RW, PTE_P | PTE_US, PTE_RW | PTE_US]
        marked = [_RIGHTS | PTE_A, _RIGHTS | PTE_A | PTE_D, _RIGHTS | PTE_A | PTE_D | PTE_G]
        entries = np.array(base + marked, np.uint64)
        common = {
            "change": numbers,
            "flush": list(range(len(FLUSHES))),
            "ring": _RINGS,
            "pge": [0, 1],
            "wp": [0, 1] if self._full else [1],
        }
        pairs = ((AFTER_READ, [READ, WRITE, DESCRIPTOR]), (AFTER_FETCH, [FETCH]))
        for before, accesses in pairs:
            touch = {"before": before, "access": accesses}
            if self._mode.name == "pse36":
                pages = entries | np.uint64(PTE_PS | _BIT_32[4])
                yield self._product(pde=pages, pte=[0], **touch, **common)
                continue
            yield self._product(pde=[_RIGHTS], pte=entries, **touch, **common)
            yield self._product(
                pde=entries[:4] | np.uint64(PTE_A if self._full else 0),
                pte=[_RIGHTS],
                **touch,
                **common,
            )
            if self._large is not None:
                yield self._product(pde=entries | np.uint64(PTE_PS), pte=[0], **touch, **common)


def _legal(cases: Cases, shape: PagingMode | None) -> Cases:
    """Without what no CPU could tell apart, or what no manual speaks of.

    * a second touch after one that faulted is a first touch, unless something has changed;
    * a second page counts for a word across two pages that has table entries;
    * a change of an entry that is not there, or that a walk does not reach;
    * a fetch from beyond RAM, should the CPU not find the bits reserved;
    * a page that moves must not be written to, or two cases would share the frame.
    """
    keep = np.ones(len(cases), np.bool_)
    across = np.isin(cases["access"], _TWO_PAGES)
    expected = expect(cases, shape)
    unchanged = cases["change"] == 0
    keep &= (cases["before"] == NOTHING) | ~expected.first.fault | ~unchanged
    keep &= (cases["before"] != AFTER_FETCH) | (cases["access"] == FETCH)
    keep &= (cases["access"] != FETCH) | (cases["pde"] & _beyond_ram(shape) == 0)
    keep &= unchanged | (cases["change"] != 0) & (cases["before"] != NOTHING)
    keep &= ~unchanged | (cases["flush"] == FLUSH_NONE) | (cases["before"] != NOTHING)
    if shape is None:
        return np.asarray(cases[keep & unchanged])
    large = (cases["pde"] & np.uint64(PTE_PS) != 0) & (shape.levels[-2].large is not None)
    entry = np.array([change.entry for change in CHANGES])[cases["change"]]
    keep &= ~(large & (entry == layout.CHANGE_PTE))
    moves = np.array([change.set == 1 << 12 for change in CHANGES])[cases["change"]]
    keep &= ~(moves & np.isin(cases["access"], [WRITE, WRITE_ACROSS]))
    kept = cases[keep].copy()
    alone = ~across[keep] | large[keep]
    kept["second"][alone] = 0
    if shape.entry_size == 8:
        # Both frames of a word across two pages are low, or both are high.
        high = kept["pte"] & np.uint64(_BIT_32[8])
        kept["second"] |= np.where(alone, np.uint64(0), high)
    return _unique(kept)


def impossible(case: Cases) -> str:
    """Why the guest cannot run this single case; empty if it can.

    A suite holds no such case; a person may ask for one.
    """
    row = case[0]
    mode, change = MODES[int(row["mode"])], CHANGES[int(row["change"])]
    access, before = int(row["access"]), int(row["before"])
    if not mode.paging and change.entry:
        return "paging is off: there is no entry to change"
    wide = any(int(row[name]) >> 32 for name in ("pde", "pte", "second"))
    if not mode.pae and (wide or change.set >> 32 or int(row["pdpte"]) != PTE_P):
        return "without PAE entries have 32 bits, and there are no PDPTEs: choose mode=pae"
    if before == NOTHING and (change.entry or row["flush"]):
        return "change and flush come after a touch: add before=read"
    if before == AFTER_FETCH and access != FETCH:
        return "before=fetch goes with access=fetch: elsewhere there is no code"
    if (int(row["pte"]) ^ int(row["second"])) & _BIT_32[8] and ACCESSES[access].across:
        return "bit32 of pte and second: both pages have low frames, or both have high ones"
    if change.name == "pte+frame" and ACCESSES[access].write:
        return "a store may not go to a page that moves: choose a load"
    large = bool(int(row["pde"]) & PTE_PS and mode.cr4)
    fixed = {"pde": bits(31, 22 if large else 12), "pte": bits(31, 12), "second": bits(31, 12)}
    for name, address in fixed.items():
        if int(row[name]) & address:
            return f"{name}: the guest chooses the frame: leave its address bits alone"
    return ""


def _beyond_ram(shape: PagingMode | None) -> np.uint64:
    """Reserved bits of a 4 MiB page that a CPU with PSE-36 may take for address bits all the same.

    It would then run what it finds where there is no RAM, for as long as it likes.
    """
    large = shape.levels[-2].large if shape is not None else None
    if large is None or not large.high_address:
        return np.uint64(0)
    return np.uint64(large.reserved & bits(20, 13))


def _unique(cases: Cases) -> Cases:
    """Each case once, in a fixed order."""
    words = cases.view(np.uint64).reshape(len(cases), -1)
    order = np.lexsort(words.T[::-1])
    words = words[order]
    new = np.concatenate(([True], (words[1:] != words[:-1]).any(axis=1)))
    return np.asarray(cases[order[new[: len(order)]]])
