# SPDX-License-Identifier: GPL-2.0-or-later
"""Translations worked out by hand from the Intel SDM volume 3A, chapter 4.

Nothing here is computed: each vector gives the bytes of the tables and what the manual says of
one access. The scalar walk, the sweep and Unicorn are all held against this list, and so are
deliberately broken walkers, which must not survive it.

Two-level vectors have CR3 = 0x1000 and walk va 0x00403123: PDE 1 at 0x1004, PTE 3 of a table
at 0x2000. PAE vectors have CR3 = 0x1020 and walk va 0xC0202123: PDPTE 3 at 0x1038, PDE 1 of the
directory at 0x2000, PTE 2 of the table at 0x3000.
"""

from dataclasses import dataclass, field
from typing import Any

from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    EFER_NXE,
    Access,
    ControlRegisters,
    Ring,
)
from harness.paging_modes import MmuFeatures
from kernel_model.ram import Ram

READ, WRITE, FETCH = Access
KERNEL, USER = Ring
RAM_BYTES = 0x10000
WITH_NX = MmuFeatures(nx=True)
NX = 1 << 63


@dataclass(frozen=True)
class Vector:
    """``paddr`` if the access succeeds; else the faulting ``level`` and its ``error_code``,
    where -2 stands for a table outside RAM. ``after`` are the entries that the access changes."""

    name: str
    registers: ControlRegisters
    va: int
    entries: dict[int, int]
    entry_size: int
    access: Access
    ring: Ring
    paddr: int | None = None
    level: str = ""
    error_code: int = -1
    page_size: int = 0
    global_page: bool = False
    features: MmuFeatures = field(default_factory=MmuFeatures)
    after: dict[int, int] | None = None

    def load(self, ram: Ram) -> None:
        """Write the tables into ``ram``, all else zero."""
        ram.fill(0, ram.size)
        for paddr, entry in self.entries.items():
            ram.write(paddr, entry.to_bytes(self.entry_size, "little"))


def two_level(
    name: str,
    pde: int,
    pte: int,
    access: Access = READ,
    ring: Ring = KERNEL,
    *,
    pse: bool = False,
    wp: bool = True,
    pge: bool = False,
    cr3: int = 0x1000,
    efer: int = 0,
    **expected: Any,
) -> Vector:
    cr0 = CR0_PG | CR0_PE | (CR0_WP if wp else 0)
    cr4 = (CR4_PSE if pse else 0) | (CR4_PGE if pge else 0)
    registers = ControlRegisters(cr0, cr3, cr4, efer)
    entries = {0x1004: pde, 0x200C: pte}
    return Vector(name, registers, 0x00403123, entries, 4, access, ring, **expected)


def pae(
    name: str,
    pdpte: int,
    pde: int,
    pte: int,
    access: Access = READ,
    ring: Ring = KERNEL,
    *,
    nxe: bool = False,
    wp: bool = True,
    pge: bool = False,
    pse: bool = False,
    cr3: int = 0x1020,
    **expected: Any,
) -> Vector:
    cr0 = CR0_PG | CR0_PE | (CR0_WP if wp else 0)
    cr4 = CR4_PAE | (CR4_PGE if pge else 0) | (CR4_PSE if pse else 0)
    registers = ControlRegisters(cr0, cr3, cr4, EFER_NXE if nxe else 0)
    entries = {0x1038: pdpte, 0x2008: pde, 0x3010: pte}
    return Vector(name, registers, 0xC0202123, entries, 8, access, ring, **expected)


_OFF = ControlRegisters(CR0_PE, 0x1000)

