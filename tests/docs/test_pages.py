# SPDX-License-Identifier: GPL-2.0-or-later
"""Every example in the documentation does what the page says; planted mistakes are seen."""

from pathlib import Path

import pytest

pytest.importorskip("sybil", reason="the examples are read by sybil: pip install sybil")

from tests.docs.pages import PAGES, ROOT, Page
from tests.docs.transcripts import Command, commands, difference, matches, run

NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


LONG = {"docs/pytest.md", "docs/command-line.md", "docs/verdict.md"}
"""Pages whose commands take several seconds."""


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name, marks=pytest.mark.slow if name in LONG else ())
        for path, name in zip(PAGES, NAMES, strict=True)
    ],
)
def test_examples_do_what_the_page_says(path: Path, tmp_path: Path) -> None:
    failures = Page(path, tmp_path).failures()
    if failures:
        pytest.fail("\n\n".join(failures), pytrace=False)


@pytest.mark.slow
def test_long_examples_do_so_too(tmp_path: Path) -> None:
    assert Page(ROOT / "README.md", tmp_path, patient=True).failures() == []


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("pycon\n>>> 6 * 7\n41", "Expected:\n    41\nGot:\n    42"),
        ("pycon\n>>> 1 / 0", "ZeroDivisionError"),
        ("python\nassert False, 'planted'", "AssertionError: planted"),
        ("console\n$ echo one\ntwo", "-two\n+one"),
        ("console\n$ mmucheck --version\n", "+mmucheck "),
        ("console\n$ mmucheck boot --ram 1\n$ echo $?\n0", "-0\n+2"),
        ("cobol\nSTOP RUN.", "no such language"),
    ],
)
def test_a_page_that_is_wrong_is_seen(tmp_path: Path, block: str, said: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"# Page\n\n```{block}\n```\n")
    (failure, *_) = Page(path, tmp_path).failures()[-1:]
    assert failure.startswith(("line 3:", "line 4:"))
    assert said in failure


def test_a_titled_block_is_a_file_for_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text('```text title="a"\nb\n```\n\n```console\n$ cat a\nb\n```\n')
    assert Page(path, tmp_path).failures() == []


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        ("a", "a  \n", True),
        ("a", "b", False),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd", True),
        ("a\n...", "b\na", False),
        ("took ... s", "took 1.5 s", True),
        ("took ... s", "took 1.5\n s", False),
        ("1.5", "1x5", False),
        ("", "", True),
        ("", "noise", False),
    ],
)
def test_only_what_is_left_out_may_differ(expected: str, actual: str, equal: bool) -> None:
    assert matches(expected, actual) is equal


def test_commands_keep_their_order_and_lines() -> None:
    block = "$ one\nsaid\n$ two\n"
    assert list(commands(block)) == [Command("one", "said", 0), Command("two", "", 2)]
    assert difference(Command("one", "said", 0), "told").startswith("$ one\n--- the page")


@pytest.mark.slow
def test_the_program_itself_says_the_same(tmp_path: Path) -> None:
    """In this process and as a program of its own, standard error included."""
    for arguments in ("--version", "boot --ram 1", "explain 0xC0100000 --ram 16M"):
        here = run(f"mmucheck {arguments}", tmp_path)
        assert here == run(f"true; mmucheck {arguments}", tmp_path)
