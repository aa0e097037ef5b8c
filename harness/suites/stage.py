# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose processes touch single pages, from ring 3 and from ring 0, on the CPU.

A process is named by its page directory. Ring 3 runs ``guest/user/access.c``, entered by the
ring-0 guest ``fault_test``. What each page fault came to, and each signal, is kept.

What can fail: :class:`NotAsExpected`, with the walk, the entry and who wrote it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pytest

from harness.architecture import Access, Ring
from harness.binfmt_elf import ElfLoader
from harness.concerned import FLUSHES
from harness.elf import load_elf
from harness.failures import about_address
from harness.guests import guest_path
from harness.machine import GuestDied, GuestStopped, Limits, Machine
from harness.mmu_spec import walk
from harness.suites.files import Disk
from harness.suites.user_spaces import UserSpaces
from harness.uaccess import UserAccess
from harness.verdict import Verdict
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.arch_i386.signal import SigInfo
from kernel_model.errors import MmucheckError
from kernel_model.mm.memory.fault import ZERO_PFN
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE

PAGE: Final = 4096
PRIVATE, SHARED, ANONYMOUS, FIXED = 0x02, 0x01, 0x20, 0x10
RW, R, NONE = 3, 1, 0
TASK_SIZE: Final = 0xC0000000
SIGNALS: Final = {(11, 1): "SEGV_MAPERR", (11, 2): "SEGV_ACCERR", (7, 2): "BUS_ADRERR"}
_BITS: Final = {"P": 0x1, "W": 0x2, "U": 0x4, "N": 0x80, "A": 0x20, "D": 0x40}
_FEW: Final = 500
ACCESSES: Final = {"read": Access.READ, "write": Access.WRITE, "exec": Access.FETCH}


def _sentence(verdict: Verdict) -> str:
    return f"{verdict.value.upper()}: {verdict.sentence}"


_MISSING_FLUSH: Final = _sentence(Verdict.MISSING_FLUSH)


class NotAsExpected(MmucheckError):
    """Something came out otherwise than kernel and manual have it."""

    def __init__(self, headline: str, text: str) -> None:
        super().__init__(text)
        self.headline = headline


