# SPDX-License-Identifier: GPL-2.0-or-later
"""A trap delivered once is delivered again with a third of the work.

Where a trap goes depends on few things: the segment caches, the table registers, CR0, CR3, CR4,
and the words of RAM that the delivery has read, page-table entries among them. They are kept
with the answer; while every one of them is as it was, so is the answer. Anything else, the
first time included, goes the long way (:mod:`harness.traps`), whose checks are the only ones.

Nothing here can fail.
"""

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

from harness.cpu.context import (
    DESCRIPTOR_BIG,
    EFLAGS_ARITHMETIC,
    EFLAGS_DF,
    OPERATION_EFLAGS,
    SEGMENT_WORDS,
    Layout,
    SavedContext,
)
from harness.cpu.supervisor import CellReader, SupervisorMemory, reader
from kernel_model.ram import PAGE_SHIFT, PAGE_SIZE, Ram

HAS_ERROR_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
FAULTS: Final = frozenset({0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19})
"""They push EFLAGS with RF set, so that the instruction can be run again."""
EFLAGS_RF: Final = 1 << 16
FRAMES: Final = {count: Struct(f"<{count}I") for count in (3, 4, 5, 6)}
DESCRIPTOR_DOWN: Final = 1 << 10
"""Of a data segment: it expands down. Of a code segment: it is conforming."""
_MASK: Final = 0xFFFFFFFF


class Delivering(Protocol):
    """The CPU as far as this needs it."""

    ram: Ram
    context: SavedContext
    supervisor: SupervisorMemory


class Stack(NamedTuple):
    """Where the frame goes: segment cache, stack pointer, and the error code of its #SS."""

    selector: int
    base: int
    limit: int
    flags: int
    esp: int
    error_code: int


class Arrival(NamedTuple):
    """Where a trap goes: what is loaded once the frame is pushed. No stack: the one in use."""

    eip: int
    ring: int
    stack: Stack | None
    segments: "memoryview[int]"
    """The new caches of CS, and of SS where it changes."""
    hidden: int
    kept_eflags: int


class _Again(NamedTuple):
    """A fault that was delivered, and all that must be as it was to deliver it so again.

    ``registers`` are the bytes of :func:`_state_format`; ``read`` gives the words of RAM that
    were looked at, table entries included, which were ``values``.
    """

    registers: tuple[bytes, bytes, int, int]
    read: CellReader
    values: Any
    arrival: Arrival
    selectors: tuple[int, int]
    page: int
    """Virtual page that the frame goes to, for a trap that stays in its ring."""
    paddr: int
    """Where the frame goes; of that page, where it begins."""
    size: int
    pack_into: Callable[..., None]
    or_eflags: int


