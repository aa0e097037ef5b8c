# SPDX-License-Identifier: GPL-2.0-or-later
"""The paging modes of an i386 as data: levels, entry formats, reserved bits.

Source: Intel SDM volume 3A, sections 4.1 (modes), 4.3 (32-bit paging, tables 4-3 to 4-6) and
4.4 (PAE paging, tables 4-7 to 4-11). One loop walks every mode that is written here.

What can fail: :func:`paging_mode` raises :class:`~harness.mmu_faults.UnsupportedPaging` for
registers that select 4-level paging. SMEP, SMAP and protection keys, which no CPU with 32-bit
paging only has, are not modelled: their CR4 bits are ignored.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from harness.architecture import (
    CR4_PGE,
    EFER_LMA,
    PTE_A,
    PTE_D,
    PTE_G,
    PTE_NX,
    PTE_P,
    PTE_PCD,
    PTE_PS,
    PTE_PWT,
    PTE_RW,
    PTE_US,
    ControlRegisters,
)
from harness.mmu_faults import UnsupportedPaging

PAGE_SIZE: Final = 4 << 10
VA_BITS: Final = 32
PSE36_SHIFT: Final = 19
"""Bits 13 and up of a 4 MiB PDE are address bits 32 and up: 19 places higher."""

_PTE_PAT: Final = 1 << 7
_LARGE_PAT: Final = 1 << 12
_PDPTE_FLAGS: Final = PTE_P | PTE_PWT | PTE_PCD
_TABLE_FLAGS: Final = PTE_P | PTE_RW | PTE_US | PTE_PWT | PTE_PCD | PTE_A
_PAGE_FLAGS: Final = _TABLE_FLAGS | PTE_D | PTE_G


def bits(high: int, low: int) -> int:
    """The mask of bits ``high``..``low``, both included, as the manual writes ranges."""
    return (1 << high + 1) - (1 << low)


@dataclass(frozen=True, slots=True)
class MmuFeatures:
    """What the CPU model offers, as CPUID tells it.

    ``physical_bits`` is MAXPHYADDR. Without ``nx`` or ``pge`` the control bits EFER.NXE and
    CR4.PGE cannot be set on the CPU, and are ignored here. ``pat`` decides bit 7 of a PTE and
    bit 12 of a large PDE: a flag, or reserved.
    """

    physical_bits: int = 36
    pse36: bool = True
    nx: bool = False
    pge: bool = True
    pat: bool = True

    def __post_init__(self) -> None:
        if not 32 <= self.physical_bits <= 52:
            raise ValueError(f"physical_bits {self.physical_bits}: MAXPHYADDR is 32 to 52")


DEFAULT_FEATURES: Final = MmuFeatures()
"""A Pentium III: 36 physical address bits, PSE-36, PGE, PAT, no NX."""


@dataclass(frozen=True, slots=True)
class EntryFormat:
    """How to read one kind of present entry.

    All fields but ``page_size`` are masks. A flag that is missing from ``flags`` does not exist
    in this entry: it neither permits nor forbids, and the CPU does not set it. ``high_address``
    are the PSE-36 address bits. ``page_size`` is in bytes, 0 where the entry points to a table.
    """

    flags: int
    address: int
    reserved: int = 0
    high_address: int = 0
    page_size: int = 0

    def target(self, entry: int) -> int:
        """Physical byte address of the page or table that ``entry`` points to."""
        return entry & self.address | (entry & self.high_address) << PSE36_SHIFT


@dataclass(frozen=True, slots=True)
class Level:
    """One level of tables, indexed by ``index_bits`` address bits from ``shift`` up.

    ``large`` is the format of entries with PS=1; where it is ``None``, bit 7 selects nothing.
    """

    name: str
    shift: int
    index_bits: int
    plain: EntryFormat
    large: EntryFormat | None = None

    @property
    def entries(self) -> int:
        """Entries in one table."""
        return 1 << self.index_bits

    def index(self, va: int) -> int:
        return va >> self.shift & self.entries - 1

    def format_of(self, entry: int) -> EntryFormat:
        return self.large if self.large is not None and entry & PTE_PS else self.plain


@dataclass(frozen=True, slots=True)
class PagingMode:
    """A shape of page tables, root first.

    ``root`` masks the table's address in CR3; ``entry_size`` is in bytes. ``nx`` and
    ``global_pages`` say whether those bits are in effect. ``pdpte_reserved`` are the bits on
    which a load of CR3 raises #GP: no walk looks at them.
    """

    name: str
    entry_size: int
    root: int
    levels: tuple[Level, ...]
    nx: bool = False
    global_pages: bool = False
    pdpte_reserved: int = 0


@lru_cache(maxsize=64)
def paging_mode(registers: ControlRegisters, features: MmuFeatures) -> PagingMode | None:
    """The mode that CR0.PG, CR4.PAE, CR4.PSE and EFER.NXE select; ``None``: paging is off."""
    if not registers.paging:
        return None
    if registers.efer & EFER_LMA:
        raise UnsupportedPaging(
            f"EFER {registers.efer:#x} has LMA (long mode) set: give the registers of an i386"
        )
    global_pages = features.pge and bool(registers.cr4 & CR4_PGE)
    if registers.pae:
        return _pae(features, registers.nxe and features.nx, global_pages)
    return _two_level(features, registers.pse, global_pages)


def _two_level(features: MmuFeatures, pse: bool, global_pages: bool) -> PagingMode:
    """32-bit paging. It has reserved bits only with CR4.PSE=1 (section 4.3)."""
    unsupported_pat = pse and not features.pat
    table = EntryFormat(_TABLE_FLAGS, address=bits(31, 12))
    page = EntryFormat(
        _PAGE_FLAGS | _PTE_PAT,
        address=bits(31, 12),
        reserved=_PTE_PAT if unsupported_pat else 0,
        page_size=PAGE_SIZE,
    )
    # Section 4.3: bits 21:(M-19) are reserved, M = min(40, MAXPHYADDR), or 21:13 without PSE-36.
    address_end = min(40, features.physical_bits) if features.pse36 else 32
    high_address = bits(address_end - PSE36_SHIFT - 1, 13)
    large = EntryFormat(
        _PAGE_FLAGS | PTE_PS | _LARGE_PAT,
        address=bits(31, 22),
        high_address=high_address,
        reserved=bits(21, 13) & ~high_address | (_LARGE_PAT if unsupported_pat else 0),
        page_size=4 << 20,
    )
    return PagingMode(
        name="2-level with PSE" if pse else "2-level",
        entry_size=4,
        root=bits(31, 12),
        levels=(
            Level("PDE", 22, 10, table, large if pse else None),
            Level("PTE", 12, 10, page),
        ),
        global_pages=global_pages,
    )


def _pae(features: MmuFeatures, nx: bool, global_pages: bool) -> PagingMode:
    """PAE paging. CR4.PSE plays no part: PS=1 always maps 2 MiB (section 4.4)."""
    width = features.physical_bits
    nx_flag = PTE_NX if nx else 0
    reserved = bits(63, width) & ~nx_flag
    pat_reserved = 0 if features.pat else _PTE_PAT
    large_pat_reserved = 0 if features.pat else _LARGE_PAT
    address = bits(width - 1, 12)
    page = EntryFormat(
        _PAGE_FLAGS | _PTE_PAT | nx_flag,
        address=address,
        reserved=reserved | pat_reserved,
        page_size=PAGE_SIZE,
    )
    large = EntryFormat(
        _PAGE_FLAGS | PTE_PS | _LARGE_PAT | nx_flag,
        address=bits(width - 1, 21),
        reserved=reserved | bits(20, 13) | large_pat_reserved,
        page_size=2 << 20,
    )
    return PagingMode(
        name="PAE with NX" if nx else "PAE",
        entry_size=8,
        root=bits(31, 5),
        levels=(
            Level("PDPTE", 30, 2, EntryFormat(_PDPTE_FLAGS, address=address)),
            Level("PDE", 21, 9, EntryFormat(_TABLE_FLAGS | nx_flag, address, reserved), large),
            Level("PTE", 12, 9, page),
        ),
        nx=nx,
        global_pages=global_pages,
        pdpte_reserved=bits(63, width) | bits(8, 5) | bits(2, 1),
    )
