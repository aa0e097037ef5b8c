# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel model and a CPU over one RAM, with a ring-0 guest between them.

The guest's own code turns paging on, with the provisional tables that the model wrote, and
asks by hypercall for ``start_kernel()``; from then on the CPU runs on the model's tables. A
kernel that was booted before gets its CPU as Linux's second processor joins: low memory is
mapped at 0 again for the jump, and zapped after it.

What can fail: :class:`GuestDied` with the report of what killed it, :class:`GuestStopped` when
a limit ended the run; a guest image that does not fit this kernel is
:class:`~kernel_model.errors.BadInput`.
"""

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness import cpu as cpus
from harness.architecture import PF_FETCH, PF_USER, PF_WRITE, Access, Ring
from harness.cpu import Cpu, Stop, StopReason
from harness.crash import CrashReport, crash_report
from harness.elf import ElfImage, load_elf
from harness.guests import guest_path
from harness.hypercalls import CONSOLE_PORT, Hypercall
from harness.kernel_calls import BadCall, KernelCalls
from harness.mmu_faults import error_code_text
from harness.mmu_spec import walk
from harness.monitors.frames import FrameLedger, LedgerError
from harness.monitors.kmap_slots import KmapSlots
from harness.traps import HAS_ERROR_CODE, MNEMONICS, PAGE_FAULT
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.config import Highmem, KernelConfig
from kernel_model.errors import BadInput, KernelFault, MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.ram import Ram
from kernel_model.structs import Abi
from kernel_model.structs.header import VARIANTS

GUEST_VARIANTS: Final = {Highmem.NONE: "nohm", Highmem.GB4: "hm", Highmem.GB64: "pae"}
"""Which build of the guests has this kernel's page tables."""
RELEASE_SUFFIXES: Final = {"2.4": "", "2.6": "_2_6"}
"""How the names of a release's builds end."""
CONSOLE_LIMIT: Final = 16 << 20
"""Bytes of console output kept; a guest that writes more is cut off."""
MAX_TEXT: Final = 1024
MAX_DEPTH: Final = 16
"""Guest functions that the kernel calls while it is called by one; Unicorn takes 64."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a run that does not end by itself; 0 means no limit."""

    instructions: int = 0
    seconds: float = 60.0


def paging_variant(config: KernelConfig) -> str:
    """The build of the guests that knows the page tables of this kernel."""
    return GUEST_VARIANTS[config.highmem] + RELEASE_SUFFIXES[config.release]


def guest_variant(config: KernelConfig) -> str:
    """The build of the guest that knows the structures of this kernel; none does: its tables."""
    abi = Abi.of(config)
    exact = (variant for variant, built in VARIANTS.items() if built == abi)
    return next(exact, paging_variant(config))


class GuestDied(MmucheckError):
    """The guest cannot go on; ``report`` has registers, code, walk and stack."""

    def __init__(self, report: CrashReport) -> None:
        super().__init__(str(report))
        self.report = report


class GuestStopped(MmucheckError):
    """A limit ended the run. ``report`` shows where the CPU stood, if somebody looked."""

    def __init__(self, reason: StopReason, report: CrashReport | None = None) -> None:
        super().__init__(f"the guest was stopped: {reason}")
        self.reason = reason
        self.report = report


CpuFactory = Callable[[Ram, str], Cpu]
"""Makes a CPU of a model over RAM; see :mod:`harness.backends`."""

TrapHandler = Callable[[Any, int, int, int], None]
"""``(regs, vector, error_code, cr2)``; ``regs`` is the ``struct pt_regs`` on the kernel stack."""

FaultWatcher = Callable[[FaultKind, int, int, int], None]
"""``(kind, regs, error_code, cr2)``; ``regs`` is the address of the ``struct pt_regs``."""