class Redelivery:
    """The traps that one CPU has delivered before."""

    def __init__(self, cpu: Delivering) -> None:
        self._context = cpu.context
        self._memory = cpu.supervisor
        self._buffer = cpu.ram.buffer
        self._ram_words = cpu.ram.words
        self._known: dict[tuple[int, bool, int], _Again] = {}
        layout = cpu.context.layout
        self._state = _state_format(layout)
        self._state_place = 4 * (layout.general + 8)
        self._hidden, self._cs = layout.hidden, layout.segment("cs")
        self._esp, self._eip, self._eflags = layout.general + 8, layout.eip, layout.eflags

    def deliver(self, vector: int, error_code: int, software: bool) -> bool:
        """Deliver as last time, if nothing that delivery looks at has changed; 1.5 us."""
        words = self._context.words
        esp, eip, eflags, arithmetic, operation, direction, hidden, *registers = self._state(
            words, self._state_place
        )
        again = self._known.get((vector, software, hidden))
        if (
            again is None
            or again.registers != tuple(registers)
            or again.read(self._ram_words) != again.values
        ):
            return False
        if operation == OPERATION_EFLAGS:
            flags = eflags | arithmetic & EFLAGS_ARITHMETIC | direction & EFLAGS_DF
        else:
            flags = self._context.read_eflags()
        cs, ss = again.selectors
        arrival, size, paddr = again.arrival, again.size, again.paddr
        if arrival.stack is not None:
            frame: tuple[int, ...] = (error_code, eip, cs, flags | again.or_eflags, esp, ss)
            bottom = arrival.stack.esp - size
        else:
            bottom = esp - size
            offset = bottom & PAGE_SIZE - 1
            if bottom >> PAGE_SHIFT != again.page or offset > PAGE_SIZE - size:
                return False
            paddr += offset
            frame = (error_code, eip, cs, flags | again.or_eflags)
        if software or vector not in HAS_ERROR_CODE:
            frame = frame[1:]
        again.pack_into(self._buffer, paddr, *frame)
        segments = arrival.segments
        words[self._cs : self._cs + len(segments)] = segments
        words[self._hidden] = arrival.hidden
        words[self._esp] = bottom
        words[self._eip] = arrival.eip
        words[self._eflags] = eflags & arrival.kept_eflags
        self._context.dirty = True
        return True

    def remember(
        self,
        vector: int,
        software: bool,
        arrival: Arrival,
        stack: Stack,
        count: int,
        cells: list[int],
    ) -> None:
        """Note for :meth:`deliver` what is just being delivered: ``count`` words.

        ``cells`` are the indices in ``Ram.words`` that decided where it goes.

        Only frames on a flat stack that do not leave a page; no segment with a base and none of
        the LDT, of which the bytes compared would not tell all that matters.
        """
        state = self._state(self._context.words, self._state_place)
        hidden, (cs, ss) = state[6], _selectors(state[7])
        bottom, size = stack.esp - 4 * count, 4 * count
        flat = stack.limit == _MASK and stack.flags & DESCRIPTOR_BIG
        of_ldt = arrival.segments[0] & 4 or stack.selector & 4
        if not flat or stack.flags & DESCRIPTOR_DOWN or of_ldt:
            return
        if bottom < 0 or bottom & PAGE_SIZE - 1 > PAGE_SIZE - size:
            return
        self._memory.trace = trace = list(cells)
        paddr = self._memory.paddr(bottom, True, arrival.ring == 3)
        self._memory.trace = None
        read = reader(sorted(set(trace)))
        self._known[vector, software, hidden] = _Again(
            registers=state[7:],
            read=read,
            values=read(self._ram_words),
            arrival=arrival,
            selectors=(cs, ss),
            page=bottom >> PAGE_SHIFT,
            paddr=paddr if arrival.stack is not None else paddr & ~(PAGE_SIZE - 1),
            size=size,
            pack_into=FRAMES[count].pack_into,
            or_eflags=EFLAGS_RF if vector in FAULTS and not software else 0,
        )


def _state_format(layout: Layout) -> Callable[..., tuple[Any, ...]]:
    """Reads from the context's bytes, from ESP on, in one call: ESP, EIP, EFLAGS, the three words
    that hold the arithmetic flags and DF, the hidden flags; then the caches of CS and SS, those
    of TR, GDTR and IDTR with CR0; CR3 and CR4."""
    cs_and_ss = layout.segment("cs")
    fields = (
        *((place, "I", 1) for place in (layout.general + 8, layout.eip, layout.eflags)),
        *((place, "I", 1) for place in (layout.arithmetic, layout.operation, layout.direction)),
        (layout.hidden, "I", 1),
        (cs_and_ss, "s", 2 * SEGMENT_WORDS),
        (layout.tr, "s", layout.cr0 + 1 - layout.tr),
        (layout.cr3, "I", 1),
        (layout.cr4, "I", 1),
    )
    text, end = "<", layout.general + 8
    for place, kind, count in fields:
        text += f"{4 * (place - end)}x" + (f"{4 * count}s" if kind == "s" else "I")
        end = place + count
    return Struct(text).unpack_from


def _selectors(cs_and_ss: bytes) -> tuple[int, int]:
    """The selectors in the caches of CS and SS."""
    second = 4 * SEGMENT_WORDS
    return (
        int.from_bytes(cs_and_ss[:4], "little"),
        int.from_bytes(cs_and_ss[second : second + 4], "little"),
    )
