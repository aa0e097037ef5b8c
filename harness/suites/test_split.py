# SPDX-License-Identifier: GPL-2.0-or-later
"""The split at PAGE_OFFSET, tried by guest code from both rings (book 4.1)."""

from typing import Final

import pytest

from harness.guests import guest_path
from harness.machine import paging_variant
from harness.pytest_plugin.machines import Machines
from harness.suites.stage import NotAsExpected

_MANUAL = "manual  Intel SDM 3A, 4.6: access rights; 4.7: the error code"
_KERNEL = "kernel  pagetable_init(), arch/i386/mm/init.c (book 3.6.2, 4.1)"


_CONFIGS: Final = {
    "486": {"ram": "16M", "cpu_model": "486", "highmem": "none"},
    "pse": {"ram": "16M", "cpu_model": "pentium3", "highmem": "none"},
    "pae": {"ram": "32M", "cpu_model": "pentium3", "highmem": "64G"},
}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=name, marks=pytest.mark.mmu(**words))
        for name, words in _CONFIGS.items()
    ],
)
@pytest.mark.mmu(nodes="1", cpus="1")
def test_split(mmu_machines: Machines, words: dict[str, str]) -> None:
    """Each line is one access: ring, what, address, and the fault with its error code and CR2."""
    image = guest_path("split_test", paging_variant(mmu_machines.config))
    machine = mmu_machines.machine(image=image)
    lines = machine.console.decode("ascii", "replace").splitlines()
    wrong = [line for line in lines if not line.startswith("ok")]
    if wrong or machine.failures or machine.exit_status != 0 or not lines:
        text = "\n".join(["the split does not hold:", *wrong, "", _KERNEL, _MANUAL])
        raise NotAsExpected(f"the split does not hold: {(wrong or ['the guest ended'])[0]}", text)
