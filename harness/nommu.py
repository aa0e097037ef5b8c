# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine without an MMU: a CPU that never turns paging on, and programs that map memory on it.

Every address that the CPU uses is a physical one (``guest/nommu``). Programs are static-PIEs,
loaded as ``fs/binfmt_flat.c`` loads them: one block of ``kmalloc()`` holds the program, its break
and its stack; :class:`~kernel_model.mm.nommu.NoMmu` serves their ``mmap()`` (book 3.10). The model
names memory by kernel virtual addresses, programs by physical ones; each call is translated here.

What can fail: a program that traps or leaves RAM ends in a
:class:`~harness.machine.GuestDied` with the report of where it stood; a limit in
:class:`~harness.machine.GuestStopped`; a program that cannot be loaded is a
:class:`~kernel_model.errors.BadInput`. Nothing protects the kernel from a program here.
"""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from harness import cpu as cpus
from harness.cpu import Stop
from harness.crash import crash_report
from harness.elf import ElfImage, load_elf
from harness.guests import guest_path
from harness.hypercalls import Hypercall
from harness.machine import GuestDied, GuestStopped, Limits, saved_registers, trap_text
from harness.monitors.frames import FrameLedger
from harness.traps import INVALID_OPCODE
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE, phys_to_virt, virt_to_phys
from kernel_model.arch_i386.signal import SIGKILL
from kernel_model.config import KernelConfig
from kernel_model.errno import EBADF, EFAULT, ENOSYS
from kernel_model.errors import BadInput
from kernel_model.image import KernelImage
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import PF_MEMDIE
from kernel_model.mm.linux_2_6.page_alloc import NothingToReclaim, PageAllocator26
from kernel_model.mm.nommu import ContiguousMemory, MappableFiles, NoMmu
from kernel_model.mm.slab.linux_2_6 import Slab26

STACK_BYTES: Final = 16 << 10
BREAK_BYTES: Final = 16 << 10
"""Room that a program's break may use, behind its ``.bss``."""
SYSCALL_VECTOR: Final = 0x80
_U32: Final = 0xFFFFFFFF


class NoFiles:
    """A machine on which no file is open; nobody can ask for one."""

    def __getattr__(self, name: str) -> Any:
        raise BadInput(f"{name}: no file is open on this machine")


class KillsTheProgram(NothingToReclaim):
    """Memory that is out ends the one program that runs; the kernel goes on."""

    def __init__(self, machine: "NoMmuMachine") -> None:
        self._machine = machine

    def out_of_memory(self, gfp_mask: int) -> None:
        if not self._machine.kill():
            super().out_of_memory(gfp_mask)


class Program:
    """One program that runs: its address space, and where its block lies (physical)."""

    def __init__(self, mm: int, block: int, image: ElfImage) -> None:
        self.mm = mm
        self.block = block
        self.image = image
        self.status: int | None = None
        self.killed = False
        """It gets what it asks for if that is to be had at all, and never runs again."""