class Stage:
    """The machine and its first process, ``first``."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.kernel = kernel = machine.kernel
        if not hasattr(kernel, "page_faults"):
            pytest.skip(f"Linux {kernel.config.release} of this build serves no page faults")
        self.faults: list[tuple[int, int, FaultKind]] = []
        self.signals: list[SigInfo] = []
        machine.on_trap = lambda *trap: machine.cpu.stop()
        machine.on_fault = self._faulted
        kernel.page_faults.force_sig_info = self.signals.append
        self.spaces = UserSpaces(kernel)
        self.program = load_elf(guest_path("access"))
        self.first = self.spaces.start()
        self.spaces.enter(self.first)
        loader = ElfLoader(kernel, UserAccess(machine))
        file = kernel.hostfs.open(Disk(self.program.file), "access", FMODE_READ)
        _, self.esp = loader.load(self.program, file, [b"access"], [])
        kernel.files.fput(file)
        self.first = self.spaces.after_exec(self.first)
        # The program's own pages are there, so that each fault is one of the page in question.
        self.machine.call("bare_read", self.program.symbols["user_read"])
        self.machine.call("bare_write", self.esp - 4, 0)

    def _faulted(self, kind: FaultKind, _regs: int, error_code: int, address: int) -> None:
        self.faults.append((error_code, address, kind))

    # -- mappings ------------------------------------------------------------------------------

    def map(
        self,
        addr: int,
        prot: int = RW,
        flags: int = PRIVATE | ANONYMOUS,
        *,
        pages: int = 1,
        file: int = 0,
    ) -> int:
        """A mapping of the current process at ``addr``."""
        spaces = self.kernel.spaces
        got: int = spaces.do_mmap_pgoff(file, addr, pages * PAGE, prot, flags | FIXED, 0)
        if got != addr:
            raise NotAsExpected(
                f"mmap({addr:#x}) gave {got:#x}",
                f"mmap({addr:#x}, {pages * PAGE:#x}, MAP_FIXED) gave {got:#x}\n"
                f"kernel  do_mmap_pgoff(), mm/mmap.c (book 4.4.2)",
            )
        return addr

    def map_file(
        self, addr: int, content: bytes, flags: int, prot: int = RW, pages: int = 1
    ) -> int:
        file = self.kernel.hostfs.open(Disk(content), "content", FMODE_READ | FMODE_WRITE)
        self.map(addr, prot, flags, pages=pages, file=file)
        self.kernel.files.fput(file)
        return addr

    # -- accesses ------------------------------------------------------------------------------

    def access(self, who: str, access: str, addr: int, value: int = 0) -> int:
        """``user``, ``kernel`` (bare) or ``uaccess`` (by ``get_user()`` and its kin); EAX.

        What was faulted and signalled on the way is in :attr:`faults` and :attr:`signals`.
        """
        self.faults.clear()
        self.signals.clear()
        call = self.machine.call
        if who == "user":
            entry = self.program.symbols[f"user_{access}"]
            return call("call_user", entry, self.esp, addr, value)
        prefix = {"kernel": "bare", "uaccess": "uaccess"}[who]
        with self._ended_soon(access == "exec"), suppress(GuestDied):
            return call(f"{prefix}_{access}", addr, value)
        return 0

    @contextmanager
    def _ended_soon(self, limited: bool) -> Iterator[None]:
        """Ring 0 that runs on through a page of zeros must not come to what lies behind it."""
        before, machine = self.machine.limits, self.machine
        if limited:
            machine.limits = Limits(instructions=_FEW)
        try:
            with suppress(GuestStopped):
                yield
        finally:
            machine.limits = before

    def in_space(self, pgd: int, function: Callable[[], Any]) -> Any:
        """Let the process of ``pgd`` be current meanwhile."""
        before = self.machine.cpu.read_cr3()
        self.spaces.enter(pgd)
        try:
            return function()
        finally:
            self.spaces.enter(before)

    # -- what is there -------------------------------------------------------------------------

    def page(self, pgd: int, addr: int) -> str:
        """A PTE in letters: ``zero`` page, P, W, U, N (kept, but for nobody), A, D; or ``none``."""
        ptep = self.kernel.memory.tables.pte_offset(pgd, addr)
        pte = self.kernel.tables.entry(ptep) if ptep else 0
        if not pte:
            return "none"
        letters = [letter for letter, bit in _BITS.items() if pte & bit]
        return " ".join([*(["zero"] if pte >> 12 == ZERO_PFN else []), *letters])

    def frame(self, pgd: int, addr: int) -> int:
        """The frame that the page holds."""
        ptep = self.kernel.memory.tables.pte_offset(pgd, addr)
        return int(self.kernel.tables.entry(ptep)) >> 12

    def outcome(self, addr: int) -> str:
        """What came of the first fault at the page of ``addr``."""
        kinds = [kind for _, cr2, kind in self.faults if cr2 >> 12 == addr >> 12]
        if not kinds:
            return "no fault"
        sent = [SIGNALS.get((i.signo, i.code), f"signal {i.signo}") for i in self.signals[:1]]
        if kinds[0] is FaultKind.SIGNAL:
            return sent[0] if sent else "signal without siginfo"
        return str(kinds[0].value).removesuffix(" fault")

    def _by_the_cpu(self, addr: int, access: Access, ring: Ring, pgd: int) -> list[str]:
        """Whose fault it is, where the CPU has the page otherwise than the tables."""
        cpu = self.machine.cpu
        if pgd and cpu.read_cr3() != pgd:
            return []
        spec = walk(self.machine.ram, cpu.control, addr, access, ring).paddr
        seen = cpu.translate(addr, access, ring)
        if seen == spec:
            return []
        cpu.flush_tlb_global()
        flushed = cpu.translate(addr, access, ring)
        verdict = Verdict.MISSING_FLUSH if flushed == spec else Verdict.EMULATOR_BUG
        said = [
            f"{'a fault' if paddr is None else f'{paddr:#x}'}" for paddr in (spec, seen, flushed)
        ]
        return [
            _sentence(verdict),
            f"  spec    {said[0]}",
            f"  cpu     {said[1]}; after a flush {said[2]}",
        ]

    def expect(
        self,
        what: str,
        found: Any,
        expected: Any,
        addr: int,
        access: str = "read",
        who: str = "user",
        pgd: int = 0,
    ) -> None:
        """``found`` must be ``expected``; else everything about ``addr`` is told."""
        if found == expected:
            return
        ring = Ring.USER if who == "user" else Ring.KERNEL
        lines = [f"{what}: {found}", f"{'expected':>{len(what)}}: {expected}", ""]
        by_cpu = self._by_the_cpu(addr, ACCESSES[access], ring, pgd)
        section = FLUSHES if by_cpu[:1] == [_MISSING_FLUSH] else ""
        about = about_address(self.machine, addr, ACCESSES[access], ring, pgd or None, section)
        lines += [*by_cpu, *about]
        if self.faults:
            lines += ["", "faults on the way:"]
            lines += [
                f"  #PF at {cr2:#010x}, error code {code}: {kind.value}"
                for code, cr2, kind in self.faults
            ]
        headline = f"{what}: {found}, expected {expected} ({addr:#010x})"
        raise NotAsExpected(headline, "\n".join(lines))
