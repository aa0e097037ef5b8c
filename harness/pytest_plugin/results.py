# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of tests, from wherever they ran to one place: terminal, --mmu-report, --mmu-matrix.

A test's results are JSON; they travel with its report, so that pytest-xdist brings those of
every worker to the controller. There they are counted, merged and written.

What can fail: a file that cannot be written is told in the terminal.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from harness.commands.output import _plain

MATRIX: Final = "matrix"
"""The kind of a result that is a part of the conformance matrix."""


ATTRIBUTE: Final = "mmu_results"
"""Of a test's report; :mod:`mmucheck_pytest` looks for it before it imports this."""


class TestResults:
    """What one test has compared and run."""

    __test__ = False

    def __init__(self) -> None:
        self._results: list[dict[str, Any]] = []
        self.last_mismatch: Any = None
        """Of a comparison that was told not to fail."""

    @staticmethod
    def known(item: pytest.Item) -> "TestResults | None":
        """Those of ``item``, if it has any."""
        return item.stash.get(_KEY, None)

    @staticmethod
    def of(item: pytest.Item) -> "TestResults":
        return item.stash.setdefault(_KEY, TestResults())

    def add(self, result: Any, kind: str = "") -> None:
        """``result`` is a mapping, or has ``as_json()``; ``kind`` is the word for its type."""
        document = dict(result) if isinstance(result, dict) else result.as_json()
        self._results.append({"kind": kind or type(result).__name__} | document)

    def page(self, path: str | os.PathLike[str], machine: Any) -> None:
        """Write ``machine`` in pictures to ``path``, as ``mmucheck report`` does."""
        from harness.report import Report

        Path(path).write_text(Report.of(machine).html(), encoding="utf-8")

    def send_with(self, report: pytest.TestReport) -> None:
        """Let ``report`` carry them to the controller."""
        if self._results:
            setattr(report, ATTRIBUTE, json.dumps(self._results, default=_plain))


_KEY: Final = pytest.StashKey[TestResults]()


class Collected:
    """The results of all tests of a run."""

    def __init__(self) -> None:
        self.by_test: dict[str, list[dict[str, Any]]] = {}

    def take(self, report: Any) -> None:
        self.by_test[report.nodeid] = json.loads(getattr(report, ATTRIBUTE))

    def of_kind(self, kind: str) -> Iterator[dict[str, Any]]:
        for results in self.by_test.values():
            yield from (result for result in results if result["kind"] == kind)

    def write(self, config: pytest.Config) -> Iterator[str]:
        """Write what was asked for; a line for each file, and one of numbers."""
        yield from self._summary()
        if path := config.getoption("--mmu-report"):
            yield _written(Path(path), {"tests": self.by_test})
        parts = list(self.of_kind(MATRIX))
        if (parts or config.getoption("--mmu-matrix")) and (where := _matrix_file(config)):
            from harness.conformance.chunks import merged

            yield _written(where, merged(parts))

    def _summary(self) -> Iterator[str]:
        reports, runs = list(self.of_kind("Report")), list(self.of_kind("GuestRun"))
        parts = list(self.of_kind(MATRIX))
        words = []
        if reports:
            pages = sum(report["pages"] for report in reports)
            wrong = sum(len(report["findings"]) + report["omitted"] for report in reports)
            times = "comparison" if len(reports) == 1 else "comparisons"
            words.append(f"{len(reports)} {times} of {pages:,} pages, {_found(wrong)}")
        if runs:
            words.append(f"{len(runs)} {'run of a guest' if len(runs) == 1 else 'runs of guests'}")
        if parts:
            cases, failing = (sum(part[key] for part in parts) for key in ("cases", "failing"))
            words.append(f"{cases:,} cases of the matrix, {failing:,} failing")
        if words:
            yield f"mmucheck: {'; '.join(words)}"


def _found(wrong: int) -> str:
    return (
        f"{wrong:,} {'range differs' if wrong == 1 else 'ranges differ'}" if wrong else "all agree"
    )


def _matrix_file(config: pytest.Config) -> Path | None:
    """``--mmu-matrix``, or ``matrix.json`` beside the JUnit XML."""
    if path := config.getoption("--mmu-matrix"):
        return Path(path)
    xml = getattr(config.option, "xmlpath", None)
    return (
        Path(os.path.expanduser(os.path.expandvars(xml))).with_name("matrix.json") if xml else None
    )


def _written(path: Path, document: Any) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        return f"mmucheck: {path}: cannot be written: {error.strerror}"
    return f"mmucheck: wrote {path}"


_COLLECTED: Final = pytest.StashKey[Collected]()


def collected(config: pytest.Config) -> Collected:
    """The results that have come in during the run of ``config``."""
    return config.stash.setdefault(_COLLECTED, Collected())