class NoMmuMachine:
    """A CPU with paging off over a kernel's memory; runs one program at a time."""

    kernel: Kernel
    ledger: FrameLedger
    """Of a machine that :meth:`boot` made: its kernel, and whose each frame is."""

    def __init__(
        self,
        image: KernelImage,
        memory: ContiguousMemory,
        files: MappableFiles | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self.image, self.ram = image, image.ram
        self.memory = memory
        self.limits = limits or Limits()
        self.output = bytearray()
        self.nommu = NoMmu(image, memory, files or NoFiles(), image.symbol("nommu_vma_tree"))
        self.cpu = cpus.create(self.ram, image.config.cpu_model)
        self.cpu.on_hypercall = self._hypercall
        self._guest = load_elf(guest_path("nommu", "nommu"))
        self._program: Program | None = None
        self._calls: dict[int, Callable[..., int]] = {
            1: self._exit,
            4: self._write,
            45: self._brk,
            91: self._munmap,
            163: self._mremap,
            192: self._mmap2,
            252: self._exit,
        }
        for segment in self._guest.segments:
            self.ram.fill(segment.vaddr, segment.memsz)
            self.ram.write(segment.vaddr, segment.data)
        self._start(self._guest.entry)

    @classmethod
    def boot(cls, config: KernelConfig, *, limits: Limits | None = None) -> "NoMmuMachine":
        """A machine whose kernel has booted, and serves its programs by the slab allocator."""
        kernel = Kernel(config)
        ledger = FrameLedger().listen(kernel.image.events)
        kernel.start_kernel()
        slab = kernel.slab
        assert isinstance(slab, Slab26), "a kernel without MMU is a 2.6"
        machine = cls(kernel.image, slab, limits=limits)
        machine.kernel, machine.ledger = kernel, ledger
        allocator = kernel.allocator
        assert isinstance(allocator, PageAllocator26)
        allocator.pressure = KillsTheProgram(machine)
        return machine

    # -- programs ------------------------------------------------------------------------------

    def run(self, image: ElfImage, argv: Sequence[bytes] = ()) -> int:
        """Load a static-PIE, run it to its end, and give all its memory back. Its status."""
        program = self._load(image)
        try:
            self.enter(program, argv or (image.name.encode(),))
        finally:
            self.nommu.exit_mmap(program.mm)
            self.memory.kfree(phys_to_virt(program.block))
            self.memory.kfree(program.mm)
            self._program = None
            self.image.current_task.flags &= ~PF_MEMDIE & _U32
        return program.status or 0

    def kill(self) -> bool:
        """SIGKILL to the program, for want of memory; False: none runs, or it is dying."""
        if self._program is None or self._program.killed:
            return False
        self._program.killed = True
        self.image.current_task.flags |= PF_MEMDIE
        name = Path(self._program.image.name).stem
        self.image.printk(f"<3>Out of Memory: Killed process 1 ({name}).\n")
        return True

    def enter(self, program: Program, argv: Sequence[bytes]) -> None:
        """Ring 3 begins at the program's entry, with its arguments on its stack."""
        self._program = program
        registers = self.cpu.registers
        registers.ebx = program.image.entry
        registers.ecx = self._arguments(program, argv)
        self._start(self._guest.symbols["enter_user"])

    def _load(self, image: ElfImage) -> Program:
        """One block with the program, its break and its stack: ``load_flat_file()``."""
        if not image.position_independent:
            raise BadInput(f"{image.name}: linked to a fixed address; without MMU give a PIE")
        size = -(-image.end // PAGE_SIZE) * PAGE_SIZE
        gfp = self.image.constants.gfp.kernel
        block = self.memory.kmalloc(size + BREAK_BYTES + STACK_BYTES, gfp)
        mm = self.memory.kmalloc(self.image.structs.mm_struct.size, gfp) if block else 0
        if not mm:
            if block:
                self.memory.kfree(block)
            raise BadInput(f"{image.name}: no block of {size:#x} bytes is free: give more RAM")
        paddr = virt_to_phys(block)
        self.ram.fill(paddr, size + BREAK_BYTES + STACK_BYTES)
        self.ram.fill(virt_to_phys(mm), self.image.structs.mm_struct.size)
        placed = image.at(paddr)
        for segment in placed.segments:
            self.ram.write(segment.vaddr, segment.data)
        self.cpu.snoop(paddr, size)
        view = self.image.at(self.image.structs.mm_struct, mm)
        view.start_brk = view.brk = phys_to_virt(paddr + size)
        view.context.end_brk = phys_to_virt(paddr + size + BREAK_BYTES)
        return Program(mm, paddr, placed)

    def _arguments(self, program: Program, argv: Sequence[bytes]) -> int:
        """Strings, then ``argv``, then ``argc``, at the end of the block. Returns ESP."""
        view = self.image.at(self.image.structs.mm_struct, program.mm)
        at = virt_to_phys(int(view.context.end_brk)) + STACK_BYTES
        pointers = []
        for text in argv:
            at -= len(text) + 1
            self.ram.write(at, text + b"\0")
            pointers.append(at)
        words = [len(argv), *pointers, 0, 0]
        at = (at - 4 * len(words)) & ~15
        self.ram.write(at, struct.pack(f"<{len(words)}I", *words))
        return at

    # -- the CPU -------------------------------------------------------------------------------

    def _start(self, eip: int) -> None:
        reason = self.cpu.start(
            eip,
            max_instructions=self.limits.instructions,
            timeout_seconds=self.limits.seconds,
        )
        if reason.kind is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        if reason.kind is Stop.DIED:
            raise GuestDied(crash_report(self.cpu, reason))
        if reason.kind is not Stop.HYPERCALL:
            raise GuestStopped(reason)

    def _hypercall(self) -> None:
        number, vector, orig_eax, regs, *_ = self.cpu.registers.general()
        if number == Hypercall.IDLE:
            self.cpu.stop()
        elif number == Hypercall.TRAP and self._program is not None:
            self._trap(self.image.structs.pt_regs.at(self.ram, regs), vector, orig_eax)
        else:
            raise GuestDied(crash_report(self.cpu, f"unexpected hypercall {number:#x}"))

    def _trap(self, regs: Any, vector: int, error_code: int) -> None:
        if vector != SYSCALL_VECTOR:
            cause = trap_text(vector, error_code if vector != INVALID_OPCODE else 0, 0)
            raise GuestDied(crash_report(self.cpu, cause, None, saved_registers(regs)))
        call = self._calls.get(error_code)
        arguments = (regs.ebx, regs.ecx, regs.edx, regs.esi, regs.edi, regs.ebp)
        regs.eax = (call(*arguments) if call else -ENOSYS) & _U32
        if self._current.killed:
            self._current.status = 128 + SIGKILL
            self.cpu.stop()

    # -- system calls --------------------------------------------------------------------------

    @property
    def _current(self) -> Program:
        assert self._program is not None
        return self._program

    def _exit(self, status: int, *_: int) -> int:
        self._current.status = status & 0xFF
        self.cpu.stop()
        return 0

    def _write(self, fd: int, buffer: int, length: int, *_: int) -> int:
        if fd not in (1, 2):
            return -EBADF
        if not self.ram.contains(buffer, length):
            return -EFAULT
        self.output += self.ram.read(buffer, length)
        return length

    def _mmap2(self, addr: int, length: int, prot: int, flags: int, _fd: int, _pgoff: int) -> int:
        answer = self.nommu.do_mmap_pgoff(self._current.mm, 0, addr, length, prot, flags, 0)
        if answer > 0:
            # What the model wrote may have been translated as code before.
            self.cpu.snoop(virt_to_phys(answer), length)
        return _physical(answer)

    def _munmap(self, addr: int, length: int, *_: int) -> int:
        return self.nommu.do_munmap(self._current.mm, addr + PAGE_OFFSET & _U32, length)

    def _mremap(self, addr: int, old_len: int, new_len: int, flags: int, new: int, _: int) -> int:
        start, to = addr + PAGE_OFFSET & _U32, new + PAGE_OFFSET & _U32
        answer = self.nommu.do_mremap(self._current.mm, start, old_len, new_len, flags, to)
        return _physical(answer)

    def _brk(self, brk: int, *_: int) -> int:
        return _physical(self.nommu.sys_brk(self._current.mm, brk + PAGE_OFFSET & _U32))


def _physical(answer: int) -> int:
    """An address of the model as programs have it; 0 and errors stay what they are."""
    return virt_to_phys(answer) if answer > 0 else answer
