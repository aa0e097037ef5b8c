# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of a booted machine: it agrees, it leaves no trace, and it can fail."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness.architecture import CR4_PSE, Access, Ring
from harness.diff import Report, diff, remember
from harness.mappings import PAGES
from harness.mmu_spec import walk
from harness.readings.probe_place import PROBE, NoPlace
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
