# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the guest on Unicorn: the run itself, its limits, and what interrupts it.

Traps arrive between two instructions with the CPU's state saved and in view; what the handler
changes is put back when it returns. Hypercalls arrive the same way: an I/O breakpoint, a thing
this CPU has, ends the ``out`` with a debug trap. A hook of the ``out`` itself would run in the
middle of translated code, where neither EIP nor the ring can be changed and a stop comes late.

This emulator lets every ring use every port, so the check of IOPL and of the TSS's bitmap
stands here.

Limits: a run is ended at its deadline, and by a signal, from outside (:mod:`harness.cpu.watch`).
An instruction limit makes Unicorn call out at every instruction (90 MIPS instead of 1,500); no
limit, no cost.

What can fail: whatever a callback raises is kept, the CPU stopped, and raised again out of
:meth:`Execution.start`; it could not pass through the emulator's C frames.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from unicorn import unicorn_const as const
from unicorn import x86_const

from harness.architecture import Ring
from harness.cpu import library
from harness.cpu.context import BASE, HIDDEN_IO_BREAKPOINT, SavedContext
from harness.cpu.interface import CpuError, Stop, StopReason
from harness.cpu.supervisor import OutsideRam, SupervisorFault, SupervisorMemory
from harness.cpu.sysenter import system_enter
from harness.cpu.watch import watch
from harness.traps import DEBUG, GENERAL_PROTECTION, INVALID_OPCODE, Delivery
from harness.virtual_8086 import EFLAGS_VM
from kernel_model.ram import Ram

COUNTED_SLICE: Final = 20_000_000
"""Instructions between two looks at the clock when they are counted; 0.2 s."""
_COUNT_WITHOUT_END: Final = 1 << 62
_NOTHING_IN_FLIGHT: Final = 0xFFFFFFFF
_MASK: Final = 0xFFFFFFFF

# DR7 with breakpoints 0 and 1 enabled on I/O, one byte each. DR0 holds the hypercall port,
# DR1 the port of an access whose permission is still to be looked at.
_DR7_IO: Final = 0x400 | 0b1010 | 0b0010_0010 << 16
_DR6_HYPERCALL: Final = 1
_DR6_ACCESS: Final = 2
_DR6_SINGLE_STEP: Final = 1 << 14
_NO_PORT: Final = 0xFFFFFFFF
_EFLAGS_TF: Final = 1 << 8
_HLT: Final = 0xF4

_EVERYWHERE: Final = (1, 0)
_PHYSICAL_END: Final = 1 << 52
_UNMAPPED: Final = {
    const.UC_MEM_READ_UNMAPPED: "read",
    const.UC_MEM_WRITE_UNMAPPED: "write",
    const.UC_MEM_FETCH_UNMAPPED: "fetch",
}
_UNMAPPED_HOOKS: Final = (
    const.UC_HOOK_MEM_READ_UNMAPPED
    | const.UC_HOOK_MEM_WRITE_UNMAPPED
    | const.UC_HOOK_MEM_FETCH_UNMAPPED
)


class Runnable(Protocol):
    """The CPU as far as a run needs it."""

    ram: Ram
    context: SavedContext
    supervisor: SupervisorMemory
    delivery: Delivery
    hypercall_port: int
    on_trap: Callable[[int, int, bool], None]
    on_hypercall: Callable[[], None]
    on_out: Callable[[int, int, int], None]
    on_in: Callable[[int, int], int]
    has_sysenter: bool

    def read_msr(self, number: int) -> int: ...


@dataclass(frozen=True, slots=True)
class _PortAccess:
    """An I/O instruction of a ring above IOPL; ``registers`` is the state it began with."""

    port: int
    size: int
    value: int | None
    registers: "memoryview[int]"


