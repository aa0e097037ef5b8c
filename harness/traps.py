# SPDX-License-Identifier: GPL-2.0-or-later
"""Delivery of faults, exceptions and ``int n``, as the microcode of an i386 does it.

The emulator hands every trap to the harness instead of the guest. :class:`Delivery` reads the
gate from the guest's IDT, checks it, changes the ring and takes the stack from the TSS where
the handler's segment is more privileged, pushes the frame and goes to the handler; the
guest's own ``iret`` returns. Each of these memory accesses is translated and may fault, and
each check may fail: the second exception is then delivered after the first, or becomes a
double fault, or, inside a double fault, shuts the CPU down. A shutdown ends the run with a
:class:`~harness.cpu.interface.StopReason`, never with a Python exception.

Source: Intel SDM volume 3A, chapter 6 (6.10 descriptors, 6.12 handling, 6.13 error codes, 6.15
the double fault's table), and volume 2A, the pseudo code of INT n.

Task gates, 16-bit gates and traps out of virtual-8086 mode are not modelled: they end the
run and say so. Limits of data segments are not enforced by this CPU; those of IDT, GDT, TSS,
handler and stack are, here.
"""

import functools
from array import array
from typing import Any, Final, Protocol

from harness.cpu.context import (
    BASE,
    DESCRIPTOR_BIG,
    FLAGS,
    HIDDEN_ADDSEG,
    HIDDEN_CPL,
    HIDDEN_INHIBIT_IRQ,
    LIMIT,
    SavedContext,
)
from harness.cpu.interface import Stop, StopReason
from harness.cpu.supervisor import (
    CellReader,
    OutsideRam,
    SupervisorFault,
    SupervisorMemory,
    reader,
)
from harness.redelivery import EFLAGS_RF, FAULTS, FRAMES, Arrival, Redelivery, Stack
from harness.redelivery import HAS_ERROR_CODE as HAS_ERROR_CODE
from harness.virtual_8086 import EFLAGS_VM, leave_virtual_8086
from kernel_model.ram import PAGE_SIZE, Ram

DIVIDE_ERROR: Final = 0
DEBUG: Final = 1
BREAKPOINT: Final = 3
OVERFLOW: Final = 4
INVALID_OPCODE: Final = 6
DOUBLE_FAULT: Final = 8
INVALID_TSS: Final = 10
NOT_PRESENT: Final = 11
STACK_FAULT: Final = 12
GENERAL_PROTECTION: Final = 13
PAGE_FAULT: Final = 14

_NAMES: Final = "#DE #DB NMI #BP #OF #BR #UD #NM #DF #CSO #TS #NP #SS #GP #PF #15 #MF #AC #MC #XM"
MNEMONICS: Final[dict[int, str]] = dict(enumerate(_NAMES.split()))
_CONTRIBUTORY: Final = frozenset({0, 10, 11, 12, 13})
_EFLAGS_TF: Final = 1 << 8
_EFLAGS_IF: Final = 1 << 9
_EFLAGS_NT: Final = 1 << 14
_CLEARED: Final = _EFLAGS_TF | _EFLAGS_NT | EFLAGS_RF | EFLAGS_VM

_INTERRUPT_GATE: Final = 0xE
_TRAP_GATE: Final = 0xF
_UNMODELLED_GATES: Final = {5: "task gate", 6: "16-bit interrupt gate", 7: "16-bit trap gate"}
_PRESENT: Final = 1 << 15
_ACCESSED: Final = 1 << 8
_WRITABLE_DATA: Final = 0x1200
_DATA_MASK: Final = 0x1A00
_CODE: Final = 0x1800
_CONFORMING_OR_DOWN: Final = 1 << 10
_GRANULAR: Final = 1 << 23
_IDT: Final = 2
"""The bit of an error code that says the index is one of the IDT."""
_TSS_IO_MAP: Final = 102

_MASK: Final = 0xFFFFFFFF


class _Trap(Exception):
    """A check of the delivery failed: the exception it raises, with its error code."""

    def __init__(self, vector: int, error_code: int) -> None:
        super().__init__(vector, error_code)
        self.vector = vector
        self.error_code = error_code


class _NotModelled(Exception):
    """The guest uses a part of the i386 that this harness leaves out."""


class Delivering(Protocol):
    """The CPU as far as delivery needs it."""

    ram: Ram
    context: SavedContext
    supervisor: SupervisorMemory
    virtual_8086: bool

    def stop(self, reason: StopReason | None = None) -> None: ...


_Known = tuple[Arrival, bytes, CellReader, Any]
"""An arrival, LDTR/TR/GDTR/IDTR as bytes, and the words of RAM it depends on."""


