# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose processes fork, and touch single pages from ring 3 on the CPU.

A process is named by its page directory. ``first`` runs the guest program ``access``, whose
functions make one load or one store; every other process is a descendant of it. What each page
fault came to, and each signal, is kept.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.binfmt_elf import ElfLoader
from harness.elf import load_elf
from harness.guests import guest_path
from harness.machine import Machine, paging_variant
from harness.uaccess import UserAccess
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.arch_i386.signal import SigInfo
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.memory.fault import ZERO_PFN
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from tests.harness.frame_accounting import check_machine
from tests.harness.made_to_reclaim import MADE_TO_RECLAIM
from tests.harness.program_file import ProgramFile
from tests.kernel_model.mm.user_spaces import UserSpaces

PAGE = 4096
PRIVATE, SHARED, ANONYMOUS, FIXED = 0x02, 0x01, 0x20, 0x10
RW, R, NONE = 3, 1, 0
MCL_CURRENT, MCL_FUTURE = 1, 2
BITS = {"P": 0x1, "W": 0x2, "U": 0x4, "N": 0x80, "A": 0x20, "D": 0x40}
SIGNALS = {(11, 1): "SEGV_MAPERR", (11, 2): "SEGV_ACCERR", (7, 2): "BUS_ADRERR", (9, 0): "SIGKILL"}

_HIGH: dict[str, Any] = {"ram": 72 * MIB, "highmem_pages": 2048}
"""Below 64 MiB of low memory the kernel ignores the boot parameter, and has no high memory."""
CONFIGS = {
    "2-level": KernelConfig(ram=32 * MIB, swap_pages=256),
    "486": KernelConfig(ram=32 * MIB, swap_pages=256, cpu_model="486"),
    "SMP": KernelConfig(ram=32 * MIB, swap_pages=256, nr_cpus=2),
    "highmem": KernelConfig(swap_pages=256, highmem=Highmem.GB4, **_HIGH),
    "debug highmem": KernelConfig(swap_pages=256, highmem=Highmem.GB4, debug_highmem=True, **_HIGH),
    "PAE": KernelConfig(swap_pages=256, highmem=Highmem.GB64, **_HIGH),
    "2.6": KernelConfig(release="2.6", ram=32 * MIB, swap_pages=256),
    "2.6 chains": KernelConfig(release="2.6", rmap="pte_chain", ram=32 * MIB, swap_pages=256),
    "2.6 highmem": KernelConfig(release="2.6", swap_pages=256, highmem=Highmem.GB4, **_HIGH),
    "2.6 PAE": KernelConfig(release="2.6", swap_pages=256, highmem=Highmem.GB64, **_HIGH),
    "2.6 highpte": KernelConfig(
        release="2.6", swap_pages=256, highmem=Highmem.GB64, highpte=True, **_HIGH
    ),
    "2.6 chains, highpte": KernelConfig(
        release="2.6",
        rmap="pte_chain",
        swap_pages=256,
        highmem=Highmem.GB4,
        highpte=True,
        debug_highmem=True,
        **_HIGH,
    ),
}


class Content:
    """A file in Python, of one word in each page."""

    def __init__(self, value: int, pages: int = 1) -> None:
        self.content = bytearray(value.to_bytes(4, "little").ljust(PAGE, b"\0") * pages)
        self.size = len(self.content)

    def read_page(self, index: int) -> bytes:
        return bytes(self.content[index * PAGE : (index + 1) * PAGE])

    def write_page(self, index: int, data: bytes) -> None:
        self.content[index * PAGE : (index + 1) * PAGE] = data

    def truncate(self, size: int) -> None:
        self.size = size


