# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages that users read, and how their examples are run.

Blocks of a page, by language: ``pycon`` is a session of Python whose output is compared,
``python`` runs, ``console`` is a transcript (:mod:`tests.docs.transcripts`). They share one
namespace and one folder, in order. A block with a title is a file in that folder, and not run by
itself. In the folder lie ``guest`` and ``tests`` of this clone, and Debian's ``busybox``.
"""

import doctest
import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Final

from sybil import Document, Example, Region
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.example import SybilFailure
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.docs.transcripts import commands, difference, matches, run
from tests.packages import available

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN: Final = {"text", "sh", "toml", "c", "py"}
"""Languages of blocks that only show something; ``py`` is a piece of Python run elsewhere."""
_NEEDED: Final = {
    "./busybox": lambda: "busybox" in available(),
    "qemu": lambda: shutil.which("qemu-system-i386"),
}
"""What a machine may lack. A command with such a word is passed over there."""
_LONG: Final = ("mmucheck conform --cpu unicorn --cpu qemu",)
"""Commands that take many seconds."""
_BLOCKS: Final = FencedCodeBlockLexer(r"[^\n]*", mapping={"language": "info", "source": "source"})
_TITLE: Final = re.compile(r'title="([^"]+)"')
_DOCTEST: Final = DocTestStringParser(DocTestEvaluator(doctest.ELLIPSIS))
_PYTHON: Final = PythonEvaluator()


class Page:
    """One page; its examples run in ``folder``, and can run once. Long ones only if ``patient``."""

    def __init__(self, path: Path, folder: Path, *, patient: bool = False) -> None:
        self.folder = folder
        self.patient = patient
        for name in ("guest", "tests"):
            (folder / name).symlink_to(ROOT / name)
        if busybox := available().get("busybox"):
            (folder / "busybox").symlink_to(busybox)
        self.status = 0
        self.document = Document.parse(str(path), self._regions)

    def failures(self) -> list[str]:
        """Run every example; what each that fails has to say."""
        found = []
        with chdir(self.folder):
            for example in self.document.examples():
                try:
                    example.evaluate()
                except SybilFailure as failure:
                    found.append(f"line {example.line}:\n{failure.result}")
                except Exception as error:
                    found.append(f"line {example.line}: {type(error).__name__}: {error}")
        return found

    def _regions(self, document: Document) -> Iterator[Region]:
        for region in _BLOCKS(document):
            language = region.lexemes["info"].partition(" ")[0]
            region.parsed = source = region.lexemes["source"]
            if title := _TITLE.search(region.lexemes["info"]):
                region.parsed = title[1], source
                region.evaluator = self._write
            elif language == "pycon":
                for inner in _DOCTEST(source, document.path):
                    inner.adjust(region, source)
                    yield inner
                continue
            elif language == "python":
                region.evaluator = _PYTHON
            elif language == "console":
                region.evaluator = self._replay
            elif language not in NOT_RUN:
                region.evaluator = lambda _: "no such language: name how the block is to be run"
            yield region

    def _write(self, example: Example) -> None:
        name, source = example.parsed
        (self.folder / name).write_text(source, encoding="utf-8")

    def _replay(self, example: Example) -> str:
        said = []
        for command in commands(example.parsed):
            if any(word in command.text and not here() for word, here in _NEEDED.items()):
                continue
            if command.text in _LONG and not self.patient:
                continue
            ended = run(command.text, self.folder, self.status)
            self.status = ended.status
            if not matches(command.expected, ended.output):
                said.append(difference(command, ended.output))
        return "\n".join(said)
