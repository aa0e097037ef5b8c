# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the conformance guest and the harness meet in RAM: places and records, declared once.

The harness writes a table of batches and a table of cases, the guest runs them and writes a
table of results. Python gets the records as numpy types, C and assembly get the header
``conformance_layout.h`` from :func:`header_text`. All records are u32 words, because the guest
is linked to no kernel and knows no other type.

Low RAM, in bytes::

    0x0100000  the guest's text         0x0800000  the frames that the cases map
    0x0180000  the guest's data         0x1000000  cases
    0x0200000  page tables              0x1840000  results
    0x0300000  batches

High RAM, from 4 GiB on, holds a second set of frames at the same offsets, for table entries
with address bit 32. Nothing here can fail.
"""

from typing import Any, Final

import numpy as np

MIB: Final = 1 << 20
LOW_RAM: Final = 32 * MIB
HIGH: Final = 1 << 32
HIGH_RAM: Final = 16 * MIB

IMAGE_DATA: Final = 0x180000
TABLES: Final = 0x200000
PDPT: Final = 0x204000
CASE_TABLES: Final = 0x208000
OWN_TABLES: Final = 0x210000
TABLES_END: Final = 0x230000
BATCHES: Final = 0x300000
BATCHES_END: Final = 0x800000
FRAMES: Final = 0x800000
FRAMES_END: Final = 0x1000000
CASES: Final = 0x1000000
RESULTS: Final = 0x1840000
"""Not a power of two behind the cases: a record and its result would share a place in an
emulator's direct-mapped TLB, and throw each other out of it."""
DATA_ONLY: Final = ((IMAGE_DATA, FRAMES), (CASES, LOW_RAM))
"""Where nothing is ever executed."""
WINDOW: Final = LOW_RAM
"""Virtual: where the guest sees the high frames, right behind its own memory."""

SLOTS: Final = 960
"""Cases in one batch. Each has a page-directory entry and two page-table entries of its own."""
PAGES_PER_SLOT: Final = 2
FIRST_SLOT: Final = {4: 16, 8: 512}
"""Directory entry of slot 0 by the size of an entry. With PAE, no slot shares the guest's PDPTE."""
DIRECTORY_SHIFT: Final = {4: 22, 8: 21}
SLOTS_PER_TABLE: Final = {4: 480, 8: 240}
"""A group of slots uses one page table, and one large page of frames."""
MAX_CASES: Final = (LOW_RAM - RESULTS) // 64
MAX_BATCHES: Final = (BATCHES_END - BATCHES) // 64

# Offsets in the frames of a slot.
OFFSET_SECOND: Final = 0x000
"""The second half of a word that lies across the two pages, in the second frame."""
OFFSET_WORD: Final = 0x100
OFFSET_CODE: Final = 0x140
"""``mov $stamp,%eax; ret``."""
OFFSET_DESCRIPTOR: Final = 0x180
"""A data segment's descriptor whose limit is the stamp."""
OFFSET_ACROSS: Final = 0xFFE
"""A word across two pages: two bytes in each."""

FAULTED: Final = 0x100
"""In an outcome: what is below it is the vector."""
COMPLETED: Final = 0
NOT_RUN: Final = 0xFFFFFFFF

RING_KERNEL, RING_USER, RING_KERNEL_ALONE, RING_USER_ALONE = range(4)
"""How a touch runs: in the loop of its ring, or alone with an LDT of its own."""
NO_TOUCH: Final = 0xFF
CHANGE_NONE, CHANGE_PDE, CHANGE_PTE, CHANGE_PDPTE = range(4)
FLUSH_NONE, FLUSH_INVLPG = range(2)
OP_NONE, OP_CR3, OP_PGE, OP_PG = range(4)
"""What the guest does between the first and the second touches of a batch."""

MARK_VECTOR: Final = 0x40
"""``int $MARK_VECTOR`` frames each pass: EAX is touch << 2 | ring code << 4 | 1 at its end."""
LEAVE_VECTOR: Final = 0x41

