# SPDX-License-Identifier: GPL-2.0-or-later
"""A failure as the terminal, JUnit XML and pytest-xdist show it: the test's own line, then words.

The frames of our packages are left out, ``--mmu-traceback`` brings them back below the words. The
result is one of pytest's own representations, which its reports carry between processes.
Nothing here can fail: what cannot be told is left to pytest.
"""

from pathlib import Path
from typing import Any, Final

import pytest
from _pytest._code.code import (
    ReprEntry,
    ReprEntryNative,
    ReprExceptionInfo,
    ReprFileLocation,
    ReprTraceback,
    TracebackEntry,
)

from harness.failures import failure_of
from harness.pytest_plugin.results import TestResults

_OURS: Final = frozenset({"harness", "kernel_model", "guest"})
SECTION: Final = "mmucheck: the last comparison"


def tell(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], report: Any) -> None:
    """Put words in the place of the traceback, if the failure is one of ours."""
    failure = failure_of(excinfo.value, excinfo.tb)
    if failure is None:
        _add_mismatch(item, excinfo.value, report)
        return
    own = [entry for entry in excinfo.traceback if _is_the_users(entry, item)]
    entries = _entries(item, excinfo) if own else []
    entries.append(ReprEntryNative([f"{failure.text}\n"]))
    if item.config.getoption("--mmu-traceback"):
        entries.append(ReprEntryNative([f"\n{excinfo.getrepr(style='native')}\n"]))
    crash = ReprFileLocation(*_place(item, own), failure.headline)
    report.longrepr = ReprExceptionInfo(ReprTraceback(entries, None, "long"), crash)


def _entries(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> list[Any]:
    """The lines of the user's frames as pytest shows them, without the message behind them."""
    shown: Any = excinfo.getrepr(
        style="short" if item.config.getoption("tbstyle", "auto") == "short" else "long",
        tbfilter=lambda info: info.traceback.filter(lambda e: _is_the_users(e, item)),
        chain=False,
    )
    entries: list[Any] = list(shown.reprtraceback.reprentries)
    for entry in entries:
        if isinstance(entry, ReprEntry):
            entry.lines = [line for line in entry.lines if not line.startswith("E ")]
    return entries


def _add_mismatch(item: pytest.Item, error: BaseException, report: Any) -> None:
    """A test that looked at a report and was not content: the report's own words beside it."""
    results = TestResults.known(item)
    mismatch = results.last_mismatch if results else None
    if mismatch is not None and isinstance(error, AssertionError):
        report.sections.append((SECTION, str(mismatch)))


def _is_the_users(entry: TracebackEntry, item: pytest.Item) -> bool:
    """Whether a frame is of the tested project: neither ours nor a library's."""
    package = entry.frame.f_globals.get("__name__", "").partition(".")[0]
    path = Path(str(entry.path))
    inside = path.is_relative_to(item.config.rootpath) and "site-packages" not in path.parts
    return package not in _OURS and (inside or path == item.path)


def _place(item: pytest.Item, own: list[TracebackEntry]) -> tuple[str, int]:
    """Where the test failed, for the summary and for JUnit XML."""
    if own:
        return str(own[-1].path), own[-1].lineno + 1
    path, line, _ = item.location
    return path, (line or 0) + 1
