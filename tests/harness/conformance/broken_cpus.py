# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUs that misbehave on purpose, each in one way, around the real emulator.

Three ways to break one: tamper with a trap on its way to the guest (error code, CR2); change the
case's table entries for the time of a pass, which the guest frames with ``int $MARK_VECTOR``,
and put them back with what the CPU has marked in them; take an instruction out of the
guest's text, as a CPU that does nothing at INVLPG would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.architecture import (
    CR0_WP,
    CR4_PAE,
    PF_FETCH,
    PF_PRESENT,
    PF_RESERVED,
    PF_USER,
    PF_WRITE,
    PTE_A,
    PTE_D,
    PTE_NX,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
)
from harness.conformance import layout
from harness.conformance.subject import MODEL, UnicornSubject, conformance_ram
from harness.cpu.unicorn_cpu import UnicornCpu
from harness.traps import PAGE_FAULT

Entries = Any
"""Page-directory and page-table entries of the slots, as views of RAM."""


@dataclass(frozen=True)
class Pass:
    """Where the guest is: which touch, in which ring; the entries of all slots."""

    touch: int
    user: bool
    cpu: UnicornCpu
    pde: Entries
    pte: Entries

    @property
    def write_protect(self) -> bool:
        return bool(self.cpu.control.cr0 & CR0_WP)


@dataclass(frozen=True)
class Broken:
    """One broken CPU. ``shows`` is what the line about it must hold; ``mode`` is enough to see."""

    name: str
    shows: str
    mode: str = "2-level"
    error_code: Callable[[int], int] | None = None
    cr2: Callable[[int, int], int] | None = None
    """(new, old) -> what the guest will read."""
    before: Callable[[Pass], None] | None = None
    """Change the entries before a pass; they are put back after it, with A and D as set."""
    after: Callable[[Pass, Entries, Entries], None] | None = None
    """Change them after a pass; given the PDEs and PTEs from before it."""
    without: bytes = b""
    """An instruction that does nothing."""