_CASE: Final = (
    ("pde", 2),
    ("pte", 2),
    ("second", 2),
    ("va", 1),
    ("value", 1),
    ("touches", 1),
    ("change", 1),
    ("keep", 2),
    ("set", 2),
    ("alias", 1),
    ("slot", 1),
)
_RESULT: Final = (
    ("outcome", 1),
    ("error_code", 1),
    ("cr2", 1),
    ("value", 1),
    ("outcome2", 1),
    ("error_code2", 1),
    ("cr2_2", 1),
    ("value2", 1),
    ("pde", 2),
    ("pte", 2),
    ("second", 2),
    ("memory", 1),
    ("memory_second", 1),
)
_BATCH: Final = (
    ("first", 1),
    ("count", 1),
    ("cr0", 1),
    ("cr4", 1),
    ("efer", 1),
    ("passes", 1),
    ("op", 1),
    ("refused", 1),
    ("pdpte", 2),
    ("pdpte_after", 2),
    ("stray_count", 1),
    ("stray_paddr", 1),
    ("stray_value", 1),
    ("spare", 1),
)
_RECORDS: Final = {"case": _CASE, "result": _RESULT, "batch": _BATCH}


def _dtype(fields: tuple[tuple[str, int], ...]) -> "np.dtype[Any]":
    kinds = {1: "<u4", 2: "<u8"}
    return np.dtype([(name, kinds[words]) for name, words in fields])


CASE: Final = _dtype(_CASE)
RESULT: Final = _dtype(_RESULT)
BATCH: Final = _dtype(_BATCH)

_CONSTANTS: Final = (
    *("LOW_RAM", "TABLES", "PDPT", "CASE_TABLES", "OWN_TABLES", "TABLES_END", "BATCHES"),
    *("FRAMES", "CASES", "RESULTS", "WINDOW", "SLOTS", "PAGES_PER_SLOT"),
    *("OFFSET_SECOND", "OFFSET_WORD", "OFFSET_CODE", "OFFSET_DESCRIPTOR", "OFFSET_ACROSS"),
    *("FAULTED", "COMPLETED", "NOT_RUN", "NO_TOUCH", "MARK_VECTOR", "LEAVE_VECTOR"),
    *("RING_KERNEL", "RING_USER", "RING_KERNEL_ALONE", "RING_USER_ALONE"),
    *("CHANGE_NONE", "CHANGE_PDE", "CHANGE_PTE", "CHANGE_PDPTE", "FLUSH_NONE", "FLUSH_INVLPG"),
    *("OP_NONE", "OP_CR3", "OP_PGE", "OP_PG"),
)


def stamp(frames: Any, high: Any) -> Any:
    """What the words of a frame show: ``frames`` counts from :data:`FRAMES`, low or high.

    20 bits, as the limit of a descriptor has; the lower 16 alone tell any two frames apart.
    """
    return 0xA0001 + frames * 2 + 0x2000 * high


def header_text() -> str:
    """The header ``conformance_layout.h``."""
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Made from harness/conformance/layout.py. */",
        "#pragma once",
    ]
    lines += [f"#define {name} {globals()[name]:#x}" for name in _CONSTANTS]
    for size, mode in ((4, "2_LEVEL"), (8, "PAE")):
        lines.append(f"#define FIRST_SLOT_{mode} {FIRST_SLOT[size]}")
        lines.append(f"#define SLOTS_PER_TABLE_{mode} {SLOTS_PER_TABLE[size]}")
    lines.append(f"#define STAMP_HIGH {stamp(0, 1) - stamp(0, 0):#x}")
    lines.append(f"#define STAMP_FIRST {stamp(0, 0):#x}")
    lines.append(f"#define STAMP_STEP {stamp(1, 0) - stamp(0, 0)}")
    for kind, record in (("CASE", CASE), ("RESULT", RESULT), ("BATCH", BATCH)):
        lines.append(f"#define {kind}_SIZE {record.itemsize}")
        assert record.fields is not None
        lines += [
            f"#define {kind}_{name.upper()} {place[1]}" for name, place in record.fields.items()
        ]
    lines += ["#ifndef __ASSEMBLER__", '#include "types.h"']
    for name, fields in _RECORDS.items():
        body = "".join(
            f"\tu32 {field}{f'[{words}]' if words > 1 else ''};\n" for field, words in fields
        )
        lines.append(f"struct conformance_{name} {{\n{body}}};")
    lines.append("#endif")
    return "\n".join(lines) + "\n"
