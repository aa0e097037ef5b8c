# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing while programs run: clean runs are clean, and each planted fault is named."""

import re
from functools import partial

import pytest

from harness.guests import guest_path
from harness.machine import Machine
from harness.monitors.reverse_map import ReverseMapWrong
from harness.processes.checking import Check, CheckFailed
from harness.processes.linux import Linux, Setup
from harness.verdict import Verdict
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.memory.fault import FaultHandler
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from tests.harness.frame_accounting import check_machine
from tests.harness.processes.releases import on_both
from tests.harness.processes.running import observe_reverse_map
from tests.kernel_model.mm.user_spaces import UserSpaces

RW, PRESENT = 2, 1


def machine_with(name: str, check: Check, release: str = "2.4") -> Linux:
    machine = Machine(Kernel(KernelConfig(ram=16 << 20, release=release, swap_pages=256)))
    files = {b"/program": guest_path(name).read_bytes()}
    return Linux(machine, Setup(files=files, check=check))


def run(linux: Linux) -> None:
    linux.run(linux.start(b"/program", [b"program"]))


@on_both
@pytest.mark.parametrize("name", ["hello", "hello_pie", "signal_children", "write_text"])
def test_a_clean_run_is_clean(name: str, release: str) -> None:
    linux = machine_with(name, Check.FULL, release)
    spaces = UserSpaces(linux.kernel)
    free = spaces.free_frames()
    run(linux)
    linux.close()
    assert linux.checker.pages >= 2
    assert linux.checker.spaces >= 2
    assert spaces.free_frames() == free
    check_machine(linux.kernel, linux.machine.ledger)


@pytest.mark.book("3.10", release="2.6")
@pytest.mark.parametrize("name", ["hello", "signal_children", "futexes"])
def test_the_reverse_map_is_right_when_processes_end(name: str) -> None:
    linux = machine_with(name, Check.NONE, "2.6")
    observe_reverse_map(linux)
    run(linux)
    linux.close()


def test_a_page_that_the_reverse_map_does_not_know_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    linux = machine_with("hello", Check.NONE, "2.6")
    observe_reverse_map(linux)
    monkeypatch.setattr(ObjectReverseMap, "add_file", lambda *arguments: None)
    with pytest.raises(ReverseMapWrong):
        run(linux)


def test_nothing_is_looked_at_unasked() -> None:
    linux = machine_with("hello", Check.NONE)
    run(linux)
    assert (linux.checker.pages, linux.checker.spaces) == (0, 0)


@on_both
@pytest.mark.parametrize("bits", [PRESENT, RW, 0x1000], ids=["present", "writable", "frame"])
def test_planted_entry_that_is_not_what_was_meant(
    bits: int, release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only in the table: what was announced is right."""
    linux = machine_with("hello", Check.FAULTS, release)
    process = linux.start(b"/program", [b"program"])
    original, ram = FaultHandler._map, linux.kernel.ram

    def planted(*arguments: int, **more: bool) -> None:
        original(*arguments, **more)  # type: ignore[arg-type]
        ptep = arguments[3]
        ram.write32(ptep, ram.read32(ptep) ^ bits)

    monkeypatch.setattr(
        linux.kernel.memory.faults, "_map", partial(planted, linux.kernel.memory.faults)
    )
    with pytest.raises(CheckFailed, match="MODEL BUG") as failed:
        linux.run(process)
    told = r"model bug at 0x[0-9a-f]{8} of 0x.*user (read|write): intent .*, spec .*, cpu "
    assert re.match(told, failed.value.headline)
    assert failed.value.finding.verdict is Verdict.MODEL_BUG
