# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the reference walk enumerates a gigabyte mapped in 4 KiB pages.

The sweep and the scalar walk, one address at a time, run in the same process over the same
tables, so that their ratio means something on a noisy machine. Frames are shuffled: no page
lies beside its neighbour. Run with ``pytest benchmarks/bench_sweep.py -s``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    Access,
    ControlRegisters,
    Ring,
)
from harness.mappings import ALLOWED, outcome
from harness.mmu_spec import walk
from harness.mmu_sweep import sweep
from kernel_model.ram import Ram

PAGES = 1 << 18
"""4 KiB pages in the gigabyte from 0xC0000000."""
BASE = 0xC0000000
LEAST_PAGES_PER_SECOND = 5_000_000
SCALAR_SAMPLE = 4096
ROOT, TABLES = 0x1000, 0x100000


@dataclass(frozen=True)
class Gigabyte:
    """RAM with the tables; ``frames`` are the PFNs in the order of addresses."""

    ram: Ram
    registers: ControlRegisters
    frames: np.ndarray[tuple[int], np.dtype[np.int64]]


def mapped_gigabyte(*, pae: bool) -> Gigabyte:
    """Map the gigabyte to shuffled frames, kernel and writable."""
    ram = Ram(4 << 20)
    frames = np.random.default_rng(1).permutation(PAGES)
    entries_a_table, kind = (512, np.uint64) if pae else (1024, np.uint32)
    tables = PAGES // entries_a_table
    ram.table(TABLES, PAGES, kind)[:] = frames << 12 | 0x63
    pointers = TABLES + 4096 * np.arange(tables) | 0x67
    if pae:
        ram.write64(ROOT + 8 * 3, 0x2001)
        ram.table(0x2000, tables, kind)[:] = pointers
    else:
        ram.table(ROOT, 1024, kind)[768:] = pointers
    cr0 = CR0_PE | CR0_PG | CR0_WP
    return Gigabyte(ram, ControlRegisters(cr0, ROOT, CR4_PAE if pae else 0), frames)


@pytest.fixture(scope="module", params=[False, True], ids=["2-level", "PAE"])
def gigabyte(request: pytest.FixtureRequest) -> Gigabyte:
    return mapped_gigabyte(pae=request.param)


def _best_seconds(run: Callable[[], object], rounds: int = 5) -> float:
    def once() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return min(once() for _ in range(rounds))


def test_sweep_against_scalar_walk(gigabyte: Gigabyte, benchmark: BenchmarkFixture) -> None:
    words = np.frombuffer(gigabyte.ram.buffer, np.uint32)
    found = benchmark(sweep, words, gigabyte.registers)
    assert found.va.tolist() == list(range(BASE, BASE + (PAGES << 12), 4096))
    np.testing.assert_array_equal(found.pa >> 12, gigabyte.frames)

    sample = range(BASE, BASE + (PAGES << 12), PAGES // SCALAR_SAMPLE << 12)
    swept = PAGES / _best_seconds(lambda: sweep(words, gigabyte.registers))
    walked = SCALAR_SAMPLE / _best_seconds(
        lambda: [walk(gigabyte.ram, gigabyte.registers, va) for va in sample], rounds=3
    )
    benchmark.extra_info["pages_per_second"] = round(swept)
    benchmark.extra_info["ratio_to_scalar"] = round(swept / walked, 1)
    print(
        f"\nsweep {swept / 1e6:.1f} million pages/s, scalar walk {walked / 1e6:.3f} million "
        f"pages/s: ratio {swept / walked:.0f}"
    )
    assert swept > LEAST_PAGES_PER_SECOND


def test_sweep_to_outcomes(gigabyte: Gigabyte, benchmark: BenchmarkFixture) -> None:
    """What a comparison needs: dense pages and all six outcomes of the whole address space."""
    words = np.frombuffer(gigabyte.ram.buffer, np.uint32)

    def outcomes() -> list[np.ndarray[tuple[int, ...], np.dtype[np.int16]]]:
        pages = sweep(words, gigabyte.registers).pages()
        return [outcome(pages, a, r, gigabyte.registers) for a in Access for r in Ring]

    allowed = [np.count_nonzero(codes == ALLOWED) for codes in benchmark(outcomes)]
    assert allowed == [PAGES, 0] * 3
