# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model costs a whole program: the SHA-256 of 8 MiB.

The same program runs as it always does, its pages coming one by one and each looked at by the
checker, and with every page mapped before its first instruction and nothing checked: what is then
left is the emulator's speed. ``ratio`` is the first over the second, ``native`` the first over a
run by the host's own CPU. Time is CPU time; all ways take turns.

``busybox sha256sum`` of Debian's package, and a guest of ours for where there is none.
"""

import hashlib
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.guests import guest_path
from harness.machine import Limits, Machine
from harness.processes.checking import Check
from harness.processes.linux import Linux, Setup
from harness.processes.process import Process
from kernel_model.config import MIB, RELEASES, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.structs.mm import VM_WRITE
from tests import packages

DATA = random.Random(8).randbytes(8 * MIB)
DIGEST = hashlib.sha256(DATA).hexdigest().encode()
ROUNDS = 3
MOST_OF_MAPPED_IN_ADVANCE = 1.3


class Sum:
    """A program that prints the sum of ``/big``, or of its standard input."""

    def __init__(self, release: str, program: Path, argv: list[str], tree: Path) -> None:
        self._release = release
        self._argv = argv
        self._tree = tree
        shutil.copy(program, tree / "program")
        (tree / "program").chmod(0o755)
        (tree / "big").write_bytes(DATA)

    def on_model(self, check: Check, *, map_in_advance: bool = False) -> float:
        """Seconds from the program's first instruction to its last."""
        machine = Machine(Kernel(KernelConfig(release=self._release)))
        output = bytearray()
        linux = Linux(
            machine,
            Setup(
                self._tree,
                input=DATA,
                output=output.extend,
                limits=Limits(seconds=0),
                check=check,
            ),
        )
        process = linux.start(b"/program", [os.fsencode(text) for text in self._argv])
        if map_in_advance:
            map_all(linux, process)
        start = time.process_time()
        ended = linux.run(process)
        seconds = time.process_time() - start
        linux.close()
        assert (ended.exit_status, bytes(output[:64])) == (0, DIGEST)
        return seconds

    def natively(self) -> float:
        """The same by the host; 0 where it runs no i386 programs."""
        if not packages.runs_natively():
            return 0.0
        before = os.times()
        with (self._tree / "big").open("rb") as big:
            done = subprocess.run(
                self._argv,
                executable=self._tree / "program",
                cwd=self._tree,
                stdin=big,
                capture_output=True,
                check=True,
            )
        after = os.times()
        assert done.stdout[:64] == DIGEST
        spent = after.children_user + after.children_system
        return spent - before.children_user - before.children_system


def map_all(linux: Linux, process: Process) -> None:
    """Fault in every page of every VMA, writable ones for writing."""
    kernel = linux.kernel
    areas = kernel.spaces.areas
    for vma in areas.list(process.mm):
        view = areas.vma(vma)
        start, count = int(view.vm_start), int(view.vm_end - view.vm_start) >> 12
        write = bool(view.vm_flags & VM_WRITE)
        pages, error = kernel.memory.get_user_pages(process.mm, start, count, write=write)
        assert not error
        for page in pages:
            kernel.allocator.put_page(page)


def compare(benchmark: BenchmarkFixture, program: Sum) -> None:
    times: dict[str, list[float]] = {"checked": [], "unchecked": [], "mapped": [], "native": []}

    def setup() -> None:
        times["mapped"].append(program.on_model(Check.NONE, map_in_advance=True))
        times["unchecked"].append(program.on_model(Check.NONE))
        times["native"].append(program.natively())

    def run() -> None:
        times["checked"].append(program.on_model(Check.FAULTS))

    benchmark.pedantic(run, setup=setup, rounds=ROUNDS)
    checked, unchecked, mapped, native = (min(values) for values in times.values())
    benchmark.extra_info |= {
        "seconds": round(checked, 2),
        "ratio": round(checked / mapped, 3),
        "ratio_unchecked": round(unchecked / mapped, 3),
        "native": round(checked / native) if native else None,
    }
    assert checked / mapped <= MOST_OF_MAPPED_IN_ADVANCE


on_both = pytest.mark.parametrize("release", RELEASES)


@on_both
@pytest.mark.timeout(600)
def test_busybox_sha256sum(benchmark: BenchmarkFixture, tmp_path: Path, release: str) -> None:
    argv = ["busybox", "sha256sum", "big"]
    compare(benchmark, Sum(release, packages.program("busybox"), argv, tmp_path))


@on_both
@pytest.mark.timeout(600)
def test_own_sha256(benchmark: BenchmarkFixture, tmp_path: Path, release: str) -> None:
    compare(benchmark, Sum(release, guest_path("sha256"), ["sha256"], tmp_path))
