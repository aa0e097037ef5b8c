# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the table entries lie that the CPU reads to translate an address.

Bookkeeping, not judgement: which words of RAM a question to the MMU may mark accessed or
dirty, and which words a remembered translation depends on. What the entries *mean* is the
business of :mod:`harness.mmu_spec`, which shares nothing with this module. Source of the
geometry: Intel SDM volume 3A, sections 4.3 and 4.4. Nothing fails here: a table outside RAM
ends the list.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.architecture import CR4_PSE, PTE_P, PTE_PS, ControlRegisters
from kernel_model.ram import PAGE_SIZE, Ram

_ADDRESS_MASK: Final = 0xF_FFFF_FFFF_F000


@dataclass(frozen=True, slots=True)
class _Level:
    """One table: its index is ``va >> shift & mask``."""

    shift: int
    mask: int
    may_be_large: bool = False


@dataclass(frozen=True, slots=True)
class _Format:
    entry_bytes: int
    root_mask: int
    levels: tuple[_Level, ...]


_TWO_LEVEL: Final = _Format(
    4, 0xFFFFF000, (_Level(22, 0x3FF, may_be_large=True), _Level(12, 0x3FF))
)
_PAE: Final = _Format(
    8,
    0xFFFFFFE0,
    (_Level(30, 3), _Level(21, 0x1FF, may_be_large=True), _Level(12, 0x1FF)),
)


def _format(control: ControlRegisters) -> _Format:
    return _PAE if control.pae else _TWO_LEVEL


def _large(level: _Level, entry: int, control: ControlRegisters) -> bool:
    if not (level.may_be_large and entry & PTE_PS):
        return False
    return control.pae or bool(control.cr4 & CR4_PSE)


def entry_addresses(ram: Ram, control: ControlRegisters, va: int) -> list[int]:
    """Physical addresses of the entries read for ``va``, root first; none without paging."""
    if not control.paging:
        return []
    layout = _format(control)
    read = ram.read64 if layout.entry_bytes == 8 else ram.read32
    table = control.cr3 & layout.root_mask
    addresses: list[int] = []
    for level in layout.levels:
        paddr = table + (va >> level.shift & level.mask) * layout.entry_bytes
        if not ram.contains(paddr, layout.entry_bytes):
            break
        addresses.append(paddr)
        entry = read(paddr)
        if not entry & PTE_P or _large(level, entry, control):
            break
        table = entry & _ADDRESS_MASK
    return addresses


def entry_words(ram: Ram, control: ControlRegisters, va: int) -> list[int]:
    """The same entries as indices of ``Ram.words``; an 8-byte entry is two."""
    wide = 2 if control.pae else 1
    return [(paddr >> 2) + n for paddr in entry_addresses(ram, control, va) for n in range(wide)]


def table_frames(ram: Ram, control: ControlRegisters) -> npt.NDArray[np.int64]:
    """PFNs of all page directories and page tables of the address space, sorted, in RAM only.

    The four PDPTEs are not among them: the CPU marks nothing there.
    """
    if not control.paging:
        return np.empty(0, np.int64)
    layout = _format(control)
    dtype = np.uint64 if layout.entry_bytes == 8 else np.uint32
    root = control.cr3 & layout.root_mask
    if control.pae:
        directories = _children(ram, np.array([root]), 4, dtype, control, large=False)
    else:
        directories = np.array([root], np.int64)
    directories = _in_ram(ram, directories)
    count = PAGE_SIZE // layout.entry_bytes
    tables = _children(ram, directories, count, dtype, control, large=True)
    frames = np.concatenate([directories, _in_ram(ram, tables)]) >> 12
    return np.unique(frames)


def _children(
    ram: Ram,
    tables: npt.NDArray[np.int64],
    count: int,
    dtype: type[np.uint32] | type[np.uint64],
    control: ControlRegisters,
    *,
    large: bool,
) -> npt.NDArray[np.int64]:
    """Addresses of the tables that the present entries of ``tables`` point to."""
    found = [np.empty(0, np.int64)]
    skips_large = large and (control.pae or bool(control.cr4 & CR4_PSE))
    for table in tables.tolist():
        if not ram.contains(table, count * dtype().itemsize):
            continue
        entries = ram.table(table, count, dtype)
        present = entries & dtype(PTE_P) != 0
        if skips_large:
            present &= entries & dtype(PTE_PS) == 0
        found.append(entries[present].astype(np.int64) & _ADDRESS_MASK)
    return np.concatenate(found)


def _in_ram(ram: Ram, tables: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    inside = np.zeros(len(tables), np.bool_)
    for start, end in ram.ranges:
        inside |= (tables >= start) & (tables + PAGE_SIZE <= end)
    return tables[inside]
