# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts: which of the readings is wrong, about which addresses, and which entry shows it.

:func:`findings` turns the pages on which two readings disagree into :class:`Finding` records,
one for each run of neighbours that disagree in the same way. Nothing here can fail.
"""

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.architecture import Access, Ring
from harness.mappings import I64, PAGE_SHIFT, U16, rights_text
from harness.mmu_faults import entry_text
from harness.mmu_spec import Walk
from harness.readings.reading import (
    QUESTIONS,
    Question,
    Reading,
    answer_text,
    disagree,
    error_code_of,
    questions_text,
)

Walker = Callable[[int, Access, Ring], Walk]
_PAGE_BYTES: Final = 1 << PAGE_SHIFT


class Verdict(enum.Enum):
    """Who is wrong. The value is the word of the report, ``sentence`` explains it."""

    MODEL_BUG = "model bug"
    MISSING_FLUSH = "missing flush"
    EMULATOR_BUG = "emulator bug"
    UNEXPECTED = "unexpected"
    BAD_TABLE = "bad table"

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES: Final = {
    Verdict.MODEL_BUG: "The page tables do not hold what the kernel model means them to hold.",
    Verdict.MISSING_FLUSH: (
        "The CPU uses an old translation, and the new one after a flush: the kernel changed "
        "an entry and did not flush it."
    ),
    Verdict.EMULATOR_BUG: (
        "With a freshly flushed TLB the CPU does not do what the Intel manual says of these tables."
    ),
    Verdict.UNEXPECTED: "The translation is not the one that the list of known translations has.",
    Verdict.BAD_TABLE: (
        "An entry points to a table outside RAM: the architecture does not say what comes of it."
    ),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one reading says to the finding's first question about its first page.

    ``code`` is one answer of a :class:`~harness.readings.reading.Reading`. ``rights`` are the
    page's ``RIGHT_*`` bits where the reading knows them.
    """

    reading: str
    code: int
    rights: int | None = None

    @property
    def pfn(self) -> int | None:
        return self.code if self.code >= 0 else None

    @property
    def error_code(self) -> int | None:
        return error_code_of(self.code)

    def __str__(self) -> str:
        known = self.rights is not None and self.code >= 0
        rights = f" ({rights_text(self.rights)})" if known and self.rights is not None else ""
        return f"{self.reading} {answer_text(self.code)}{rights}"

    def as_json(self) -> dict[str, Any]:
        return {
            "reading": self.reading,
            "pfn": self.pfn,
            "error_code": self.error_code,
            "rights": self.rights,
            "text": answer_text(self.code),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """The last entry that a walk of the first page reads; ``paddr`` is ``None`` for CR3."""

    level: str
    paddr: int | None
    value: int

    def __str__(self) -> str:
        return entry_text(self.level, self.paddr, self.value)


@dataclass(frozen=True, slots=True)
class Finding:
    """``length`` bytes at ``va`` where readings disagree in one way.

    ``questions`` are the accesses that come out differently; none when only rights differ that
    no access needs. ``answers`` are to the first of them.
    """

    verdict: Verdict
    va: int
    length: int
    questions: tuple[Question, ...]
    answers: tuple[Answer, ...]
    entry: Entry | None = None
    remark: str = ""

    @property
    def end(self) -> int:
        """The last byte."""
        return self.va + self.length - 1

    def answer(self, reading: str) -> Answer | None:
        """What ``reading`` says, if it says something."""
        return next((answer for answer in self.answers if answer.reading == reading), None)

    @property
    def accesses(self) -> str:
        return questions_text(self.questions) if self.questions else "no access"

    def __str__(self) -> str:
        said = "; ".join(map(str, self.answers))
        parts = [f"{self.va:#010x}..{self.end:#010x}", self.verdict.value, self.accesses]
        text = f"{' '.join(parts)}: {said}"
        tail = [str(part) for part in (self.entry, self.remark) if part]
        return "; ".join([text, *tail])

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.name,
            "va": self.va,
            "length": self.length,
            "accesses": [
                {"ring": int(ring), "access": access.value} for ring, access in self.questions
            ],
            "answers": [answer.as_json() for answer in self.answers],
            "entry": None
            if self.entry is None
            else {
                "level": self.entry.level,
                "paddr": self.entry.paddr,
                "value": self.entry.value,
            },
            "remark": self.remark,
            "text": str(self),
        }


@dataclass(frozen=True, slots=True)
class Witness:
    """One reading as a finding quotes it; ``rights`` are dense over all pages, if known."""

    reading: Reading
    rights: U16 | None = None

    def answer(self, page: int, row: int) -> Answer:
        code = int(self.reading.at(np.array([page]))[row, 0])
        rights = None if self.rights is None else int(self.rights[page])
        return Answer(self.reading.name, code, rights)


def runs(pages: I64, *answers: I64) -> Iterator[tuple[int, int]]:
    """``[start, end)`` index ranges of neighbouring pages with the same answers.

    Frames count as the same when they go up with the pages.
    """
    if not len(pages):
        return
    same = pages[1:] == pages[:-1] + 1
    for each in answers:
        relative = np.where(each >= 0, each - pages, each)
        kind = each >= 0
        same &= ((relative[:, 1:] == relative[:, :-1]) & (kind[:, 1:] == kind[:, :-1])).all(axis=0)
    yield from pairwise([0, *(np.flatnonzero(~same) + 1).tolist(), len(pages)])


def findings(
    verdict: Verdict,
    pages: I64,
    first: Witness,
    second: Witness,
    others: tuple[Witness, ...],
    walker: Walker,
    differ: Callable[[I64, I64], npt.NDArray[np.bool_]] = disagree,
) -> Iterator[Finding]:
    """The disagreement of ``first`` and ``second`` on ``pages`` (sorted), run by run.

    The other witnesses are quoted. ``walker`` is the scalar walk, which names the entry.
    ``differ`` decides which answers are different.
    """
    one, other = first.reading.at(pages), second.reading.at(pages)
    different = differ(one, other)
    for start, end in runs(pages, one, other, *(w.reading.at(pages) for w in others)):
        page = int(pages[start])
        rows = np.flatnonzero(different[:, start:end].any(axis=1)).tolist()
        row = rows[0] if rows else 0
        answers = tuple(witness.answer(page, row) for witness in (first, second, *others))
        yield Finding(
            verdict,
            page << PAGE_SHIFT,
            (end - start) * _PAGE_BYTES,
            tuple(QUESTIONS[row] for row in rows),
            answers,
            entry_of(walker, page << PAGE_SHIFT, QUESTIONS[row]),
        )


def entry_of(walker: Walker, va: int, question: Question) -> Entry | None:
    """The entry that decides about ``va``: of a fault the culprit, else the last one read."""
    found = walker(va, question.access, question.ring)
    if found.fault is not None:
        return Entry(found.fault.level, found.fault.paddr, found.fault.entry)
    if not found.steps:
        return None
    last = found.steps[-1]
    return Entry(last.level, last.paddr, last.entry)
