# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests share: Hypothesis profiles, recorded data, one body for both releases.

``pytest --hypothesis-profile=thorough`` searches longer than the suite does.
"""

from pathlib import Path

import pytest
from hypothesis import settings

from kernel_model.config import KernelConfig

settings.register_profile("default", deadline=None, max_examples=40, stateful_step_count=30)
settings.register_profile("thorough", deadline=None, max_examples=2000, stateful_step_count=80)
settings.load_profile("default")


@pytest.fixture(scope="session")
def data() -> Path:
    """The directory of recorded answers of real kernels and real machines."""
    return Path(__file__).parent / "data"


_DEFAULTS = KernelConfig.__init__.__defaults__ or ()


@pytest.fixture(params=["2.4", pytest.param("2.6", marks=pytest.mark.slow)])
def either_release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whoever boots a kernel and does not say which gets one of this release."""
    defaults = tuple(request.param if value == "2.4" else value for value in _DEFAULTS)
    monkeypatch.setattr(KernelConfig.__init__, "__defaults__", defaults)
    return str(request.param)
