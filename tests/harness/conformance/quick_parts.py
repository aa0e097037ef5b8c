# SPDX-License-Identifier: GPL-2.0-or-later
"""The quick suite, made once for each set of features."""

import functools
from typing import Any

from harness.conformance.flags import Mode
from harness.conformance.suites import QUICK, suite
from harness.paging_modes import MmuFeatures

Parts = list[tuple[Mode, Any]]


@functools.cache
def quick(features: MmuFeatures) -> Parts:
    """Mode by mode; nobody changes the arrays."""
    return list(suite(QUICK, features))


def thinned(features: MmuFeatures, step: int, modes: set[str] | None = None) -> Parts:
    """Every ``step``-th case of some modes."""
    return [
        (mode, cases[::step]) for mode, cases in quick(features) if not modes or mode.name in modes
    ]