@dataclass
class ProcessMachine:
    """The machine, its first process, and what their faults came to."""

    config: KernelConfig
    faults: list[tuple[int, int, FaultKind]] = field(default_factory=list)
    signals: list[SigInfo] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Machine(Kernel(self.config), image=self._image())
        self.kernel = kernel = self.machine.kernel
        self.reclaiming = MADE_TO_RECLAIM[self.config.release]
        assert bool(kernel.highmem.highmem_pages) == (self.config.highmem is not Highmem.NONE)
        self.machine.on_trap = self._end
        kernel.page_faults.force_sig_info = self.signals.append
        self.machine.on_fault = self._faulted
        self.spaces = UserSpaces(kernel)
        self.program = load_elf(guest_path("access"))
        self.first = self.spaces.start()
        self.esp = self._load()

    def _image(self) -> Path:
        return guest_path("fault_test", paging_variant(self.config))

    def _load(self) -> int:
        self.spaces.enter(self.first)
        loader = ElfLoader(self.kernel, UserAccess(self.machine))
        file = self.kernel.hostfs.open(ProgramFile(self.program.file), "access", FMODE_READ)
        _, esp = loader.load(self.program, file, [b"access"], [])
        self.kernel.files.fput(file)
        self.first = self.spaces.after_exec(self.first)
        # Reclaim shall find pages of descendants only, and the program's text in its place.
        assert not self.kernel.spaces.sys_mlockall(MCL_CURRENT)
        # A program of 2.6 gets an address space of its own.
        task, mm = self.spaces.tasks.pop(self.first), int(self.kernel.image.current_task.mm)
        self.first = self.kernel.memory.tables.pgd(mm)
        self.spaces.tasks[self.first] = task
        # Its pages are shared for the first time: a chain of PTEs that was made stays one.
        self.spaces.exit(self.spaces.fork(self.first))
        self.spaces.enter(self.first)
        return esp

    def _faulted(self, kind: FaultKind, _regs: int, error_code: int, address: int) -> None:
        self.faults.append((error_code, address, kind))

    def _end(self, *_: object) -> None:
        self.machine.cpu.stop()

    # -- mappings of the current process -------------------------------------------------------

    def map(self, addr: int, prot: int = RW, flags: int = PRIVATE | ANONYMOUS, **what: int) -> int:
        """``file`` and ``pages`` may be given."""
        size = what.get("pages", 1) * PAGE
        file = what.get("file", 0)
        got = self.kernel.spaces.do_mmap_pgoff(file, addr, size, prot, flags | FIXED, 0)
        assert got == addr, got
        return addr

    def open(self, content: Content) -> int:
        return self.kernel.hostfs.open(content, "content", FMODE_READ | FMODE_WRITE)

    def map_file(self, addr: int, content: Content, flags: int, prot: int = RW) -> int:
        """Map all of it; the mapping is its only user."""
        file = self.open(content)
        self.map(addr, prot, flags, file=file, pages=content.size // PAGE)
        self.kernel.files.fput(file)
        return addr

    # -- accesses ------------------------------------------------------------------------------

    def read(self, pgd: int, addr: int) -> int | str:
        """The word that ring 3 of the process loads, or the signal that it gets."""
        return self._access(pgd, "user_read", addr, 0)

    def write(self, pgd: int, addr: int, value: int) -> int | str:
        return self._access(pgd, "user_write", addr, value)

    def _access(self, pgd: int, function: str, addr: int, value: int) -> int | str:
        if self.kernel.memory.tables.pgd(int(self.kernel.image.current_task.active_mm)) != pgd:
            self.spaces.enter(pgd)
        self.faults.clear()
        self.signals.clear()
        eax = self.machine.call("call_user", self.program.symbols[function], self.esp, addr, value)
        if self.signals:
            return SIGNALS[self.signals[0].signo, self.signals[0].code]
        return eax

    # -- what is there -------------------------------------------------------------------------

    def pte(self, pgd: int, addr: int) -> int:
        ptep = self.kernel.memory.tables.pte_offset(pgd, addr)
        return self.kernel.tables.entry(ptep) if ptep else 0

    def bits(self, pgd: int, addr: int) -> str:
        """The PTE in letters: ``zero`` for the zero page, P present, W writable, U user,
        A accessed, D dirty, N present for the kernel alone; ``swap`` for a swap slot."""
        pte = self.pte(pgd, addr)
        if not pte:
            return "none"
        if not pte & 0x81:
            return "swap"
        letters = [letter for letter, bit in BITS.items() if pte & bit]
        return " ".join(["zero"] * (pte >> 12 == ZERO_PFN) + letters)

    def frame(self, pgd: int, addr: int) -> int:
        """The number of the frame; 0: none is present."""
        pte = self.pte(pgd, addr)
        return pte >> 12 if pte & 0x81 else 0

    def count(self, pgd: int, addr: int) -> int:
        """``page->count`` of the frame at ``addr``, or how often its swap slot is meant."""
        pte = self.pte(pgd, addr)
        return self.users(pte >> 12) if pte & 0x81 else self.slots(pte)

    def slots(self, pte: int) -> int:
        """How often the swap slot that a PTE names is meant."""
        areas = self.kernel.swap_areas
        return areas.swap_count(areas.ptes.pte_to_swp_entry(pte))

    def users(self, frame: int) -> int:
        """``page->count`` of a frame, by its number."""
        memmap = self.kernel.allocator.memmap
        return memmap.count(memmap.page(frame))

    def frame_in_swap_cache(self, pte: int) -> int:
        """The number of the frame that holds the contents of a PTE's slot; 0: none does."""
        swap, memmap = self.kernel.swap_cache, self.kernel.allocator.memmap
        entry = self.kernel.swap_areas.ptes.pte_to_swp_entry(pte)
        page = swap.cache.find_page(swap.swapper_space, entry)
        return memmap.pfn(page) if page else 0

    def cached_frames(self) -> int:
        """How many frames the page cache has."""
        return int(getattr(self.kernel.statics, self.reclaiming.cached))

    def mapped_frames(self, pgd: int) -> int:
        """How many pages of user space have a frame that is not reserved, from the tables."""
        tables, entry = self.kernel.memory.tables, self.kernel.tables.entry
        memmap = self.kernel.allocator.memmap
        ptes = [entry(ptep) for _, ptep in tables.ptes(pgd, 0, TASK_SIZE)]
        pages = [memmap.page(pte >> 12) for pte in ptes if pte & 0x81]
        return sum(1 for page in pages if not memmap.reserved(page))

    def rss(self, pgd: int) -> int:
        return int(self.kernel.spaces.areas.mm(self.spaces.mm(pgd)).rss)

    def swap_out(self) -> None:
        """Unmap every page that can be had again; its frame stays."""
        self.reclaiming.unmap_all(self.kernel)

    def reclaim(self) -> None:
        """And free the frames of what was unmapped."""
        self.swap_out()
        self.reclaiming.free_all(self.kernel)

    def owners(self) -> dict[int, str]:
        """The owner of every frame, when the caches of tables and of objects hold nothing that
        they could give back. The machine is in order."""
        kernel = self.kernel
        if kernel.image.current == kernel.image.init_task:
            self.spaces.enter(self.first)
        kernel.page_tables.check_pgt_cache(0, 0)
        self.reclaiming.settle(kernel)
        check_machine(kernel, self.machine.ledger)
        self.reclaiming.check(kernel, [self.spaces.mm(pgd) for pgd in self.spaces.tasks])
        return dict(self.machine.ledger._owners)
