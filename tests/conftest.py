# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests share: Hypothesis profiles, and where the recorded data lies.

``pytest --hypothesis-profile=thorough`` searches longer than the suite does.
"""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=40, stateful_step_count=30)
settings.register_profile("thorough", deadline=None, max_examples=2000, stateful_step_count=80)
settings.load_profile("default")


@pytest.fixture(scope="session")
def data() -> Path:
    """The directory of recorded answers of real kernels and real machines."""
    return Path(__file__).parent / "data"
