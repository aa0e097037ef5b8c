# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn as an i386 with paging on.

The machine's RAM is mapped into the CPU where it exists; an access anywhere else ends the run
and names the physical address. The parts are :mod:`harness.cpu.context` (the saved state),
:mod:`harness.cpu.execution` (runs and traps), :mod:`harness.cpu.query` (asking the MMU) and
:mod:`harness.traps` (delivery); here they become one CPU with its registers and flushes.

What can fail: :class:`~kernel_model.errors.BadInput` for an unknown model, or for control
registers that the model does not have.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
from unicorn import unicorn_const as const
from unicorn import x86_const
from unicorn.unicorn_py3.arch.intel import UcIntel

from harness.architecture import (
    CR0_PE,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    EFER_NXE,
    Access,
    ControlRegisters,
    Ring,
)
from harness.cpu import library
from harness.cpu.context import FLAGS, LIMIT, SEGMENT_NAMES, SavedContext, calibrate
from harness.cpu.cpuid import FeatureLeaf
from harness.cpu.execution import COUNTED_SLICE, Execution
from harness.cpu.interface import Registers, StopReason
from harness.cpu.monitor import Monitor
from harness.cpu.query import MmuQuery
from harness.cpu.registers import ContextRegisters
from harness.cpu.supervisor import SupervisorMemory
from harness.hypercalls import HYPERCALL_PORT
from harness.traps import Delivery
from kernel_model.config import CPU_MODELS
from kernel_model.errors import BadInput
from kernel_model.ram import Ram

MODELS: Final = {
    "486": x86_const.UC_CPU_X86_486,
    "pentium": x86_const.UC_CPU_X86_PENTIUM,
    "pentium2": x86_const.UC_CPU_X86_PENTIUM2,
    "pentium3": x86_const.UC_CPU_X86_PENTIUM3,
    "coreduo": x86_const.UC_CPU_X86_COREDUO,
}
PHYSICAL_BITS: Final = 40
"""Physical address bits of this CPU, whatever the model: bits 12-39 of a PAE entry."""

_TCG_BUFFER_BYTES: Final = 64 << 20
_MSR_EFER: Final = 0xC0000080
_REGISTER_BITS: Final = 32
_BOOT_CODE_FLAGS: Final = 0x00CF9B00
_BOOT_DATA_FLAGS: Final = 0x00CF9300
_BOOT_SEGMENTS: Final = {
    name: (0x10, _BOOT_CODE_FLAGS) if name == "cs" else (0x18, _BOOT_DATA_FLAGS)
    for name in SEGMENT_NAMES
}
"""Selector and descriptor flags as Linux's setup leaves them: flat, ring 0."""

_EFLAGS_IF: Final = 1 << 9
_CR3: Final = ctypes.c_int(x86_const.UC_X86_REG_CR3)
_CR4: Final = ctypes.c_int(x86_const.UC_X86_REG_CR4)
_TLB_FLUSH: Final = ctypes.c_int(library.CTL_TLB_FLUSH)
_TB_FLUSH: Final = ctypes.c_int(library.CTL_TB_FLUSH)


