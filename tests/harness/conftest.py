# SPDX-License-Identifier: GPL-2.0-or-later
"""One body for both releases: tests that are about machines as such."""

import pytest

from kernel_model.config import KernelConfig

_DEFAULTS = KernelConfig.__init__.__defaults__ or ()


@pytest.fixture(params=["2.4", pytest.param("2.6", marks=pytest.mark.slow)])
def either_release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whoever boots a kernel and does not say which gets one of this release."""
    defaults = tuple(request.param if value == "2.4" else value for value in _DEFAULTS)
    monkeypatch.setattr(KernelConfig.__init__, "__defaults__", defaults)
    return str(request.param)