class Delivery:
    """Delivers traps on one CPU through the guest's own tables."""

    def __init__(self, cpu: Delivering) -> None:
        self._cpu = cpu
        self._context = cpu.context
        self._memory = cpu.supervisor
        self._buffer = cpu.ram.buffer
        self._ram_words = cpu.ram.words
        self._known: dict[tuple[int, bool, int], _Known] = {}
        self._cells: dict[tuple[int, bool, int], list[int]] = {}
        self._redelivery = Redelivery(cpu)
        layout = cpu.context.layout
        self._hidden = layout.hidden
        self._tables = slice(layout.ldt, layout.cr0)
        self._cs = layout.segment("cs")
        self._ss = layout.segment("ss")
        self._esp = layout.general + 8

    def deliver(self, vector: int, error_code: int, software: bool) -> None:
        """Take the CPU to the guest's handler for ``vector``.

        EIP stands on the instruction for a fault, behind it for a trap and ``int n``.
        """
        if self._redelivery.deliver(vector, error_code, software):
            return
        if self._memory.begin():
            self._known.clear()
        story: list[str] = []
        while True:
            try:
                self._enter(vector, error_code, software)
                return
            except (_Trap, SupervisorFault) as second:
                story.append(_describe(vector, error_code, software))
                following = self._following(vector, software, second)
            except OutsideRam as outside:
                self._die(story, f"{_describe(vector, error_code, software)}: {outside}", outside)
                return
            except _NotModelled as what:
                self._die(story, f"{_describe(vector, error_code, software)}: {what}")
                return
            if following is None:
                self._die(story, "triple fault")
                return
            (vector, error_code), software = following, False

    def _following(
        self, vector: int, software: bool, second: _Trap | SupervisorFault
    ) -> tuple[int, int] | None:
        """Vector and error code of what comes when delivery raised ``second``; None: shutdown."""
        if software:
            self._rewind(vector)
        if vector == DOUBLE_FAULT and not software:
            return None
        if isinstance(second, SupervisorFault):
            context = self._context
            context.words[context.layout.cr2] = second.va
            context.dirty = True
            number = PAGE_FAULT
        else:
            number = second.vector
        contributory = number in _CONTRIBUTORY
        if not software and (
            (vector in _CONTRIBUTORY and contributory)
            or (vector == PAGE_FAULT and (contributory or number == PAGE_FAULT))
        ):
            return DOUBLE_FAULT, 0
        return number, second.error_code

    def _rewind(self, vector: int) -> None:
        """``int n`` itself faults: EIP goes back to it. INT3 and INTO are one byte long."""
        context = self._context
        words, layout = context.words, context.layout
        eip = words[layout.eip]
        try:
            last = self._memory.read8(words[self._cs + BASE] + eip - 1 & _MASK)
        except (SupervisorFault, OutsideRam):
            last = -1
        short = (vector, last) in ((BREAKPOINT, 0xCC), (OVERFLOW, 0xCE))
        words[layout.eip] = eip - (1 if short else 2) & _MASK
        context.dirty = True

    def _die(self, story: list[str], end: str, outside: OutsideRam | None = None) -> None:
        detail = ", then ".join([*story, end])
        self._cpu.stop(StopReason(Stop.DIED, detail, outside.paddr if outside else None))

    def _enter(self, vector: int, error_code: int, software: bool) -> None:
        """One delivery; nothing of the CPU changes before every check has passed."""
        context = self._context
        words, layout = context.words, context.layout
        eflags = context.read_eflags()
        if eflags & EFLAGS_VM:
            if self._cpu.virtual_8086:
                raise _NotModelled("virtual-8086 mode is not modelled")
            eflags = leave_virtual_8086(context, eflags)
            vector, error_code, software = GENERAL_PROTECTION, 0, False
        arrival = self._recall(vector, software) or self._decide(vector, software)
        frame = [words[layout.eip], words[self._cs], eflags]
        if not software:
            if vector in FAULTS:
                frame[2] |= EFLAGS_RF
            if vector in HAS_ERROR_CODE:
                frame.insert(0, error_code)
        stack = arrival.stack
        if stack is not None:
            frame += (words[self._esp], words[self._ss])
        else:
            ss = self._ss
            selectors = words[ss], words[ss + BASE], words[ss + LIMIT], words[ss + FLAGS]
            stack = Stack(*selectors, words[self._esp], 0)
        bottom = self._push(stack, frame, arrival.ring, 0 if software else 1)
        cells = self._cells.get((vector, software, words[layout.hidden]))
        if cells is not None:
            self._redelivery.remember(vector, software, arrival, stack, len(frame), cells)

        words[self._cs : self._cs + len(arrival.segments)] = arrival.segments
        words[layout.hidden] = arrival.hidden
        words[self._esp] = bottom
        words[layout.eip] = arrival.eip
        words[layout.eflags] &= arrival.kept_eflags
        context.dirty = True

    def _recall(self, vector: int, software: bool) -> Arrival | None:
        """What :meth:`_decide` said last time, if nothing that it looked at has changed."""
        words = self._context.words
        known = self._known.get((vector, software, words[self._hidden]))
        if known is None:
            return None
        arrival, tables, read, values = known
        if words[self._tables].tobytes() != tables or read(self._ram_words) != values:
            return None
        return arrival

    def _decide(self, vector: int, software: bool) -> Arrival:
        """Where this trap goes, by the guest's IDT, GDT and TSS; raises what the checks raise."""
        memory = self._memory
        words = self._context.words
        key = (vector, software, words[self._hidden])
        tables = words[self._tables].tobytes()
        trace: list[int] = []
        memory.trace = trace
        try:
            arrival = self._look_up(vector, software)
        finally:
            memory.trace = None
        # With a based segment the hidden flags do not tell all that matters.
        if not key[2] & HIDDEN_ADDSEG:
            cells = sorted(set(trace))
            read = reader(cells)
            self._known[key] = arrival, tables, read, read(self._ram_words)
            self._cells[key] = cells
        return arrival

    def _look_up(self, vector: int, software: bool) -> Arrival:
        context = self._context
        words = context.words
        external = 0 if software else 1
        cpl = words[self._hidden] & HIDDEN_CPL
        low, high = self._gate(vector, software, cpl, external)
        selector = low >> 16
        eip = high & 0xFFFF0000 | low & 0xFFFF
        code_low, code_high = self._code_segment(selector, cpl, external)
        ring = code_high >> 13 & 3
        if ring < cpl and not code_high & _CONFORMING_OR_DOWN:
            stack: Stack | None = self._inner_stack(ring, external)
        else:
            ring, stack = cpl, None
        base, limit = _base_and_limit(code_low, code_high)
        if eip > limit:
            raise _Trap(GENERAL_PROTECTION, external)
        segments = [selector & ~3 | ring, 0, base, 0, limit, code_high]
        ss = self._ss
        stack_base, stack_flags = words[ss + BASE], words[ss + FLAGS]
        if stack is not None:
            stack_base, stack_flags = stack.base, stack.flags
            segments += [stack.selector, 0, stack_base, 0, stack.limit, stack_flags]
        closed = _EFLAGS_IF if high >> 8 & 0xF == _INTERRUPT_GATE else 0
        return Arrival(
            eip=eip,
            ring=ring,
            stack=stack,
            segments=memoryview(array("I", segments)),
            hidden=context.hidden_after(code_high, stack_base, stack_flags) & ~HIDDEN_INHIBIT_IRQ,
            kept_eflags=_MASK & ~(_CLEARED | closed),
        )

    def _gate(self, vector: int, software: bool, cpl: int, external: int) -> tuple[int, int]:
        """The two words of the gate, checked for limit, kind, DPL and presence."""
        context = self._context
        idt = context.layout.idt
        name = vector << 3
        if name + 7 > context.words[idt + LIMIT]:
            raise _Trap(GENERAL_PROTECTION, name | _IDT | external)
        address = context.words[idt + BASE] + name & _MASK
        low = self._memory.read32(address)
        high = self._memory.read32(address + 4 & _MASK)
        kind = high >> 8 & 0x1F
        if kind not in (_INTERRUPT_GATE, _TRAP_GATE):
            if kind in _UNMODELLED_GATES:
                raise _NotModelled(f"a {_UNMODELLED_GATES[kind]} is not modelled")
            raise _Trap(GENERAL_PROTECTION, name | _IDT | external)
        if software and high >> 13 & 3 < cpl:
            raise _Trap(GENERAL_PROTECTION, name | _IDT)
        if not high & _PRESENT:
            raise _Trap(NOT_PRESENT, name | _IDT | external)
        return low, high

    def _code_segment(self, selector: int, cpl: int, external: int) -> tuple[int, int]:
        """The handler's descriptor, checked as the new CS."""
        if not selector & ~3:
            raise _Trap(GENERAL_PROTECTION, external)
        address, low, high = self._descriptor(selector, GENERAL_PROTECTION, external)
        error_code = selector & ~3 | external
        if high & _CODE != _CODE or high >> 13 & 3 > cpl:
            raise _Trap(GENERAL_PROTECTION, error_code)
        if not high & _PRESENT:
            raise _Trap(NOT_PRESENT, error_code)
        return low, self._mark_accessed(address, high)

    def _descriptor(self, selector: int, vector: int, external: int) -> tuple[int, int, int]:
        """Address and words of a descriptor in GDT or LDT; ``vector`` if it lies outside."""
        context = self._context
        words = context.words
        table = context.layout.ldt if selector & 4 else context.layout.gdt
        if selector | 7 > words[table + LIMIT]:
            raise _Trap(vector, selector & ~3 | external)
        address = words[table + BASE] + (selector & ~7) & _MASK
        return address, self._memory.read32(address), self._memory.read32(address + 4 & _MASK)

    def _mark_accessed(self, address: int, high: int) -> int:
        if not high & _ACCESSED:
            high |= _ACCESSED
            self._memory.write32(address + 4 & _MASK, high)
        return high

    def _inner_stack(self, ring: int, external: int) -> Stack:
        """SS:ESP of ``ring`` from the TSS, with the descriptor checked."""
        words, tr = self._context.words, self._context.layout.tr
        offset = 4 + 8 * ring
        if words[tr + FLAGS] >> 8 & 0xD == 1:
            raise _NotModelled("a 16-bit TSS is not modelled")
        if offset + 5 > words[tr + LIMIT]:
            raise _Trap(INVALID_TSS, words[tr] & ~3 | external)
        address = words[tr + BASE] + offset & _MASK
        esp = self._memory.read32(address)
        selector = self._memory.read32(address + 4 & _MASK) & 0xFFFF
        if not selector & ~3:
            raise _Trap(INVALID_TSS, external)
        place, low, high = self._descriptor(selector, INVALID_TSS, external)
        error_code = selector & ~3 | external
        if selector & 3 != ring or high >> 13 & 3 != ring or high & _DATA_MASK != _WRITABLE_DATA:
            raise _Trap(INVALID_TSS, error_code)
        if not high & _PRESENT:
            raise _Trap(STACK_FAULT, error_code)
        high = self._mark_accessed(place, high)
        base, limit = _base_and_limit(low, high)
        return Stack(selector, base, limit, high, esp, selector & ~3)

    def _push(self, stack: Stack, frame: list[int], ring: int, external: int) -> int:
        """Write ``frame``, lowest word first; the new ESP. All pages are translated first."""
        size = 4 * len(frame)
        wide = stack.flags & DESCRIPTOR_BIG
        mask = _MASK if wide else 0xFFFF
        bottom = stack.esp - size & mask
        flat = stack.limit == _MASK and wide and not stack.flags & _CONFORMING_OR_DOWN
        if not flat and not _has_room(stack, bottom, size, mask):
            raise _Trap(STACK_FAULT, stack.error_code | external)
        address = stack.base + bottom & _MASK
        paddr = self._memory.paddr(address, True, ring == 3)
        if address & PAGE_SIZE - 1 <= PAGE_SIZE - size and bottom + size <= mask + 1:
            FRAMES[len(frame)].pack_into(self._buffer, paddr, *frame)
        else:
            self._push_across(stack.base, bottom, frame, mask, ring)
        return bottom if wide else stack.esp & ~0xFFFF | bottom

    def _push_across(self, base: int, bottom: int, frame: list[int], mask: int, ring: int) -> None:
        """A frame over the end of a page, or wrapping round the end of the segment."""
        data = FRAMES[len(frame)].pack(*frame)
        places = [
            self._memory.paddr(base + (bottom + n & mask) & _MASK, True, ring == 3)
            for n in range(len(data))
        ]
        for place, byte in zip(places, data, strict=True):
            self._buffer[place] = byte

    def port_allowed(self, port: int, size: int) -> bool:
        """Whether the TSS's I/O permission bitmap opens ``size`` ports to the running ring."""
        words, tr = self._context.words, self._context.layout.tr
        base, limit = words[tr + BASE], words[tr + LIMIT]
        if limit < _TSS_IO_MAP + 1:
            return False
        self._memory.begin()
        offset = self._memory.read32(base + _TSS_IO_MAP & _MASK) & 0xFFFF
        for number in range(port, port + size):
            place = offset + (number >> 3)
            if place > limit or self._memory.read8(base + place & _MASK) >> (number & 7) & 1:
                return False
        return True


@functools.lru_cache(maxsize=64)
def _base_and_limit(low: int, high: int) -> tuple[int, int]:
    base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
    limit = low & 0xFFFF | high & 0xF0000
    return base, limit << 12 | 0xFFF if high & _GRANULAR else limit


def _has_room(stack: Stack, bottom: int, size: int, mask: int) -> bool:
    """Whether the frame lies within the limit; an expand-down segment lies above its limit."""
    if stack.flags & _CONFORMING_OR_DOWN:
        return bottom > stack.limit
    return bottom + size - 1 <= stack.limit


def _describe(vector: int, error_code: int, software: bool) -> str:
    if software:
        return f"int {vector:#x}"
    name = MNEMONICS.get(vector, f"vector {vector:#x}")
    return f"{name}({error_code:#x})" if vector in HAS_ERROR_CODE else name
