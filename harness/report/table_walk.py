# SPDX-License-Identifier: GPL-2.0-or-later
"""The page-table tree as a person draws it: directory entries in groups, leaves in runs.

A walk table by table over RAM, with the entry formats of :mod:`harness.paging_modes`; neighbours
that differ in nothing but their number are joined. It shares no code with the sweep
(:mod:`harness.mmu_sweep`), so that the tests can hold the two against each other.

A table outside RAM is a group of its kind, not an error. Nothing here can fail.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from harness.architecture import PTE_NX, PTE_P, PTE_RW, PTE_US, ControlRegisters
from harness.mappings import RIGHT_GLOBAL, RIGHT_NX, RIGHT_USER, RIGHT_WRITE
from harness.paging_modes import EntryFormat, PagingMode
from kernel_model.ram import Ram

_FLAGS: Final = 0x1FF
_LETTERS: Final = "GSDACTUWP"
"""Bits 8 to 0 of an entry, as monitors print them: S is a large page, C and T are PCD and PWT."""
_SHADES: Final = 32
"""Parts of a table that are told apart in ``fill``."""


@dataclass
class Leaves:
    """``count`` neighbouring entries that map one run of frames with the same bits."""

    level: str
    first: int
    count: int
    va: int
    pa: int
    page: int
    bits: int
    rights: int

    @property
    def length(self) -> int:
        return self.count * self.page


@dataclass
class Group:
    """``count`` neighbouring directory entries alike: large pages, tables, or broken ones.

    ``index`` is the path to the first, such as ``PDPTE[3] PDE[0]``; ``present`` and ``fill``
    (entries in each of 32 parts) are of the one table, or the first of several full ones.
    """

    kind: str
    index: str
    first: int
    count: int
    va: int
    each: int
    target: int
    bits: int
    entries: int = 0
    present: int = 0
    fill: list[int] = field(default_factory=list)
    leaves: list[Leaves] = field(default_factory=list)


def flags_text(bits: int) -> str:
    """``--GSDA--UWP``-like: one letter for each set bit, NX in front."""
    letters = "".join(letter if bits >> (8 - at) & 1 else "-" for at, letter in enumerate(_LETTERS))
    return ("N" if bits & PTE_NX else "-") + letters


def walk_tables(ram: Ram, mode: PagingMode, registers: ControlRegisters) -> list[Group]:
    """The groups of the last directory level, in the order of addresses."""
    walker = _Walker(ram, mode)
    root = registers.cr3 & mode.root
    groups: list[Group] = []
    for group in walker.directory(root, 0, 0, "", RIGHT_WRITE | RIGHT_USER):
        if groups and _alike(groups[-1], group):
            groups[-1].count += group.count
            groups[-1].leaves += group.leaves
        else:
            groups.append(group)
    for group in groups:
        group.leaves = list(_joined(group.leaves))
    return groups


def _alike(before: Group, group: Group) -> bool:
    follows = (before.kind, before.bits, before.va + before.count * before.each) == (
        group.kind,
        group.bits,
        group.va,
    )
    if not follows:
        return False
    if group.kind == "large":
        return before.target + before.count * before.each == group.target
    return group.kind == "table" and before.present == group.present == group.entries


def _joined(leaves: list[Leaves]) -> Iterator[Leaves]:
    """Neighbours of one kind as one; the entries of the next table continue the numbers."""
    kept: Leaves | None = None
    for leaf in leaves:
        if kept is not None and _follows(kept, leaf):
            kept.count += leaf.count
            continue
        if kept is not None:
            yield kept
        kept = leaf
    if kept is not None:
        yield kept


def _follows(before: Leaves, leaf: Leaves) -> bool:
    adjacent = (before.va + before.length, before.pa + before.length) == (leaf.va, leaf.pa)
    alike = (before.bits, before.rights, before.page) == (leaf.bits, leaf.rights, leaf.page)
    return adjacent and alike


@dataclass
class _Walker:
    ram: Ram
    mode: PagingMode

    def entries(self, paddr: int, count: int) -> list[int]:
        size = self.mode.entry_size
        data = self.ram.read(paddr, count * size)
        return list(memoryview(data).cast("I" if size == 4 else "Q"))

    def directory(
        self, table: int, depth: int, base: int, path: str, rights: int
    ) -> Iterator[Group]:
        """The groups below one table that is not of the last level."""
        level = self.mode.levels[depth]
        for index, entry in enumerate(self.entries(table, level.entries)):
            if not entry & PTE_P:
                continue
            form, va = level.format_of(entry), base + (index << level.shift)
            bits = entry & (_FLAGS | PTE_NX)
            name = f"{path}{level.name}[{index}]"
            target = form.target(entry)
            below = self.rights(form, entry, rights)
            each = 1 << level.shift
            if form.page_size:
                leaf = Leaves(level.name, index, 1, va, target, each, bits, below)
                leaf.rights |= self.global_right(entry)
                yield Group("large", name, index, 1, va, each, target, bits, leaves=[leaf])
                continue
            following = self.mode.levels[depth + 1]
            bytes_needed = following.entries * self.mode.entry_size
            if entry & form.reserved or not self.ram.contains(target, bytes_needed):
                yield Group("broken", name, index, 1, va, each, target, bits)
            elif depth + 2 < len(self.mode.levels):
                yield from self.directory(target, depth + 1, va, f"{name} ", below)
            else:
                yield self.table(target, va, name, index, bits, below)

    def table(self, paddr: int, va: int, name: str, index: int, bits: int, rights: int) -> Group:
        """A group of one page table, with the runs of its entries."""
        level = self.mode.levels[-1]
        raw = np.array(self.entries(paddr, level.entries), np.uint64)
        present = raw & np.uint64(PTE_P) != 0
        fill = present.reshape(_SHADES, -1).sum(axis=1).tolist()
        each = level.entries << level.shift
        leaves: list[Leaves] = []
        for number in np.flatnonzero(present).tolist():
            entry = int(raw[number])
            if entry & level.plain.reserved:
                continue
            own = self.rights(level.plain, entry, rights) | self.global_right(entry)
            leaf = Leaves(
                level.name,
                number,
                1,
                va + (number << level.shift),
                level.plain.target(entry),
                1 << level.shift,
                entry & (_FLAGS | PTE_NX),
                own,
            )
            leaves.append(leaf)
        leaves = list(_joined(leaves))
        count = int(present.sum())
        return Group(
            "table", name, index, 1, va, each, paddr, bits, level.entries, count, fill, leaves
        )

    def rights(self, form: EntryFormat, entry: int, above: int) -> int:
        """What ``above`` leaves of the rights, and this entry of them."""
        rights = above
        if form.flags & PTE_RW and not entry & PTE_RW:
            rights &= ~RIGHT_WRITE
        if form.flags & PTE_US and not entry & PTE_US:
            rights &= ~RIGHT_USER
        if form.flags & PTE_NX and entry & PTE_NX:
            rights |= RIGHT_NX
        return rights

    def global_right(self, entry: int) -> int:
        return RIGHT_GLOBAL if self.mode.global_pages and entry >> 8 & 1 else 0
