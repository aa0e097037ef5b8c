# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of a booted machine: it agrees, it leaves no trace, and it can fail."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.architecture import CR4_PSE
from harness.diff import Report, diff
from harness.mappings import PAGES
from harness.readings.probe_place import NoPlace
from harness.readings.reading import QUESTIONS
from harness.verdict import Verdict
from kernel_model.arch_i386.pgtable import PAGE_SHARED
from kernel_model.config import MIB, RELEASES, Highmem
from kernel_model.errors import MmucheckError
from kernel_model.events import Rights
from tests.harness.planting import (
    DATA,
    FLAGS_AD,
    MORE,
    PAGE,
    STACK,
    TEXT,
    Planted,
    pae_machine,
    planted_machine,
    small_machine,
    write_entry,
)

pytestmark = pytest.mark.usefixtures("either_release")

NX = 1 << 63
LARGE = 4 * MIB
Found = list[tuple[Verdict, int, int]]


def found(report: Report) -> Found:
    """(verdict, first address, bytes) of each finding."""
    return [(finding.verdict, finding.va, finding.length) for finding in report.findings]


# -- it agrees --------------------------------------------------------------------------------


@pytest.mark.book("3.6.2")
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"cpu_model": "486"},
        {"cpu_model": "coreduo", "highmem": Highmem.GB64, "ram": 64 * MIB},
        {"highmem": Highmem.GB4, "ram": 5 * MIB},
        {"nodes": 2, "ram": 64 * MIB},
    ],
    ids=str,
)
def test_booted_machine_agrees(choices: dict[str, Any]) -> None:
    report = diff(small_machine(**choices))
    assert report.ok, report.findings
    assert not report.notes
    assert report.left_out.hidden == 0
    assert report.pages == PAGES
    assert report.questions["cpu"] == report.asked * len(QUESTIONS)
    # All but devices and the few frames that can show no stamp was really accessed.
    left_out = report.left_out.devices + report.left_out.without_stamp
    assert report.questions["access"] >= (report.asked - left_out) * len(QUESTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "choices",
    [
        {"ram": 1024 * MIB, "highmem": Highmem.GB4, "cpu_model": "486"},
        {"ram": 4096 * MIB, "highmem": Highmem.GB64},
    ],
    ids=str,
)
def test_large_machine_agrees(choices: dict[str, Any]) -> None:
    report = diff(small_machine(**choices))
    assert report.ok, report.findings
    assert report.mapped >= 896 << 8


