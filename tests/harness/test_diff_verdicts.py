# SPDX-License-Identifier: GPL-2.0-or-later
"""What a comparison finds: a flush that is missing, and a CPU that is wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.architecture import Access, Ring
from harness.diff import diff, remember
from harness.mmu_spec import walk
from harness.readings.probe_place import PROBE
from harness.verdict import Verdict
from kernel_model.config import MIB
from kernel_model.events import Rights
from tests.harness.planting import (
    DATA,
    MORE,
    PAGE,
    STACK,
    TEXT,
    Planted,
    pae_machine,
    planted_machine,
    small_machine,
)
from tests.harness.test_diff import (
    NX,
    found,
)

pytestmark = pytest.mark.usefixtures("either_release")

# -- the tables are right, and the CPU has an old translation: a missing flush --------------------


def _retouch(planted: Planted, access: Access, ring: Ring) -> None:
    remember(planted.machine)
    planted.machine.cpu.flush_tlb_global()
    planted.touch(DATA, access, ring)


def _unmap(planted: Planted) -> None:
    planted.write(DATA, 0)
    planted.ledger.page_unmapped(planted.mm, DATA)


def _mean(planted: Planted, pfn: int, **rights: bool) -> None:
    meant = {"write": True, "user": True} | rights
    planted.ledger.page_mapped(planted.mm, DATA, pfn, Rights(**meant))


def _new_frame(planted: Planted) -> None:
    pfn = planted.entry(DATA) >> 12 ^ 1
    planted.change(DATA, clear=0xFFFFF000, put=pfn << 12)
    _mean(planted, pfn)


def _write_protect(planted: Planted) -> None:
    planted.change(DATA, clear=2)
    _mean(planted, planted.entry(DATA) >> 12, write=False)


def _kernel_only(planted: Planted) -> None:
    planted.change(DATA, clear=4)
    _mean(planted, planted.entry(DATA) >> 12, user=False)


def _drop_table(planted: Planted) -> None:
    for va in (TEXT, DATA, MORE):
        planted.ledger.page_unmapped(planted.mm, va)
    planted.write(DATA, 0, level=0)


MISSING_FLUSHES: dict[str, tuple[Access, Ring, Callable[[Planted], None], str]] = {
    "unmapped, then user read": (Access.READ, Ring.USER, _unmap, "every user access"),
    "unmapped, then kernel read": (Access.READ, Ring.KERNEL, _unmap, "every kernel access"),
    "another frame": (Access.READ, Ring.USER, _new_frame, "every user access"),
    "another frame, fetched": (Access.FETCH, Ring.USER, _new_frame, "every user access"),
    "R/W taken away": (Access.WRITE, Ring.USER, _write_protect, "user write"),
    "R/W taken away from ring 0": (Access.WRITE, Ring.KERNEL, _write_protect, "kernel write"),
    "U/S taken away": (Access.READ, Ring.USER, _kernel_only, "every user access"),
    "page table dropped": (Access.READ, Ring.USER, _drop_table, "every user access"),
}


@pytest.mark.book("3.8")
@pytest.mark.parametrize("name", MISSING_FLUSHES)
def test_missing_flush(name: str) -> None:
    access, ring, change, accesses = MISSING_FLUSHES[name]
    planted = planted_machine()
    _retouch(planted, access, ring)
    change(planted)
    report = diff(planted.machine)
    assert found(report) == [(Verdict.MISSING_FLUSH, DATA, PAGE)]
    finding = report.findings[0]
    assert finding.accesses == accesses
    said, asked, flushed = finding.answers
    assert (said.reading, asked.reading, flushed.reading) == ("spec", "cpu", "cpu after a flush")
    assert asked.pfn != flushed.pfn


@pytest.mark.book("3.8")
def test_missing_flush_after_nx_was_set() -> None:
    planted = pae_machine(nx=True)
    _retouch(planted, Access.FETCH, Ring.USER)
    planted.change(DATA, put=NX)
    planted.ledger.page_mapped(
        planted.mm, DATA, (planted.entry(DATA) & ~NX) >> 12, Rights(True, True, execute=False)
    )
    report = diff(planted.machine)
    assert found(report) == [(Verdict.MISSING_FLUSH, DATA, PAGE)]
    assert report.findings[0].accesses == "user fetch"


@pytest.mark.book("3.8")
def test_missing_flush_after_the_guest_itself_touched_the_page() -> None:
    """No question to the MMU takes part: the kernel guest reads the page, then it is unmapped."""
    planted = planted_machine()
    machine = planted.machine
    remember(machine)
    table = 0xC0000000 + 12 * MIB
    machine.ram.fill(12 * MIB, PAGE)
    machine.ram.write32(12 * MIB, DATA)
    machine.call("probe_kernel", table, 1)
    assert machine.ram.read32(12 * MIB + 12) == 0
    _unmap(planted)
    machine.ram.fill(12 * MIB, PAGE)
    assert found(diff(machine)) == [(Verdict.MISSING_FLUSH, DATA, PAGE)]


@pytest.mark.book("3.8")
@pytest.mark.parametrize(
    ("change", "flush"),
    [
        (_unmap, lambda cpu: cpu.flush_tlb_one(DATA)),
        (_new_frame, lambda cpu: cpu.flush_tlb_all()),
        (_write_protect, lambda cpu: cpu.flush_tlb_global()),
        (_kernel_only, lambda cpu: cpu.load_cr3(cpu.read_cr3())),
    ],
)
def test_flushed_change_is_none(
    change: Callable[[Planted], None], flush: Callable[[Any], None]
) -> None:
    planted = planted_machine()
    _retouch(planted, Access.WRITE, Ring.USER)
    change(planted)
    flush(planted.machine.cpu)
    assert diff(planted.machine).ok


def test_missing_flush_without_an_earlier_comparison() -> None:
    """What the ledger heard of is asked about first."""
    planted = planted_machine()
    planted.touch(DATA, Access.READ, Ring.USER)
    _unmap(planted)
    assert found(diff(planted.machine)) == [(Verdict.MISSING_FLUSH, DATA, PAGE)]


# -- the CPU is wrong ----------------------------------------------------------------------------


class LyingCpu:
    """A CPU whose MMU answers by ``lie`` about one page."""

    def __init__(self, cpu: Any, va: int, lie: Callable[[int], int]) -> None:
        self._cpu = cpu
        self._va = va
        self._lie = lie

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cpu, name)

    def translate_many(self, vas: Any, access: Access, ring: Ring) -> Any:
        answers = self._cpu.translate_many(vas, access, ring)
        if ring is Ring.USER and access is Access.WRITE:
            answers = np.where(vas == self._va, self._lie(0), answers)
        return answers


@pytest.mark.parametrize("lie", [-1, 0x700000], ids=["denies", "wrong frame"])
def test_emulator_bug(lie: int) -> None:
    planted = planted_machine()
    machine = planted.machine
    machine.cpu = LyingCpu(machine.cpu, STACK, lambda _: lie)  # type: ignore[assignment]
    report = diff(machine)
    assert found(report) == [(Verdict.EMULATOR_BUG, STACK, PAGE)]
    assert report.findings[0].accesses == "user write"


@pytest.mark.parametrize(
    ("field", "bits", "answer"),
    [
        ("error_code", 1, "faults with 4 (U), not present"),
        ("error_code", 8, "faults with 13 (P|U|RSVD), reserved bit"),
        ("cr2", PAGE, "goes astray"),
        ("fault", 1, "goes astray"),
    ],
)
def test_emulator_bug_in_a_real_access(field: str, bits: int, answer: str) -> None:
    """What the guest met at one kernel page, in ring 3, is changed before it is looked at."""
    machine = small_machine()
    call = machine.call

    def lying_call(function: str | int, *arguments: int) -> int:
        result = call(function, *arguments)
        if function == "probe_user":
            paddr = walk(machine.ram, machine.cpu.control, arguments[2]).paddr
            assert paddr is not None
            table = np.frombuffer(machine.ram.buffer, PROBE, arguments[3], paddr)
            table[field][table["va"] >> 12 == 0xC0800] ^= bits
        return result

    machine.call = lying_call  # type: ignore[method-assign]
    report = diff(machine)
    assert found(report) == [(Verdict.EMULATOR_BUG, 0xC0800000, PAGE)]
    finding = report.findings[0]
    assert finding.accesses == "every user access"
    assert str(finding.answer("access")) == f"access {answer}"


def test_emulator_bug_in_a_real_load_and_store() -> None:
    """A load brings something else; a store lands in no frame."""
    machine = small_machine()
    call = machine.call

    def lying_call(function: str | int, *arguments: int) -> int:
        result = call(function, *arguments)
        if function == "probe_kernel":
            table = machine.ram.table(arguments[0] - 0xC0000000, arguments[1], PROBE)
            page, access = table["va"] >> 12, table["access"]
            table["value"][(page == 0xC0900) & (access == 0)] += 2
            for va in table["va"][(page == 0xC0A00) & (access == 1)].tolist():
                machine.ram.write32(va - 0xC0000000, 0)
        return result

    machine.call = lying_call  # type: ignore[method-assign]
    report = diff(machine)
    assert found(report) == [
        (Verdict.EMULATOR_BUG, 0xC0900000, PAGE),
        (Verdict.EMULATOR_BUG, 0xC0A00000, PAGE),
    ]
    load, store = report.findings
    assert load.accesses == "kernel read"
    assert str(load.answer("access")) == "access frame 0x901"
    assert store.accesses == "kernel write"
    assert str(store.answer("access")) == "access goes astray"
