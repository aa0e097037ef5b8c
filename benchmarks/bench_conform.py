# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases of the MMU matrix a second, on Unicorn and on QEMU running the same image.

All is in it: the records written, the guest's run, the expectation and the comparison. For
scale: kvm-unit-tests' ``access``, the best 64-bit suite, does about 117,000 a second on QEMU;
the promise is 120,000 on Unicorn. ``extra_info`` has the rates and, for QEMU, the ratio.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.conformance.matrix import MatrixReport, run_matrix
from harness.conformance.qemu_subject import QemuSubject
from harness.conformance.subject import Subject, UnicornSubject
from harness.conformance.suites import QUICK, suite
from harness.cpu.qemu import qemu_program

SECONDS_OF_QUICK = 15
_rates: dict[str, float] = {}


@pytest.fixture(params=["unicorn", "qemu"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "qemu" and qemu_program() is None:
        pytest.skip("qemu-system-i386 is not installed (package qemu-system-x86)")
    made: Subject = QemuSubject() if request.param == "qemu" else UnicornSubject()
    yield made
    made.close()


def test_quick_suite(benchmark: BenchmarkFixture, subject: Subject) -> None:
    parts: list[Any] = list(suite(QUICK, subject.features))

    def run() -> MatrixReport:
        return run_matrix(QUICK, [subject], lambda _subject: parts)

    report = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    assert report.ok
    assert report.seconds < SECONDS_OF_QUICK
    if benchmark.stats is not None:
        rate = report.cpus[0].cases / benchmark.stats["min"]
        _rates[subject.name] = rate
        benchmark.extra_info["cases_per_second"] = round(rate)
        if len(_rates) == 2:
            ratio = _rates["unicorn"] / _rates["qemu"]
            benchmark.extra_info["unicorn_to_qemu"] = round(ratio, 2)


def test_making_the_cases(benchmark: BenchmarkFixture) -> None:
    features = UnicornSubject().features
    benchmark.pedantic(lambda: list(suite(QUICK, features)), rounds=3, warmup_rounds=1)
