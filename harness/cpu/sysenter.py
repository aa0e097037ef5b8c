# SPDX-License-Identifier: GPL-2.0-or-later
"""``SYSENTER``, as an i386 has it.

Unicorn leaves the instruction to a hook and only steps over it; without a hook, even EIP comes out
wrong. Here it is what the manual says (Intel SDM volume 2B, SYSENTER): #UD on a model without it,
#GP(0) while IA32_SYSENTER_CS names no segment, else ring 0 with flat segments, at the addresses of
the other two registers. ``SYSEXIT`` and ``WRMSR`` are the emulator's own.

Linux 2.4 never writes IA32_SYSENTER_CS, so a program that tries it there gets SIGSEGV. A kernel
that does write it needs nothing else from here. Virtual-8086 mode is not looked at.

What can fail: nothing but what the delivery of the exception may end in (:mod:`harness.traps`).
"""

from collections.abc import Callable
from typing import Final, Protocol

from harness.cpu.context import BASE, FLAGS, HIDDEN_INHIBIT_IRQ, LIMIT, SavedContext
from harness.cpu.supervisor import SupervisorMemory
from harness.redelivery import EFLAGS_RF
from harness.traps import GENERAL_PROTECTION, INVALID_OPCODE

MSR_SYSENTER_CS: Final = 0x174
MSR_SYSENTER_ESP: Final = 0x175
MSR_SYSENTER_EIP: Final = 0x176

_CODE_FLAGS: Final = 0x00CF9B00
_STACK_FLAGS: Final = 0x00CF9300
_EFLAGS_IF: Final = 1 << 9
_NULL: Final = 3
_OPCODE: Final = 0x0F
_OPCODE_BYTES: Final = 2
_MASK: Final = 0xFFFFFFFF


class Entering(Protocol):
    """The CPU as far as the instruction goes."""

    context: SavedContext
    supervisor: SupervisorMemory
    on_trap: Callable[[int, int, bool], None]
    has_sysenter: bool

    def read_msr(self, number: int) -> int: ...


def system_enter(cpu: Entering) -> None:
    """Run the instruction at EIP; the context was just saved.

    The emulator adds the instruction's length to whatever EIP is then.
    """
    context = cpu.context
    words, eip = context.words, context.layout.eip
    length = _length(cpu)
    selector = cpu.read_msr(MSR_SYSENTER_CS) & 0xFFFF
    if not cpu.has_sysenter:
        cpu.on_trap(INVALID_OPCODE, 0, False)
    elif not selector & ~_NULL:
        cpu.on_trap(GENERAL_PROTECTION, 0, False)
    else:
        _enter_ring_0(cpu, selector & ~_NULL)
    words[eip] = words[eip] - length & _MASK
    context.dirty = True


def _length(cpu: Entering) -> int:
    """Prefixes change nothing but how long it is."""
    words, layout = cpu.context.words, cpu.context.layout
    address = words[layout.segment("cs") + BASE] + words[layout.eip]
    cpu.supervisor.begin()
    length = _OPCODE_BYTES
    while cpu.supervisor.read8(address + length - _OPCODE_BYTES & _MASK) != _OPCODE:
        length += 1
    return length


def _enter_ring_0(cpu: Entering, selector: int) -> None:
    context = cpu.context
    words, layout = context.words, context.layout
    hidden = context.hidden_after(_CODE_FLAGS, 0, _STACK_FLAGS) & ~HIDDEN_INHIBIT_IRQ
    for name, value, flags in (
        ("cs", selector, _CODE_FLAGS),
        ("ss", selector + 8, _STACK_FLAGS),
    ):
        place = layout.segment(name)
        words[place], words[place + BASE] = value, 0
        words[place + LIMIT], words[place + FLAGS] = _MASK, flags
    words[layout.hidden] = hidden
    words[layout.eflags] &= ~(_EFLAGS_IF | EFLAGS_RF)
    words[layout.general + 8] = cpu.read_msr(MSR_SYSENTER_ESP) & _MASK
    words[layout.eip] = cpu.read_msr(MSR_SYSENTER_EIP) & _MASK
