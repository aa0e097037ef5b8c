# SPDX-License-Identifier: GPL-2.0-or-later
"""A plugin of pytest: prints the ``book`` markers of what it has collected, a line for each
section and module."""

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    found = {
        f"book: {section} {item.nodeid.partition('::')[0]}"
        for item in session.items
        for marker in item.iter_markers("book")
        for section in marker.args
    }
    print(*sorted(found), sep="\n")
