# SPDX-License-Identifier: GPL-2.0-or-later
"""What one object costs: taken from its cache and given back.

``extra_info`` gives pairs a second, the best of several rounds. The limits are the project's
promises. Run with ``pytest benchmarks/bench_slab.py -s``.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN, SLAB_KERNEL

PAIRS = 6000
HELD = 300
"""Objects that a user holds at a time: more than an array of a CPU has room for."""
LEAST_PAIRS = {"UP": 60_000, "SMP": 150_000}


def kernel_of(build: str) -> Kernel:
    return boot(KernelConfig(ram=64 * MIB, nr_cpus=2 if build == "SMP" else 1))


def pairs_per_second(benchmark: BenchmarkFixture, name: str) -> float:
    """Of the best round, noted and printed."""
    if benchmark.stats is None:
        return float("inf")
    rate = PAIRS / benchmark.stats["min"]
    benchmark.extra_info["pairs_per_second"] = round(rate)
    print(f"\n{name}: {rate:,.0f} pairs/s")
    return rate


@pytest.mark.parametrize("build", LEAST_PAIRS)
@pytest.mark.parametrize("size", [32, 128, 1024])
def test_an_object_taken_and_given_back(benchmark: BenchmarkFixture, build: str, size: int) -> None:
    slab = kernel_of(build).slab
    cachep = slab.kmem_cache_create("bench", size, 0, SLAB_HWCACHE_ALIGN)

    def run() -> None:
        alloc, free = slab.kmem_cache_alloc, slab.kmem_cache_free
        for _ in range(PAIRS):
            free(cachep, alloc(cachep, SLAB_KERNEL))

    benchmark.pedantic(run, rounds=15, warmup_rounds=2)
    assert pairs_per_second(benchmark, f"{build}, {size} bytes") >= LEAST_PAIRS[build]


@pytest.mark.parametrize("build", LEAST_PAIRS)
def test_many_objects_taken_then_given_back(benchmark: BenchmarkFixture, build: str) -> None:
    """Slabs fill and empty, arrays refill and overflow: what a pair costs with its batches."""
    slab = kernel_of(build).slab
    cachep = slab.kmem_cache_create("bench", 128, 0, SLAB_HWCACHE_ALIGN)

    def run() -> None:
        alloc, free = slab.kmem_cache_alloc, slab.kmem_cache_free
        for _ in range(PAIRS // HELD):
            for objp in [alloc(cachep, SLAB_KERNEL) for _ in range(HELD)]:
                free(cachep, objp)

    benchmark.pedantic(run, rounds=15, warmup_rounds=2)
    pairs_per_second(benchmark, f"{build}, {HELD} held")


@pytest.mark.parametrize("build", LEAST_PAIRS)
def test_kmalloc_and_kfree(benchmark: BenchmarkFixture, build: str) -> None:
    slab = kernel_of(build).slab

    def run() -> None:
        for _ in range(PAIRS):
            slab.kfree(slab.kmalloc(100, GFP_KERNEL))

    benchmark.pedantic(run, rounds=15, warmup_rounds=2)
    pairs_per_second(benchmark, f"{build}, kmalloc(100)")
