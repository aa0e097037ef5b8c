# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the matrix, each a table of names: modes, accesses, touches, changes, flushes.

What a case says in numbers is read and written here in names, so that one that fails can be
named, looked up in the manual, and asked for again. Source of the bits: Intel SDM volume 3A,
section 4.3 to 4.5. What can fail: :class:`~kernel_model.errors.BadInput` for an unknown name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    EFER_NXE,
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
from harness.conformance import layout
from harness.paging_modes import MmuFeatures, PagingMode, paging_mode
from kernel_model.errors import BadInput

CR0_ET: Final = 1 << 4
PAT: Final = PTE_PS
"""Bit 7 where the entry maps a page of 4 KiB."""

BIT_NAMES: Final = {
    PTE_P: "p",
    PTE_RW: "rw",
    PTE_US: "us",
    PTE_PWT: "pwt",
    PTE_PCD: "pcd",
    PTE_A: "a",
    PTE_D: "d",
    PTE_PS: "ps",
    PTE_G: "g",
    PTE_NX: "nx",
}
"""Bits by name; all others are ``bitN``."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to translate. ``high``: address bit 32 of an entry is under test."""

    name: str
    cr4: int = 0
    efer: int = 0
    paging: bool = True

    def registers(self, write_protect: bool = True, global_pages: bool = False) -> ControlRegisters:
        cr0 = CR0_PE | CR0_ET | (CR0_WP if write_protect else 0) | (CR0_PG if self.paging else 0)
        cr3 = layout.PDPT if self.cr4 & CR4_PAE else layout.TABLES
        return ControlRegisters(cr0, cr3, self.cr4 | (CR4_PGE if global_pages else 0), self.efer)

    def shape(self, features: MmuFeatures) -> PagingMode | None:
        """The tables' shape on a CPU with ``features``; None with paging off."""
        return paging_mode(self.registers(), features)

    @property
    def pae(self) -> bool:
        return bool(self.cr4 & CR4_PAE)

    @property
    def entry_size(self) -> int:
        return 8 if self.pae else 4


MODES: Final = (
    Mode("none", paging=False),
    Mode("2-level"),
    Mode("pse", CR4_PSE),
    Mode("pse36", CR4_PSE),
    Mode("pae", CR4_PAE),
    Mode("pae-nx", CR4_PAE, EFER_NXE),
)
"""``pse36`` has the registers of ``pse``; its 4 MiB pages have bits 13 to 21 set."""


@dataclass(frozen=True, slots=True)
class MatrixAccess:
    """One way to touch memory. ``implicit``: the CPU itself reads, whatever ring is running."""

    name: str
    offset: int
    write: bool = False
    loads: bool = True
    fetch: bool = False
    across: bool = False
    implicit: bool = False


ACCESSES: Final = (
    MatrixAccess("read", layout.OFFSET_WORD),
    MatrixAccess("write", layout.OFFSET_WORD, write=True, loads=False),
    MatrixAccess("fetch", layout.OFFSET_CODE, fetch=True),
    MatrixAccess("modify", layout.OFFSET_WORD, write=True, loads=False),
    MatrixAccess("read-across", layout.OFFSET_ACROSS, across=True),
    MatrixAccess("write-across", layout.OFFSET_ACROSS, write=True, loads=False, across=True),
    MatrixAccess("descriptor", layout.OFFSET_DESCRIPTOR, implicit=True),
)
"""In the order of the guest's ``access_table``. ``modify`` reads, adds and writes; across is a
word that lies in two pages; ``descriptor`` is LSL through a descriptor in the page."""
READ, WRITE, FETCH, MODIFY, READ_ACROSS, WRITE_ACROSS, DESCRIPTOR = range(len(ACCESSES))

RINGS: Final = ("kernel", "user")
KERNEL, USER = range(2)

BEFORE: Final = ("nothing", "read", "kernel-read", "fetch")
"""The touch that comes before the one under test, and fills the TLB."""
NOTHING, AFTER_READ, AFTER_KERNEL_READ, AFTER_FETCH = range(4)


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to an entry between two touches."""

    name: str
    entry: int = layout.CHANGE_NONE
    clear: int = 0
    set: int = 0


def _changes() -> tuple[Change, ...]:
    changes = [Change("none")]
    for level, entry in (("pde", layout.CHANGE_PDE), ("pte", layout.CHANGE_PTE)):
        for bit in (PTE_P, PTE_RW, PTE_US, PTE_NX):
            changes.append(Change(f"{level}-{BIT_NAMES[bit]}", entry, clear=bit))
            changes.append(Change(f"{level}+{BIT_NAMES[bit]}", entry, set=bit))
        for bit in (PTE_A, PTE_D):
            changes.append(Change(f"{level}-{BIT_NAMES[bit]}", entry, clear=bit))
    changes.append(Change("pte+frame", layout.CHANGE_PTE, set=1 << 12))
    changes.append(Change("pdpte-p", layout.CHANGE_PDPTE, clear=PTE_P))
    return tuple(changes)


CHANGES: Final = _changes()
"""``pte+frame`` maps the page to the next frame."""

FLUSHES: Final = ("none", "invlpg", "cr3", "pge", "pg")
FLUSH_NONE, FLUSH_INVLPG, FLUSH_CR3, FLUSH_PGE, FLUSH_PG = range(5)
"""Nothing, INVLPG of the page, a load of CR3, CR4.PGE toggled, CR0.PG toggled."""


def bits_text(bits: int) -> str:
    """``p.rw.us``; ``-`` for none."""
    names = [
        BIT_NAMES.get(1 << number, f"bit{number}") for number in range(64) if bits >> number & 1
    ]
    return ".".join(names) or "-"


def parse_bits(text: str) -> int:
    """The other direction."""
    values = {name: bit for bit, name in BIT_NAMES.items()}
    values |= {f"bit{number}": 1 << number for number in range(64)}
    bits = 0
    for name in text.split(".") if text != "-" else ():
        if name not in values:
            raise BadInput(
                f"--case: no bit {name!r}: write {', '.join(BIT_NAMES.values())} or bit9, joined "
                f"by dots, or - for none"
            )
        bits |= values[name]
    return bits


def number_of(name: str, names: Sequence[str], what: str) -> int:
    """The place of ``name`` among ``names``."""
    if name not in names:
        raise BadInput(f"--case: unknown {what} {name!r}: one of {', '.join(names)}")
    return names.index(name)
