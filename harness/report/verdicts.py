# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of comparison and conformance matrix as rows: a verdict, where, and what was said.

Ranges on which all readings agree are rows too, so that the page shows what was compared, not only
what went wrong. Nothing here can fail.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from harness.report.picture import size_text
from harness.verdict import Verdict

if TYPE_CHECKING:
    from harness.conformance.matrix import MatrixReport
    from harness.diff_report import Report as Comparison

AGREES: Final = "agrees"
CONFORMS: Final = "conforms"
KNOWN: Final = "known difference"
FAILS: Final = "fails"
UNTRIED: Final = "not tried"
_MEANINGS: Final = {
    AGREES: "Every reading says the same of each page: intent, spec, cpu, and real accesses.",
    CONFORMS: "Every case comes out as the Intel manual says.",
    KNOWN: "The CPU does not do what the manual says, in a way that is known, with its reason.",
    FAILS: "It does not come out as it must, and nobody has explained it so far.",
    UNTRIED: "The guest could make no accesses, so the CPU was not put to the test.",
} | {verdict.value: verdict.sentence for verdict in Verdict}
"""What each verdict means, in a sentence."""
_MAX_RANGES: Final = 400
"""Ranges without a finding that become rows."""
GOOD: Final = frozenset({AGREES, CONFORMS})
NEUTRAL: Final = frozenset({KNOWN})


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``what`` is what was compared, ``where`` an address range or a paging mode."""

    verdict: str
    what: str
    where: str
    said: str

    @property
    def tone(self) -> str:
        """``good``, ``neutral`` or ``bad``."""
        return "good" if self.verdict in GOOD else "neutral" if self.verdict in NEUTRAL else "bad"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All rows, those that matter first, and a line on each comparison."""

    rows: tuple[Row, ...]
    summaries: tuple[str, ...]
    ok: bool

    def counts(self) -> dict[str, int]:
        """Rows by verdict, in the order of the rows."""
        return dict(Counter(row.verdict for row in self.rows))

    def meanings(self) -> dict[str, str]:
        """What the verdicts that occur mean."""
        return {verdict: _MEANINGS[verdict] for verdict in self.counts()}

    def as_json(self) -> dict[str, Any]:
        rows = [asdict(row) for row in self.rows]
        return {"ok": self.ok, "summaries": list(self.summaries), "rows": rows}


def verdicts(
    comparison: "Comparison | None",
    conformance: "MatrixReport | None",
    ranges: Sequence[dict[str, Any]],
    problem: str = "",
) -> Verdicts:
    """``ranges`` are the mapped ones, as the picture of the page tables has them; ``problem`` is
    what ended the machine."""
    rows: list[Row] = []
    summaries: list[str] = []
    if problem:
        rows.append(Row(FAILS, "the run", "the kernel", problem))
        summaries.append(problem)
    if comparison is not None:
        rows += _compared(comparison, ranges)
        summaries.append(_comparison_line(comparison))
    if conformance is not None:
        rows += _matrix(conformance)
        summaries += _matrix_lines(conformance)
    order = {"bad": 0, "neutral": 1, "good": 2}
    rows.sort(key=lambda row: (order[row.tone], row.verdict == AGREES))
    agreed = (comparison is None or comparison.ok) and (conformance is None or conformance.ok)
    ok = agreed and not problem
    return Verdicts(tuple(rows), tuple(summaries), ok)


def _comparison_line(comparison: "Comparison") -> str:
    """Like its conclusion, without the time it took: the same run gives the same page."""
    if not comparison.ok:
        return comparison.conclusion
    asked = comparison.asked
    return (
        f"All readings agree: {comparison.pages:,} pages compared, {comparison.mapped:,} of them "
        f"mapped, {asked:,} put to the CPU."
    )


def _compared(comparison: "Comparison", ranges: Sequence[dict[str, Any]]) -> Iterator[Row]:
    if comparison.untried:
        yield Row(UNTRIED, "access", "the CPU", comparison.untried)
    for finding in comparison.findings:
        said = "; ".join(map(str, finding.answers))
        tail = [str(part) for part in (finding.entry, finding.remark) if part]
        yield Row(
            finding.verdict.value,
            finding.accesses,
            f"{finding.va:#010x} - {finding.end:#010x}",
            "; ".join([said, *tail]),
        )
    if comparison.omitted:
        yield Row(FAILS, "more findings", "elsewhere", f"{comparison.omitted:,} more ranges differ")
    readings = ", ".join(name for name, count in comparison.questions.items() if count)
    spoilt = [(finding.va, finding.end) for finding in comparison.findings]
    shown = 0
    for row in _by_rights(ranges):
        end = row["va"] + row["length"] - 1
        if any(va <= end and last >= row["va"] for va, last in spoilt):
            continue
        shown += 1
        if shown > _MAX_RANGES:
            continue
        frames = "one run" if row["runs"] == 1 else f"{row['runs']:,} runs"
        words = f"{row['text']}, {size_text(row['length'])} in {frames} of frames"
        yield Row(AGREES, readings, f"{row['va']:#010x} - {end:#010x}", words)
    if shown > _MAX_RANGES:
        yield Row(AGREES, readings, "elsewhere", f"{shown - _MAX_RANGES:,} more ranges")


def _by_rights(ranges: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Neighbouring ranges of equal rights as one, whatever frames they have."""
    kept: dict[str, Any] | None = None
    for row in ranges:
        if kept is not None:
            if (kept["va"] + kept["length"], kept["rights"]) == (row["va"], row["rights"]):
                kept["length"] += row["length"]
                kept["runs"] += 1
                continue
            yield kept
        kept = dict(row) | {"runs": 1}
    if kept is not None:
        yield kept


def _matrix(report: "MatrixReport") -> Iterator[Row]:
    from harness.conformance.divergences import known_for

    for cpu in report.cpus:
        for finding in cpu.findings:
            said = f"{'; '.join(finding.differences)} ({finding.count:,} alike); {finding.command}"
            yield Row(FAILS, f"{cpu.name} and the manual", finding.setting, said)
        for entry in known_for(cpu.name):
            if entry.name in cpu.known:
                said = f"{cpu.known[entry.name]:,} cases. {entry.reason}"
                yield Row(KNOWN, f"{cpu.name} and the manual", entry.name, said)
        for mode, (cases, failing) in cpu.by_mode.items():
            verdict = FAILS if failing else CONFORMS
            said = f"{failing:,} of {cases:,} cases fail" if failing else f"{cases:,} cases"
            yield Row(verdict, f"{cpu.name} and the manual", f"paging mode {mode}", said)


def _matrix_lines(report: "MatrixReport") -> Iterator[str]:
    for cpu in report.cpus:
        known = sum(cpu.known.values())
        verdict = f"{cpu.failing:,} cases fail" if cpu.failing else "conforms to the manual"
        yield (
            f"The MMU of {cpu.name} {verdict}: {cpu.cases:,} cases in {len(cpu.by_mode)} paging "
            f"modes, {known:,} known differences."
        )
