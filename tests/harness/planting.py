# SPDX-License-Identifier: GPL-2.0-or-later
"""A small machine with one process, and ways to break its page tables."""

from dataclasses import dataclass, field

from harness.architecture import CR4_PAE, Access, ControlRegisters, Ring
from harness.machine import Machine
from harness.mmu_spec import Step, walk
from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.pgtable import PAGE_READONLY, PAGE_SHARED
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from tests.kernel_model.mm.user_spaces import UserSpaces

TEXT = 0x08048000
DATA = 0x08049000
MORE = 0x0804A000
STACK = 0xBFFFF000
PAGE = 4096
FLAGS_AD = 0x60


@dataclass
class Planted:
    """A machine whose CR3 holds the page directory ``mm`` of a process of four pages."""

    machine: Machine
    ledger: FrameLedger
    mm: int
    spaces: UserSpaces
    written: set[int] = field(default_factory=set)
    """Where entries were changed: physical addresses."""

    def steps(self, va: int) -> tuple[Step, ...]:
        return walk(self.machine.ram, self.machine.cpu.control, va).steps

    def entry(self, va: int) -> int:
        """The last entry of the walk of ``va``."""
        return self.steps(va)[-1].entry

    def write(self, va: int, entry: int, level: int = -1) -> None:
        """Put ``entry`` where the walk of ``va`` has its last one, or the one at ``level``."""
        paddr = self.steps(va)[level].paddr
        self.written.add(paddr)
        write_entry(self.machine, paddr, entry)

    def change(self, va: int, *, clear: int = 0, put: int = 0, level: int = -1) -> None:
        """Change bits of an entry."""
        old = self.steps(va)[level].entry
        self.write(va, old & ~clear | put, level)

    def touch(self, va: int, access: Access, ring: Ring) -> None:
        """Let the TLB hold the translation of ``va``, as after an access that changed nothing."""
        assert self.machine.cpu.translate(va, access, ring) is not None


def write_entry(machine: Machine, paddr: int, entry: int) -> None:
    if machine.cpu.control.cr4 & CR4_PAE:
        machine.ram.write64(paddr, entry)
    else:
        machine.ram.write32(paddr, entry)


def small_machine(**choices: object) -> Machine:
    config = KernelConfig(**{"ram": 16 * MIB} | choices)  # type: ignore[arg-type]
    return Machine(Kernel(config))


def planted_machine(**choices: object) -> Planted:
    """The machine, its process and its ledger; A and D are set as after use."""
    machine = small_machine(**choices)
    kernel = machine.kernel
    ledger = FrameLedger.of(kernel.image.events) or FrameLedger().listen(kernel.image.events)
    spaces = UserSpaces(kernel)
    mm = spaces.start()
    planted = Planted(machine, ledger, mm, spaces)
    spaces.enter(mm)
    for va, prot in (
        (TEXT, PAGE_READONLY),
        (DATA, PAGE_SHARED),
        (MORE, PAGE_SHARED),
        (STACK, PAGE_SHARED),
    ):
        assert spaces.new_page(mm, va, prot) >= 0
    return planted


def pae_machine(*, nx: bool = False) -> Planted:
    """A PAE kernel; ``nx``: with no-execute turned on behind its back, which 2.4 never does."""
    model = "coreduo" if nx else "pentium3"
    planted = planted_machine(ram=32 * MIB, highmem=Highmem.GB64, cpu_model=model)
    if nx:
        control = planted.machine.cpu.control
        with_nx = ControlRegisters(control.cr0, control.cr3, control.cr4, 1 << 11)
        planted.machine.cpu.load_control(with_nx)
    return planted
