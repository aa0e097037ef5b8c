# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``vmalloc()`` of 1 MiB costs, with ``vfree()``: 256 frames, 256 PTEs, one ``vm_struct``.

The limit is the project's promise. Measured without high memory, with it, and with PAE. Run
with ``pytest benchmarks/bench_vmalloc.py -s``.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.monitors.frames import FrameLedger
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel

MOST_SECONDS = 0.005
MACHINES = {
    "64 MiB": KernelConfig(ram=64 * MIB),
    "1 GiB, highmem": KernelConfig(ram=1024 * MIB, highmem=Highmem.GB4),
    "1 GiB, PAE": KernelConfig(ram=1024 * MIB, highmem=Highmem.GB64),
}


@pytest.mark.parametrize("ledger", [False, True], ids=["alone", "with ledger"])
@pytest.mark.parametrize("machine", MACHINES)
def test_vmalloc_of_1_mib(benchmark: BenchmarkFixture, machine: str, ledger: bool) -> None:
    """The ledger of frames, which every machine with a CPU has, listens or does not."""
    kernel = Kernel(MACHINES[machine])
    if ledger:
        FrameLedger().listen(kernel.image.events)
    kernel.start_kernel()

    def run() -> None:
        addr = kernel.vmalloc.vmalloc(1 * MIB)
        assert addr
        kernel.vmalloc.vfree(addr)

    benchmark.pedantic(run, rounds=100, warmup_rounds=3)
    if benchmark.stats is not None:
        best = benchmark.stats["min"]
        benchmark.extra_info["milliseconds"] = round(best * 1e3, 2)
        print(f"\n{machine}{', with ledger' if ledger else ''}: {best * 1e3:.2f} ms")
        assert best < MOST_SECONDS
