# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with processes, whose memory is accessed by ring 3 and by ring 0 on the CPU.

The program of every process is ``guest/user/access.c``: single accesses, entered by
``call_user()``. Ring 0 copies by the guest's ``copy_to_user()`` and ``copy_from_user()``.
"""

import itertools
from dataclasses import replace

import numpy as np

from harness.binfmt_elf import ElfLoader
from harness.diff import diff
from harness.elf import load_elf
from harness.guests import guest_path
from harness.machine import Machine
from harness.mappings import (
    PAGE_SHIFT,
    RIGHT_GLOBAL,
    RIGHT_PRESENT,
    RIGHT_USER,
    RIGHT_WRITE,
)
from harness.mmu_sweep import sweep
from harness.progress import Meter
from harness.readings import intent
from harness.readings.cpu_mmu import ask_mmu
from harness.readings.reading import disagree
from harness.readings.spec import SpecView, mmu_features
from harness.uaccess import UserAccess
from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.arch_i386.signal import SigInfo
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.mman import MADV_DONTNEED
from tests.harness.frame_accounting import check_machine
from tests.harness.made_to_reclaim import MADE_TO_RECLAIM
from tests.harness.program_file import ProgramFile
from tests.kernel_model.mm.file_world import Disk
from tests.kernel_model.mm.user_spaces import UserSpaces

MACHINES = {
    "2-level": KernelConfig(ram=8 * MIB, swap_pages=300),
    "2-level, highmem": KernelConfig(
        ram=64 * MIB, highmem=Highmem.GB4, highmem_pages=6 << 8, swap_pages=300
    ),
    "PAE, highmem": KernelConfig(
        ram=64 * MIB, highmem=Highmem.GB64, highmem_pages=6 << 8, swap_pages=300
    ),
}
MACHINES_2_6 = {
    "2-level": KernelConfig(release="2.6", ram=8 * MIB, swap_pages=300),
    "2-level, highmem": KernelConfig(
        release="2.6",
        rmap="pte_chain",
        ram=64 * MIB,
        highmem=Highmem.GB4,
        highmem_pages=6 << 8,
        highpte=True,
        swap_pages=300,
    ),
    "PAE, highmem": KernelConfig(
        release="2.6",
        ram=64 * MIB,
        highmem=Highmem.GB64,
        highmem_pages=6 << 8,
        highpte=True,
        swap_pages=300,
    ),
}
"""The same machines, one of them with chains of PTEs; page tables in high memory if there is."""
SIGNALS = {(11, 1): "SEGV_MAPERR", (11, 2): "SEGV_ACCERR", (7, 2): "BUS_ADRERR", (9, 0): "SIGKILL"}


class SpaceMachine:
    """A booted machine, its files, and its processes by number; one of them is current."""

    def __init__(self, config: KernelConfig, contents: list[bytes], watched: list[int]) -> None:
        self.watched = watched
        """Page numbers that the TLB is asked about even when they are absent."""
        self.machine = Machine(Kernel(config))
        self.kernel = kernel = self.machine.kernel
        self.ledger = self.machine.ledger
        self.reclaiming = MADE_TO_RECLAIM[config.release]
        self.reclaiming.prepare(kernel)
        self.uaccess = UserAccess(self.machine)
        self.spaces = UserSpaces(kernel)
        self.program = load_elf(guest_path("access"))
        self.signals: list[SigInfo] = []
        kernel.page_faults.force_sig_info = self.signals.append
        self.machine.on_trap = lambda *trap: self.machine.cpu.stop()
        self.features = mmu_features(self.machine.cpu)
        self.reclaiming.settle(self.kernel)
        self._free_at_boot = self.spaces.free_frames()
        self._owners_at_boot = dict(self.ledger._owners)
        self._committed_at_boot = self.reclaiming.committed(kernel)
        self.disks = [Disk(content) for content in contents]
        mode = FMODE_READ | FMODE_WRITE
        self.files = [
            kernel.hostfs.open(disk, f"file{number}", mode)
            for number, disk in enumerate(self.disks)
        ]
        self.pgds: dict[int, int] = {}
        """The page directory of each process."""
        self._pids = itertools.count(1)
        self.start()

    @property
    def pgd(self) -> int:
        """The page directory of the current process."""
        return self.kernel.memory.tables.pgd(self.mm)

    @property
    def mm(self) -> int:
        return int(self.kernel.image.current_task.mm)

    # -- processes -----------------------------------------------------------------------------

    def start(self) -> None:
        """The first process."""
        pid, pgd = next(self._pids), self.spaces.start()
        self.spaces.enter(pgd)
        text = ProgramFile(self.program.file)
        file = self.kernel.hostfs.open(text, "access", FMODE_READ)
        loader = ElfLoader(self.kernel, self.uaccess)
        _, self.esp = loader.load(self.program, file, [b"access"], [])
        self.pgds[pid] = self.spaces.after_exec(pgd)
        self.kernel.files.fput(file)

    def fork(self) -> int:
        """A child of the current process; the number it got."""
        pid = next(self._pids)
        self.pgds[pid] = self.spaces.fork(self.pgd)
        return pid

    def switch(self, pid: int) -> None:
        self.spaces.enter(self.pgds[pid])
        assert self.machine.cpu.read_cr3() == self.pgds[pid], "CR3 has another space"

    def exit(self, pid: int) -> None:
        self.spaces.exit(self.pgds.pop(pid))

    # -- accesses ------------------------------------------------------------------------------

    def user(self, access: str, address: int, value: int = 0) -> tuple[str, int]:
        """Ring 3 accesses a word: (its signal, if it got one, EAX)."""
        del self.signals[:]
        entry = self.program.symbols[f"user_{access}"]
        eax = self.machine.call("call_user", entry, self.esp, address, value)
        return self._signal(address), eax

    def _signal(self, address: int) -> str:
        if not self.signals:
            return ""
        assert len(self.signals) == 1, "one access, several signals"
        info = self.signals[0]
        assert info.addr == address, "the signal names another address"
        return SIGNALS[info.signo, info.code]

    # -- VMAs ----------------------------------------------------------------------------------

    def vma_end(self, page: int) -> int:
        """Where the VMA of a page ends, in pages; the page itself when there is none."""
        areas = self.kernel.spaces.areas
        views = [areas.vma(vma) for vma in areas.list(self.mm)]
        address = page << 12
        ends = [v.vm_end for v in views if v.vm_start <= address < v.vm_end]
        return ends[0] >> 12 if ends else page

    def madvise_dontneed(self, start: int, length: int) -> int:
        kernel = self.kernel
        advise = kernel.spaces.advise.sys_madvise
        return advise(start, length, MADV_DONTNEED, kernel.file_memory.filemap)

    # -- pressure ------------------------------------------------------------------------------

    def press(self, *, write: bool) -> None:
        """Take frames from processes, those of pages that were not used since the last time
        first; with ``write`` the frames are written out and given back."""
        self.reclaiming.press(self.kernel, write=write)

    # -- what must hold ------------------------------------------------------------------------

    def _spec(self, pgd: int) -> SpecView:
        registers = replace(self.machine.cpu.control, cr3=pgd)
        return SpecView(self.machine.ram, registers, self.features)

    def check_user_tables(self, pgd: int) -> None:
        """The tables hold the pages that are meant, and none is meant beyond its VMA.

        The comparison of :mod:`harness.diff` for the user part alone, entry by entry.
        """
        registers = replace(self.machine.cpu.control, cr3=pgd)
        ram = self.machine.ram
        held = sweep(np.frombuffer(ram.buffer, np.uint32), registers, self.features, ram.ranges)
        user = held.va < TASK_SIZE
        numbers, frames, rights = self.ledger.pages(pgd)
        meant = (rights & RIGHT_PRESENT != 0) & (numbers < TASK_SIZE >> PAGE_SHIFT)
        where = f"in the space {pgd:#x}"
        assert not len(held.malformed), where
        compared = RIGHT_WRITE | RIGHT_USER | RIGHT_GLOBAL
        for name, one, other in (
            ("page", held.va[user] >> PAGE_SHIFT, numbers[meant]),
            ("frame", held.pa[user] >> PAGE_SHIFT, frames[meant]),
            ("rights", held.rights[user] & compared, rights[meant] & compared),
        ):
            assert np.array_equal(one, other), f"{where} another {name} than meant"
        beyond = intent.beyond_areas(self.kernel, pgd)
        assert not len(beyond), f"{where} {beyond[0] << 12:#x} is not in its VMA, or may do more"

    def check_tables(self, pgd: int) -> None:
        """The whole space, the kernel's part too."""
        spec = self._spec(pgd)
        wrong = intent.contradicts(intent.intended_space(self.kernel, spec), spec.pages)
        first = int(wrong.argmax())
        assert not wrong[first], f"{first << 12:#x} is not as meant in the space {pgd:#x}"

    def check_tlb(self) -> None:
        """The MMU, as it stands, translates user pages as the tables say. Flushes afterwards: A
        and D bits that the questions set are taken back, and must not stay in the TLB."""
        spec = self._spec(self.pgd)
        mapped = np.flatnonzero(spec.pages.rights[: TASK_SIZE >> PAGE_SHIFT])
        pages = np.union1d(mapped, self.watched)
        said, asked = spec.reading(pages), ask_mmu(self.machine.cpu, pages, Meter(None), pages)
        self.machine.cpu.flush_tlb_global()
        stale = pages[disagree(asked.answers, said.answers).any(axis=0)]
        assert not len(stale), f"a flush is missing: the TLB has {stale[0] << 12:#x} otherwise"

    def check_everything(self) -> None:
        """Every reading of every address space; the current one first, for its TLB is warm."""
        others = [pgd for pgd in (*self.pgds.values(), SWAPPER_PG_DIR) if pgd != self.pgd]
        for pgd in (self.pgd, *others):
            report = diff(self.machine, mm=pgd)
            assert report.ok, str(report)

    def check_frames(self) -> None:
        check_machine(self.kernel, self.ledger)
        self.reclaiming.check(self.kernel, [self.spaces.mm(pgd) for pgd in self.pgds.values()])

    def close(self) -> None:
        """Every process exits and every file is closed: nothing is left of them."""
        for pid in list(self.pgds):
            self.exit(pid)
        for file in self.files:
            self.kernel.files.fput(file)
        assert not any(self.kernel.swap_areas.counts(0)[1:]), "a swap slot is left"
        self.check_frames()
        self.reclaiming.settle(self.kernel)
        free = self.spaces.free_frames()
        now, before = self.ledger._owners.items(), self._owners_at_boot.items()
        assert now == before, f"another owner than at boot: {sorted(now ^ before)}"
        assert free == self._free_at_boot, f"{self._free_at_boot - free} frames are lost"
        left = self.reclaiming.committed(self.kernel) - self._committed_at_boot
        assert left == 0, f"{left} pages are promised to nobody"
        cached = getattr(self.kernel.statics, self.reclaiming.cached)
        assert cached == 0, f"{cached} pages are still cached"
