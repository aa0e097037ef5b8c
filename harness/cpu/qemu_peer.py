# SPDX-License-Identifier: GPL-2.0-or-later
"""A booted machine carried over to QEMU, as it stands, so that its guest can be called there.

The machine's RAM is copied into QEMU's, control registers and descriptor tables follow by the
hand of a little program (``guest/peer/peer.S``), whose copy lies behind the probe's text, in the
last page of the guest's own code: no frame of the machine is used up, and its page tables are
not changed. QEMU then delivers every fault itself, through the guest's IDT.

What can fail: :class:`~harness.cpu.qemu.QemuMissing` without QEMU; a machine that no PC of
QEMU's can hold is :class:`~kernel_model.errors.BadInput`; a guest that does not come back is
:class:`~harness.cpu.qemu.QemuFailed`.
"""

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import numpy as np

from harness.architecture import ControlRegisters
from harness.cpu.context import BASE, LIMIT, SavedContext
from harness.cpu.entries import table_frames
from harness.cpu.qemu import QemuPc
from harness.elf import load_elf
from harness.guests import guest_path
from harness.machine import Machine
from harness.paging_modes import MmuFeatures
from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.config import CPU_MODELS, MIB
from kernel_model.errors import BadInput
from kernel_model.ram import PAGE_SHIFT, PAGE_SIZE, Ram

GUEST: Final = "peer"
MAX_RAM: Final = 3 << 30
"""Above it a PC has its devices, where the modelled machines have RAM."""
_MAILBOX: Final = 0x100
_SIZE: Final = 0x180
_GO, _ESP, _EIP, _RESULT = (_MAILBOX + 4 * n for n in range(4))
_BOOT_WORDS: Final = struct.Struct("<6I HHH2x HHH2x")
_BOOT: Final = _MAILBOX + 16
_BUSY_TSS: Final = 1 << 9
_TSS_SELECTOR: Final = 0x60
_SECONDS: Final = 60.0
_CHUNK: Final = MIB


class PeerCpu:
    """The probe's view of QEMU's CPU. Each call begins with a flush of everything."""

    ring = 0

    def preserved(self) -> AbstractContextManager[None]:
        """Nothing to keep: the machine goes on elsewhere."""
        return nullcontext()

    def invalidate_all_code(self) -> None:
        """Stamps are the same bytes in the same place whenever they are executed."""

    def flush_tlb_global(self) -> None:
        """The next call does it."""


