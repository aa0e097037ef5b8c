# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a command writes: tables for people, JSON for programs.

Tables go to standard output; when the JSON goes there (``--json -``) they move to standard error.
They are coloured on a terminal only, with ``FORCE_COLOR`` anywhere and with ``NO_COLOR`` nowhere,
which rich sees to. What can fail: a JSON file that cannot be written is
:class:`~kernel_model.errors.BadInput`, before the work where possible.
"""

import enum
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import Progress

from harness.elf_headers import printable
from kernel_model.errors import BadInput

STANDARD_OUTPUT: Final = "-"
_PIPE_WIDTH: Final = 120
"""Columns of a table that no terminal limits."""


class Output:
    """One command's output. ``json_file`` is a path, ``-`` or None."""

    def __init__(self, json_file: str | None = None) -> None:
        self.json_file = json_file
        self.console = _console(to_stderr=json_file == STANDARD_OUTPUT)
        """For the result."""
        self.diagnostics = _console(to_stderr=True)
        """For what must not mix with a result or a guest's own output."""
        if json_file not in (None, STANDARD_OUTPUT):
            self._check_writable(Path(str(json_file)))

    @staticmethod
    def _check_writable(path: Path) -> None:
        target = path if path.exists() else path.parent
        if path.is_dir() or not os.access(target, os.W_OK):
            raise BadInput(f"--json {printable(str(path))}: cannot be written: give another file")

    def text(self, text: str) -> None:
        """Print ``text`` as it is: no markup, no wrapping."""
        self.console.print(text, markup=False, soft_wrap=True)

    def json(self, document: Mapping[str, Any]) -> None:
        """Write ``document`` if JSON was asked for."""
        if self.json_file is None:
            return
        text = json.dumps(document, indent=2, default=_plain) + "\n"
        if self.json_file == STANDARD_OUTPUT:
            sys.stdout.write(text)
            return
        try:
            Path(self.json_file).write_text(text, encoding="utf-8")
        except OSError as error:
            name = printable(self.json_file)
            raise BadInput(f"--json {name}: cannot be written: {error.strerror}") from error

    def progress(self) -> Progress:
        """A progress bar on standard error, shown on a terminal only and removed at its end."""
        # FORCE_COLOR makes a terminal of everything for rich; a bar in a file helps nobody.
        return Progress(console=self.diagnostics, transient=True, disable=not sys.stderr.isatty())


def _console(*, to_stderr: bool) -> Console:
    stream = sys.stderr if to_stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(stderr=to_stderr, width=width, highlight=False)


def _plain(value: object) -> object:
    """What JSON has for a value that it does not know."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
