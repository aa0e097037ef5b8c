# SPDX-License-Identifier: GPL-2.0-or-later
"""Which section of the manual a difference is about."""

import pytest

from harness.architecture import Access, Ring
from harness.concerned import section_of, section_of_case, section_of_error_code
from harness.readings.reading import ASTRAY, FAULT, Question, fault
from harness.verdict import Answer, Entry, Finding, Verdict

READ = (Question(Ring.USER, Access.READ),)


def section(one: int, other: int, verdict: Verdict = Verdict.MODEL_BUG) -> str:
    answers = (Answer("intent", one), Answer("spec", other))
    return section_of(Finding(verdict, 0, 4096, READ, answers)).split(" ")[0].rstrip(":")


@pytest.mark.parametrize(
    ("one", "other", "number"),
    [
        (0x10, 0x11, "4.3"),
        (0x10, int(fault(4)), "4.3"),
        (0x10, int(fault(5)), "4.6"),
        (int(fault(21)), 0x10, "4.6"),
        (0x10, int(fault(9)), "4.3"),
        (0x10, FAULT, "4.6"),
        (int(fault(4)), int(fault(6)), "4.7"),
        (0x10, ASTRAY, "4.3"),
    ],
)
def test_of_a_finding(one: int, other: int, number: str) -> None:
    assert section(one, other) == number
    assert section(one, other, Verdict.MISSING_FLUSH) == "4.10.4"


def test_of_rights_that_no_access_needs() -> None:
    entry = Entry("PTE", 0x1000, 0x1105)
    answers = (Answer("intent", 1), Answer("spec", 1))
    assert "4.10.2.4" in section_of(Finding(Verdict.MODEL_BUG, 0, 4096, (), answers, entry))
    assert "4.6" in section_of(Finding(Verdict.MODEL_BUG, 0, 4096, (), answers))


def test_of_an_error_code() -> None:
    assert "reserved bits" in section_of_error_code(9)
    assert "P=0" in section_of_error_code(6)
    assert "access rights" in section_of_error_code(7)


@pytest.mark.parametrize(
    ("field", "setting", "number"),
    [
        ("outcome", "pae wp pde.p pte.p: user read", "4.6"),
        ("outcome", "pae pte.p pte.bit41: user read", "reserved bits"),
        ("first error code", "pae: user write", "4.7"),
        ("PTE after", "pae: user write", "4.8"),
        ("CR3 load", "pae pdpte.bit1: user read", "4.4.1"),
        ("outcome", "pae: user read after read, pte-p, flush invlpg", "4.10.4"),
        ("value", "pae: user read", "4.3"),
    ],
)
def test_of_a_case(field: str, setting: str, number: str) -> None:
    assert number in section_of_case(field, setting)
