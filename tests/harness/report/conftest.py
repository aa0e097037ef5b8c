# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the tour on each machine, for all tests of the report: it is only looked at."""

from typing import Any

import pytest

from kernel_model.config import MIB, Highmem, KernelConfig
from tests.harness.report.toured import Toured

_HIGH: dict[str, Any] = {"ram": 72 * MIB, "highmem_pages": 2048}
MACHINES = {
    "2.4": KernelConfig(ram=32 * MIB),
    "2.6": KernelConfig(release="2.6", ram=32 * MIB),
    "2.6 chains, high memory": KernelConfig(
        release="2.6", rmap="pte_chain", highmem=Highmem.GB4, **_HIGH
    ),
    "2.6 PAE": KernelConfig(release="2.6", highmem=Highmem.GB64, **_HIGH),
}


@pytest.fixture(scope="session")
def toured() -> Toured:
    """The tour on 2.4, for what is the same on every machine."""
    return Toured(MACHINES["2.4"])


@pytest.fixture(scope="session")
def toured_2_6() -> Toured:
    """The tour on 2.6 with high memory and PAE."""
    return Toured(MACHINES["2.6 PAE"])


@pytest.fixture(scope="session", params=MACHINES)
def each_toured(request: pytest.FixtureRequest, toured: Toured, toured_2_6: Toured) -> Toured:
    """The tour on every machine in turn."""
    made = {"2.4": toured, "2.6 PAE": toured_2_6}
    return made.get(request.param) or Toured(MACHINES[request.param])