class QemuPeer:
    """``machine`` on QEMU. A context manager, since a process is behind it.

    It has what :mod:`harness.readings.cpu_probe` asks of a machine.
    """

    def __init__(self, machine: Machine) -> None:
        config = machine.kernel.config
        if machine.ram.size > MAX_RAM:
            raise BadInput(
                f"--ram {machine.ram.size // MIB}M: QEMU's PC has devices below 4 GiB: at most 3G"
            )
        self.kernel = machine.kernel
        self.guest = machine.guest
        self.exit_status = machine.exit_status
        self.on_trap = machine.on_trap
        self.cpu = PeerCpu()
        features = CPU_MODELS[config.cpu_model]
        self.features = MmuFeatures(36, nx=features.nx, pge=features.pge)
        self.control: ControlRegisters = machine.cpu.control
        self._loader = load_elf(guest_path(GUEST, GUEST))
        self._pc = QemuPc(
            machine.ram.size,
            machine.ram.size,
            f"{config.cpu_model},+pse36",
            guest_path(GUEST, GUEST),
            "",
        )
        self.ram = Ram(machine.ram.size, machine.ram.ranges, self._pc.ram)
        try:
            self._bring_up(machine)
        except BaseException:
            self._pc.close()
            raise

    def _bring_up(self, machine: Machine) -> None:
        """Put the machine's memory in place around the waiting loader, and let it go over."""
        symbols, loader = self._loader.symbols, self._loader.segments[0]
        self._virtual = -(-self.symbol("probe_user_text_end") // 64) * 64
        if self._virtual % PAGE_SIZE + _SIZE > PAGE_SIZE:
            raise BadInput(f"{self.guest.name}: no room behind the probe's text for the peer")
        self._place = virt_to_phys(self._virtual)
        self._pc.run_until(lambda: self._read(symbols["waiting"]) == 1, _SECONDS)
        of_loader = slice(loader.vaddr, -(-(loader.vaddr + loader.memsz) // PAGE_SIZE) * PAGE_SIZE)
        kept = self.ram.bytes[of_loader].tobytes()
        _copy(machine.ram, self.ram)
        self.ram.bytes[of_loader] = kept
        code = kept[symbols["peer"] - loader.vaddr : symbols["peer_end"] - loader.vaddr]
        self.ram.write(self._place, code.ljust(_SIZE, b"\0"))
        with self._first_directory(of_loader) as first_cr3:
            self._write_boot_words(machine, first_cr3)
            self._write(self._place + _GO, 1)
            self._write(symbols["handoff"], self._place)
            self._wait()
        self.ram.bytes[of_loader] = machine.ram.bytes[of_loader]

    @contextmanager
    def _first_directory(self, of_loader: slice) -> Iterator[int]:
        """A root table that maps low memory at its physical address too; in a borrowed frame."""
        control, ram = self.control, self.ram
        taken = {control.cr3 & ~(PAGE_SIZE - 1), *range(of_loader.start, of_loader.stop, PAGE_SIZE)}
        taken |= {int(pfn) << PAGE_SHIFT for pfn in table_frames(ram, control)}
        frame = next(p for p in range(PAGE_SIZE, ram.size, PAGE_SIZE) if p not in taken)
        before = ram.read(frame, PAGE_SIZE)
        if control.pae:
            root = ram.table(control.cr3 & ~0x1F, 4, np.uint64).copy()
            root[0] = root[PAGE_OFFSET >> 30]
        else:
            root = ram.table(control.cr3 & ~0xFFF, 1024, np.uint32).copy()
            root[:256] = root[PAGE_OFFSET >> 22 :]
        ram.write(frame, root.tobytes())
        try:
            yield frame
        finally:
            ram.write(frame, before)

    def _write_boot_words(self, machine: Machine, first_cr3: int) -> None:
        context: SavedContext = machine.cpu.context  # type: ignore[attr-defined]
        context.latch()
        words, layout = context.words, context.layout
        control = self.control
        gdt, idt = ((words[t + LIMIT], words[t + BASE]) for t in (layout.gdt, layout.idt))
        boot = _BOOT_WORDS.pack(
            *(control.cr0, control.cr3, control.cr4, control.efer, first_cr3, self._virtual),
            *(gdt[0], gdt[1] & 0xFFFF, gdt[1] >> 16),
            *(idt[0], idt[1] & 0xFFFF, idt[1] >> 16),
        )
        self.ram.write(self._place + _BOOT, boot)
        # LTR refuses a TSS that is busy, as the running machine has marked it.
        descriptor = virt_to_phys(gdt[1]) + _TSS_SELECTOR + 4
        self._write(descriptor, self._read(descriptor) & ~_BUSY_TSS)

    def _read(self, paddr: int) -> int:
        return self.ram.read32(paddr)

    def _write(self, paddr: int, value: int) -> None:
        self.ram.write32(paddr, value)

    def _wait(self) -> None:
        self._pc.run_until(lambda: self._read(self._place + _GO) == 0, _SECONDS)

    def symbol(self, name: str) -> int:
        """Kernel virtual address of a symbol of the machine's ring-0 image."""
        if name not in self.guest.symbols:
            raise BadInput(f"{self.guest.name}: has no symbol {name!r}")
        return self.guest.symbols[name]

    def call(self, function: str | int, *arguments: int) -> int:
        """Run a ring-0 function with cdecl ``arguments`` on QEMU; returns its EAX."""
        symbols = self._loader.symbols
        returned = self._virtual + symbols["peer_returned"] - symbols["peer"]
        stack = self.symbol("kernel_stack_top")
        for word in (*reversed(arguments), returned):
            stack -= 4
            self._write(virt_to_phys(stack), word & 0xFFFFFFFF)
        self._write(self._place + _ESP, stack)
        eip = self.symbol(function) if isinstance(function, str) else function
        self._write(self._place + _EIP, eip)
        self._write(self._place + _GO, 1)
        self._wait()
        return self._read(self._place + _RESULT)

    def close(self) -> None:
        self._pc.close()

    def __enter__(self) -> "QemuPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _copy(source: Ram, target: Ram) -> None:
    """All of RAM that is not zero; the target is zero where nothing was loaded."""
    for start, end in source.ranges:
        for place in range(start, end, _CHUNK):
            part = slice(place, min(place + _CHUNK, end))
            data = np.frombuffer(source.buffer, np.uint64, (part.stop - place) // 8, place)
            target_words = np.frombuffer(target.buffer, np.uint64, len(data), place)
            if data.any() or target_words.any():
                target_words[:] = data
