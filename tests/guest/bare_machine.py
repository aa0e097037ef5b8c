# SPDX-License-Identifier: GPL-2.0-or-later
"""A bare CPU to run guests that need no fault delivery: RAM, boot tables, Unicorn.

Nothing of the harness takes part, so that what the guests do is seen without it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import x86_const as x86

from harness.hypercalls import CONSOLE_PORT, HYPERCALL_PORT, Hypercall
from kernel_model.ram import Ram

PAGE_OFFSET = 0xC0000000
RAM_BYTES = 16 << 20
STOPS = {Hypercall.EXIT, Hypercall.RETURN, Hypercall.IDLE}


def symbols(path: Path) -> dict[str, int]:
    """Name to value, from the symbol table."""
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


@dataclass
class BareMachine:
    """RAM with the boot loader's work done, and Unicorn: no kernel model, no traps."""

    path: Path
    ram: Ram = field(default_factory=lambda: Ram(RAM_BYTES))
    console: str = ""
    calls: list[tuple[Hypercall, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.symbols = symbols(self.path)
        with self.path.open("rb") as file:
            elf = ELFFile(file)
            self.entry = elf["e_entry"]
            for segment in elf.iter_segments("PT_LOAD"):
                self.ram.write(segment["p_paddr"], segment.data())
        self._write_provisional_tables()
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.uc.ctl_set_cpu_model(x86.UC_CPU_X86_PENTIUM3)
        self.uc.mem_map_ptr(0, self.ram.size, unicorn.UC_PROT_ALL, self.ram.address)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)

    def _write_provisional_tables(self) -> None:
        """Two tables map 8 MiB, at 0 and at PAGE_OFFSET."""
        for frame in range(2048):
            self.ram.write32(0x102000 + 4 * frame, frame << 12 | 7)
        for index, entry in ((0, 0x102007), (1, 0x103007), (768, 0x102007), (769, 0x103007)):
            self.ram.write32(0x101000 + 4 * index, entry)

    def _out(self, uc: unicorn.Uc, port: int, size: int, value: int, _: object) -> None:
        if (port, size) == (CONSOLE_PORT, 1):
            self.console += chr(value)
        elif (port, size) == (HYPERCALL_PORT, 4):
            self.calls.append((Hypercall(value), self.read("EBX")))
            if value in STOPS:
                uc.emu_stop()

    def read(self, register: str) -> int:
        return int(self.uc.reg_read(getattr(x86, f"UC_X86_REG_{register}")))

    def run(self, eip: int) -> list[tuple[Hypercall, int]]:
        """Run from ``eip`` to a hypercall that stops; the hypercalls made."""
        self.calls = []
        self.uc.emu_start(eip, 0, count=2_000_000)
        return self.calls

    def boot(self) -> list[tuple[Hypercall, int]]:
        return self.run(self.entry - PAGE_OFFSET)

    def call(self, function: str, *arguments: int) -> list[tuple[Hypercall, int]]:
        """Call ``function`` with cdecl arguments on the kernel stack."""
        esp = self.symbols["kernel_stack_top"]
        for word in (*reversed(arguments), self.symbols["kernel_return"]):
            esp -= 4
            self.ram.write32(esp - PAGE_OFFSET, word)
        self.uc.reg_write(x86.UC_X86_REG_ESP, esp)
        return self.run(self.symbols[function])