VECTORS = (
    # No paging (section 4.1.1): the address is physical, whatever the tables say.
    Vector("paging off", _OFF, 0x00403123, {}, 4, WRITE, USER, paddr=0x00403123, page_size=4096),
    # Table 4-5, 4-6: 4 KiB pages.
    two_level("4 KiB read", 0x2027, 0xABCDE067, paddr=0xABCDE123, page_size=4096),
    two_level("CR3 flag bits are no address", 0x2027, 0x5067, cr3=0x1FFF - 7, paddr=0x5123),
    two_level("absent PDE", 0x2026, 0x5067, level="PDE", error_code=0),
    two_level("absent PTE", 0x2027, 0x5066, level="PTE", error_code=0),
    two_level("absent PDE, user write", 0x0, 0x0, WRITE, USER, level="PDE", error_code=6),
    two_level("absent PTE, user read", 0x2027, 0x0, READ, USER, level="PTE", error_code=4),
    two_level("absent PTE, write", 0x2027, 0x0, WRITE, level="PTE", error_code=2),
    two_level("absent beats denied above", 0x2021, 0x0, WRITE, USER, level="PTE", error_code=6),
    # Section 4.6: U/S and R/W must be set at both levels.
    two_level("user read", 0x2025, 0x5025, READ, USER, paddr=0x5123),
    two_level("user read, PDE U/S=0", 0x2023, 0x5027, READ, USER, level="PDE", error_code=5),
    two_level("user read, PTE U/S=0", 0x2027, 0x5023, READ, USER, level="PTE", error_code=5),
    two_level("user write, PDE R/W=0", 0x2025, 0x5027, WRITE, USER, level="PDE", error_code=7),
    two_level("user write, PTE R/W=0", 0x2027, 0x5025, WRITE, USER, level="PTE", error_code=7),
    two_level("user write", 0x2027, 0x5067, WRITE, USER, paddr=0x5123),
    two_level("user fetch", 0x2025, 0x5025, FETCH, USER, paddr=0x5123),
    two_level("user fetch of kernel", 0x2027, 0x5021, FETCH, USER, level="PTE", error_code=5),
    two_level("kernel reads user page", 0x2027, 0x5025, paddr=0x5123),
    two_level("kernel fetches user page", 0x2027, 0x5025, FETCH, paddr=0x5123),
    two_level("WP=1, PTE R/W=0", 0x2027, 0x5025, WRITE, level="PTE", error_code=3),
    two_level("WP=1, PDE R/W=0", 0x2021, 0x5023, WRITE, level="PDE", error_code=3),
    two_level("WP=0, kernel writes", 0x2021, 0x5061, WRITE, wp=False, paddr=0x5123),
    two_level(
        "WP=0 is no right of users",
        0x2027,
        0x5025,
        WRITE,
        USER,
        wp=False,
        level="PTE",
        error_code=7,
    ),
    # Section 4.8: accessed in each entry used, dirty in the last one.
    two_level(
        "A set by a read", 0x2007, 0x5007, paddr=0x5123, after={0x1004: 0x2027, 0x200C: 0x5027}
    ),
    two_level(
        "A and D set by a write",
        0x2007,
        0x5007,
        WRITE,
        paddr=0x5123,
        after={0x1004: 0x2027, 0x200C: 0x5067},
    ),
    two_level(
        "D alone set by a write", 0x2027, 0x5027, WRITE, paddr=0x5123, after={0x200C: 0x5067}
    ),
    two_level("nothing left to set", 0x2027, 0x5067, WRITE, paddr=0x5123, after={}),
    two_level("a fault sets nothing", 0x2007, 0x5001, READ, USER, level="PTE", error_code=5),
    # A directory that maps itself: one entry is PDE and PTE of the walk.
    Vector(
        "self-map, one entry met twice",
        ControlRegisters(CR0_PG | CR0_PE, 0x1000),
        0xFFFFF123,
        {0x1FFC: 0x1003},
        4,
        WRITE,
        KERNEL,
        paddr=0x1123,
        after={0x1FFC: 0x1063},
    ),
    # Table 4-4: 4 MiB pages.
    two_level("PSE=0 ignores PS", 0x20A7, 0x5067, paddr=0x5123, page_size=4096),
    two_level("4 MiB page", 0x00C000E7, 0, pse=True, paddr=0x00C03123, page_size=4 << 20),
    two_level("4 MiB, user denied", 0x00C000E3, 0, READ, USER, pse=True, level="PDE", error_code=5),
    two_level(
        "4 MiB, A and D", 0x00C00087, 0, WRITE, pse=True, paddr=0x00C03123, after={0x1004: 0xC000E7}
    ),
    two_level("4 MiB, PAT", 0x00C010E7, 0, pse=True, paddr=0x00C03123),
    two_level("PTE PAT is no address", 0x2027, 0x50E7, pse=True, paddr=0x5123, page_size=4096),
    two_level("bit 21 reserved", 0x00E000E7, 0, pse=True, level="PDE", error_code=9),
    two_level(
        "bit 21 reserved, user write",
        0xE000E7,
        0,
        WRITE,
        USER,
        pse=True,
        level="PDE",
        error_code=15,
    ),
    two_level("reserved bits of an absent PDE", 0xE000E6, 0, pse=True, level="PDE", error_code=0),
    two_level("PSE-36, bit 13 is bit 32", 0x00C020E7, 0, pse=True, paddr=0x1_00C0_3123),
    two_level("PSE-36, bit 16 is bit 35", 0x00C100E7, 0, pse=True, paddr=0x8_00C0_3123),
    two_level("PSE-36 at 36 bits, bit 17", 0xC200E7, 0, pse=True, level="PDE", error_code=9),
    two_level(
        "PSE-36 at 40 bits, bit 20",
        0x00D000E7,
        0,
        pse=True,
        features=MmuFeatures(physical_bits=40),
        paddr=0x80_00C0_3123,
    ),
    two_level(
        "no PSE-36, bit 13",
        0x00C020E7,
        0,
        pse=True,
        features=MmuFeatures(pse36=False),
        level="PDE",
        error_code=9,
    ),
    two_level(
        "no PAT, PTE bit 7",
        0x2027,
        0x50E7,
        pse=True,
        features=MmuFeatures(pat=False),
        level="PTE",
        error_code=9,
    ),
    two_level(
        "no PAT, no PSE: bit 7 ignored",
        0x2027,
        0x50E7,
        features=MmuFeatures(pat=False),
        paddr=0x5123,
    ),
    two_level("global page", 0x2027, 0x5167, pge=True, paddr=0x5123, global_page=True),
    two_level("PGE=0: G ignored", 0x2027, 0x5167, paddr=0x5123),
    two_level("G of a PDE means nothing", 0x2127, 0x5067, pge=True, paddr=0x5123),
    two_level(
        "NXE without PAE: no I in the code",
        0x2027,
        0x0,
        FETCH,
        efer=EFER_NXE,
        features=WITH_NX,
        level="PTE",
        error_code=0,
    ),
    # Tables outside RAM: no statement.
    two_level("directory outside RAM", 0, 0, cr3=0x50000, level="CR3", error_code=-2),
    two_level("table outside RAM", 0x50027, 0, level="PDE", error_code=-2),
    # Tables 4-8 to 4-11: PAE.
    pae("PAE 4 KiB", 0x2001, 0x3027, 0x9_ABCD_E067, paddr=0x9_ABCD_E123, page_size=4096),
    pae("PAE, absent PDPTE", 0x2000, 0x3027, 0x5067, level="PDPTE", error_code=0),
    pae("PAE, absent PDE", 0x2001, 0x3026, 0x5067, level="PDE", error_code=0),
    pae("PAE, absent PTE", 0x2001, 0x3027, 0x5066, WRITE, USER, level="PTE", error_code=6),
    pae("PDPTE has no R/W, U/S", 0x2001, 0x3027, 0x5067, WRITE, USER, paddr=0x5123),
    pae("reserved PDPTE bits are no walk's matter", 0x21E7, 0x3027, 0x5067, paddr=0x5123),
    pae(
        "PDPTE has no A",
        0x2001,
        0x3007,
        0x5007,
        paddr=0x5123,
        after={0x2008: 0x3027, 0x3010: 0x5027},
    ),
    pae("PAE, PDE U/S=0", 0x2001, 0x3023, 0x5067, READ, USER, level="PDE", error_code=5),
    pae("PAE, PTE R/W=0", 0x2001, 0x3027, 0x5025, WRITE, level="PTE", error_code=3),
    pae("2 MiB page", 0x2001, 0x7_FFE0_00E7, 0, paddr=0x7_FFE0_2123, page_size=2 << 20),
    pae("2 MiB page with PSE=1 too", 0x2001, 0x6000E7, 0, pse=True, paddr=0x602123),
    pae("2 MiB, PAT", 0x2001, 0x6010E7, 0, paddr=0x602123),
    pae("2 MiB, bit 13", 0x2001, 0x6020E7, 0, level="PDE", error_code=9),
    pae("2 MiB, bit 20", 0x2001, 0x7000E7, 0, level="PDE", error_code=9),
    pae("2 MiB, bit 21 is address", 0x2001, 0x2000E7, 0, paddr=0x202123, page_size=2 << 20),
    pae("2 MiB, A and D", 0x2001, 0x600087, 0, WRITE, paddr=0x602123, after={0x2008: 0x6000E7}),
    pae("PAE, PDE bit 36", 0x2001, 0x10_0000_3027, 0x5067, level="PDE", error_code=9),
    pae("PAE, PTE bit 36", 0x2001, 0x3027, 0x10_0000_5067, level="PTE", error_code=9),
    pae("PAE, PTE bit 62", 0x2001, 0x3027, 0x5067 | 1 << 62, level="PTE", error_code=9),
    pae(
        "PAE at 40 bits, PTE bit 36",
        0x2001,
        0x3027,
        0x10_0000_5067,
        features=MmuFeatures(physical_bits=40),
        paddr=0x10_0000_5123,
    ),
    pae("PAE global", 0x2001, 0x3027, 0x5167, pge=True, paddr=0x5123, global_page=True),
    pae("PAE, directory outside RAM", 0x50001, 0, 0, level="PDPTE", error_code=-2),
    pae("PAE, directory above 4 GiB", 0x1_0000_2001, 0x3027, 0x5067, level="PDPTE", error_code=-2),
    # NX: reserved while NXE=0, or on a CPU without it.
    pae("NXE=0, NX reserved in a PTE", 0x2001, 0x3027, NX | 0x5067, level="PTE", error_code=9),
    pae("NXE=0, NX reserved in a PDE", 0x2001, NX | 0x3027, 0x5067, level="PDE", error_code=9),
    pae("no NX on the CPU", 0x2001, 0x3027, NX | 0x5067, nxe=True, level="PTE", error_code=9),
    pae("NX, read", 0x2001, 0x3027, NX | 0x5067, nxe=True, features=WITH_NX, paddr=0x5123),
    pae(
        "NX, kernel fetch",
        0x2001,
        0x3027,
        NX | 0x5067,
        FETCH,
        nxe=True,
        features=WITH_NX,
        level="PTE",
        error_code=17,
    ),
    pae(
        "NX in the PDE, user fetch",
        0x2001,
        NX | 0x3027,
        0x5067,
        FETCH,
        USER,
        nxe=True,
        features=WITH_NX,
        level="PDE",
        error_code=21,
    ),
    pae(
        "NX, 2 MiB page",
        0x2001,
        NX | 0x6000E7,
        0,
        FETCH,
        nxe=True,
        features=WITH_NX,
        level="PDE",
        error_code=17,
    ),
    pae("NXE, fetch", 0x2001, 0x3027, 0x5067, FETCH, nxe=True, features=WITH_NX, paddr=0x5123),
    pae(
        "NXE, user fetch of kernel page",
        0x2001,
        0x3027,
        0x5023,
        FETCH,
        USER,
        nxe=True,
        features=WITH_NX,
        level="PTE",
        error_code=21,
    ),
    pae(
        "NXE, fetch of an absent page",
        0x2001,
        0x3027,
        0x0,
        FETCH,
        nxe=True,
        features=WITH_NX,
        level="PTE",
        error_code=16,
    ),
    pae("NXE=0, user fetch of absent", 0x2001, 0x3027, 0, FETCH, USER, level="PTE", error_code=4),
)
