# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole boots: every machine, every build, the log, and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from kernel_model.config import CPU_MODELS, MIB, E820Entry, Highmem, KernelConfig
from kernel_model.errors import KernelPanic, MmucheckError
from kernel_model.kernel import Kernel, boot

ROOT = Path(__file__).parents[2]
MACHINES = [
    (model, highmem, ram)
    for model, features in CPU_MODELS.items()
    for highmem in Highmem
    for ram in (16, 64, 1024, 4096)
    if features.pae or highmem is not Highmem.GB64
]


@pytest.mark.book("5.2", "5.6")
@pytest.mark.parametrize(("model", "highmem", "ram"), MACHINES)
def test_every_machine_boots(model: str, highmem: Highmem, ram: int) -> None:
    kernel = boot(KernelConfig(ram=ram * MIB, cpu_model=model, highmem=highmem))
    assert kernel.started
    usable = ram if highmem is not Highmem.NONE else min(ram, 896)
    free = kernel.allocator.nr_free_pages()
    in_use = usable * 256 - free
    # Image, boot map, mem_map (48 bytes a frame), 4 bytes a frame of page tables and bitmaps.
    assert 700 < in_use < 1400 + usable * 256 * 60 // 4096
    (direct,) = [m for m in kernel.kernel_mappings() if m.purpose == "direct map"]
    assert (direct.vaddr, direct.paddr) == (0xC0000000, 0)
    assert direct.size >= min(ram, 896) * MIB
    assert (direct.rights.write, direct.rights.user) == (True, False)


@pytest.mark.book("5.6")
def test_the_log_is_that_of_the_real_kernel() -> None:
    kernel = boot(KernelConfig(ram=1024 * MIB, highmem=Highmem.GB4, register_memory=False))
    assert kernel.log.splitlines()[:7] == [
        "<5>128MB HIGHMEM available.",
        "<5>896MB LOWMEM available.",
        "On node 0 totalpages: 262144",
        "zone(0): 4096 pages.",
        "zone(1): 225280 pages.",
        "zone(2): 32768 pages.",
        "<6>Memory: 1032768k/1048576k available (2048k kernel code, 15420k reserved, "
        "512k data, 64k init, 131072k highmem)",
    ]


def test_a_kernel_boots_once() -> None:
    kernel = boot()
    with pytest.raises(MmucheckError, match="make a new Kernel"):
        kernel.start_kernel()


def test_a_half_booted_kernel_is_not_booted_again() -> None:
    kernel = Kernel()
    kernel.start_kernel(until="setup_memory")
    assert not kernel.started
    with pytest.raises(MmucheckError, match="make a new Kernel"):
        kernel.start_kernel()


def test_too_little_memory_for_mem_map_panics_and_says_so() -> None:
    """A frame far away makes mem_map larger than all the memory there is."""
    far = (E820Entry(0, 0x9F000), E820Entry(MIB, 7 * MIB), E820Entry(800 * MIB, 4096))
    kernel = Kernel(KernelConfig(e820=far))
    with pytest.raises(KernelPanic, match="Out of memory"):
        kernel.start_kernel()
    assert kernel.log.endswith("bytes failed!\n")
    assert not kernel.started
    with pytest.raises(MmucheckError):
        kernel.start_kernel()


def test_two_kernels_share_nothing() -> None:
    one, other = boot(KernelConfig(ram=16 * MIB)), boot(KernelConfig(ram=16 * MIB))
    one.ram.write32(0x700000, 1)
    one.allocator.alloc_pages(0x20, 3)
    assert other.ram.read32(0x700000) == 0
    assert other.allocator.nr_free_pages() == one.allocator.nr_free_pages() + 8


def test_the_same_machine_boots_to_the_same_bytes() -> None:
    config = KernelConfig(ram=24 * MIB, highmem=Highmem.GB4)
    one, other = boot(config).ram, boot(config).ram
    for start, end in one.ranges:
        assert one.read(start, end - start) == other.read(start, end - start)


@pytest.mark.book("3.6.1")
def test_power_on_has_provisional_tables_and_nothing_else() -> None:
    kernel = Kernel(KernelConfig(ram=16 * MIB))
    assert (kernel.started, kernel.log) == (False, "")
    assert kernel.ram.read32(0x101000) == 0x102007
    assert not any(kernel.ram.read(0x106000, 0x37E000 - 0x106000))
    assert not any(kernel.ram.read(4 * MIB, 12 * MIB))


def cost_of_boot(ram: str, highmem: str) -> tuple[float, int]:
    """Seconds and peak resident MiB of a boot in a process of its own."""
    program = (
        "import time\n"
        "from kernel_model.config import Highmem, KernelConfig\n"
        "from kernel_model.kernel import boot\n"
        "start = time.perf_counter()\n"
        f"kernel = boot(KernelConfig(ram={ram}, highmem=Highmem.{highmem}))\n"
        "seconds = time.perf_counter() - start\n"
        "status = dict(line.split(':') for line in open('/proc/self/status'))\n"
        "print(seconds, int(status['VmHWM'].split()[0]) >> 10)\n"
    )
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    seconds, mebibytes = out.split()
    return float(seconds), int(mebibytes)


def test_a_1_gib_machine_resides_in_less_than_250_mib() -> None:
    seconds, mebibytes = cost_of_boot("1 << 30", "GB4")
    assert mebibytes < 250
    assert seconds < 5


@pytest.mark.slow
def test_a_64_gib_machine_boots_in_less_than_a_minute() -> None:
    seconds, mebibytes = cost_of_boot("64 << 30", "GB64")
    assert seconds < 60
    assert mebibytes < 2048
