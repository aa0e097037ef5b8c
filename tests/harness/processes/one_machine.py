# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine on which hostile programs run one after the other, and what they leave behind.

A machine is booted once. Each program gets its own files and processes, and when they are closed
the machine has every frame that it had before, or the test fails with the names of the owners.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from harness.machine import GuestStopped, Machine
from harness.processes.linux import Linux, Setup
from harness.processes.process import Ended, Process
from harness.suites.giving_back import give_back
from kernel_model.config import KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from tests.harness.frame_accounting import check_machine

MIB = 1 << 20
PROGRAM = b"/bin/program"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: refused by one line, by itself, or by a limit."""

    refused: str = ""
    ended: Ended | None = None
    stopped: GuestStopped | None = None

    @property
    def kind(self) -> str:
        if self.refused:
            return "refused"
        if self.ended is None:
            return "stopped"
        return f"signal {self.ended.signal}" if self.ended.signal else "exit"


class OneMachine:
    """A machine of ``ram`` bytes that is used again and again."""

    def __init__(self, ram: int = 16 * MIB, swap_pages: int = 0, **build: Any) -> None:
        """``build`` is more of :class:`KernelConfig`."""
        self.machine = Machine(Kernel(KernelConfig(ram=ram, swap_pages=swap_pages, **build)))
        self.kernel = self.machine.kernel

    # -- what is left behind ------------------------------------------------------------------

    def owners(self) -> Counter[str]:
        """The owners of frames, without the caches that the kernel keeps to go on faster."""
        give_back(self.kernel)
        return Counter(self.machine.ledger._owners.values())

    @contextmanager
    def nothing_left(self) -> Iterator[None]:
        """A block after which every frame has the owner, or none, that it had before."""
        before = self.owners()
        free = self.kernel.allocator.nr_free_pages()
        swap = self.kernel.statics.nr_swap_pages
        yield
        after = self.owners()
        assert after == before, f"left: {after - before}, gone: {before - after}"
        assert self.kernel.allocator.nr_free_pages() == free
        assert self.kernel.statics.nr_swap_pages == swap
        assert not any(self.machine.ledger._spaces.values()), "a page of a program is still meant"
        check_machine(self.kernel, self.machine.ledger)

    # -- running --------------------------------------------------------------------------------

    @contextmanager
    def linux(self, setup: Setup) -> Iterator[Linux]:
        """Files and processes; none is left when the block ends."""
        linux = Linux(self.machine, setup)
        try:
            yield linux
        finally:
            linux.close()

    def run(self, setup: Setup, argv: Sequence[bytes] = (b"program",)) -> Outcome:
        """Run :data:`PROGRAM` until it ends, is refused, or its limits end it."""
        with self.linux(setup) as linux:
            return outcome(linux, argv)


def outcome(linux: Linux, argv: Sequence[bytes]) -> Outcome:
    try:
        process: Process = linux.start(PROGRAM, argv)
    except BadInput as refused:
        return Outcome(refused=str(refused))
    try:
        return Outcome(ended=linux.run(process))
    except GuestStopped as stopped:
        return Outcome(stopped=stopped)
