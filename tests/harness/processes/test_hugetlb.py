# SPDX-License-Identifier: GPL-2.0-or-later
"""``guest/user/hugetlb.c``: a program that maps, fills, shares and frees huge pages.

What it must print was written from the book (3.10) and from what 2.6.11 answers to each call; it is
the same on every kernel. Of 5 huge pages two are in the file; the mapping that is too long takes
the others into it, and truncation gives them back.
"""

import contextlib

import pytest

from harness.guests import guest_path
from harness.machine import GuestStopped, Limits, Machine
from harness.processes.checking import Check
from harness.processes.huge_files import HugeFiles
from harness.processes.linux import Linux, Setup
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import MmucheckError
from kernel_model.fs.hugetlbfs import HugetlbFs
from kernel_model.ipc.shm import Shm
from kernel_model.kernel import Kernel
from kernel_model.mm.hugetlb.tables import HugePageTables
from tests.harness.processes.recorded import recorded
from tests.kernel_model.mm.hugetlb.huge_kernel import slowly
from tests.kernel_model.mm.slab_settling import settle

pytestmark = pytest.mark.book("3.10", "4.4.1", release="2.6")

_HIGH = {"release": "2.6", "ram": 88 * MIB, "highmem_pages": 6144, "nr_hugepages": 5}
CONFIGS = {
    "2-level": KernelConfig(release="2.6", nr_hugepages=5),
    "highmem": KernelConfig(highmem=Highmem.GB4, **_HIGH),  # type: ignore[arg-type]
    "PAE": KernelConfig(highmem=Highmem.GB64, highpte=True, **_HIGH),  # type: ignore[arg-type]
    "PTE chains": KernelConfig(release="2.6", nr_hugepages=5, rmap="pte_chain"),
    "SMP": KernelConfig(release="2.6", nr_hugepages=5, nr_cpus=2),
}
EXPECTED = recorded("programs", "hugetlb")


def run(config: KernelConfig, limits: Limits | None = None) -> tuple[bytes, int, set[str]]:
    """What it prints, how it ends, and who has frames afterwards."""
    machine = Machine(Kernel(config))
    printed = bytearray()
    setup = Setup(
        files={b"/program": guest_path("hugetlb").read_bytes()},
        output=printed.extend,
        check=Check.FULL,
        limits=limits or Limits(),
    )
    linux = Linux(machine, setup)
    try:
        ended = linux.run(linux.start(b"/program", [b"program"]))
    finally:
        linux.close()
    assert not linux.watching.statistics().unknown_calls
    settle(machine.kernel.slab)
    statics = machine.kernel.statics
    assert statics.free_huge_pages == statics.nr_huge_pages == 5
    return bytes(printed), ended.exit_status, set(machine.ledger._owners.values())


@pytest.mark.parametrize("kind", slowly(CONFIGS, "highmem", "SMP"))
def test_what_it_prints(kind: str) -> None:
    printed, status, owners = run(CONFIGS[kind])
    assert printed.decode().splitlines() == EXPECTED.decode().splitlines()
    assert status == 0
    assert not owners & {"page cache", "page table", "page directory", "user page"}


FAULTS = {
    "an offset is forgotten": (HugePageTables, "huge_index", lambda tables, vma, address: 0),
    "truncation unmaps nothing": (HugetlbFs, "_hugetlb_vmtruncate_list", lambda *rest: None),
    "a name keeps its file for ever": (HugeFiles, "release", lambda files, inode: None),
    "whoever attaches counts twice": (Shm, "shm_open", lambda shm, vma: None),
    "a segment is found by no key": (Shm, "_find_key", lambda shm, key: None),
}


@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=pytest.mark.slow if i else ()) for i, name in enumerate(FAULTS)],
)
def test_a_fault_shows(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """In what it prints, in a census, or in what is left."""
    monkeypatch.setattr(*FAULTS[fault])
    with contextlib.suppress(GuestStopped, MmucheckError, AssertionError):
        printed, _, _ = run(CONFIGS["PAE"], Limits(instructions=20_000_000))
        assert printed != EXPECTED
        return
