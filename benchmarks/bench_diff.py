# SPDX-License-Identifier: GPL-2.0-or-later
"""What a comparison costs: of a booted machine, and of a real kernel's page tables.

The limits are the project's promises: 10 s for the default machine, 3 s for an image with 40,000
mapped pages. ``extra_info`` gives the answers a second, which is what to compare between runs.
"""

from pytest_benchmark.fixture import BenchmarkFixture

from harness.diff import Report, diff, diff_image
from harness.machine import Machine
from kernel_model.kernel import Kernel
from tests.linux_images import linux_image


def note(benchmark: BenchmarkFixture, report: Report) -> None:
    assert report.ok
    if benchmark.stats is not None:
        answers = sum(report.questions.values())
        benchmark.extra_info["answers_per_second"] = round(answers / benchmark.stats["min"])


def test_default_machine(benchmark: BenchmarkFixture) -> None:
    machine = Machine(Kernel())
    report = benchmark.pedantic(lambda: diff(machine), rounds=3, warmup_rounds=1)
    note(benchmark, report)
    assert report.seconds < 10


def test_image_of_40_000_pages(benchmark: BenchmarkFixture) -> None:
    image = linux_image("pae128_nonx")
    space = max(image.address_spaces, key=lambda space: int(space.expectation.size.sum()))
    ram = image.new_ram()
    report = benchmark.pedantic(
        lambda: diff_image(ram, space.registers, space.expectation), rounds=3, warmup_rounds=1
    )
    note(benchmark, report)
    assert report.mapped >= 40_000
    assert report.seconds < 3
