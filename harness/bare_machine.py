# SPDX-License-Identifier: GPL-2.0-or-later
"""A PC with nothing on it but a program of yours that is its own kernel.

:class:`BareMachine` puts the segments of an ELF file where ``p_paddr`` says, as a boot loader
does, and enters it in flat protected mode with paging off. What it builds then, page tables
first of all, is its own. ``hlt`` ends a run, and the next :meth:`~BareMachine.run` goes on
behind it; a byte written to port 0xE9 is text. :func:`~harness.diff_image.diff_tables` compares
its tables with the manual, the CPU and what they are expected to hold.

What can fail: :class:`~harness.elf_headers.BadElf` for a file that cannot be loaded,
:class:`~harness.machine.GuestDied` with registers, code and walk for a triple fault,
:class:`~harness.machine.GuestStopped` at a limit.
"""

import io
from pathlib import Path
from typing import Final

from harness.cpu import Stop, create
from harness.crash import crash_report
from harness.elf import load_symbols
from harness.elf_headers import BadElf, Headers
from harness.files import open_regular
from harness.hypercalls import CONSOLE_PORT
from harness.machine import CONSOLE_LIMIT, CpuFactory, GuestDied, GuestStopped, Limits
from harness.mmu_spec import walk
from kernel_model.config import MIB
from kernel_model.ram import Ram

USUAL_RAM: Final = 16 * MIB


class BareMachine:
    """``program`` on a CPU of ``cpu_model`` with ``ram`` bytes; not run yet."""

    def __init__(
        self,
        program: Path | str | bytes,
        *,
        ram: int = USUAL_RAM,
        cpu_model: str = "pentium3",
        cpu: CpuFactory = create,
        limits: Limits | None = None,
    ) -> None:
        self.ram = Ram(ram)
        self.cpu = cpu(self.ram, cpu_model)
        self.limits = limits or Limits()
        self.console = bytearray()
        self.cpu.on_out = self._out
        self.symbols: dict[str, int] = {}
        """Addresses as they are linked."""
        self._next: int | None = self._load(program)

    def _load(self, program: Path | str | bytes) -> int:
        """Copy the program into RAM; its entry point, as a physical address."""
        if isinstance(program, bytes):
            name, content = "program", program
        else:
            name = str(program)
            try:
                with open_regular(Path(program), "an ELF program") as file:
                    content = file.read()
            except OSError as error:
                raise BadElf(name, f"cannot be read: {error.strerror or error}") from error
        headers = Headers(io.BytesIO(content), len(content), name)
        if headers.bits != 32 or headers.type != "ET_EXEC" or headers.machine != "EM_386":
            raise BadElf(name, "give an ELF program for i386 at fixed addresses (-m32 -static)")
        loads = [h for h in headers.program_headers if h.type == "PT_LOAD" and h.memsz]
        entry = headers.entry
        for load in loads:
            data = headers.read(load.offset, min(load.filesz, load.memsz), "a segment")
            if not self.ram.contains(load.paddr, load.memsz):
                raise BadElf(
                    name,
                    f"segment at paddr {load.paddr:#x}, {load.memsz:#x} bytes: there is RAM up to "
                    f"{self.ram.size:#x}; link it lower, or give more ram",
                )
            self.ram.fill(load.paddr, load.memsz)
            self.ram.write(load.paddr, data)
            if load.vaddr <= headers.entry < load.vaddr + load.memsz:
                entry = headers.entry - load.vaddr + load.paddr
        if not loads:
            raise BadElf(name, "no PT_LOAD segment: there is nothing to load; link it again")
        self.symbols = load_symbols(headers)
        return entry

    def run(self) -> "BareMachine":
        """Run it up to its next ``hlt``."""
        limits, eip = self.limits, self._next
        self._next = None
        reason = self.cpu.start(
            eip, max_instructions=limits.instructions, timeout_seconds=limits.seconds
        )
        if reason.kind is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        if reason.kind is Stop.DIED:
            raise GuestDied(crash_report(self.cpu, reason, self._walk))
        if reason.kind is not Stop.HALTED:
            raise GuestStopped(reason, crash_report(self.cpu, reason))
        return self

    def _walk(self, va: int) -> list[str]:
        return walk(self.ram, self.cpu.control, va).describe().splitlines()

    def _out(self, port: int, size: int, value: int) -> None:
        if port == CONSOLE_PORT and len(self.console) < CONSOLE_LIMIT:
            self.console.append(value & 0xFF)
