# SPDX-License-Identifier: GPL-2.0-or-later
"""A failure in the field's words: what is wrong, where, which entry, who wrote it, what to read.

:func:`failure_of` turns an error of mmucheck into a :class:`Failure`: one line, and the text
that stands in place of a traceback. :class:`Mismatch` is a comparison that found something,
kept with the walks and the writers of the entries at that moment. Nothing here can fail.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from harness.architecture import Access, ControlRegisters, Ring
from harness.concerned import (
    FLUSH_API,
    FLUSHES,
    MANUAL,
    answer_source,
    region_of,
    section_of,
    section_of_error_code,
)
from harness.conformance.flags import bits_text
from harness.diff_report import Report
from harness.machine import GuestDied, GuestStopped, Machine
from harness.mmu_faults import PageFault, UnsupportedPaging
from harness.mmu_spec import Walk, walk
from harness.monitors.entry_writers import EntryWriters, Writer, kernel_functions
from harness.readings.reading import QUESTIONS, Question
from harness.verdict import Finding, Verdict, entry_of
from kernel_model.errors import BadInput, KernelFault, MmucheckError
from kernel_model.ram import Ram

__all__ = ["Failure", "GuestCrashed", "Mismatch", "about_address", "failure_of", "finding_text"]

_IN_FULL: Final = 3
"""Kinds of findings that are told with everything; the others get a line."""
_IN_A_LINE: Final = 20
_PLACES: Final = 4
_UNITS: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True, slots=True)
class Failure:
    """``headline`` is one line; ``text`` has all."""

    headline: str
    text: str


class Mismatch(MmucheckError):
    """Readings that differ. ``report`` is the comparison; the message tells of it at length."""

    def __init__(self, report: Report, text: str, headline: str) -> None:
        super().__init__(text)
        self.report = report
        self.headline = headline

    @staticmethod
    def of(report: Report, subject: Any, mm: int | None = None) -> "Mismatch":
        """Look at the tables of ``subject`` (``ram``, ``cpu`` and perhaps ``kernel``) now."""
        teller = _Teller(subject, mm)
        return Mismatch(report, teller.text(report), teller.headline(report))


class GuestCrashed(MmucheckError):
    """A program ended by a signal; ``ended`` is the result of its run."""

    def __init__(self, program: str, ended: Any) -> None:
        name = ended.signal_name
        report = f"\n{ended.report}" if ended.report is not None else ""
        super().__init__(f"{program} was killed by {name}{report}")
        self.headline = f"{program} was killed by {name}"
        if ended.report is not None:
            self.headline += f": {ended.report.reason}"
        self.ended = ended


def failure_of(error: BaseException, traceback: TracebackType | None = None) -> Failure | None:
    """``error`` in words; None for an error that is not mmucheck's."""
    if not isinstance(error, MmucheckError):
        return None
    headline = getattr(error, "headline", "") or f"{_title(error)}{_first_line(error)}"
    lines = [str(error)]
    report = getattr(error, "report", None) or getattr(
        getattr(error, "ended", None), "report", None
    )
    if isinstance(error, GuestStopped) and report is not None:
        lines += ["", str(report)]
    if isinstance(error, GuestDied | GuestCrashed) and report is not None:
        lines += ["", *_about_crash(report)]
    if concerns := getattr(error, "concerns", ""):
        lines += ["", f"kernel  {concerns}"]
    if calls := _kernel_calls(traceback):
        lines += ["", f"in the kernel: {kernel_functions(calls)}"]
    return Failure(headline, "\n".join(lines))


def _title(error: MmucheckError) -> str:
    """The kind of error, unless its message begins with it."""
    plain = KernelFault | BadInput | GuestStopped
    if isinstance(error, plain) or type(error) is MmucheckError:
        return ""
    name = type(error).__name__
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    return f"{words}: "


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _about_crash(report: Any) -> Iterator[str]:
    """Which section decides about the fault, if it is one, and who serves it."""
    if not report.reason.startswith("#PF"):
        return
    code = int(report.reason.partition("error code ")[2].split()[0])
    yield f"manual  {MANUAL}, {section_of_error_code(code)}"
    yield "kernel  do_page_fault(), arch/i386/mm/fault.c (book 4.6)"


def _kernel_calls(traceback: TracebackType | None) -> tuple[tuple[str, Any], ...]:
    """The functions of the kernel model that an exception came through, the innermost first."""
    calls = []
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if module.startswith("kernel_model"):
            calls.append((module, traceback.tb_frame.f_code))
        traceback = traceback.tb_next
    return tuple(reversed(calls))


