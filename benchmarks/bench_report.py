# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report costs: of a machine of 1 GiB, against a plain comparison of the same machine.

Both are run as a user runs them, and their processor time is taken, which on a quiet machine is the
time they take. The limits are the project's promises: 15 s and 3 MB. ``extra_info`` has the ratio,
which is what to compare between runs.
"""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

MACHINE = ("--ram", "1G", "--highmem", "4G")


def seconds_of_children() -> float:
    """Processor time of the programs run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def mmucheck(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "harness", *arguments], check=True, capture_output=True)


@pytest.mark.benchmark(timer=seconds_of_children, min_time=0.001, calibration_precision=1)
def test_report_of_1_gib(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    before = seconds_of_children()
    mmucheck("diff", *MACHINE)
    plain = seconds_of_children() - before
    out = tmp_path / "out.html"
    benchmark.pedantic(mmucheck, ("report", str(out), *MACHINE), rounds=1)
    assert out.stat().st_size < 3_000_000
    if benchmark.stats is not None:
        benchmark.extra_info["ratio_to_diff"] = round(benchmark.stats["min"] / plain, 2)
        benchmark.extra_info["bytes"] = out.stat().st_size
        assert benchmark.stats["min"] < 15
