# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that the tests run."""

from pathlib import Path

import pytest

from harness.guests import built_directory


@pytest.fixture(scope="session")
def built() -> Path:
    """All guests, as they are installed."""
    return built_directory()