class BrokenSubject(UnicornSubject):
    """The guest on such a CPU."""

    def __init__(self, broken: Broken) -> None:
        self._broken = broken
        cpu = UnicornCpu(conformance_ram(), MODEL)
        self._saved: tuple[Any, Any] | None = None
        self._old_cr2 = 0
        deliver = cpu.on_trap

        def trap(vector: int, error_code: int, software: bool) -> None:
            if software and vector == layout.MARK_VECTOR:
                self._mark(cpu)
            if not software and vector == PAGE_FAULT:
                error_code = self._tampered(cpu, error_code)
            deliver(vector, error_code, software)

        cpu.on_trap = trap
        super().__init__(cpu)
        if broken.without:
            self._take_out(broken.without)

    def _take_out(self, instruction: bytes) -> None:
        buffer = self.cpu.ram.buffer
        start, found = 0x100000, 0
        while (place := buffer.find(instruction, start, layout.IMAGE_DATA)) >= 0:
            buffer[place : place + len(instruction)] = b"\x90" * len(instruction)
            start, found = place + 1, found + 1
        assert found
        self.cpu.invalidate_all_code()

    def _tampered(self, cpu: UnicornCpu, error_code: int) -> int:
        broken = self._broken
        if broken.cr2 is not None:
            context = cpu.context
            place = context.layout.cr2
            new = context.words[place]
            context.words[place] = broken.cr2(new, self._old_cr2)
            context.dirty = True
            self._old_cr2 = new
        return broken.error_code(error_code) if broken.error_code else error_code

    def _mark(self, cpu: UnicornCpu) -> None:
        place = cpu.registers.eax
        now = self._pass(cpu, place)
        if not place & 1:
            self._saved = now.pde.copy(), now.pte.copy()
            if self._broken.before:
                self._broken.before(now)
            return
        assert self._saved is not None
        old_pde, old_pte = self._saved
        if self._broken.before:
            marks = np.array(PTE_A | PTE_D, now.pde.dtype)
            now.pde[:] = old_pde | now.pde & marks
            now.pte[:] = old_pte | now.pte & marks
        if self._broken.after:
            self._broken.after(now, old_pde, old_pte)

    @staticmethod
    def _pass(cpu: UnicornCpu, place: int) -> Pass:
        size, kind = (8, np.uint64) if cpu.read_cr4() & CR4_PAE else (4, np.uint32)
        tables = layout.SLOTS // layout.SLOTS_PER_TABLE[size]
        first = layout.TABLES + layout.FIRST_SLOT[size] * size
        pde = cpu.ram.table(first, layout.SLOTS, kind)
        pte = cpu.ram.table(layout.CASE_TABLES, tables * 4096 // size, kind)
        ring = place >> 4 & 3
        return Pass(place >> 2 & 1, bool(ring & 1), cpu, pde, pte)


def _set(entries: Entries, bit: int) -> None:
    """Set ``bit`` in the present ones."""
    entries[:] = np.where(entries & 1 != 0, entries | entries.dtype.type(bit), entries)


def _clear(entries: Entries, bits: int) -> None:
    entries &= entries.dtype.type(~bits & (1 << 8 * entries.dtype.itemsize) - 1)


def _ignore_write_protect(now: Pass) -> None:
    if not now.user and now.write_protect:
        _set(now.pde, PTE_RW)
        _set(now.pte, PTE_RW)


def _ignore_user(pde: bool, pte: bool) -> Callable[[Pass], None]:
    def change(now: Pass) -> None:
        for wanted, entries in ((pde, now.pde), (pte, now.pte)):
            if wanted:
                _set(entries, PTE_US)

    return change


def _ignore_read_only_in_pde(now: Pass) -> None:
    _set(now.pde, PTE_RW)


def _ignore_read_only_in_pte(now: Pass) -> None:
    _set(now.pte, PTE_RW)


def _ignore_bits(bits: int, *, pde: bool = True, pte: bool = True) -> Callable[[Pass], None]:
    def change(now: Pass) -> None:
        if now.pde.dtype.itemsize == 8:
            for wanted, entries in ((pde, now.pde), (pte, now.pte)):
                if wanted:
                    _clear(entries, bits)

    return change


def _ignore_reserved_of_large(now: Pass) -> None:
    if now.pde.dtype.itemsize == 8:
        large = now.pde & PTE_PS != 0
        now.pde[large] &= np.uint64(~0x1FE000 & (1 << 64) - 1)


def _no_dirty_after_read(now: Pass, old_pde: Entries, old_pte: Entries) -> None:
    for entries, old in ((now.pde, old_pde), (now.pte, old_pte)):
        read_before = (old & (PTE_A | PTE_D)) == PTE_A
        entries[read_before] &= entries.dtype.type(~PTE_D & (1 << 8 * entries.dtype.itemsize) - 1)


def _not_marked(bit: int, *, pde: bool, user_only: bool = False) -> Any:
    def change(now: Pass, old_pde: Entries, old_pte: Entries) -> None:
        if user_only and not now.user:
            return
        entries, old = (now.pde, old_pde) if pde else (now.pte, old_pte)
        entries[:] = entries & ~entries.dtype.type(bit) | old & entries.dtype.type(bit)

    return change


def _dirty_on_read(now: Pass, _old_pde: Entries, old_pte: Entries) -> None:
    new = now.pte & ~old_pte & PTE_A != 0
    now.pte[new] |= now.pte.dtype.type(PTE_D)


def _clobber_available(now: Pass, _old_pde: Entries, old_pte: Entries) -> None:
    new = now.pte & ~old_pte & PTE_A != 0
    now.pte[new] |= now.pte.dtype.type(1 << 9)


def _mark_the_neighbour(now: Pass, old_pde: Entries, _old_pte: Entries) -> None:
    new = np.flatnonzero(now.pde & ~old_pde & PTE_A)
    if len(new):
        size = now.pde.dtype.itemsize
        # Between the guest's own entries and those of the slots.
        now.cpu.ram.write32(layout.TABLES + {4: 12, 8: 24}[size] * size, PTE_A)


def _forget_stores(offset: int) -> Any:
    """Memory at ``offset`` of each frame is after a pass as if nothing had been stored."""

    def change(now: Pass, _old_pde: Entries, _old_pte: Entries) -> None:
        count = (layout.FRAMES_END - layout.FRAMES) // 4096
        frames = now.cpu.ram.table(layout.FRAMES, count * 1024).reshape(count, 1024)
        frames[:, offset // 4] = layout.stamp(np.arange(count, dtype=np.uint32), 0)

    return change


def _mark_pdpte(now: Pass, _old_pde: Entries, _old_pte: Entries) -> None:
    if now.pde.dtype.itemsize == 8:
        place = layout.PDPT + 8
        now.cpu.ram.write32(place, now.cpu.ram.read32(place) | PTE_A)


def _supervisor_may_not(now: Pass) -> None:
    """Like SMAP, which an i386 does not have: ring 0 cannot use user pages."""
    if not now.user:
        for entries in (now.pde, now.pte):
            _clear(entries[entries & PTE_US != 0], 0)
            user = entries & (PTE_US | PTE_P) == PTE_US | PTE_P
            entries[user] &= entries.dtype.type(~PTE_P & (1 << 8 * entries.dtype.itemsize) - 1)


BROKEN: tuple[Broken, ...] = (
    Broken("code-without-w", "write: error code 0, expected 2", error_code=lambda c: c & ~PF_WRITE),
    Broken("code-without-u", "user .*expected 4", error_code=lambda c: c & ~PF_USER),
    Broken(
        "code-without-p", r"error code [46].*, expected [57]", error_code=lambda c: c & ~PF_PRESENT
    ),
    Broken(
        "code-without-rsvd",
        r"bit\d+.*error code.*expected.*RSVD",
        "pae",
        error_code=lambda c: c & ~PF_RESERVED,
    ),
    Broken("code-without-i", r"fetch.*expected.*I\)", "pae-nx", error_code=lambda c: c & ~PF_FETCH),
    Broken("code-always-w", r"read: error code \d \(.*W", error_code=lambda c: c | PF_WRITE),
    Broken("cr2-of-the-page", "CR2 0x.*000, expected", cr2=lambda new, old: new & ~0xFFF),
    Broken("cr2-of-the-last-fault", "CR2", cr2=lambda new, old: old),
    Broken(
        "ignores-wp", "wp .*kernel write.*: no fault, expected #PF", before=_ignore_write_protect
    ),
    Broken(
        "ignores-us-of-pde",
        r"user read.*: no fault, expected #PF",
        before=_ignore_user(pde=True, pte=False),
    ),
    Broken(
        "ignores-us-of-pte",
        r"pde.us.*user read.*: no fault, expected #PF",
        before=_ignore_user(pde=False, pte=True),
    ),
    Broken(
        "ignores-rw-of-pde",
        "pte.rw.*user write.*: no fault, expected #PF",
        before=_ignore_read_only_in_pde,
    ),
    Broken(
        "ignores-rw-of-pte",
        "pde.rw.*user write.*: no fault, expected #PF",
        before=_ignore_read_only_in_pte,
    ),
    Broken(
        "ignores-reserved-high-bits",
        r"bit\d\d.*read: no fault, expected #PF",
        "pae",
        before=_ignore_bits(((1 << 63) - 1) & ~((1 << 40) - 1)),
    ),
    Broken(
        "ignores-reserved-bits-of-large-pages",
        r"pde.ps pde.bit\d+.*no fault, expected #PF",
        "pae",
        before=_ignore_reserved_of_large,
    ),
    Broken(
        "ignores-nx-of-pde",
        "pde.nx.*fetch.*: no fault, expected #PF",
        "pae-nx",
        before=_ignore_bits(PTE_NX, pte=False),
    ),
    Broken(
        "ignores-nx-of-pte",
        "pte.nx.*fetch.*: no fault, expected #PF",
        "pae-nx",
        before=_ignore_bits(PTE_NX, pde=False),
    ),
    Broken("wraps-at-4-gib", "bit32.*value", "pae", before=_ignore_bits(1 << 32)),
    Broken("no-d-on-write-after-read", "write.*PTE after: d not set", after=_no_dirty_after_read),
    Broken("no-a-in-pde", "PDE after: a not set", after=_not_marked(PTE_A, pde=True)),
    Broken(
        "no-a-in-pte-from-ring-3",
        "user .*PTE after: a not set",
        after=_not_marked(PTE_A, pde=False, user_only=True),
    ),
    Broken("d-on-read", "read.*PTE after: d set", after=_dirty_on_read),
    Broken("clobbers-available-bits", "PTE after: bit9 set", after=_clobber_available),
    Broken("marks-a-neighbour", "an entry of no case has changed", after=_mark_the_neighbour),
    Broken("loses-stores", "write: memory", after=_forget_stores(layout.OFFSET_WORD)),
    Broken(
        "loses-the-second-half",
        "write-across.*second memory",
        after=_forget_stores(layout.OFFSET_SECOND),
    ),
    Broken("marks-pdptes", "PDPTE after: a set", "pae", after=_mark_pdpte),
    Broken(
        "supervisor-may-not-use-user-pages",
        "kernel read.*: #PF, expected no fault",
        before=_supervisor_may_not,
    ),
    Broken("invlpg-does-nothing", "flush invlpg: no fault, expected #PF", without=b"\x0f\x01\x38"),
)
