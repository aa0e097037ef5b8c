# SPDX-License-Identifier: GPL-2.0-or-later
"""One test body for both releases.

Programs are told apart by no release; the suite runs all of them on 2.4 and, to stay short, one in
three on 2.6. The others of 2.6 are ``slow``.
"""

from collections.abc import Iterable

import pytest
from _pytest.mark.structures import ParameterSet

from kernel_model.config import RELEASES

__all__ = ["MACHINES", "RELEASES", "both", "on_both"]

on_both = pytest.mark.parametrize("release", RELEASES)
MACHINES = pytest.mark.parametrize(
    ("release", "ram"),
    [
        *(pytest.param(release, 8 << 20, id=f"{release}-8M") for release in RELEASES),
        *(
            pytest.param(release, 64 << 20, id=f"{release}-64M", marks=pytest.mark.slow)
            for release in RELEASES
        ),
    ],
)
"""Little memory; and plenty of it, which shows less."""


def both(names: Iterable[object], every: int = 3) -> list[ParameterSet]:
    """``(name, release)``: each name on each release, on 2.6 fast for one in ``every``."""
    listed = list(names)
    of_26 = (
        pytest.param(name, "2.6", marks=[pytest.mark.slow] if n % every else [], id=f"{name}-2.6")
        for n, name in enumerate(listed)
    )
    return [*(pytest.param(name, "2.4", id=f"{name}-2.4") for name in listed), *of_26]
