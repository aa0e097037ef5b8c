# SPDX-License-Identifier: GPL-2.0-or-later
"""The booted machine on QEMU: it agrees, is left alone, and what is wrong there is found."""

from typing import Any

import pytest

from harness.cpu.qemu import qemu_program
from harness.cpu.qemu_peer import MAX_RAM, QemuPeer
from harness.diff_peer import diff_on_qemu
from harness.verdict import Verdict
from kernel_model.config import MIB, Highmem
from kernel_model.errors import BadInput
from tests.harness.planting import small_machine

pytestmark = pytest.mark.skipif(
    qemu_program() is None, reason="qemu-system-i386 is not installed (package qemu-system-x86)"
)
VA = 0xC0000000 + 4 * MIB + 0x5000
"""Above the first large page, in low memory of every machine here."""


@pytest.mark.parametrize(
    "choices",
    [{}, {"cpu_model": "486"}, {"cpu_model": "coreduo", "highmem": Highmem.GB64, "ram": 64 * MIB}],
    ids=str,
)
def test_the_machine_agrees_on_qemu_and_is_left_alone(choices: dict[str, Any]) -> None:
    machine = small_machine(**choices)
    before = machine.ram.bytes.tobytes()
    report = diff_on_qemu(machine)
    assert report.ok, (report.findings, report.untried)
    assert not report.notes
    few = report.left_out.devices + report.left_out.without_stamp
    assert report.questions["qemu"] >= (report.asked - few) * 6
    assert machine.ram.bytes.tobytes() == before


def test_a_planted_entry_is_the_models_fault_there_too() -> None:
    """QEMU sees what the tables say; the records say otherwise."""
    machine = small_machine(cpu_model="486")
    entry = machine.ram.read32(0x101000 + 4 * (VA >> 22)) & ~0xFFF
    place = entry + 4 * (VA >> 12 & 0x3FF)
    machine.ram.write32(place, machine.ram.read32(place) & ~2)
    report = diff_on_qemu(machine)
    assert [(f.verdict, f.va) for f in report.findings] == [(Verdict.MODEL_BUG, VA)]


def test_an_emulator_that_goes_astray_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU's tables are changed behind the comparison's back: it is the one that deviates."""
    call = QemuPeer.call

    def tampering(self: QemuPeer, function: str | int, *arguments: int) -> int:
        table = self.ram.read32(0x101000 + 4 * (VA >> 22)) & ~0xFFF
        place = table + 4 * (VA >> 12 & 0x3FF)
        entry = self.ram.read32(place)
        self.ram.write32(place, entry & ~1)
        try:
            return call(self, function, *arguments)
        finally:
            self.ram.write32(place, entry)

    monkeypatch.setattr(QemuPeer, "call", tampering)
    report = diff_on_qemu(small_machine(cpu_model="486"))
    assert {(f.verdict, f.va) for f in report.findings} == {(Verdict.EMULATOR_BUG, VA)}


def test_a_machine_too_large_for_the_pc_is_refused() -> None:
    machine = small_machine()
    machine.ram.size, kept = MAX_RAM + 4096, machine.ram.size
    with pytest.raises(BadInput, match="at most 3G"):
        QemuPeer(machine)
    machine.ram.size = kept
