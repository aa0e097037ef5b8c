# SPDX-License-Identifier: GPL-2.0-or-later
"""One process: what the kernel keeps of it, in RAM and beside it.

Models linux-2.4.22 ``include/linux/sched.h: struct task_struct`` as far as system calls need it.
In RAM: the ``task_struct`` with its FPU state, the kernel stack with the ``struct pt_regs`` of its
last trap at the upper end, the address space. Beside RAM: files, signals, identity, what it waits
for. Nothing here can fail.
"""

import enum
import errno
import signal
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from harness.signals import SignalState
from harness.signals.fpstate import fresh_image
from harness.syscalls.requests import Call, RestartSystemCall, WaitUntil
from harness.syscalls.restartable import RestartableSequences
from harness.syscalls.task import Limits, Usage
from harness.syscalls.tls import FIRST_ENTRY, ThreadAreas
from harness.vfs.descriptors import DescriptorTable
from harness.vfs.failure import fail
from harness.vfs.namei import Context
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.arch_i386.segment import USER_CS, USER_DS
from kernel_model.structs.mm import VM_MAYSHARE, VM_READ, VM_WRITE
from kernel_model.structs.ptrace import PT_REGS
from kernel_model.structs.sched import RLIM_NLIMITS, TASK_STRUCT

if TYPE_CHECKING:
    from harness.processes.linux import Linux

PT_REGS_BYTES: Final = PT_REGS.size
I387: Final = TASK_STRUCT.offset("i387")
EFLAGS_IF: Final = 0x202