@pytest.mark.slow
def test_exhaustive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page is put to the CPU. The six million real accesses, a minute's work, are only
    counted here."""
    wanted = []

    def access_pages(*arguments: Any) -> Any:
        wanted.append(arguments[2])
        raise NoPlace("not today")

    monkeypatch.setattr("harness.diff.access_pages", access_pages)
    report = diff(small_machine(), exhaustive=True)
    assert report.ok
    assert report.asked == len(wanted[0]) == PAGES
    assert report.questions["cpu"] == PAGES * len(QUESTIONS)
    assert "not today" in report.notes[0]


@pytest.mark.book("3.4")
@pytest.mark.parametrize("either_release", RELEASES, indirect=True)
@pytest.mark.parametrize("make", [planted_machine, pae_machine], ids=["two levels", "PAE"])
def test_process_agrees(make: Callable[[], Planted]) -> None:
    planted = make()
    assert diff(planted.machine).ok
    planted.machine.cpu.load_cr3(0x101000)
    report = diff(planted.machine, mm=planted.mm)
    assert report.ok
    assert f"CR3 {planted.mm:#x}" in report.subject
    assert planted.machine.cpu.read_cr3() == 0x101000


def test_one_frame_at_many_addresses() -> None:
    """Stores through one address must not hide what another one does."""
    planted = planted_machine()
    pfn = planted.entry(DATA) >> 12
    spaces = planted.machine.kernel.spaces
    assert spaces.do_mmap_pgoff(0, DATA + 16 * PAGE, 300 * PAGE, 3, 0x32, 0) > 0
    for page in range(1, 19):
        va = DATA + 16 * page * PAGE
        planted.write(va, pfn << 12 | PAGE_SHARED)
        planted.ledger.page_mapped(planted.mm, va, pfn, Rights(write=True, user=True))
    report = diff(planted.machine)
    assert report.ok, report.findings
    assert report.left_out.hidden == 0


# -- it leaves no trace -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [planted_machine, lambda: planted_machine(cpu_model="486"), pae_machine],
    ids=["PSE", "486", "PAE"],
)
def test_leaves_no_trace(make: Callable[[], Planted]) -> None:
    planted = make()
    machine = planted.machine
    planted.change(DATA, clear=FLAGS_AD)
    machine.cpu.registers.eflags |= 0x8D5
    machine.cpu.registers.esi = 0x12345678
    random = np.random.default_rng(1).integers(0, 256, MIB, np.uint8)
    machine.ram.write(machine.ram.size - 2 * MIB, random.tobytes())
    state = _state(planted)
    report = diff(machine)
    assert report.ok
    assert report.questions["access"]
    assert _state(planted) == state


def _state(planted: Planted) -> tuple[object, ...]:
    machine = planted.machine
    cpu = machine.cpu
    return (
        [machine.ram.read(start, end - start) for start, end in machine.ram.ranges],
        cpu.registers.snapshot(),
        cpu.control,
        cpu.read_cr2(),
        bytes(machine.console),
        machine.on_trap,
    )


# -- intent and tables differ: a bug of the model -----------------------------------------------


def _swap(planted: Planted) -> None:
    one, other = planted.entry(DATA), planted.entry(MORE)
    planted.write(DATA, other)
    planted.write(MORE, one)


MODEL_BUGS: dict[str, tuple[Callable[[Planted], object], int, int]] = {
    "wrong frame": (lambda p: p.write(DATA, p.entry(DATA) ^ 0x5000), DATA, PAGE),
    "U/S lost": (lambda p: p.change(DATA, clear=4), DATA, PAGE),
    "R/W lost": (lambda p: p.change(STACK, clear=2), STACK, PAGE),
    "R/W gained": (lambda p: p.change(TEXT, put=2), TEXT, PAGE),
    "present bit lost": (lambda p: p.change(MORE, clear=1), MORE, PAGE),
    "present bit gained": (lambda p: p.write(0x08100000, 0x200067), 0x08100000, PAGE),
    "global user page": (lambda p: p.change(TEXT, put=0x100), TEXT, PAGE),
    "frame outside RAM": (lambda p: p.change(TEXT, put=0xF0000000), TEXT, PAGE),
    "two addresses swapped": (_swap, DATA, PAGE),
    "U/S lost in the PDE": (lambda p: p.change(TEXT, clear=4, level=0), TEXT, 3 * PAGE),
    "R/W lost in the PDE": (lambda p: p.change(DATA, clear=2, level=0), DATA, 2 * PAGE),
    "table outside RAM": (lambda p: p.change(TEXT, put=0xF0000000, level=0), 0x08000000, LARGE),
    "absent PDE gained": (lambda p: p.write(0x70000000, 0xC000E7), 0x70000000, LARGE),
    "direct map open to users": (lambda p: p.change(0xC0800000, put=4), 0xC0800000, LARGE),
    "direct map read-only": (lambda p: p.change(0xC0400000, clear=2), 0xC0400000, LARGE),
    "direct map displaced": (lambda p: p.change(0xC0C00000, clear=1 << 22), 0xC0C00000, LARGE),
    "large page misaligned": (lambda p: p.change(0xC0800000, put=1 << 21), 0xC0800000, LARGE),
    "PSE bit lost": (lambda p: p.change(0xC0C00000, clear=0x80), 0xC0C00000, LARGE),
}


DETAILS = {
    "R/W lost": ("kernel write, user write", "frame", "faults with 3 (P|W)"),
    "U/S lost": ("every user access", "frame", "faults with 5 (P|U)"),
    "present bit lost": ("every access", "frame", "faults with 0, not present"),
    "present bit gained": ("every access", "faults with 0, not present", "frame 0x200"),
    "large page misaligned": ("every access", "frame", "reserved bit"),
    "table outside RAM": ("every access", "faults", "says nothing"),
    "global user page": ("no access", "frame", "frame"),
}
"""Of the first finding: what comes out differently, what intent says, what spec says."""


@pytest.mark.parametrize("name", MODEL_BUGS)
def test_model_bug(name: str) -> None:
    plant, va, length = MODEL_BUGS[name]
    planted = planted_machine()
    plant(planted)
    planted.machine.cpu.flush_tlb_global()
    report = diff(planted.machine)
    assert {finding.verdict for finding in report.findings} == {Verdict.MODEL_BUG}
    first = report.findings[0]
    assert first.va == va
    total = sum(finding.length for finding in report.findings)
    assert total == (2 * PAGE if name == "two addresses swapped" else length)
    assert planted.written & {step.paddr for step in planted.steps(va)}
    if name != "PSE bit lost":
        assert first.entry is not None
        assert first.entry.paddr in planted.written
    if name in DETAILS:
        accesses, intent, spec = DETAILS[name]
        assert first.accesses == accesses
        assert intent in str(first.answer("intent"))
        assert spec in str(first.answer("spec"))
        asked = first.answer("cpu")
        assert asked is not None
        assert (asked.pfn is None) == ("frame" not in spec)


def test_large_page_on_a_cpu_without_pse() -> None:
    """A 486 takes bit 7 of a PDE for nothing: the "large page" is a page table, at frame 0x400."""
    planted = planted_machine(cpu_model="486")
    planted.write(0xC0400000, 0x4000E3, level=0)
    planted.machine.cpu.flush_tlb_global()
    report = diff(planted.machine)
    assert {finding.verdict for finding in report.findings} == {Verdict.MODEL_BUG}
    assert report.findings[0].va == 0xC0400000
    assert sum(finding.length for finding in report.findings) == LARGE


def test_pse_turned_off_under_large_pages() -> None:
    """The whole direct map is wrong, and the guest cannot run: said, not crashed."""
    planted = planted_machine()
    cr4 = planted.machine.cpu.control.cr4
    planted.machine.cpu.write_cr4(cr4 & ~CR4_PSE)
    report = diff(planted.machine)
    assert {finding.verdict for finding in report.findings} == {Verdict.MODEL_BUG}
    assert report.findings[0].va == 0xC0000000
    assert "not mapped" in report.notes[0]
    planted.machine.cpu.write_cr4(cr4)
    assert diff(planted.machine).ok


@pytest.mark.parametrize(
    ("put", "clear", "level", "va", "accesses"),
    [
        (NX, 0, 2, DATA, "kernel fetch, user fetch"),
        (1 << 45, 0, 2, DATA, "every access"),
        (0, 1, 2, STACK, "every access"),
        (1 << 32, 0, 2, STACK, "every access"),
        (0, 4, 1, STACK, "every user access"),
    ],
    ids=["NX gained", "reserved bit", "present bit lost", "bit 32", "U/S lost in the PMD"],
)
def test_model_bug_with_pae(put: int, clear: int, level: int, va: int, accesses: str) -> None:
    planted = pae_machine(nx=True)
    planted.change(va, put=put, clear=clear, level=level)
    planted.machine.cpu.flush_tlb_global()
    report = diff(planted.machine)
    assert [(f.verdict, f.va, f.length) for f in report.findings] == [(Verdict.MODEL_BUG, va, PAGE)]
    assert report.findings[0].accesses == accesses


def test_middle_directory_in_the_wrong_place() -> None:
    planted = pae_machine()
    wrong = planted.steps(STACK)[0].entry
    write_entry(planted.machine, planted.mm, wrong)
    planted.machine.cpu.flush_tlb_global()
    report = diff(planted.machine)
    assert (Verdict.MODEL_BUG, TEXT) in [(f.verdict, f.va) for f in report.findings]
    assert (Verdict.MODEL_BUG, STACK - 0x80000000) in [(f.verdict, f.va) for f in report.findings]


# -- the report ------------------------------------------------------------------------------------


def test_neighbours_become_one_range() -> None:
    planted = planted_machine()
    for page in range(5):
        planted.write(0x08200000 + page * PAGE, 0x300067 + page * PAGE)
    planted.write(0x08200000 + 5 * PAGE, 0x400067)
    planted.machine.cpu.flush_tlb_global()
    assert found(diff(planted.machine)) == [
        (Verdict.MODEL_BUG, 0x08200000, 5 * PAGE),
        (Verdict.MODEL_BUG, 0x08200000 + 5 * PAGE, PAGE),
    ]


def test_report_as_json_and_as_table() -> None:
    planted = planted_machine()
    planted.change(DATA, clear=2)
    planted.machine.cpu.flush_tlb_global()
    report = diff(planted.machine)
    document = json.loads(json.dumps(report.as_json()))
    assert document["ok"] is False
    assert document["verdicts"] == {"MODEL_BUG": 1}
    finding = document["findings"][0]
    assert (finding["va"], finding["length"], finding["verdict"]) == (DATA, PAGE, "MODEL_BUG")
    assert {answer["reading"] for answer in finding["answers"]} == {"intent", "spec", "cpu"}
    assert finding["entry"]["level"] == "PTE"
    console = Console(width=120)
    with console.capture() as capture:
        console.print(report)
    text = capture.get()
    assert "0x08049000" in text
    assert "model bug" in text
    assert "MISMATCH in 1 range" in text


def test_address_space_that_nobody_kept_book_of() -> None:
    machine = small_machine()
    machine.kernel.image.events.listeners.clear()
    mm = machine.kernel.page_tables.pgd_alloc()
    with pytest.raises(MmucheckError, match="FrameLedger"):
        diff(machine, mm=mm)
    assert machine.cpu.read_cr3() == 0x101000


@pytest.mark.parametrize("table", ["idt", "gdt"])
def test_a_guest_that_cannot_be_tried_is_no_agreement(table: str) -> None:
    machine = small_machine()
    machine.ram.fill(machine.symbol(table) - 0xC0000000, 2048 if table == "idt" else 64)
    report = diff(machine)
    assert not report.ok
    assert "triple fault" in report.untried
    assert report.conclusion.startswith("THE CPU COULD NOT BE TRIED")
    assert report.as_json()["ok"] is False
