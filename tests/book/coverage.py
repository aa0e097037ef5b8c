# SPDX-License-Identifier: GPL-2.0-or-later
"""``docs/coverage-of-the-book.md``: each section of the book and the tests that prove it.

``python -m tests.book.coverage`` (``make coverage-page``) writes the page. It is made from the
``book`` markers in the sources of the tests, not from a collection by pytest: so it is the same on
a machine where some tests cannot be collected. ``sections.toml`` lists the sections.

A marker without ``release`` proves its section for the release that the section speaks of; with
``release="2.6"`` a section of 2.4 for 2.6 too. What can fail: :class:`BadMarker` for a marker
that names no section, or stands where it marks no test.
"""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = TESTS.parent / "docs" / "coverage-of-the-book.md"
_SECTIONS: Final = Path(__file__).with_name("sections.toml")
RELEASES: Final = ("2.4", "2.6")
_EMPTY: Final = "**none yet**"
_NOT_MEANT: Final = "-"


class BadMarker(ValueError):
    """A ``book`` marker that says nothing."""


class Proof(NamedTuple):
    """A test, by pytest's name for it, that proves ``section`` for ``release`` (None: its own)."""

    section: str
    release: str | None
    test: str


class Section(NamedTuple):
    """A section of the book, and the release that it speaks of."""

    number: str
    title: str
    release: str

    @property
    def key(self) -> tuple[int, ...]:
        return tuple(map(int, self.number.split(".")))


class Book(NamedTuple):
    """The chapters' titles by number, and all sections in order."""

    chapters: Mapping[str, str]
    sections: tuple[Section, ...]


def read_book() -> Book:
    """The list of sections."""
    table = tomllib.loads(_SECTIONS.read_text(encoding="utf-8"))
    sections = [
        Section(number, title, release)
        for release in RELEASES
        for number, title in table[f"linux_{release.replace('.', '_')}"].items()
    ]
    return Book(table["chapters"], tuple(sorted(sections, key=lambda section: section.key)))


# -- what the tests say --------------------------------------------------------------------------


def proofs(tests: Path = TESTS) -> list[Proof]:
    """Every proof that the test modules below ``tests`` claim."""
    found = []
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests.parent).as_posix()
        found += proofs_of(path.read_text(encoding="utf-8"), name)
    return found


def proofs_of(source: str, name: str) -> Iterator[Proof]:
    """The proofs that one module claims; ``name`` is its path in pytest's names."""
    tree = ast.parse(source, name)
    claimed: set[ast.Call] = set()
    for test, node in _marked(tree.body, name):
        for call in _book_calls(node):
            claimed.add(call)
            release = _release(call, name)
            for argument in _spread(call.args):
                yield Proof(_text(argument, name), release, test)
    for call in _book_calls(tree):
        if call not in claimed:
            raise BadMarker(f"{name}:{call.lineno}: this book marker marks no test")


def _marked(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, ast.AST]]:
    """Each test in ``body``, with the syntax that may mark it."""
    for statement in body:
        match statement:
            case ast.ClassDef() if statement.name.startswith("Test"):
                for decorator in statement.decorator_list:
                    yield f"{owner}::{statement.name}", decorator
                yield from _marked(statement.body, f"{owner}::{statement.name}")
            case ast.FunctionDef() if statement.name.startswith("test"):
                for decorator in statement.decorator_list:
                    yield f"{owner}::{statement.name}", decorator
            case ast.Assign(targets=[ast.Name("pytestmark")]):
                yield owner, statement.value
            case ast.Assign(targets=[ast.Name(name)]) if name.startswith("Test"):
                yield f"{owner}::{name}", statement.value


def _book_calls(node: ast.AST) -> Iterator[ast.Call]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "pytest.mark.book":
            yield inner


def _release(call: ast.Call, name: str) -> str | None:
    for keyword in call.keywords:
        text = _text(keyword.value, name)
        if keyword.arg != "release" or text not in RELEASES:
            raise BadMarker(f"{name}:{call.lineno}: book() takes release= one of {RELEASES}")
        return text
    return None


def _spread(arguments: list[ast.expr]) -> Iterator[ast.expr]:
    """The arguments, those of a ``*(...)`` one by one."""
    for argument in arguments:
        match argument:
            case ast.Starred(ast.Tuple(inner)):
                yield from inner
            case _:
                yield argument


def _text(node: ast.expr, name: str) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise BadMarker(f"{name}:{node.lineno}: write the section as text, not {ast.unparse(node)}")


# -- the page --------------------------------------------------------------------------------------

Cells = Mapping[tuple[str, str], list[str]]
"""The tests of each (section, release)."""


def fill(book: Book, claimed: list[Proof]) -> Cells:
    """Which tests prove which section for which release; chapters beyond the book's list apart."""
    own = {section.number: section.release for section in book.sections}
    cells: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for proof in claimed:
        if proof.section in own:
            cells[proof.section, proof.release or own[proof.section]].append(proof.test)
        elif proof.section.split(".")[0] in book.chapters:
            raise BadMarker(f"{proof.test}: the book has no section {proof.section} that we count")
    return cells


def empty(book: Book, cells: Cells) -> list[Section]:
    """The sections that no test proves for the release they speak of."""
    return [section for section in book.sections if not cells[section.number, section.release]]


def page(book: Book, cells: Cells) -> str:
    """The whole page."""
    lines = [
        "<!-- Made by `make coverage-page` from the book markers of the tests. -->",
        "# Coverage of the book",
        "",
        "M. Gorman, *Understanding the Linux Virtual Memory Manager*, section by section, with the",
        "tests that prove each. The titles are ours. A test carries its sections as a marker,",
        '`@pytest.mark.book("3.8")`, and this page is made from those; a test fails when it is out',
        "of date. The numbers count tests or, where a whole module is marked, modules.",
        "",
        "The last section of each chapter speaks of 2.6 alone. A dash stands where the book says",
        f"nothing of that release and no test claims it; {_EMPTY} where a proof is missing.",
    ]
    for number, title in book.chapters.items():
        sections = [section for section in book.sections if section.key[0] == int(number)]
        lines += ["", f"## {number} {title}", "", "| section | | 2.4 | 2.6 |", "|---|---|--:|--:|"]
        for section in sections:
            counts = [_count(section, release, cells) for release in RELEASES]
            lines.append(f"| {section.number} | {section.title} | {' | '.join(counts)} |")
        for section in sections:
            lines += _proofs(section, cells)
    return "\n".join(lines) + "\n"


def _count(section: Section, release: str, cells: Cells) -> str:
    tests = cells.get((section.number, release), [])
    absent = _EMPTY if release == section.release else _NOT_MEANT
    return str(len(tests)) if tests else absent


def _proofs(section: Section, cells: Cells) -> Iterator[str]:
    """The tests of one section, folded away under its number, a line for each module."""
    for release in RELEASES:
        modules: defaultdict[str, list[str]] = defaultdict(list)
        for test in cells.get((section.number, release), []):
            module, _, name = test.partition("::")
            modules[module].append(name)
        if modules:
            yield from ("", f"**{section.number}** {section.title}, {release}:", "")
            for module, names in modules.items():
                listed = ", ".join(f"`{name}`" for name in names if name)
                yield f"- `{module}`{': ' if listed else ''}{listed}"


def main() -> None:
    """Write the page."""
    book = read_book()
    PAGE.write_text(page(book, fill(book, proofs())), encoding="utf-8")


if __name__ == "__main__":
    main()
