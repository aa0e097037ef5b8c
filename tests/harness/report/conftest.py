# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the tour for all tests of the report: it is only looked at."""

import pytest

from kernel_model.config import MIB, KernelConfig
from tests.harness.report.toured import Toured


@pytest.fixture(scope="session")
def toured() -> Toured:
    return Toured(KernelConfig(ram=32 * MIB))
