# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a comparison: counts, findings in ranges, and what was left out.

A :class:`Report` prints itself as a table (``rich``) and as JSON. Nothing here can fail.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.readings.cpu_probe import LeftOut
from harness.verdict import Finding, Verdict

MAX_FINDINGS: Final = 1000
"""Ranges that a report holds; the others are counted."""
_SHOWN: Final = 40
"""Ranges that the printed table has; JSON has all of the report."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a comparison of the readings came to.

    ``pages`` were compared between the records and the tables, ``asked`` of them put to the
    CPU. ``questions`` counts the answers of each reading. ``findings`` are sorted by address,
    ``omitted`` more were found. ``notes`` are for a person.
    """

    subject: str
    pages: int
    asked: int
    mapped: int
    questions: dict[str, int]
    findings: tuple[Finding, ...]
    omitted: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    untried: str = ""
    """Why the guest made no accesses although it should have been able to; empty: it did."""

    @property
    def ok(self) -> bool:
        """All readings agree, and none of them was missing."""
        return not self.findings and not self.untried

    def verdicts(self) -> dict[Verdict, int]:
        """Number of ranges by verdict."""
        counted = Counter(finding.verdict for finding in self.findings)
        return {verdict: counted[verdict] for verdict in Verdict if counted[verdict]}

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "subject": self.subject,
            "pages": self.pages,
            "mapped": self.mapped,
            "asked": self.asked,
            "questions": self.questions,
            "left_out": self.left_out.as_json(),
            "verdicts": {verdict.name: count for verdict, count in self.verdicts().items()},
            "findings": [finding.as_json() for finding in self.findings],
            "omitted": self.omitted,
            "notes": list(self.notes),
            "untried": self.untried,
            "seconds": round(self.seconds, 3),
        }

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [Text(self.subject, style="bold"), self._counts()]
        if self.findings:
            parts.append(self._findings())
            parts += [Text(f"{verdict.value}: {verdict.sentence}") for verdict in self.verdicts()]
        parts += [Text(f"note: {note}") for note in self.notes]
        parts.append(Text(self.conclusion, style="bold green" if self.ok else "bold red"))
        return Group(*parts)

    @property
    def conclusion(self) -> str:
        """The verdict in one line."""
        if self.ok:
            return f"all readings agree ({self.seconds:.1f} s)"
        if not self.findings:
            return f"THE CPU COULD NOT BE TRIED: {self.untried}"
        ranges = len(self.findings) + self.omitted
        kinds = ", ".join(f"{verdict.value} {n}" for verdict, n in self.verdicts().items())
        return f"MISMATCH in {ranges} range{'s' if ranges > 1 else ''}: {kinds}"

    def _counts(self) -> Table:
        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, count in self._rows():
            table.add_row(name, f"{count:,}")
        return table

    def _rows(self) -> Iterator[tuple[str, int]]:
        yield "pages compared", self.pages
        yield "of them mapped", self.mapped
        yield "put to the CPU", self.asked
        for name, count in self.questions.items():
            yield f"answers of {name}", count
        for name, count in (
            ("pages of devices, not accessed", self.left_out.devices),
            ("pages without a stamp, only loaded from", self.left_out.without_stamp),
            ("pages hidden by the probe, not accessed", self.left_out.hidden),
        ):
            if count:
                yield name, count

    def _findings(self) -> Table:
        table = Table(title="What does not agree", title_justify="left")
        for column in ("addresses", "verdict", "accesses", "readings", "entry"):
            table.add_column(column, overflow="fold", no_wrap=column == "addresses")
        for finding in self.findings[:_SHOWN]:
            said = "\n".join(map(str, finding.answers))
            entry = "" if finding.entry is None else str(finding.entry)
            table.add_row(
                f"{finding.va:#010x}\n{finding.end:#010x}",
                finding.verdict.value,
                finding.accesses,
                said,
                "\n".join(filter(None, (entry, finding.remark))),
            )
        hidden = len(self.findings) + self.omitted - _SHOWN
        if hidden > 0:
            table.add_row("", f"{hidden} more", "", "", "")
        return table