class UnicornCpu:
    """One emulated i386 over ``ram``; see :class:`harness.cpu.interface.Cpu`.

    It starts in flat protected mode with paging off.
    """

    def __init__(self, ram: Ram, model: str = "pentium3") -> None:
        if model not in MODELS:
            raise BadInput(f"unknown CPU model {model!r}: one of {', '.join(MODELS)}")
        self.ram = ram
        self.model = model
        self.hypercall_port = HYPERCALL_PORT
        self.virtual_8086 = True
        self.has_sysenter = CPU_MODELS[model].sep
        layout = calibrate()
        self._uc = _open(ram, model)
        self._handle = ctypes.cast(self._uc._uch, ctypes.c_void_p)
        self.context = SavedContext(self._uc, layout)
        self.supervisor = SupervisorMemory(ram, self.context, SavedContext(self._uc, layout))
        self._monitor = Monitor(self._uc, layout)
        self._registers = ContextRegisters(self.context)
        self._query = MmuQuery(self)
        self._value = ctypes.c_uint32()
        self._value_reference = ctypes.byref(self._value)
        self.delivery = Delivery(self)
        self.on_trap: Callable[[int, int, bool], None] = self.delivery.deliver
        self.on_hypercall: Callable[[], None] = _ignore_hypercall
        self.on_out: Callable[[int, int, int], None] = _ignore_out
        self.on_in: Callable[[int, int], int] = _read_all_ones
        self._execution = Execution(self, self._handle)
        self._feature_leaf = FeatureLeaf(self.context, self._monitor, CPU_MODELS[model])
        self._enter_boot_state()

    def _enter_boot_state(self) -> None:
        context = self.context
        words, layout = context.words, context.layout
        for name, (selector, flags) in _BOOT_SEGMENTS.items():
            place = layout.segment(name)
            words[place] = selector
            words[place + LIMIT] = 0xFFFFFFFF
            words[place + FLAGS] = flags
        words[layout.hidden] = context.hidden_after(_BOOT_CODE_FLAGS, 0, _BOOT_DATA_FLAGS)
        context.restore()

    def start(
        self,
        eip: int | None = None,
        *,
        max_instructions: int = 0,
        timeout_seconds: float = 0.0,
    ) -> StopReason:
        """Run from ``eip`` (default: where the CPU stands) until something ends the run.

        0 is no limit. An instruction that faults counts once more when it runs again.
        """
        return self._execution.start(eip, max_instructions, timeout_seconds)

    def count_by(self, instructions: int) -> None:
        """Let runs with a limit count in steps of so many instructions; 0: as they like."""
        self._execution.counted_slice = instructions or COUNTED_SLICE

    @property
    def counted(self) -> int:
        """Instructions of all full steps so far; what a run began and did not end is left out."""
        return self._execution.counted

    @property
    def serving(self) -> bool:
        """Whether the guest waits for a callback to return."""
        return self.context.running

    def start_nested(self, eip: int) -> StopReason:
        """Run guest code inside a hypercall or trap; see :meth:`Execution.start_nested`."""
        return self._execution.start_nested(eip)

    def stop(self, reason: StopReason | None = None) -> None:
        """End the run, between two instructions when called from a trap or hypercall."""
        self._execution.stop(reason)

    def interrupt(self, vector: int) -> bool:
        """Raise the interrupt of a device, between two runs. False: IF is clear, it must wait."""
        context = self.context
        context.latch()
        if not context.read_eflags() & _EFLAGS_IF:
            return False
        self.delivery.deliver(vector, 0, software=False)
        return True

    @property
    def registers(self) -> Registers:
        return self._registers

    @property
    def ring(self) -> int:
        self.context.latch()
        return self.context.cpl

    @property
    def control(self) -> ControlRegisters:
        self.context.latch()
        words, layout = self.context.words, self.context.layout
        efer = self.read_msr(_MSR_EFER)
        return ControlRegisters(words[layout.cr0], words[layout.cr3], words[layout.cr4], efer)

    def load_control(self, control: ControlRegisters) -> None:
        """Set CR0, CR3, CR4 and EFER as a debugger would, with nothing mapped and no GDT.

        Paging is switched off first, so that no table is walked under a half-set regime.
        """
        _check_control(control, self.model)
        self._settle()
        uc = self._uc
        uc.reg_write(x86_const.UC_X86_REG_CR0, CR0_PE)
        uc.msr_write(_MSR_EFER, control.efer)
        uc.reg_write(x86_const.UC_X86_REG_CR4, control.cr4)
        uc.reg_write(x86_const.UC_X86_REG_CR3, control.cr3)
        uc.reg_write(x86_const.UC_X86_REG_CR0, control.cr0 | CR0_PE)
        self.context.save()

    def _settle(self) -> None:
        """Put pending changes of registers into the CPU and keep mirroring it."""
        if self.context.dirty:
            self.context.restore()

    def read_msr(self, number: int) -> int:
        """A model-specific register."""
        return int(self._uc.msr_read(number))

    def load_cr3(self, paddr: int) -> None:
        """``mov %eax,%cr3``: drops the whole TLB, globals too on this CPU; 0.6 us."""
        self._value.value = paddr
        library.reg_write(self._handle, _CR3, self._value_reference)
        if self.context.latched:
            self.context.words[self.context.layout.cr3] = paddr

    def read_cr3(self) -> int:
        self.context.latch()
        return self.context.words[self.context.layout.cr3]

    def read_cr2(self) -> int:
        self.context.latch()
        return self.context.words[self.context.layout.cr2]

    def read_cr4(self) -> int:
        self.context.latch()
        return self.context.words[self.context.layout.cr4]

    def write_cr4(self, value: int) -> None:
        """``mov %eax,%cr4``; takes effect at once, also while the guest waits in a hypercall."""
        self._settle()
        self._value.value = value
        library.reg_write(self._handle, _CR4, self._value_reference)
        self.context.save()

    def flush_tlb_one(self, vaddr: int) -> None:
        """``invlpg``: drops one page for every ring; one inside a large page drops more; 2 us.

        Under an instruction limit it drops everything: running ``invlpg`` would restart
        Unicorn's count.
        """
        if self._execution.counting:
            self.flush_tlb_global()
            return
        self.context.latch()
        self._monitor.flush_page(vaddr)
        self.context.restore()

    def flush_tlb_all(self) -> None:
        """Reload CR3."""
        self.load_cr3(self.read_cr3())

    def flush_tlb_global(self) -> None:
        """Drop everything, as toggling CR4.PGE does; 0.6 us."""
        library.control(self._handle, _TLB_FLUSH)

    def snoop(self, paddr: int, length: int) -> None:
        """Bytes at ``paddr`` were changed from outside: drop the code translated from them.

        The guest's own stores need no such call. ``length`` is in bytes; 2 us.
        """
        self.context.latch()
        self._monitor.drop_code(paddr, length)
        self.context.restore()

    def invalidate_all_code(self) -> None:
        """The same for all of RAM; 20 us, and everything is translated anew."""
        library.control(self._handle, _TB_FLUSH)

    @contextmanager
    def preserved(self) -> Iterator[None]:
        """A block after which all registers, CR2 among them, are as they were.

        Code may have been changed meanwhile: all of it is translated anew.
        """
        self.context.latch()
        # The arithmetic flags are computed when asked for: the saved words may not hold them.
        saved, eflags = self.context.words.tobytes(), self.registers.eflags
        try:
            yield
        finally:
            self.context.latch()
            self.context.words[:] = memoryview(saved).cast("I")
            self.registers.eflags = eflags
            self.invalidate_all_code()

    def never_execute(self, start: int, end: int) -> None:
        """Promise that no code lies at physical ``[start, end)``: stores there get fast.

        Where code may lie, this emulator looks at every single store for code it has to forget,
        0.2 us each. A fetch from there ends the run.
        """
        self._uc.mem_protect(start, end - start, const.UC_PROT_READ | const.UC_PROT_WRITE)

    def translate(
        self, va: int, access: Access = Access.READ, ring: Ring = Ring.KERNEL
    ) -> int | None:
        """What the MMU says of one address; None is a fault. See :mod:`harness.cpu.query`."""
        return self._query.translate(va, access, ring)

    def translate_many(
        self,
        vas: npt.NDArray[np.unsignedinteger],
        access: Access = Access.READ,
        ring: Ring = Ring.KERNEL,
    ) -> npt.NDArray[np.int64]:
        """What the MMU says of many addresses; -1 is a fault."""
        return self._query.translate_many(vas, access, ring)

    def asking(self) -> AbstractContextManager[None]:
        """A block of questions that share one restoration of A and D bits."""
        return self._query.asking()


