# SPDX-License-Identifier: GPL-2.0-or-later
"""A ring-3 program: its address space, its stack, its run.

Models what linux-2.4.22 ``fs/binfmt_elf.c`` leaves of a program, with every page mapped in
advance. The pages come from the model's buddy allocator and hang in page tables of the
model's making; at the end all of them go back.

What can fail: :class:`~kernel_model.errors.BadInput` when the program does not fit into the
machine's memory. A program that faults ends with a signal: :attr:`Ended.signal`.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.architecture import PF_USER, PF_WRITE, Ring
from harness.crash import CrashReport
from harness.elf import ElfImage, SegmentFlags
from harness.machine import Machine
from harness.syscalls import SYSCALL_VECTOR, SystemCalls
from harness.traps import PAGE_FAULT
from harness.user_memory import read_user
from kernel_model.arch_i386.pgtable import PAGE_READONLY, PAGE_SHARED
from kernel_model.errors import BadInput, EndlessLoop
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.ram import PAGE_SHIFT, PAGE_SIZE

STACK_TOP: Final = 0xC0000000
STACK_PAGES: Final = 32
PIE_BASE: Final = 0x40000000
"""Where a static-PIE is put: ``ELF_ET_DYN_BASE`` rounded as 2.4 has it for mapped objects."""

_SIGNALS: Final = {0: 8, 3: 5, 4: 11, 5: 11, 6: 4, 11: 11, 12: 11, 13: 11, 14: 11, 16: 8, 17: 7}
"""Trap -> signal, as ``arch/i386/kernel/traps.c`` sends them."""
_SIGNAL_NAMES: Final = {4: "SIGILL", 5: "SIGTRAP", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: by ``exit(status)``, or by a signal with the report of its fault."""

    status: int
    signal: int = 0
    report: CrashReport | None = None

    @property
    def exit_status(self) -> int:
        """As a shell has it: 128 + n for signal n."""
        return 128 + self.signal if self.signal else self.status

    @property
    def signal_name(self) -> str:
        return _SIGNAL_NAMES.get(self.signal, f"signal {self.signal}")


def initial_stack(argv: Sequence[bytes], envp: Sequence[bytes]) -> tuple[int, bytes]:
    """What lies on a new program's stack: (ESP, bytes from ESP to the top).

    From ESP up: argc, the pointers of argv and envp, an empty auxiliary vector; then the texts.
    """
    texts = b"".join(text + b"\0" for text in (*argv, *envp))
    first_text = STACK_TOP - 4 - len(texts)
    addresses, position = [], first_text
    for text in (*argv, *envp):
        addresses.append(position)
        position += len(text) + 1
    words = [len(argv), *addresses[: len(argv)], 0, *addresses[len(argv) :], 0, 0, 0]
    esp = (first_text - 4 * len(words)) & ~0xF
    if STACK_TOP - esp > STACK_PAGES * PAGE_SIZE // 2:
        raise BadInput("the arguments are longer than half of the stack: pass fewer")
    body = struct.pack(f"<{len(words)}I", *words).ljust(first_text - esp, b"\0")
    return esp, body + texts + bytes(4)