class Execution:
    """The runs of one CPU; ``handle`` is its ``uc_engine *``."""

    def __init__(self, cpu: Runnable, handle: ctypes.c_void_p) -> None:
        self._cpu = cpu
        self._context = cpu.context
        self._words = cpu.context.words
        layout = cpu.context.layout
        self._old_exception = layout.old_exception
        self._error_code, self._software = layout.error_code, layout.software
        self._hidden, self._dr6 = layout.hidden, layout.dr6
        self._handle = handle
        self._reason: StopReason | None = None
        self._error: BaseException | None = None
        self._access: _PortAccess | None = None
        self._last_words: memoryview[int] | None = None
        self._interrupted = False
        self._eip = ctypes.c_uint32()
        self._eip_reference = ctypes.byref(self._eip)
        self.running = False
        self.deadline = 0.0
        self.counting = False
        """Whether Unicorn counts instructions: from the first limit on, for good."""
        self.counted_slice = COUNTED_SLICE
        self.counted = 0
        """Instructions of the counted slices that came to their end."""
        self._max_instructions = 0
        self._timeout_seconds = 0.0
        self._callbacks = self._add_hooks()
        watch.add(self)

    def _add_hooks(self) -> list[object]:
        """Hooks for traps, ports and holes. The callbacks must outlive the CPU."""
        interrupt = library.InterruptHook(self._interrupt_hook)
        invalid = library.InvalidInstructionHook(self._invalid_instruction_hook)
        out = library.OutHook(self._out_hook)
        in_ = library.InHook(self._in_hook)
        enter = library.SystemEnterHook(self._system_enter_hook)
        unmapped = library.UnmappedHook(self._unmapped_hook)
        # First of its kind: once a nested run was stopped, Unicorn looks no further than that.
        library.add_instruction_hook(self._handle, x86_const.UC_X86_INS_SYSENTER, enter)
        library.add_hook(self._handle, const.UC_HOOK_INTR, interrupt, _EVERYWHERE)
        library.add_hook(self._handle, const.UC_HOOK_INSN_INVALID, invalid, _EVERYWHERE)
        library.add_instruction_hook(self._handle, x86_const.UC_X86_INS_OUT, out)
        library.add_instruction_hook(self._handle, x86_const.UC_X86_INS_IN, in_)
        # A memory hook that covered RAM would send every store of the guest the slow way.
        for hole in _holes(self._cpu.ram):
            library.add_hook(self._handle, _UNMAPPED_HOOKS, unmapped, hole)
        return [interrupt, invalid, out, in_, enter, unmapped]

    def start(self, eip: int | None, max_instructions: int, timeout_seconds: float) -> StopReason:
        context = self._context
        if context.running:
            raise CpuError("start() was called from inside a run")
        context.latch()
        if eip is not None:
            context.words[context.layout.eip] = eip & _MASK
            context.dirty = True
        self._watch_ports()
        context.release()
        if max_instructions:
            # Code translated by a run without a limit would go on running uncounted.
            library.control(self._handle, ctypes.c_int(library.CTL_TB_FLUSH))
        self._reason = self._error = self._access = None
        self.counting = self.counting or bool(max_instructions)
        self._max_instructions, self._timeout_seconds = max_instructions, timeout_seconds
        self.deadline = time.monotonic() + timeout_seconds if timeout_seconds else 0.0
        watch.ensure_running()
        context.running = True
        try:
            return self._run()
        finally:
            context.running = False

    def start_nested(self, eip: int) -> StopReason:
        """Run from ``eip`` while the guest waits for its hypercall or trap to be served.

        Ended by a hypercall, it leaves every register as it was before. Any other end is the
        end of the outer run too, and leaves the CPU where it happened. The outer run's
        deadline holds; its limit on instructions is counted anew, as Unicorn has one counter.
        """
        context = self._context
        if not context.running or not context.latched:
            raise CpuError("start_nested() belongs inside a hypercall or a trap")
        before = context.words.tobytes()
        context.words[context.layout.eip] = eip & _MASK
        context.dirty = True
        context.release()
        reason = self._run()
        self.running = True
        if reason.kind is Stop.HYPERCALL:
            self._reason = None
            context.words[:] = memoryview(before).cast("I")
            context.latched = context.dirty = True
        return reason

    def _run(self) -> StopReason:
        left = max_instructions = self._max_instructions
        while True:
            count = min(left, self.counted_slice)
            error = self._slice(count)
            if self._error is not None:
                raise self._error
            if watch.interrupted:
                self._interrupted = True
            if self._reason is not None and not self._interrupted:
                return self._reason
            if error and not self._interrupted:
                return StopReason(Stop.DIED, f"the emulator gave up with its error {error}")
            if self.deadline and time.monotonic() >= self.deadline:
                return StopReason(Stop.TIMEOUT, f"{self._timeout_seconds:g} s")
            if self._interrupted or watch.interrupted:
                watch.interrupted = False
                return StopReason(Stop.INTERRUPTED)
            if self._behind_halt():
                return StopReason(Stop.HALTED)
            left -= count
            self.counted += count
            if max_instructions and left <= 0:
                return StopReason(Stop.LIMIT_INSTRUCTIONS, f"{max_instructions}")

    def _slice(self, count: int) -> int:
        """Run until the CPU stops by itself, is stopped, or has run ``count`` instructions."""
        library.reg_read(self._handle, _EIP, self._eip_reference)
        self._interrupted = False
        self.running = True
        if self.counting and not count:
            # Told to count no more, Unicorn may stand still at an instruction for ever.
            count = _COUNT_WITHOUT_END
        error = library.start(self._handle, self._eip.value, 0, 0, count)
        self.running = False
        self._context.latched = False
        if self._last_words is not None:
            self._context.words[:] = self._last_words
            self._context.restore()
            self._last_words = None
        return error

    def _behind_halt(self) -> bool:
        """Whether the last instruction was HLT.

        Unicorn does not tell this from the end of a counted slice, so the byte is looked at.
        """
        context = self._context
        context.latch()
        words, layout = context.words, context.layout
        if context.cpl != Ring.KERNEL:
            return False
        address = words[layout.segment("cs") + BASE] + words[layout.eip] - 1 & _MASK
        self._cpu.supervisor.begin()
        try:
            return self._cpu.supervisor.read8(address) == _HLT
        except (SupervisorFault, OutsideRam):
            return False

    def stop(self, reason: StopReason | None) -> None:
        self._reason = reason or StopReason(Stop.HYPERCALL)
        library.stop(self._handle)

    def interrupt(self) -> None:
        """Called by the watch, from its thread: the run ends, and must not go on."""
        self._interrupted = True
        library.stop(self._handle)

    def _finish_hook(self) -> None:
        self._context.release()
        # Said again, because a nested run in the handler (a page flush) forgets a stop.
        if self._reason is not None:
            library.stop(self._handle)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._context.release()
        library.stop(self._handle)

    def _watch_ports(self) -> None:
        """Arm the I/O breakpoints; a kernel that writes DR7 disarms them until its next trap."""
        context = self._context
        words, layout = context.words, context.layout
        words[layout.dr0] = self._cpu.hypercall_port
        words[layout.dr0 + 2] = _NO_PORT
        words[layout.dr7] = _DR7_IO
        words[layout.hidden] |= HIDDEN_IO_BREAKPOINT
        context.dirty = True

    def _interrupt_hook(self, _uc: object, vector: int, _data: object) -> None:
        try:
            context, words = self._context, self._words
            context.save()
            if words[self._old_exception] != _NOTHING_IN_FLIGHT:
                words[self._old_exception] = _NOTHING_IN_FLIGHT
                context.dirty = True
            if not words[self._hidden] & HIDDEN_IO_BREAKPOINT:
                self._watch_ports()
            software = words[self._software] != 0
            hit = words[self._dr6] if vector == DEBUG and not software else 0
            if hit & (_DR6_HYPERCALL | _DR6_ACCESS):
                self._port_trap(hit)
            else:
                self._cpu.on_trap(vector, words[self._error_code], software)
            if context.dirty:
                context.restore()
            context.latched = False
            if self._reason is not None:
                library.stop(self._handle)
        except BaseException as error:
            self._fail(error)

    def _invalid_instruction_hook(self, _uc: object, _data: object) -> bool:
        try:
            self._context.save()
            self._cpu.on_trap(INVALID_OPCODE, 0, False)
            self._finish_hook()
        except BaseException as error:
            self._fail(error)
        return True

    def _system_enter_hook(self, _uc: object, _data: object) -> None:
        try:
            self._context.save()
            system_enter(self._cpu)
            self._finish_hook()
        except BaseException as error:
            self._fail(error)

    def _port_trap(self, hit: int) -> None:
        """An I/O instruction has just ended."""
        context = self._context
        words, layout = context.words, context.layout
        if hit & _DR6_ACCESS:
            done = self._finish_access()
        else:
            done = context.cpl <= self._iopl or self._cpu.delivery.port_allowed(
                self._cpu.hypercall_port, 4
            )
            if done:
                self._cpu.on_hypercall()
            else:
                words[layout.eip] = words[layout.eip] - self._out_length() & _MASK
        if not done:
            self._cpu.on_trap(GENERAL_PROTECTION, 0, False)
        elif words[layout.eflags] & _EFLAGS_TF:
            words[layout.dr6] |= _DR6_SINGLE_STEP
            self._cpu.on_trap(DEBUG, 0, False)

    @property
    def _iopl(self) -> int:
        eflags: int = self._context.words[self._context.layout.eflags]
        # In virtual-8086 mode the bitmap decides, whatever IOPL is.
        return 0 if eflags & EFLAGS_VM else eflags >> 12 & 3

    def _out_length(self) -> int:
        """Bytes of the ``out`` behind which EIP stands: with the port in it, or in DX."""
        words, layout = self._context.words, self._context.layout
        address = words[layout.segment("cs") + BASE] + words[layout.eip] - 1 & _MASK
        self._cpu.supervisor.begin()
        last = self._cpu.supervisor.read8(address)
        return 2 if last == self._cpu.hypercall_port else 1

    def _finish_access(self) -> bool:
        """Decide on an access by a ring above IOPL; false: undone, and #GP is due."""
        access, self._access = self._access, None
        context = self._context
        words, layout = context.words, context.layout
        words[layout.dr0 + 2] = _NO_PORT
        context.dirty = True
        if access is None:
            return True
        if not self._cpu.delivery.port_allowed(access.port, access.size):
            words[layout.general : layout.eip + 2] = access.registers
            return False
        if access.value is not None:
            self._cpu.on_out(access.port, access.size, access.value)
        else:
            bits = (1 << 8 * access.size) - 1
            value = self._cpu.on_in(access.port, access.size) & bits
            words[layout.general] = words[layout.general] & ~bits | value
        return True

    def _defer(self, port: int, size: int, value: int | None) -> bool:
        """Whether the ring is above IOPL: then the instruction is looked at when it has ended."""
        context = self._context
        context.save()
        if context.cpl <= self._iopl:
            return False
        words, layout = context.words, context.layout
        registers = memoryview(words[layout.general : layout.eip + 2].tobytes()).cast("I")
        self._access = _PortAccess(port, size, value, registers)
        words[layout.dr0 + 2] = port
        context.dirty = True
        return True

    def _out_hook(self, _uc: object, port: int, size: int, value: int, _data: object) -> None:
        if port == self._cpu.hypercall_port:
            return
        try:
            if not self._defer(port, size, value):
                self._cpu.on_out(port, size, value)
            self._finish_hook()
        except BaseException as error:
            self._fail(error)

    def _in_hook(self, _uc: object, port: int, size: int, _data: object) -> int:
        value = _MASK
        try:
            if not self._defer(port, size, None):
                value = self._cpu.on_in(port, size) & _MASK
            self._finish_hook()
        except BaseException as error:
            self._fail(error)
        return value

    def _unmapped_hook(
        self, _uc: object, kind: int, paddr: int, size: int, _value: int, _data: object
    ) -> bool:
        """No RAM there. The state is kept: after a store the CPU would run on to a jump."""
        try:
            if self._reason is None:
                context = self._context
                context.save()
                self._last_words = memoryview(context.words.tobytes()).cast("I")
                detail = f"{_UNMAPPED[kind]} of {size} bytes at physical {paddr:#x}, outside RAM"
                self._reason = StopReason(Stop.DIED, detail, paddr)
                context.release()
        except BaseException as error:
            self._fail(error)
        return False


_EIP: Final = ctypes.c_int(x86_const.UC_X86_REG_EIP)


def _holes(ram: Ram) -> list[tuple[int, int]]:
    """First and last physical address of each stretch without RAM."""
    starts = [0, *(end for _, end in ram.ranges)]
    ends = [*(start for start, _ in ram.ranges), _PHYSICAL_END]
    return [(start, end - 1) for start, end in zip(starts, ends, strict=True) if start < end]
