# SPDX-License-Identifier: GPL-2.0-or-later
"""The small kernels that tests of the CPU run on."""

import pytest

from tests.harness.cpu.small_kernel import SmallKernel


@pytest.fixture
def kernel() -> SmallKernel:
    return SmallKernel()


@pytest.fixture(params=[False, True], ids=["2-level", "PAE"])
def either_kernel(request: pytest.FixtureRequest) -> SmallKernel:
    return SmallKernel(pae=request.param)