class Process:
    """One program in an address space of its own, on ``machine``."""

    def __init__(
        self,
        machine: Machine,
        program: ElfImage,
        argv: Sequence[bytes] = (),
        envp: Sequence[bytes] = (),
        output: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._machine = machine
        self._kernel = machine.kernel
        self.program = program.at(PIE_BASE) if program.position_independent else program
        self._output = output
        self.written: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.system_calls = SystemCalls(self)
        self._ended: Ended | None = None
        self.pages: set[int] = set()
        """The numbers of the program's pages."""
        self.pgd = self._kernel.page_tables.pgd_alloc()
        if not self.pgd:
            raise BadInput("no memory for a page directory: give the machine more --ram")
        try:
            self._map(argv or (program.name.encode(),), envp)
        except EndlessLoop as error:
            self.release()
            raise BadInput(f"{program.name}: does not fit into memory: give more --ram") from error
        except BadInput:
            self.release()
            raise

    # -- its memory ------------------------------------------------------------------------

    def _map(self, argv: Sequence[bytes], envp: Sequence[bytes]) -> None:
        for segment in self.program.segments:
            writable = bool(segment.flags & SegmentFlags.WRITE)
            prot = PAGE_SHARED if writable else PAGE_READONLY
            self._map_bytes(segment.vaddr, segment.data, segment.memsz, prot)
        self.esp, body = initial_stack(argv, envp)
        first = STACK_TOP - STACK_PAGES * PAGE_SIZE
        self._map_bytes(first, bytes(self.esp - first) + body, STACK_TOP - first, PAGE_SHARED)
        self._machine.cpu.invalidate_all_code()

    def _map_bytes(self, vaddr: int, data: bytes, length: int, prot: int) -> None:
        """Map the pages of ``length`` bytes at ``vaddr``, with ``data`` in them and then zeros.

        Each page is filled at once: under pressure it may be swapped out for the next one.
        """
        offset = vaddr % PAGE_SIZE
        content = bytes(offset) + data
        for position in range(0, offset + length, PAGE_SIZE):
            page = (vaddr - offset + position) >> PAGE_SHIFT
            if page in self.pages:
                raise BadInput(f"{self.program.name}: two parts of it want page {page << 12:#x}")
            pfn = self._kernel.user_memory.new_page(self.pgd, page << PAGE_SHIFT, prot)
            if pfn < 0:
                raise BadInput(f"{self.program.name}: does not fit into memory: give more --ram")
            self.pages.add(page)
            chunk = content[position : position + PAGE_SIZE].ljust(PAGE_SIZE, b"\0")
            self._machine.ram.write(pfn << PAGE_SHIFT, chunk)

    def release(self) -> None:
        """Give back every frame and table. The process is no more after this."""
        self._machine.cpu.load_cr3(SWAPPER_PG_DIR)
        self._kernel.user_memory.clear_page_tables(self.pgd)
        self._kernel.page_tables.pgd_free(self.pgd)
        self.pages.clear()

    # -- its run -----------------------------------------------------------------------------

    def run(self) -> Ended:
        """Run to the end, and free everything."""
        machine = self._machine
        handler, machine.on_trap = machine.on_trap, self._trap
        machine.cpu.load_cr3(self.pgd)
        try:
            machine.call("enter_user", self.program.entry, self.esp)
        finally:
            machine.on_trap = handler
            self.release()
        assert self._ended is not None
        return self._ended

    def _trap(self, regs: Any, vector: int, error_code: int, cr2: int) -> None:
        if vector == SYSCALL_VECTOR:
            self.system_calls.call(regs)
            return
        if vector == PAGE_FAULT and self._handle_fault(error_code, cr2):
            return
        if not regs.xcs & Ring.USER:
            self._machine.oops(regs, vector, error_code, cr2)
        report = self._machine.trap_report(regs, vector, error_code, cr2)
        self._end(Ended(0, _SIGNALS.get(vector, 11), report))

    def _handle_fault(self, error_code: int, cr2: int) -> bool:
        """Bring back a page that was swapped out, if that is what the fault is about."""
        if not error_code & PF_USER:
            return False
        write = bool(error_code & PF_WRITE)
        return self._kernel.user_memory.handle_fault(self.pgd, cr2, write=write)

    def _end(self, ended: Ended) -> None:
        self._ended = ended
        self._machine.cpu.stop()

    # -- what system calls ask -----------------------------------------------------------------

    def read(self, vaddr: int, length: int) -> bytes:
        return read_user(self._machine.ram, self._machine.cpu.control, vaddr, length)

    def output(self, descriptor: int, data: bytes) -> None:
        self.written[descriptor] += data
        if self._output is not None:
            self._output(descriptor, data)

    def exit(self, status: int) -> None:
        self._end(Ended(status))
