# SPDX-License-Identifier: GPL-2.0-or-later
"""How long physical memory takes: making ``mem_map`` and the free lists, and one frame.

Large and small machines are measured in turns in one process, so that their ratio means
something on a noisy one. Run with ``pytest benchmarks/bench_page_alloc.py -s``.
"""

import time
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.gfp import GFP_HIGHUSER, GFP_KERNEL

GIB = 1 << 30
PAIRS = 5000
MOST_SECONDS_FOR_1_GIB = 0.5
MOST_TIMES_FOR_16_GIB = 20
LEAST_PAIRS_PER_SECOND = 40_000
MOST_TIMES_AT_4_GIB = 1.5


def config(ram: int) -> KernelConfig:
    return KernelConfig(ram=ram, highmem=Highmem.GB64 if ram > MIB << 9 else Highmem.NONE)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def initialise(ram: int) -> float:
    """Seconds for ``mem_map``, the zones and the free lists of a machine with ``ram`` bytes."""
    kernel = Kernel(config(ram))
    steps = kernel.boot_steps()
    assert next(steps) == "setup_memory"
    measured = seconds(lambda: [next(steps) for _ in range(3)])
    assert kernel.allocator.nr_free_pages() << 12 > ram * 0.95
    return measured


def test_initialising(benchmark: BenchmarkFixture) -> None:
    small = benchmark.pedantic(lambda: initialise(GIB), rounds=3, warmup_rounds=1)
    one = min(small, *(initialise(GIB) for _ in range(4)))
    sixteen = min(initialise(16 * GIB) for _ in range(2))
    benchmark.extra_info |= {"seconds_1_gib": one, "ratio_16_gib": sixteen / one}
    print(f"\n1 GiB {one:.3f} s, 16 GiB {sixteen:.3f} s: {sixteen / one:.1f} times as long")
    assert one < MOST_SECONDS_FOR_1_GIB
    assert sixteen <= MOST_TIMES_FOR_16_GIB * one


def pairs(kernel: Kernel, gfp: int) -> None:
    allocator = kernel.allocator
    for _ in range(PAIRS):
        allocator.free_page(allocator.alloc_page(gfp))


def break_a_block(kernel: Kernel, gfp: int) -> None:
    """Hold frames until one is free whose buddy is not: a pair need not cut or join then."""
    allocator = kernel.allocator
    allocator.alloc_page(gfp)
    while not any(zone.free_counts()[0] for zone in allocator.zones_of(_zonelist(kernel, gfp))):
        allocator.alloc_page(gfp)


def use_up_small_blocks(kernel: Kernel, gfp: int) -> None:
    """Hold frames until the best zone has blocks of 512 only: a pair cuts one and joins it."""
    zone = kernel.allocator.zones_of(_zonelist(kernel, gfp))[0]
    while any(zone.free_counts()[:9]):
        kernel.allocator.alloc_page(gfp)


def _zonelist(kernel: Kernel, gfp: int) -> int:
    pgdat = kernel.image.symbol("contig_page_data")
    return int(pgdat + kernel.image.structs.pg_data_t.offset("node_zonelists") + (gfp & 0xF) * 16)


@pytest.mark.parametrize("prepare", [break_a_block, use_up_small_blocks])
@pytest.mark.parametrize("gfp", [GFP_KERNEL, GFP_HIGHUSER], ids=["GFP_KERNEL", "GFP_HIGHUSER"])
def test_a_frame_taken_and_given_back(
    benchmark: BenchmarkFixture, gfp: int, prepare: Callable[[Kernel, int], None]
) -> None:
    """The free lists of both machines are brought into the same shape, which costs most."""
    small, large = boot(config(64 * MIB)), boot(config(4 * GIB))
    for kernel in (small, large):
        prepare(kernel, gfp)
    benchmark.pedantic(lambda: pairs(small, gfp), rounds=3, warmup_rounds=1)
    turns = [
        (seconds(lambda: pairs(small, gfp)), seconds(lambda: pairs(large, gfp))) for _ in range(7)
    ]
    at_64_mib, at_4_gib = (PAIRS / min(times) for times in zip(*turns, strict=True))
    benchmark.extra_info |= {"pairs_64_mib": at_64_mib, "pairs_4_gib": at_4_gib}
    print(
        f"\n64 MiB {at_64_mib:,.0f} pairs/s, 4 GiB {at_4_gib:,.0f} pairs/s: "
        f"{at_64_mib / at_4_gib:.2f} times as long"
    )
    assert min(at_64_mib, at_4_gib) >= LEAST_PAIRS_PER_SECOND
    assert at_64_mib / at_4_gib <= MOST_TIMES_AT_4_GIB
