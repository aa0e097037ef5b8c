# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted defects: each broken CPU is found, and the line about it names what is broken."""

import re

import pytest

from harness.conformance.cases import parse_case
from harness.conformance.flags import MODES
from harness.conformance.matrix import MatrixReport, run_matrix
from harness.conformance.suites import QUICK
from tests.harness.conformance.broken_cpus import BROKEN, Broken, BrokenSubject
from tests.harness.conformance.quick_parts import thinned


def run(broken: Broken, modes: set[str] | None, step: int = 1) -> MatrixReport:
    subject = BrokenSubject(broken)
    parts = thinned(subject.features, step, modes)
    return run_matrix(QUICK, [subject], lambda _subject: parts, complete=False)


def check_found(broken: Broken, report: MatrixReport) -> None:
    lines = [str(finding) for finding in report.cpus[0].findings]
    assert not report.ok
    assert any(re.search(broken.shows, line) for line in lines), "\n".join(lines[:12])


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_found_in_its_mode(broken: Broken) -> None:
    check_found(broken, run(broken, {broken.mode}, step=3))


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_found_by_quick(broken: Broken) -> None:
    check_found(broken, run(broken, None))


def test_the_wrapper_itself_breaks_nothing() -> None:
    report = run(Broken("honest", "", before=lambda _now: None), {"2-level"})
    assert report.ok, [str(finding) for finding in report.cpus[0].findings]


def test_a_failing_case_repeats_alone() -> None:
    """The command that is printed runs one case, and it fails the same way."""
    broken = next(broken for broken in BROKEN if broken.name == "ignores-us-of-pde")
    finding = run(broken, {"2-level"}).cpus[0].findings[0]
    case = parse_case(finding.case)
    mode = MODES[int(case["mode"][0])]
    again = run_matrix("one", [BrokenSubject(broken)], lambda _subject: [(mode, case)])
    assert again.cpus[0].cases == 1
    (only,) = again.cpus[0].findings
    assert (only.setting, only.differences) == (finding.setting, finding.differences)
    assert finding.command.endswith(f"--case {finding.case}")
