# SPDX-License-Identifier: GPL-2.0-or-later
"""The coverage page is that of the tests, has no gap for 2.4, and reads every kind of marker."""

import subprocess
import sys

import pytest

from tests.book.coverage import (
    PAGE,
    TESTS,
    BadMarker,
    Book,
    Proof,
    Section,
    empty,
    fill,
    page,
    proofs,
    proofs_of,
    read_book,
)

CHAPTERS = {"6": "Pages"}
BOOK = Book(
    CHAPTERS,
    (Section("6.1", "Blocks", "2.4"), Section("6.3", "Freeing", "2.4"), Section("6.7", "N", "2.6")),
)


@pytest.fixture(scope="module")
def claimed() -> list[Proof]:
    return proofs()


def test_the_page_is_up_to_date(claimed: list[Proof]) -> None:
    book = read_book()
    current = page(book, fill(book, claimed)) == PAGE.read_text(encoding="utf-8")
    assert current, "docs/coverage-of-the-book.md is out of date: make coverage-page"


def test_every_section_of_2_4_has_a_proof(claimed: list[Proof]) -> None:
    book = read_book()
    gaps = [section for section in empty(book, fill(book, claimed)) if section.release == "2.4"]
    assert gaps == []


def test_the_book_is_listed_in_order_and_whole() -> None:
    book = read_book()
    numbers = [section.number for section in book.sections]
    assert numbers == sorted(numbers, key=lambda number: list(map(int, number.split("."))))
    assert len(numbers) == len(set(numbers))
    assert {number.split(".")[0] for number in numbers} == set(book.chapters)
    last = [section.number for section in book.sections if section.release == "2.6"]
    assert last == ["2.8", "3.10", "4.8", "5.7", "6.7", "7.4", "8.8"]


SOURCE = """
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.book("6.1")]


@pytest.mark.book("6.3", *("6.7",))
@pytest.mark.book("6.1", release="2.6")
def test_one(): ...


@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.book("6.3", release="2.4"))])
def test_two(x): ...


class TestThree:
    @pytest.mark.book("6.7")
    def test_inner(self): ...


TestMachine = pytest.mark.book("6.1")(Machine.TestCase)
"""


def test_markers_are_read_wherever_pytest_reads_them() -> None:
    assert list(proofs_of(SOURCE, "m.py")) == [
        Proof("6.1", None, "m.py"),
        Proof("6.3", None, "m.py::test_one"),
        Proof("6.7", None, "m.py::test_one"),
        Proof("6.1", "2.6", "m.py::test_one"),
        Proof("6.3", "2.4", "m.py::test_two"),
        Proof("6.7", None, "m.py::TestThree::test_inner"),
        Proof("6.1", None, "m.py::TestMachine"),
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("@pytest.mark.book(NAME)\ndef test_x(): ...", "write the section as text"),
        ("@pytest.mark.book('6.1', release='2.5')\ndef test_x(): ...", "release= one of"),
        ("@pytest.mark.book('6.1', relase='2.6')\ndef test_x(): ...", "release= one of"),
        ("MARK = pytest.mark.book('6.1')\n", "marks no test"),
        ("@pytest.mark.book('6.1')\ndef helper(): ...", "marks no test"),
    ],
)
def test_a_marker_that_says_nothing_is_refused(source: str, said: str) -> None:
    with pytest.raises(BadMarker, match=said):
        list(proofs_of(source, "m.py"))


def test_a_section_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadMarker, match=r"no section 6\.9"):
        fill(BOOK, [Proof("6.9", None, "m.py::test_x")])
    assert not fill(BOOK, [Proof("11.5", None, "m.py::test_x")])


def test_a_gap_is_found_and_shown() -> None:
    cells = fill(BOOK, [Proof("6.1", None, "a.py::test_x"), Proof("6.1", "2.6", "a.py::test_y")])
    assert [section.number for section in empty(BOOK, cells)] == ["6.3", "6.7"]
    text = page(BOOK, cells)
    assert "| 6.1 | Blocks | 1 | 1 |" in text
    assert "| 6.3 | Freeing | **none yet** | - |" in text
    assert "| 6.7 | N | - | **none yet** |" in text
    assert "- `a.py`: `test_y`" in text


OPTIONS = ("--collect-only", "--quiet", "-n", "0", "-p", "tests.book.list_markers")


@pytest.mark.slow
def test_pytest_itself_sees_the_same_markers(claimed: list[Proof]) -> None:
    """Collected by pytest, each test carries what its source says."""
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, str(TESTS)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    seen = {line.removeprefix("book: ") for line in listed.splitlines() if line[:6] == "book: "}
    expected = {f"{proof.section} {proof.test.partition('::')[0]}" for proof in claimed}
    assert seen == expected