class _Teller:
    """Tells of findings over one machine's tables as they are now."""

    def __init__(self, subject: Any, mm: int | None) -> None:
        self._ram: Ram = subject.ram
        self._kernel = subject.kernel if isinstance(subject, Machine) else None
        control: ControlRegisters = subject.cpu.control
        cr3 = control.cr3 if mm is None else mm
        self._control = ControlRegisters(control.cr0, cr3, control.cr4, control.efer)
        self._writers = EntryWriters.of(self._kernel) if self._kernel is not None else None

    def headline(self, report: Report) -> str:
        if not report.findings:
            return report.conclusion
        first = report.findings[0]
        more = len(report.findings) + report.omitted - 1
        entry = f", {first.entry}" if first.entry is not None else ""
        tail = f" (and {more} more)" if more else ""
        return f"{first.verdict.value} at {first.va:#010x}{entry}{tail}"

    def text(self, report: Report) -> str:
        kinds: dict[str, list[Finding]] = {}
        for finding in report.findings:
            kinds.setdefault(_kind(finding), []).append(finding)
        groups = list(kinds.values())
        blocks = ["\n".join(self._findings(alike)) for alike in groups[:_IN_FULL]]
        if rest := groups[_IN_FULL : _IN_FULL + _IN_A_LINE]:
            blocks.append("\n".join(["also:", *(f"  {alike[0]}" for alike in rest)]))
        told = sum(len(alike) for alike in groups[:_IN_FULL]) + len(rest)
        if left := len(report.findings) + report.omitted - told:
            blocks.append(f"and {left:,} more ranges")
        notes = [f"note: {note}" for note in report.notes]
        return "\n\n".join([*blocks, "\n".join([*notes, report.conclusion, report.subject])])

    def _findings(self, alike: list[Finding]) -> Iterator[str]:
        """The first of them, and where the others are."""
        yield from self.finding(alike[0])
        if others := alike[1:]:
            places = ", ".join(f"{finding.va:#010x}" for finding in others[:_PLACES])
            dots = ", ..." if len(others) > _PLACES else ""
            yield f"  alike   {len(others):,} more ranges: {places}{dots}"

    def finding(self, finding: Finding) -> Iterator[str]:
        """What is wrong, what each reading says, and everything about the address."""
        region = region_of(self._kernel, finding.va) if self._kernel is not None else None
        where = f", {region.name}" if region else ""
        yield f"{finding.verdict.value.upper()}: {finding.verdict.sentence}"
        yield (
            f"at {finding.va:#010x}..{finding.end:#010x}, {size_text(finding.length)}{where}: "
            f"{finding.accesses}"
        )
        yield ""
        width = max(len(answer.reading) for answer in finding.answers)
        for answer in finding.answers:
            said = str(answer).removeprefix(answer.reading).strip()
            yield f"  {answer.reading:<{width}}  {said:<32}  {answer_source(answer)}".rstrip()
        yield ""
        if finding.remark:
            yield f"  remark  {finding.remark}"
        question = finding.questions[0] if finding.questions else QUESTIONS[0]
        innocent = finding.verdict is Verdict.EMULATOR_BUG
        section = section_of(finding)
        yield from self.about(
            finding.va, question.access, question.ring, section, blame=not innocent
        )

    def about(
        self, va: int, access: Access, ring: Ring, section: str = "", *, blame: bool = True
    ) -> Iterator[str]:
        """The entry that decides, its writer, the walk to it, and what all that concerns.

        ``blame``: the kernel may have done it.
        """
        found = self._walk(va, access, ring)
        writer = None
        if isinstance(found, Walk):
            entry = entry_of(lambda *_: found, va, Question(ring, access))
            if entry is not None:
                yield f"  entry   {entry}"
                writer = self._writers.last(entry.paddr) if self._writers else None
                if writer is not None:
                    yield from _written(writer, entry.value)
                    if section != FLUSHES:
                        yield from self._unwritten(va, writer)
            if isinstance(found.fault, PageFault):
                section = section or section_of_error_code(found.fault.error_code)
        lines = str(found).splitlines()
        yield f"  walk    {lines[0]}"
        yield from (f"        {line}" for line in lines[1:])
        if self._kernel is not None and blame:
            region = region_of(self._kernel, va)
            known = writer is not None and writer.by_the_model
            by = "" if known else f"{region.functions}; "
            yield f"  kernel  {by}book {region.book}: {region.name}"
        if section == FLUSHES:
            yield f"  flush   none came after that change; there are {FLUSH_API}"
        if section:
            yield f"  manual  {MANUAL}, {section}"

    def _unwritten(self, va: int, writer: Writer) -> Iterator[str]:
        """Who said later what ``va`` is to mean, and wrote no entry."""
        watch = self._writers
        meaning = watch.unwritten(self._control.cr3, va, writer) if watch is not None else None
        if meaning is not None:
            yield f"  meant   otherwise later by {meaning}"
            yield "          which has not written the entry since"

    def _walk(self, va: int, access: Access, ring: Ring) -> Walk | UnsupportedPaging:
        try:
            return walk(self._ram, self._control, va, access, ring)
        except UnsupportedPaging as error:
            return error


def _kind(finding: Finding) -> str:
    """What findings that are alike have in common."""
    answers = [
        (answer.reading, answer.rights, answer.error_code, answer.pfn is None)
        for answer in finding.answers
    ]
    return f"{finding.verdict} {finding.accesses} {answers}"


def _written(writer: Writer, found: int) -> Iterator[str]:
    yield f"  written by {writer}"
    if writer.differs(found):
        lost, gained = writer.value & ~found, found & ~writer.value
        changed = [f"{bits_text(lost).upper()} lost"] if lost else []
        changed += [f"{bits_text(gained).upper()} gained"] if gained else []
        yield (
            f"          which asked {writer.macro}() for {writer.value:#010x}: {', '.join(changed)}"
        )
        yield f"          {writer.macro}() is wrong, or somebody changed the entry behind it"


def finding_text(subject: Any, finding: Finding) -> str:
    """One finding about ``subject``, with everything."""
    return "\n".join(_Teller(subject, None).finding(finding))


def about_address(
    subject: Any,
    va: int,
    access: Access,
    ring: Ring,
    mm: int | None = None,
    section: str = "",
) -> list[str]:
    """Everything about one address of ``subject`` (``ram``, ``cpu``, perhaps ``kernel``).

    ``section`` is that of the manual, if it is known already.
    """
    return list(_Teller(subject, mm).about(va, access, ring, section))


def size_text(length: int) -> str:
    """``4 MiB``, in the largest unit that divides it."""
    for unit, name in _UNITS:
        if length % unit == 0 and length >= unit:
            return f"{length // unit} {name}"
    return f"{length} bytes"