class Machine:
    """One emulated PC. ``kernel`` may be fresh or booted; the default is a fresh one."""

    def __init__(
        self,
        kernel: Kernel | None = None,
        *,
        image: Path | None = None,
        cpu: str | CpuFactory = "unicorn",
        limits: Limits | None = None,
    ) -> None:
        self.kernel = kernel or Kernel()
        self.ram = self.kernel.ram
        events = self.kernel.image.events
        self.ledger = FrameLedger.of(events) or FrameLedger().listen(events)
        self.kmap_slots = KmapSlots.watch(self.kernel.image)
        self.limits = limits or Limits()
        config = self.kernel.config
        path = image or guest_path("kernel", guest_variant(config))
        self.guest: ElfImage = load_elf(path)
        if self.guest.ring != 0:
            raise BadInput(f"{path}: linked for ring 3; a machine needs a ring-0 image")
        if isinstance(cpu, str):
            self.cpu = cpus.create(self.ram, config.cpu_model, cpu)
        else:
            self.cpu = cpu(self.ram, config.cpu_model)
        self.cpu.on_hypercall = self._hypercall
        self.cpu.on_out = self._out
        self.console = bytearray()
        self.failures: list[str] = []
        """What the guest itself found wrong, by ``ASSERT_FAILED``."""
        self.exit_status: int | None = None
        self.on_trap: TrapHandler = self.oops
        """Gets every trap but the page faults that the kernel serves for itself."""
        self.faults: Counter[FaultKind] = Counter()
        """The page faults, by what became of them."""
        self.on_fault: FaultWatcher | None = None
        """Told of each page fault after the kernel has dealt with it."""
        self.on_console: Callable[[int], None] = self.console.append
        self.kernel_calls = KernelCalls(self.kernel, self.call)
        self._returned: int | None = None
        self._depth = 0
        self._load_guest()
        self._boot()

    # -- booting ---------------------------------------------------------------------------

    def _load_guest(self) -> None:
        for segment in self.guest.segments:
            paddr = virt_to_phys(segment.vaddr)
            self.ram.fill(paddr, segment.memsz)
            self.ram.write(paddr, segment.data)
        table = [self.guest.symbols.get(f"__{end}___ex_table", 0) for end in ("start", "stop")]
        self.kernel.exception_table.place(*table)

    def _boot(self) -> None:
        """Enter the guest as a boot loader does; it comes back idle, or with its exit status."""
        if self.kernel.started:
            self.kernel.prepare_secondary()
        self._start(virt_to_phys(self.guest.entry))

    def _start_kernel(self) -> None:
        if self.kernel.started:
            self.kernel.attach(self.cpu)
        else:
            self.kernel.start_kernel(self.cpu)

    def _sysenter_setup(self) -> bool:
        """What programs find in the vsyscall page depends on the CPU. Whether it has SYSENTER.

        The guest tells its CPU where to enter: what a nested call wrote would be undone with it.
        """
        if self.kernel.vsyscall is None:
            return False
        sep = self.kernel.config.features.sep
        page = guest_path("sysenter" if sep else "int80", "vsyscall")
        self.kernel.vsyscall.load(page.read_bytes())
        return sep

    # -- running -----------------------------------------------------------------------------

    def symbol(self, name: str) -> int:
        """Kernel virtual address of a symbol of the guest image."""
        if name not in self.guest.symbols:
            raise BadInput(f"{self.guest.name}: has no symbol {name!r}")
        return self.guest.symbols[name]

    def call(self, function: str | int, *arguments: int) -> int:
        """Run a ring-0 function of the guest with cdecl ``arguments``; returns its EAX.

        While a hypercall or trap is served, the function runs on the stack that the guest
        stands on, and the registers are then as before: so the kernel calls a constructor.
        """
        if self.exit_status is not None:
            raise MmucheckError(f"the guest has ended with status {self.exit_status}")
        eip = self.symbol(function) if isinstance(function, str) else function
        if self._depth >= MAX_DEPTH:
            raise GuestDied(self.crash(f"calls of {eip:#x} and others nest {MAX_DEPTH} deep"))
        registers, before = self.cpu.registers, self.cpu.registers.esp
        image = self.kernel.image
        stack = before if self.cpu.serving else image.kernel_stack_top(image.current)
        words = [word & 0xFFFFFFFF for word in (self.symbol("kernel_return"), *arguments)]
        stack -= 4 * len(words)
        if not self.ram.contains(virt_to_phys(stack), 4 * len(words)):
            raise GuestDied(self.crash(f"no stack at {stack:#x} to call {eip:#x} on"))
        self.ram.write(virt_to_phys(stack), struct.pack(f"<{len(words)}I", *words))
        registers.esp = stack
        self._returned = None
        self._depth += 1
        try:
            self._start(eip)
        finally:
            self._depth -= 1
        value, self._returned = self._returned, None
        if self.cpu.serving:
            if value is None:
                raise GuestDied(self.crash(f"the function at {eip:#x} ended the guest"))
            registers.esp = before
        return value or 0

    def _start(self, eip: int) -> None:
        limits = self.limits
        if self.cpu.serving:
            reason = self.cpu.start_nested(eip)
        else:
            reason = self.cpu.start(
                eip, max_instructions=limits.instructions, timeout_seconds=limits.seconds
            )
        if reason.kind is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        if reason.kind is Stop.DIED:
            raise GuestDied(self.crash(str(reason)))
        if reason.kind is not Stop.HYPERCALL:
            raise GuestStopped(reason, crash_report(self.cpu, reason))

    def crash(self, cause: str) -> CrashReport:
        """The report of a guest that cannot go on, from where the CPU stands."""
        return crash_report(self.cpu, cause, lambda va: self._walk(va, 0))

    def trap_report(self, regs: Any, vector: int, error_code: int, cr2: int) -> CrashReport:
        """The report of a trap that nobody handles, from where it came."""
        cause = trap_text(vector, error_code, cr2)
        walker = (lambda va: self._walk(va, error_code)) if vector == PAGE_FAULT else None
        return crash_report(self.cpu, cause, walker, saved_registers(regs))

    def _walk(self, va: int, error_code: int) -> list[str]:
        """The walk for the access that a page fault's error code tells of."""
        access = Access.WRITE if error_code & PF_WRITE else Access.READ
        access = Access.FETCH if error_code & PF_FETCH else access
        ring = Ring.USER if error_code & PF_USER else Ring.KERNEL
        return walk(self.ram, self.cpu.control, va, access, ring).describe().splitlines()

    # -- what the guest asks -------------------------------------------------------------------

    def _hypercall(self) -> None:
        registers = self.cpu.registers
        number, ecx, edx, argument, _esp, _ebp, esi, _edi = registers.general()
        if number == Hypercall.TRAP:
            self._trap(argument, ecx, edx, esi)
        elif number == Hypercall.CALL:
            self._kernel_call(argument, ecx)
        elif number == Hypercall.START_KERNEL:
            self._start_kernel()
            registers.eax = int(self._sysenter_setup())
        elif number == Hypercall.RETURN:
            self._returned = argument
            self.cpu.stop()
        elif number == Hypercall.EXIT:
            self.exit_status = argument & 0xFF
            self.cpu.stop()
        elif number == Hypercall.IDLE:
            self.cpu.stop()
        elif number == Hypercall.ASSERT_FAILED:
            self.failures.append(self._text(argument))
        else:
            raise GuestDied(self.crash(f"unknown hypercall {number:#x}"))

    def _kernel_call(self, function: int, arguments: int) -> None:
        """The guest calls a function of the model; a ``BUG()`` in there is the guest's end."""
        try:
            self.cpu.registers.eax = self.kernel_calls.call(function, arguments)
        except (BadCall, KernelFault, LedgerError) as fault:
            raise GuestDied(self.crash(str(fault))) from fault

    def _trap(self, regs: int, vector: int, error_code: int, cr2: int) -> None:
        """What the kernel serves by itself is served here, whoever runs; all else is handed on."""
        handler = self.on_trap
        if vector == PAGE_FAULT and self.kernel.started:
            kind = self.kernel.page_faults.do_page_fault(regs, error_code, cr2)
            self.faults[kind] += 1
            if self.on_fault is not None:
                self.on_fault(kind, regs, error_code, cr2)
            if kind.served:
                return
            handler = self.oops if kind is FaultKind.OOPS else handler
        pt_regs = self.kernel.image.at(self.kernel.image.structs.pt_regs, regs)
        handler(pt_regs, vector, error_code, cr2)

    def _text(self, vaddr: int) -> str:
        """A C string in the direct map; a hostile pointer gives a text that says so."""
        paddr = virt_to_phys(vaddr)
        if not self.ram.contains(paddr):
            return f"(text at {vaddr:#x}, outside RAM)"
        raw = bytes(self.ram.bytes[paddr : paddr + MAX_TEXT])
        return raw.partition(b"\0")[0].decode("ascii", "replace")

    def _out(self, port: int, size: int, value: int) -> None:
        if port == CONSOLE_PORT and len(self.console) < CONSOLE_LIMIT:
            self.on_console(value & 0xFF)

    def oops(self, regs: Any, vector: int, error_code: int, cr2: int) -> None:
        """Code of ring 0 trapped, and nobody can serve it: the end of the guest."""
        raise GuestDied(self.trap_report(regs, vector, error_code, cr2))


def trap_text(vector: int, error_code: int, cr2: int) -> str:
    """A trap in the manual's words: ``#PF at 0x0, error code 4 (U)``."""
    name = MNEMONICS.get(vector, f"vector {vector}")
    if vector == PAGE_FAULT:
        return f"{name} at {cr2:#010x}, error code {error_code_text(error_code)}"
    return f"{name}, error code {error_code:#x}" if vector in HAS_ERROR_CODE else name


def saved_registers(regs: Any) -> dict[str, int]:
    """The registers in a ``struct pt_regs``, by the names the CPU has for them.

    A trap from ring 0 saves neither ESP nor SS: its stack goes on behind the structure.
    """
    names = ("ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "eip", "eflags")
    saved = {name: int(getattr(regs, name)) for name in names}
    saved |= {"cs": int(regs.xcs), "ds": int(regs.xds) & 0xFFFF, "es": int(regs.xes) & 0xFFFF}
    if saved["cs"] & 3:
        saved |= {"esp": int(regs.esp), "ss": int(regs.xss)}
    return saved
