# SPDX-License-Identifier: GPL-2.0-or-later
"""One shape for every reading: six answers for each page that was asked about.

A question is a ring and an access. An answer is one int64, so that comparisons are numpy:

* 0 and up: the access succeeds and reaches this PFN;
* :func:`fault` of an error code: #PF with that code;
* :data:`FAULT`: #PF, and the reading cannot tell the code;
* :data:`ASTRAY`: the access succeeded, and reached no frame that could be recognised, or it
  faulted and CR2 was wrong;
* :data:`UNSAID`: the reading says nothing here.

Nothing here can fail.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.architecture import PF_PRESENT, PF_RESERVED, Access, ControlRegisters, Ring
from harness.mappings import ALLOWED, BAD_TABLE, I64, Pages, outcome
from harness.mmu_faults import error_code_text

FAULT: Final = -1
UNSAID: Final = -2
ASTRAY: Final = -3
AFTER_FLUSH: Final = "cpu after a flush"
"""The name of the reading of a CPU that was asked again."""
_CODED: Final = -16
"""A fault with error code c is ``_CODED - c``."""


class Question(NamedTuple):
    """What is asked of a page."""

    ring: Ring
    access: Access

    def __str__(self) -> str:
        return f"{self.ring.name.lower()} {self.access.value}"


QUESTIONS: Final = tuple(
    Question(ring, access)
    for ring in (Ring.KERNEL, Ring.USER)
    for access in (Access.READ, Access.FETCH, Access.WRITE)
)
"""Writes last: one that finds no write permission in the TLB makes the CPU walk again, which
would replace the stale entry that a read can still see."""


def questions_text(asked: tuple[Question, ...]) -> str:
    """``kernel read, user write``; shorter where a ring is complete."""
    if len(asked) == len(QUESTIONS):
        return "every access"
    parts = []
    for ring in Ring:
        mine = [question for question in asked if question.ring is ring]
        if len(mine) == len(Access):
            parts.append(f"every {ring.name.lower()} access")
        else:
            parts += [str(question) for question in mine]
    return ", ".join(parts)


def fault(error_code: int | npt.NDArray[np.integer]) -> I64:
    """The answer "#PF with this error code"."""
    return np.asarray(_CODED - np.asarray(error_code, np.int64))


def faults(answers: I64) -> npt.NDArray[np.bool_]:
    """Which answers are faults."""
    return np.asarray((answers == FAULT) | (answers <= _CODED))


def disagree(one: I64, other: I64) -> npt.NDArray[np.bool_]:
    """Where two readings contradict each other. An unknown error code contradicts none."""
    silent = (one == UNSAID) | (other == UNSAID)
    vague = faults(one) & faults(other) & ((one == FAULT) | (other == FAULT))
    return np.asarray((one != other) & ~silent & ~vague)


def error_code_of(answer: int) -> int | None:
    """The error code of a fault, if the reading knows it."""
    return _CODED - answer if answer <= _CODED else None


def answer_text(answer: int) -> str:
    """``frame 0x400``, ``faults with 5 (P|U)``, ..."""
    if answer >= 0:
        return f"frame {answer:#x}"
    code = error_code_of(answer)
    if code is None:
        return {FAULT: "faults", ASTRAY: "goes astray"}.get(answer, "says nothing")
    causes = {0: ", not present", PF_PRESENT | PF_RESERVED: ", reserved bit"}
    cause = causes.get(code & (PF_PRESENT | PF_RESERVED), "")
    return f"faults with {error_code_text(code)}{cause}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What ``name`` answers: ``answers[q, i]`` to ``QUESTIONS[q]`` about page ``pages[i]``.

    ``pages`` are page numbers, sorted.
    """

    name: str
    pages: I64
    answers: I64

    @property
    def asked(self) -> int:
        """Number of questions that have an answer."""
        return int(np.count_nonzero(self.answers != UNSAID))

    def at(self, pages: I64) -> I64:
        """The answers about some of the pages; those never asked about are :data:`UNSAID`."""
        found = np.full((len(QUESTIONS), len(pages)), UNSAID, np.int64)
        if len(self.pages):
            place = np.minimum(np.searchsorted(self.pages, pages), len(self.pages) - 1)
            known = self.pages[place] == pages
            found[:, known] = self.answers[:, place[known]]
        return found


def read_pages(name: str, dense: Pages, pages: I64, registers: ControlRegisters) -> Reading:
    """What the rights in ``dense``, the whole address space, make of every access to ``pages``."""
    chosen = Pages(dense.pfn[pages], dense.rights[pages], dense.no_execute)
    answers = np.empty((len(QUESTIONS), len(pages)), np.int64)
    for row, (ring, access) in enumerate(QUESTIONS):
        codes = outcome(chosen, access, ring, registers)
        answers[row] = np.where(codes == ALLOWED, chosen.pfn, fault(codes))
        answers[row, codes == BAD_TABLE] = UNSAID
    return Reading(name, pages, answers)
