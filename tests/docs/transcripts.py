# SPDX-License-Identifier: GPL-2.0-or-later
"""Transcripts in the documentation, run again and compared.

A transcript is a ``console`` block: lines ``$ command``, each followed by what it prints, standard
error included. What differs between machines is left out: a line ``...`` stands for any number of
lines, ``...`` within a line for any text in that line. White space at the end of a line does not
count. ``mmucheck`` runs in this process, which saves a second each; everything else in a shell.
"""

import difflib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final, NamedTuple
from unittest.mock import patch

from harness.cli import app

PROMPT: Final = "$ "
_SHELL: Final = re.compile(r"[|&;<>*?`$(){}]")
_SECONDS: Final = 60


class Command(NamedTuple):
    """One command of a transcript, what it is said to print, and where: lines from the top."""

    text: str
    expected: str
    line: int


class Ended(NamedTuple):
    """What a command did."""

    status: int
    output: str


def commands(block: str) -> Iterator[Command]:
    """The commands of a transcript."""
    lines = block.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(PROMPT)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Command(lines[start][len(PROMPT) :], "\n".join(lines[start + 1 : end]), start)


def matches(expected: str, actual: str) -> bool:
    """Whether ``actual`` is what ``expected`` leaves open, and nothing else."""
    pattern = ""
    for line in _lines(expected):
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r".*?".join(map(re.escape, line.split("..."))) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(actual))) is not None


def difference(command: Command, actual: str) -> str:
    """What a person needs to mend a transcript."""
    lines = difflib.unified_diff(
        _lines(command.expected), _lines(actual), "the page", "the command", lineterm=""
    )
    return "\n".join([f"{PROMPT}{command.text}", *lines])


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def run(command: str, folder: Path, before: int = 0) -> Ended:
    """Run ``command`` in ``folder``; ``before`` is the status of the command before it (``$?``)."""
    words = shlex.split(command)
    if words and words[0] == "mmucheck" and not _SHELL.search(command):
        return _run_here(words[1:], folder)
    done = subprocess.run(
        ["bash", "-c", f"(exit {before}); {command}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
        cwd=folder,
        env=_environment(),
    )
    return Ended(done.returncode, done.stdout)


def _environment() -> dict[str, str]:
    """This process's, with the programs of its Python first; nothing that colours, and nothing
    that tells another pytest of this one."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _COLOURING and not name.startswith("PYTEST_")
    }
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


_COLOURING: Final = ("COLUMNS", "FORCE_COLOR", "CLICOLOR_FORCE")


def _run_here(arguments: list[str], folder: Path) -> Ended:
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    status: object = 0
    plain = patch.dict(os.environ, _environment(), clear=True)
    with plain, redirect_stdout(printed), redirect_stderr(printed), chdir(folder):
        try:
            app(arguments)
        except SystemExit as end:
            status = end.code or 0
    printed.seek(0)
    return Ended(status if isinstance(status, int) else 1, printed.read())
