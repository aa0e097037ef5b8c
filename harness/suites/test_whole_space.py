# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole address spaces, 4 GiB each: what the kernel means, the manual says, the CPU does."""

from typing import Any

import pytest

from harness.pytest_plugin.machines import Comparing

_CONFIGS: dict[str, dict[str, Any]] = {
    "as-given": {},
    "486": {"ram": "16M", "highmem": "none", "cpu_model": "486", "nodes": "1"},
    "pse": {"ram": "16M", "highmem": "none", "cpu_model": "pentium", "nodes": "1"},
    "highmem": {"ram": "72M", "highmem": "4G", "highmem_pages": 2048, "nodes": "1"},
    "pae": {
        "ram": "72M",
        "highmem": "64G",
        "cpu_model": "coreduo",
        "highmem_pages": 2048,
        "nodes": "1",
    },
    "nodes": {"ram": "32M", "highmem": "none", "nodes": "2"},
}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=name, marks=pytest.mark.mmu(**words))
        for name, words in _CONFIGS.items()
    ],
)
def test_booted(diff: Comparing, words: dict[str, Any]) -> None:
    """A kernel that has just booted (book 3.6)."""
    diff()


@pytest.mark.mmu(ram="72M", highmem="4G", highmem_pages=2048, nodes="1")
def test_vmalloc_and_kmap(machine: Any, diff: Comparing) -> None:
    """The kernel's own mappings come and go, and leave nothing in the TLB (book 7.1-7.3, 9.2)."""
    kernel, cpu = machine.kernel, machine.cpu
    areas = [kernel.vmalloc.vmalloc(pages * 4096) for pages in (1, 3, 17)]
    device = kernel.vmalloc.ioremap(0xFE000000, 8192)
    diff()
    for area in areas:
        # Whatever the CPU has cached of it must go with the area.
        cpu.translate(area)
    kernel.vmalloc.vfree(areas[1])
    kernel.vmalloc.iounmap(device)
    diff()