class State(enum.Enum):
    """Where a process is in its life."""

    RUNNING = "running"
    ZOMBIE = "zombie"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: by ``exit(status)`` or by a signal; ``report`` tells of its fault."""

    status: int
    signal: int = 0
    core: bool = False
    report: Any = None

    @property
    def exit_status(self) -> int:
        """As a shell has it: 128 + n for signal n."""
        return 128 + self.signal if self.signal else self.status

    @property
    def signal_name(self) -> str:
        """``SIGSEGV`` and the like; real-time signals are numbers."""
        known = self.signal in set(signal.Signals)
        return signal.Signals(self.signal).name if known else f"signal {self.signal}"

    @property
    def wait_status(self) -> int:
        """As ``wait4()`` gives it."""
        return self.signal | (0x80 if self.core else 0) if self.signal else self.status << 8


class KernelLimits(dict[int, tuple[int, int]]):
    """Resource limits that also stand in the ``task_struct``, where the memory manager looks."""

    def __init__(self, values: dict[int, tuple[int, int]], view: Any) -> None:
        super().__init__()
        self._view = view
        for resource, limit in values.items():
            self[resource] = limit

    def __setitem__(self, resource: int, limit: tuple[int, int]) -> None:
        super().__setitem__(resource, limit)
        if resource < RLIM_NLIMITS:
            place = self._view.rlim[resource]
            place.rlim_cur, place.rlim_max = limit


@dataclass(eq=False)
class Process:
    """A :class:`~harness.syscalls.task.Task` of ``system``; ``task`` is its ``task_struct *``."""

    system: "Linux"
    pid: int
    task: int
    files: DescriptorTable
    fs: Context
    signals: SignalState
    parent_process: "Process | None" = None
    tgid: int = 0
    group: int = 0
    session: int = 0
    limits: Limits = field(default_factory=Limits)
    thread_areas: ThreadAreas = field(default_factory=ThreadAreas)
    executable: bytes = b""
    """Path of the file it was started from, of a script that of the interpreter."""
    personality: int = 0
    nice: int = 0
    clear_child_tid: int = 0
    set_child_tid: int = 0
    """Where its PID is to be written when it first runs."""
    last_trap: tuple[int, int, int] | None = None
    """Vector, error code and CR2 of the trap that it is in, unless that is a system call."""
    robust_list: int = 0
    rseq: RestartableSequences = field(default_factory=RestartableSequences)
    has_executed: bool = False
    parent_death_signal: int = 0
    dumpable: int = 1
    no_new_privileges: int = 0
    exit_signal: int = 17
    restart: Callable[[], Call] | None = None
    children: list["Process"] = field(default_factory=list)
    state: State = State.RUNNING
    ended: Ended | None = None
    call: Call | None = None
    """The system call under way, if it waits."""
    waiting: WaitUntil | None = None
    unfinished: RestartSystemCall | None = None
    """A signal ended the last system call: what becomes of it is still to be decided."""
    vfork_done: bool = True
    """Whether the parent that waits for this child in ``vfork()`` may go on."""
    saved_selectors: tuple[int, int] = (0, 0)
    """FS and GS while the CPU holds another process's."""
    peak_rss: int = 0
    children_faults: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.tgid = self.tgid or self.pid
        image = self.system.kernel.image
        self.view: Any = image.at(image.structs.task_struct, self.task)
        self.view.pid = self.pid
        self.registers_at = image.kernel_stack_top(self.task) - PT_REGS_BYTES
        self.registers: Any = image.at(image.structs.pt_regs, self.registers_at)
        self.limits.values = KernelLimits(self.limits.values, self.view)

    # -- names --------------------------------------------------------------------------------

    @property
    def comm(self) -> bytes:
        return bytes(self.view.comm).partition(b"\0")[0]

    @comm.setter
    def comm(self, name: bytes) -> None:
        self.view.comm[:] = list(name[:15].ljust(16, b"\0"))

    @property
    def parent(self) -> int:
        """The PID of its parent; 1 for one that has none here."""
        return self.parent_process.tgid if self.parent_process is not None else 1

    @property
    def alive(self) -> bool:
        return self.state is State.RUNNING

    # -- memory ---------------------------------------------------------------------------------

    @property
    def mm(self) -> int:
        """Its ``struct mm_struct *``; 0 when it has ended."""
        return int(self.view.mm) if self.task else 0

    @property
    def pgd(self) -> int:
        """Physical address of its page directory."""
        return self.system.kernel.memory.tables.pgd(self.mm)

    @property
    def address_space(self) -> Hashable:
        return self.mm

    def backing(self, address: int) -> tuple[Hashable, int] | None:
        """The ``struct inode *`` of a shared mapping, and the offset in it."""
        spaces = self.system.kernel.spaces
        vma = spaces.find_vma(self.mm, address)
        area = spaces.areas.vma(vma) if vma else None
        if area is None or area.vm_start > address or not area.vm_flags & (VM_READ | VM_WRITE):
            fail(errno.EFAULT)
        if not area.vm_flags & VM_MAYSHARE:
            return None
        offset = (area.vm_pgoff << PAGE_SHIFT) + address - area.vm_start
        return spaces.areas.files.inode_of(area.vm_file), int(offset)

    @property
    def has_fxsr(self) -> bool:
        """Whether its CPU has FXSAVE."""
        return self.system.kernel.config.features.fxsr

    @property
    def sigreturn_addresses(self) -> tuple[int, int] | None:
        """Where its handlers return to: the vsyscall page, in a release that has one."""
        vsyscall = self.system.kernel.vsyscall
        return vsyscall.sigreturn if vsyscall else None

    @property
    def thread_selectors(self) -> Collection[int]:
        """Selectors, for ring 3, of its own descriptors in the GDT."""
        areas = enumerate(self.thread_areas.areas, FIRST_ENTRY)
        return {number << 3 | 3 for number, area in areas if area is not None}

    # -- registers ------------------------------------------------------------------------------

    @property
    def fpu_area(self) -> int:
        """Kernel virtual address of its FPU state while another process runs."""
        return self.task + I387

    def fpu_state(self) -> bytes:
        """512 bytes as FXSAVE writes them."""
        self.system.scheduler.save_fpu(self)
        return self.system.machine.ram.read(virt_to_phys(self.fpu_area), 512)

    def set_fpu_state(self, image: bytes) -> None:
        self.system.machine.ram.write(virt_to_phys(self.fpu_area), image[:512].ljust(512, b"\0"))
        self.system.scheduler.fpu_changed(self)

    @property
    def fs_selector(self) -> int:
        return self.system.scheduler.selectors(self)[0]

    @fs_selector.setter
    def fs_selector(self, selector: int) -> None:
        self.system.scheduler.set_selectors(self, selector, self.gs_selector)

    @property
    def gs_selector(self) -> int:
        return self.system.scheduler.selectors(self)[1]

    @gs_selector.setter
    def gs_selector(self, selector: int) -> None:
        self.system.scheduler.set_selectors(self, self.fs_selector, selector)

    def start_registers(self, eip: int, esp: int) -> None:
        """Ring 3 begins at ``eip``, all general registers 0, as ``start_thread()`` leaves it."""
        regs = self.registers
        for name in ("ebx", "ecx", "edx", "esi", "edi", "ebp", "eax"):
            setattr(regs, name, 0)
        regs.xds = regs.xes = regs.xss = USER_DS
        regs.xcs, regs.eip, regs.esp, regs.eflags = USER_CS, eip, esp, EFLAGS_IF
        regs.orig_eax = 0xFFFFFFFF
        self.fs_selector = self.gs_selector = 0
        self.set_fpu_state(fresh_image(self.has_fxsr))

    @property
    def faulted(self) -> tuple[int, int, int]:
        """CR2, vector and error code of its last fault."""
        return int(self.view.cr2), int(self.view.trap_no), int(self.view.error_code)

    @property
    def interrupted(self) -> bool:
        """Whether a signal wants to be handled before anything else."""
        return self.signals.has_deliverable()

    # -- signals and use ------------------------------------------------------------------------

    def send_signal(self, signal: int) -> None:
        """From itself or the kernel, as ``SI_KERNEL`` or ``SI_USER`` by its kind."""
        self.system.send_signal(self, signal)

    def usage(self) -> Usage:
        """Of all threads, those that have ended too."""
        threads = [p for p in self.system.processes.values() if p.tgid == self.tgid]
        minor, major = self.signals.group.ended_faults
        rss = self._rss()
        self.peak_rss = max(self.peak_rss, rss)
        return Usage(
            max_rss_pages=self.peak_rss,
            minor_faults=minor + sum(int(thread.view.min_flt) for thread in threads),
            major_faults=major + sum(int(thread.view.maj_flt) for thread in threads),
        )

    def children_usage(self) -> Usage:
        minor, major = self.children_faults
        return Usage(minor_faults=minor, major_faults=major)

    def _rss(self) -> int:
        mm = self.mm
        if not mm:
            return 0
        return int(self.system.kernel.spaces.areas.mm(mm).rss)
