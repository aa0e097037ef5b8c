# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn and QEMU against the manual and each other; the table of divergences stays true."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.conformance import divergences, layout
from harness.conformance.divergences import known_for
from harness.conformance.flags import CHANGES, MODES
from harness.conformance.matrix import CpuResult, MatrixReport, run_matrix
from harness.conformance.placing import place, write_records
from harness.conformance.qemu_subject import QemuSubject
from harness.conformance.subject import UnicornSubject
from harness.conformance.suites import FULL, QUICK, suite
from harness.cpu.qemu import QemuFailed, qemu_program
from tests.harness.conformance.quick_parts import quick, thinned

needs_qemu = pytest.mark.skipif(
    qemu_program() is None, reason="qemu-system-i386 is not installed (package qemu-system-x86)"
)


@pytest.fixture(scope="module")
def qemu() -> Iterator[QemuSubject | None]:
    if qemu_program() is None:
        yield None
        return
    subject = QemuSubject()
    yield subject
    subject.close()


@pytest.fixture(scope="module")
def report(qemu: QemuSubject | None) -> MatrixReport:
    """The quick suite on all CPUs that this machine has."""
    subjects = [UnicornSubject(), *([qemu] if qemu else [])]
    return run_matrix(QUICK, subjects, lambda subject: quick(subject.features))


def check_conforms(cpu: CpuResult) -> None:
    assert cpu.ok, [str(finding) for finding in cpu.findings]
    assert cpu.cases >= 100_000
    assert not cpu.gone, "take it out of the table"
    # Each kind of answer about a stale entry is seen, or the cases would prove nothing.
    assert 0 < cpu.cached < cpu.either


def test_unicorn_conforms(report: MatrixReport) -> None:
    check_conforms(report.cpus[0])
    assert set(report.cpus[0].by_mode) == {mode.name for mode in MODES}


@needs_qemu
def test_qemu_conforms(report: MatrixReport) -> None:
    check_conforms(report.cpus[1])


@needs_qemu
def test_unicorn_and_qemu_differ_as_known(report: MatrixReport) -> None:
    (peers,) = report.peers
    assert peers.ok
    assert peers.common >= 100_000
    assert "pdpte-accessed" in peers.known


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_full_product_on_unicorn() -> None:
    report = run_matrix(FULL, [UnicornSubject()], lambda s: suite(FULL, s.features))
    assert report.ok, [str(finding) for finding in report.cpus[0].findings]
    assert report.cpus[0].cases >= 2_000_000


@needs_qemu
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_full_product_on_qemu(qemu: QemuSubject) -> None:
    report = run_matrix(FULL, [qemu], lambda s: suite(FULL, s.features))
    assert report.ok, [str(finding) for finding in report.cpus[0].findings]


@pytest.mark.parametrize("gone", [entry.name for entry in known_for("unicorn")])
def test_without_its_entry_a_divergence_fails(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry explains something that no other entry does."""
    left = tuple(entry for entry in divergences.DIVERGENCES if entry.name != gone)
    monkeypatch.setattr(divergences, "DIVERGENCES", left)
    subject = UnicornSubject()
    parts = []
    for mode, cases in quick(subject.features):
        pointers = (cases["pdpte"] != 1) | (cases["change"] == len(CHANGES) - 1)
        parts.append((mode, cases[pointers] if "pdpte" in gone else cases[~pointers][::9]))
    assert not run_matrix("part", [subject], lambda _: parts, complete=False).ok


def test_an_entry_that_no_longer_shows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    invented = replace(
        known_for("unicorn")[0], name="invented", accesses=frozenset({"fetch"}), error_bits=2
    )
    monkeypatch.setattr(divergences, "DIVERGENCES", (*divergences.DIVERGENCES, invented))
    report = run_matrix(QUICK, [UnicornSubject()], lambda s: quick(s.features)[:2])
    assert "invented" in {entry.name for entry in report.cpus[0].gone}


def test_results_that_the_guest_does_not_write_are_no_results() -> None:
    """A guest that does nothing fails every case; the last run's results do not stand in."""

    class Idle(UnicornSubject):
        def run(self, batches: int) -> None:
            if not idle:
                super().run(batches)

    idle = False
    subject = Idle()
    part = quick(subject.features)[:1]
    assert run_matrix("part", [subject], lambda _: part, complete=False).ok
    idle = True
    report = run_matrix("part", [subject], lambda _: part, complete=False)
    assert report.cpus[0].failing == report.cpus[0].cases


@needs_qemu
def test_qemu_that_does_not_answer_is_told(qemu: QemuSubject) -> None:
    with pytest.raises(QemuFailed, match="not done after"):
        qemu._pc.run_until(lambda: False, 0.05)


def test_remembered_deliveries_change_no_result() -> None:
    """The same cases with each fault delivered the long way: every word of every result."""
    remembering, forgetful = UnicornSubject(), UnicornSubject()
    forgetful.cpu.delivery._redelivery.deliver = (  # type: ignore[method-assign]
        lambda _vector, _error_code, _software: False
    )
    for mode, part in thinned(remembering.features, 37):
        placed = place(part, mode, mode.shape(remembering.features))
        found = []
        for subject in (remembering, forgetful):
            batches = write_records(placed, subject.cases, subject.batches)
            subject.results[: len(part)] = np.zeros((), layout.RESULT)
            subject.run(batches)
            found.append(subject.results[: len(part)].tobytes())
        assert found[0] == found[1], mode.name


def test_two_subjects_of_the_same_cpu_differ_in_nothing() -> None:
    subjects = [UnicornSubject(), UnicornSubject()]
    parts = thinned(subjects[0].features, 23)
    report = run_matrix("part", subjects, lambda _: parts, complete=False)
    (peers,) = report.peers
    assert (peers.known, peers.unexplained) == ({}, 0)
    assert peers.common == report.cpus[0].cases
    assert np.isfinite(report.seconds)
