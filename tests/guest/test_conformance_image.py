# SPDX-License-Identifier: GPL-2.0-or-later
"""The conformance image alone: it boots by multiboot, runs its own table, tells the serial line."""

import re
import subprocess
from pathlib import Path

import pytest

from harness.conformance.subject import GUEST, MODEL, conformance_ram
from harness.cpu.interface import Stop
from harness.cpu.qemu import qemu_program
from harness.cpu.unicorn_cpu import UnicornCpu
from harness.elf import load_elf
from harness.guests import guest_path

MULTIBOOT_LOADED = 0x2BADB002
COM1 = 0x3F8
MODES = ("none", "2-level", "pse", "pae", "pae-nx")


def cases_by_mode(text: str) -> dict[str, tuple[int, int]]:
    """(cases, differing) of each mode's line."""
    lines = re.findall(r"^([\w-]+): (\d+) cases, (\d+) differ, 0 stray", text, re.MULTILINE)
    return {mode: (int(cases), int(differ)) for mode, cases, differ in lines}


def boot_on_unicorn(break_at: int | None = None) -> str:
    """What the image prints when a boot loader starts it; ``break_at``: flip a word of a frame."""
    cpu = UnicornCpu(conformance_ram(), MODEL)
    image = load_elf(guest_path(GUEST, GUEST))
    for segment in image.segments:
        cpu.ram.write(segment.vaddr, segment.data)
    said = bytearray()
    cpu.on_out = lambda port, _size, value: said.append(value) if port == COM1 else None
    deliver = cpu.on_trap

    def trap(vector: int, error_code: int, software: bool) -> None:
        deliver(vector, error_code ^ (4 if break_at == vector else 0), software)

    cpu.on_trap = trap
    cpu.registers.eax = MULTIBOOT_LOADED
    cpu.registers.ebx = 0x9000
    assert cpu.start(image.entry, timeout_seconds=60).kind is Stop.HALTED
    return said.decode("ascii")


def test_on_unicorn() -> None:
    text = boot_on_unicorn()
    found = cases_by_mode(text)
    assert tuple(found) == MODES
    assert found["none"] == (84, 0)
    assert all(cases > 400 for mode, (cases, _) in found.items() if mode != "none")
    # What differs is what is known to; the PDPTE that is not latched shows in second touches.
    told = set(re.findall(r"(?:kernel|user) ([\w-]+), pde .*: ([\w ]+?) [0-9a-f]+, expected", text))
    assert {what for what in told if not what[1].startswith("second")} == {
        ("modify", "error code"),
        ("write-across", "PTE"),
    }
    assert "total:" in text


def test_a_wrong_error_code_is_told() -> None:
    honest, broken = cases_by_mode(boot_on_unicorn()), cases_by_mode(boot_on_unicorn(break_at=14))
    assert broken["2-level"][1] > honest["2-level"][1] + 100


@pytest.mark.skipif(
    qemu_program() is None, reason="qemu-system-i386 is not installed (package qemu-system-x86)"
)
def test_on_qemu_by_its_own_boot_loader(tmp_path: Path) -> None:
    serial = tmp_path / "serial"
    program = qemu_program()
    assert program is not None
    options = ["-display", "none", "-nodefaults", "-serial", f"file:{serial}"]
    command = [program, "-kernel", str(guest_path(GUEST, GUEST)), "-cpu", "coreduo", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(600):
                if serial.exists() and "total:" in serial.read_text():
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.1)
        finally:
            process.kill()
    found = cases_by_mode(serial.read_text().replace("\r", ""))
    assert tuple(found) == MODES
    assert found["none"] == (84, 0)
