# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests built for the tests."""

from pathlib import Path

import pytest

from guest import build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh build of all guests."""
    target = tmp_path_factory.mktemp("guests")
    build.build_guests(target)
    return target
