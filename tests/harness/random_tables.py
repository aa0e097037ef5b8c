# SPDX-License-Identifier: GPL-2.0-or-later
"""Random page tables for Hypothesis: small, tangled, and often broken.

All tables live in the first frames of a small RAM with a hole. Entries point at each other's
tables, at themselves, into the hole, outside RAM; any flag and any reserved bit may be set. A
few slots per table are used, so that every page that can be mapped is in :func:`probes`.
"""

from dataclasses import dataclass

from hypothesis import strategies as st

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
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
    Access,
    ControlRegisters,
    Ring,
)
from harness.paging_modes import MmuFeatures
from kernel_model.ram import Ram

FRAMES = 32
HOLE = (24, 28)
"""Frames that are no RAM: the first and the one after the last."""
TABLE_FRAMES = range(2, 8)
"""Frame 1 holds the PDPT of PAE; a two-level directory is frame 2."""
UNICORN = MmuFeatures(physical_bits=40)

SLOTS = {4: (0, 1, 2, 512, 1022, 1023), 8: (0, 1, 2, 256, 510, 511)}
ATTEMPTS = tuple((access, ring) for access in Access for ring in Ring)


def new_ram() -> Ram:
    """RAM for tables: frames 0-31 with a hole."""
    first, end = HOLE
    return Ram(FRAMES << 12, ((0, first << 12), (end << 12, FRAMES << 12)))


@dataclass(frozen=True)
class Tables:
    """``entries`` by physical address; the registers and CPU that walk them."""

    registers: ControlRegisters
    features: MmuFeatures
    entry_size: int
    entries: dict[int, int]

    def load(self, ram: Ram) -> None:
        """Write the tables; what an earlier case left is wiped."""
        ram.fill(0, (TABLE_FRAMES.stop + 1) << 12)
        for paddr, entry in self.entries.items():
            ram.write(paddr, entry.to_bytes(self.entry_size, "little"))

    def probes(self) -> list[int]:
        """One address in every page that any used slot can map, and in some that none can."""
        slots = SLOTS[self.entry_size]
        if self.entry_size == 4:
            regions = [pde << 22 for pde in (*slots, 7)]
            inner = (*slots, 77)
        else:
            regions = [pdpte << 30 | pde << 21 for pdpte in range(4) for pde in slots]
            inner = (*slots, 77)
        return [region | slot << 12 | 0x123 for region in regions for slot in inner]


def _entry(entry_size: int) -> st.SearchStrategy[int]:
    """Mostly present and mostly permissive, else hardly any walk would get to its end."""
    good = PTE_P | PTE_RW | PTE_US
    flags = st.sampled_from([good] * 4 + [good | PTE_A | PTE_D, *[good | PTE_PS] * 2, PTE_P, 0])
    flipped = st.one_of(st.just(0), st.sampled_from([1 << bit for bit in range(12)]))
    frames = [*TABLE_FRAMES] * 4 + [HOLE[0], FRAMES, 0x400, 0x800, 0xFF000, 0xFFFFF]
    reserved = range(12, 22) if entry_size == 4 else [*range(12, 22), *range(32, 64)]
    extra = st.sampled_from([0] * 5 * len(reserved) + [1 << bit for bit in reserved])

    def build(flags: int, flip: int, frame: int, bit: int) -> int:
        # A large page whose address is not aligned has reserved bits set: align most of them.
        place = frame << 22 & 0xFFFFFFFF if flags & PTE_PS else frame << 12
        return flags ^ flip | place | bit

    return st.builds(build, flags, flipped, st.sampled_from(frames), extra)


def _features() -> st.SearchStrategy[MmuFeatures]:
    return st.builds(
        MmuFeatures,
        physical_bits=st.sampled_from([32, 36, 40, 52]),
        pse36=st.booleans(),
        nx=st.booleans(),
        pge=st.booleans(),
        pat=st.booleans(),
    )


@st.composite
def tables(draw: st.DrawFn, *, features: MmuFeatures | None = None) -> Tables:
    """Tables with registers and, unless given, features."""
    pae = draw(st.booleans())
    size = 8 if pae else 4
    places = [frame << 12 | slot * size for frame in TABLE_FRAMES for slot in SLOTS[size]]
    drawn = draw(st.lists(_entry(size), min_size=len(places), max_size=len(places)))
    entries = dict(zip(places, drawn, strict=True))
    if pae:
        root = 0x1000 + 32 * draw(st.integers(0, 127))
        top = draw(st.lists(_entry(size), min_size=4, max_size=4))
        entries |= {root + 8 * index: entry for index, entry in enumerate(top)}
    else:
        root = TABLE_FRAMES.start << 12
    lost = draw(st.integers(0, 29)) == 29
    ignored = draw(st.integers(0, 31 if pae else 0xFFF))
    cr0 = CR0_PG | CR0_PE | draw(st.sampled_from([0, CR0_WP]))
    cr4 = draw(st.sampled_from([0, CR4_PSE])) | draw(st.sampled_from([0, CR4_PGE]))
    registers = ControlRegisters(
        cr0,
        FRAMES << 12 if lost else root | ignored,
        cr4 | (CR4_PAE if pae else 0),
        draw(st.sampled_from([0, EFER_NXE])),
    )
    return Tables(registers, features or draw(_features()), size, entries)