def _open(ram: Ram, model: str) -> UcIntel:
    uc = UcIntel(const.UC_ARCH_X86, const.UC_MODE_32)
    uc.ctl_set_cpu_model(MODELS[model])
    uc.ctl_set_tcg_buffer_size(_TCG_BUFFER_BYTES)
    # With an empty list of exits no address ends a run; a single one, be it 0, would.
    uc.ctl_exits_enabled(True)
    for start, end in ram.ranges:
        uc.mem_map_ptr(start, end - start, const.UC_PROT_ALL, ram.address + start)
    return uc


def _check_control(control: ControlRegisters, model: str) -> None:
    """Refuse what the model's CPU would answer with #GP, or ignore."""
    features = CPU_MODELS[model]
    for name, asked, present in (
        ("CR4.PSE", control.cr4 & CR4_PSE, features.pse),
        ("CR4.PAE", control.cr4 & CR4_PAE, features.pae),
        ("CR4.PGE", control.cr4 & CR4_PGE, features.pge),
        ("EFER.NXE", control.efer & EFER_NXE, features.nx),
    ):
        if asked and not present:
            raise BadInput(f"{name} is set, which a {model} lacks: choose another CPU model")
    if control.efer & ~EFER_NXE:
        raise BadInput(f"EFER {control.efer:#x}: without long mode only NXE (0x800) exists")
    for name, value in (("CR0", control.cr0), ("CR3", control.cr3), ("CR4", control.cr4)):
        if not 0 <= value < 1 << _REGISTER_BITS:
            raise BadInput(f"{name} {value:#x}: an i386 has 32 bits there")


def _ignore_hypercall() -> None:
    """No handler was set: the guest goes on."""


def _ignore_out(_port: int, _size: int, _value: int) -> None:
    """No device listens."""


def _read_all_ones(_port: int, size: int) -> int:
    """No device answers: the bus floats high."""
    return (1 << 8 * size) - 1
