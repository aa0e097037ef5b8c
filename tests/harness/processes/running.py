# SPDX-License-Identifier: GPL-2.0-or-later
"""One command line, run by the host's kernel and by the model, in trees that hold the same.

Commands name files relative to the tree, which is the model's root and the host's working
directory. A tree has Debian's programs in ``bin`` and some data, every time stamp the same.
"""

import os
import random
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.machine import Limits, Machine
from harness.monitors.reverse_map import reverse_map_census
from harness.processes.checking import Check
from harness.processes.linux import Linux, Setup
from harness.processes.process import Process
from harness.processes.watching import FaultSeen, Watching
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.memory.fault import Cause
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.user_spaces import UserSpaces

ENVIRONMENT: Final = {"PATH": "bin", "LC_ALL": "C", "TZ": "UTC0", "HOME": "/", "TERM": "dumb"}
TIME: Final = 1_000_000_000
APPLETS: Final = ("cat", "cut", "expr", "grep", "head", "seq", "sort", "tr", "uniq", "wc")
SECONDS: Final = 110.0
BIG: Final = 8 << 20


@dataclass(frozen=True)
class Outcome:
    """What can be seen of a run from outside."""

    status: int
    output: bytes
    error: bytes


@dataclass
class Run:
    """A run on the model, with what was counted meanwhile."""

    outcome: Outcome
    causes: Counter[Cause]
    faults: list[tuple[int, int]]
    """Address and error code of each page fault."""


class Tree:
    """Where commands run: ``programs`` in ``bin``, data, and ``big``, a file of 8 MiB."""

    def __init__(self, place: Path, programs: dict[str, Path]) -> None:
        self.path = place / "tree"
        self._copies = place / "copies"
        self._copies.mkdir()
        (self.path / "bin").mkdir(parents=True)
        for name, source in programs.items():
            shutil.copy(source, self.path / "bin" / name)
        for name in APPLETS:
            (self.path / "bin" / name).symlink_to("busybox")
        _fill(self.path / "data")
        (self.path / "big").write_bytes(random.Random(8).randbytes(BIG))
        _stamp(self.path)

    def natively(self, argv: Sequence[str], data: bytes = b"") -> Outcome:
        """By the host's kernel, which may write to a copy."""
        copy = Path(tempfile.mkdtemp(dir=self._copies))
        copy.chmod(0o755)
        for name in ("bin", "big"):
            (copy / name).symlink_to(self.path / name)
        shutil.copytree(self.path / "data", copy / "data", symlinks=True)
        _stamp(copy)
        done = subprocess.run(
            argv,
            cwd=copy,
            env=ENVIRONMENT,
            input=data,
            capture_output=True,
            timeout=60,
            check=False,
        )
        shutil.rmtree(copy)
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Outcome(status, done.stdout, done.stderr)

    def on_model(
        self,
        argv: Sequence[str],
        data: bytes = b"",
        config: KernelConfig | None = None,
        check: Check = Check.FULL,
    ) -> Run:
        """By the model, which afterwards holds the frames that it held before, and no other."""
        machine = Machine(Kernel(config or KernelConfig()))
        kept = _kept(machine.kernel)
        output, error = bytearray(), bytearray()
        setup = Setup(
            self.path,
            output=output.extend,
            error=error.extend,
            input=data,
            limits=Limits(seconds=SECONDS),
            check=check,
        )
        linux = Linux(machine, setup)
        if check is Check.FULL and linux.kernel.config.release == "2.6":
            observe_reverse_map(linux)
        faults = _note_faults(linux)
        first = linux.start(argv[0].encode(), [os.fsencode(text) for text in argv], _variables())
        ended = linux.run(first)
        linux.close()
        assert _kept(machine.kernel) == kept
        check_machine(machine.kernel, machine.ledger)
        outcome = Outcome(ended.exit_status, bytes(output), bytes(error))
        return Run(outcome, machine.kernel.memory.faults.counts, faults)


class _Censuses:
    """Takes a census of who maps what when a process ends: of 2.6, every page table of every
    process against the reverse map."""

    def __init__(self, linux: Linux) -> None:
        self._linux = linux

    def faulted(self, fault: FaultSeen) -> None:
        """A fault is no occasion."""

    def ending(self, process: Process) -> None:
        kernel = self._linux.kernel
        mms = {other.mm for other in self._linux.processes.values() if other.mm}
        walk, memmap = kernel.reverse_walk, kernel.allocator.memmap
        reverse_map_census(kernel.image, memmap, walk, sorted(mms))


def observe_reverse_map(linux: Linux) -> None:
    """Hold the reverse map against the page tables at the end of each process."""
    linux.watching = Watching(linux, None, _Censuses(linux))


def _kept(kernel: Kernel) -> tuple[int, int]:
    """Free frames, and slots of the swap area that hold something."""
    slots = kernel.swap_areas.counts(0) if kernel.config.swap_pages else []
    return UserSpaces(kernel).free_frames(), sum(1 for count in slots if count)


def _note_faults(linux: Linux) -> list[tuple[int, int]]:
    faults: list[tuple[int, int]] = []
    page_faults = linux.kernel.page_faults
    serve = page_faults.do_page_fault

    def noted(regs: int, error_code: int, cr2: int) -> FaultKind:
        faults.append((cr2, error_code))
        return serve(regs, error_code, cr2)

    page_faults.do_page_fault = noted  # type: ignore[method-assign]
    return faults


def _variables() -> list[bytes]:
    return [f"{name}={value}".encode() for name, value in ENVIRONMENT.items()]


def _fill(data: Path) -> None:
    source = random.Random(5)
    deep = data / "below" / "deep"
    deep.mkdir(parents=True)
    words = ["".join(source.choices("aeioklmnrst", k=source.randint(2, 9))) for _ in range(900)]
    rows = (f"{n}\t{words[n % 90]}\t{source.randint(-999, 999)}" for n in range(200))
    (data / "words").write_text("\n".join(words) + "\n", encoding="ascii")
    (data / "table").write_text("\n".join(rows) + "\n", encoding="ascii")
    (data / "below" / "bytes").write_bytes(source.randbytes(70_000))
    (data / "below" / "empty").touch()
    (data / "below" / "link").symlink_to("../words")
    (deep / "script").write_text("echo from a script: $*\n", encoding="ascii")
    (deep / "run").write_text("#!bin/busybox sh\necho $0 $*\n", encoding="ascii")
    (deep / "run").chmod(0o755)


def _stamp(tree: Path) -> None:
    for path in (*tree.rglob("*"), tree):
        os.utime(path, (TIME, TIME), follow_symlinks=False)
