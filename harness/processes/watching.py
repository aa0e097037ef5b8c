# SPDX-License-Identifier: GPL-2.0-or-later
"""Following a run: a line for each fault and call, and the most memory that was in use.

An :class:`Observer` is told of the same things as records. Nothing of this changes what the
programs do. Nothing here can fail.
"""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from harness.mmu_faults import error_code_text
from harness.syscalls.all_calls import ALL_CALLS
from harness.syscalls.names import call_name
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.mm.memory.fault import Cause

if TYPE_CHECKING:
    from harness.processes.linux import Linux
    from harness.processes.process import Process

Trace = Callable[[str], None]

_BY_CAUSE: Final = frozenset({FaultKind.MINOR, FaultKind.MAJOR})
"""Faults that are counted one by one for what they were about."""


class Statistics(NamedTuple):
    """What a run was, in the words of ``mmucheck run --stats``."""

    faults: dict[str, int]
    system_calls: dict[str, int]
    unknown_calls: dict[str, int]
    instructions: int
    context_switches: int
    peak_frames: int
    pages_checked: int
    spaces_checked: int


class FaultSeen(NamedTuple):
    """One page fault, after it was dealt with; ``cause`` is a word of :class:`Statistics`."""

    pid: int
    cause: str
    error_code: int
    address: int
    eip: int


class Observer(Protocol):
    """Whoever wants to know while programs run."""

    def faulted(self, fault: FaultSeen) -> None:
        """A page fault was dealt with."""

    def ending(self, process: "Process") -> None:
        """A process ends; its address space still stands."""


class Watching:
    """What is to be seen of one machine's programs while they run."""

    def __init__(
        self, linux: "Linux", trace: Trace | None, observer: Observer | None = None
    ) -> None:
        self._linux = linux
        self._kernel = linux.kernel
        self._trace = trace
        self._observer = observer
        self._causes: Counter[Cause] = Counter()
        self._free_before = self._kernel.allocator.nr_free_pages()
        self.peak_frames = 0
        """Frames that were in use at most, beyond those that were so before the first program."""

    def sample(self) -> None:
        """Look how many frames are in use."""
        used = self._free_before - self._kernel.allocator.nr_free_pages()
        self.peak_frames = max(self.peak_frames, used)

    def fault(self, kind: FaultKind, regs: int, error_code: int, cr2: int) -> None:
        """A page fault was dealt with."""
        self.sample()
        if self._trace is None and self._observer is None:
            return
        seen = self._seen(kind, regs, error_code, cr2)
        if self._observer is not None:
            self._observer.faulted(seen)
        if self._trace is not None:
            self._trace(
                f"{seen.pid} #PF {cr2:#010x} {error_code_text(error_code)}, "
                f"eip {seen.eip:#010x}: {seen.cause}"
            )

    def _seen(self, kind: FaultKind, regs: int, error_code: int, cr2: int) -> FaultSeen:
        counts = self._kernel.memory.faults.counts
        cause = next((c.value for c in counts if counts[c] != self._causes[c]), kind.value)
        self._causes = counts.copy()
        who = self._linux.scheduler.current
        eip = int(self._kernel.image.at(self._kernel.image.structs.pt_regs, regs).eip)
        return FaultSeen(who.pid if who else 0, cause, error_code, cr2, eip)

    def ending(self, process: "Process") -> None:
        """A process is about to give back what it has."""
        if self._observer is not None:
            self._observer.ending(process)

    def call(self, process: "Process", result: int) -> None:
        """The system call that the registers of ``process`` asked for has its result."""
        if self._trace is None:
            return
        regs, number = process.registers, int(process.registers.orig_eax)
        call = ALL_CALLS.get(number)
        words = (regs.ebx, regs.ecx, regs.edx, regs.esi, regs.edi, regs.ebp)
        arguments = words[: call.argument_count if call else 0]
        listed = ", ".join(f"{word:#x}" if word > 9 else str(word) for word in arguments)
        name = call_name(number)
        self._trace(f"{process.pid} {name}({listed}) = {result}")

    def statistics(self) -> Statistics:
        """The numbers of all programs so far."""
        linux, faults = self._linux, self._linux.machine.faults
        by_cause = {cause.value: self._kernel.memory.faults.counts[cause] for cause in Cause}
        by_kind = {kind.value: faults[kind] for kind in FaultKind if kind not in _BY_CAUSE}
        growths = {"stack growth": self._kernel.page_faults.stack_growths}
        return Statistics(
            by_cause | growths | by_kind,
            dict(linux.calls.most_common()),
            dict(linux.unknown_calls.most_common()),
            linux.scheduler.instructions,
            linux.scheduler.switches,
            self.peak_frames,
            linux.checker.pages,
            linux.checker.spaces,
        )
