# SPDX-License-Identifier: GPL-2.0-or-later
"""A real browser without a window: Debian's Chromium, driven by Playwright over DevTools.

Only the browser of the system is used; Playwright's own are never downloaded. Where there is none,
or it does not start, the tests that want it are skipped, with the reason.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_FLAGS: Final = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextmanager
def browser() -> Iterator[Any]:
    """A ``playwright.sync_api.Browser``, or the end of the test as skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install it")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no chromium on this machine: install the package chromium")
    with playwright.sync_playwright() as running:
        try:
            started = running.chromium.launch(executable_path=path, args=list(_FLAGS))
        except playwright.Error as error:
            pytest.skip(f"{path} does not start: {str(error).splitlines()[0]}")
        yield started
        started.close()
