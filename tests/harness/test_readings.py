# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the readings: answers, coverage, stamps, places, runs of pages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.architecture import Access, Ring
from harness.coverage import pages_to_ask
from harness.diff import diff
from harness.mappings import (
    PAGES,
    RIGHT_BAD_TABLE,
    RIGHT_NX,
    RIGHT_PRESENT,
    RIGHT_RESERVED,
    RIGHT_USER,
    RIGHT_WRITE,
    Pages,
)
from harness.progress import Meter
from harness.readings.cpu_mmu import ask_mmu
from harness.readings.cpu_probe import access_pages
from harness.readings.intent import contradicts, intended_pages
from harness.readings.probe_place import NoPlace, find_places, frames_in_ram
from harness.readings.reading import (
    ASTRAY,
    FAULT,
    QUESTIONS,
    UNSAID,
    Reading,
    answer_text,
    disagree,
    error_code_of,
    fault,
    questions_text,
)
from harness.readings.spec import SpecView, mmu_features
from harness.readings.stamps import (
    FRAME_WORDS,
    FrameWitnesses,
    recognise,
    stamp_words,
    stamped,
    stored_words,
)
from harness.verdict import runs
from kernel_model.config import MIB
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.ram import Ram
from tests.harness.planting import DATA, MORE, TEXT, planted_machine, small_machine

pytestmark = pytest.mark.usefixtures("either_release")

PFNS = st.integers(0, (1 << 24) - 1)
ANSWERS = st.one_of(PFNS, st.integers(0, 31).map(lambda code: int(fault(code))), st.just(FAULT))


def spec_of(machine: object) -> SpecView:
    cpu = machine.cpu  # type: ignore[attr-defined]
    return SpecView(cpu.ram, cpu.control, mmu_features(cpu))


# -- answers ------------------------------------------------------------


@given(ANSWERS, ANSWERS)
def test_disagree(one: int, other: int) -> None:
    both_fault = one < 0 and other < 0
    expected = one != other and not (both_fault and FAULT in (one, other))
    assert bool(disagree(np.array([one]), np.array([other]))[0]) is expected
    assert not disagree(np.array([one]), np.array([UNSAID]))[0]
    assert disagree(np.array([one]), np.array([ASTRAY]))[0]


@given(st.integers(0, 31))
def test_error_code_survives(code: int) -> None:
    assert error_code_of(int(fault(code))) == code


def test_texts() -> None:
    assert answer_text(0x400) == "frame 0x400"
    assert answer_text(int(fault(5))) == "faults with 5 (P|U)"
    assert answer_text(int(fault(6))) == "faults with 6 (W|U), not present"
    assert answer_text(int(fault(9))) == "faults with 9 (P|RSVD), reserved bit"
    assert [answer_text(x) for x in (FAULT, ASTRAY, UNSAID)] == [
        "faults",
        "goes astray",
        "says nothing",
    ]
    assert questions_text(QUESTIONS) == "every access"
    assert questions_text(QUESTIONS[3:]) == "every user access"
    assert questions_text(QUESTIONS[:3] + QUESTIONS[5:]) == "every kernel access, user write"


def test_reading_at_other_pages() -> None:
    reading = Reading("x", np.array([2, 5]), np.arange(12).reshape(6, 2))
    assert reading.at(np.array([5, 3]))[:, 0].tolist() == [1, 3, 5, 7, 9, 11]
    assert (reading.at(np.array([5, 3]))[:, 1] == UNSAID).all()
    assert reading.asked == 12


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0, 1, -1, -20])), max_size=30))
def test_runs_are_maximal_and_cover(steps: list[tuple[int, int]]) -> None:
    """Each pair of neighbours is in one run exactly when both pages and answers go on."""
    pages, answers, page, frame = [], [], 0, 100
    for gap, kind in steps:
        page += gap
        frame = frame + gap if kind == 0 else frame + 7
        pages.append(page)
        answers.append(frame if kind >= 0 else kind)
    together = set()
    covered = []
    for start, end in runs(np.array(pages, np.int64), np.array([answers], np.int64)):
        covered += range(start, end)
        together |= {(index, index + 1) for index in range(start, end - 1)}
    assert covered == list(range(len(pages)))
    for index in range(len(pages) - 1):
        one, other = answers[index], answers[index + 1]
        same = other == one + 1 if one >= 0 and other >= 0 else one == other
        goes_on = pages[index + 1] == pages[index] + 1 and same
        assert ((index, index + 1) in together) is goes_on


# -- which pages ------------------------------------------------------------


def _pages(rights: dict[int, int]) -> Pages:
    dense = np.zeros(PAGES, np.uint16)
    for page, bits in rights.items():
        dense[page] = bits
    return Pages(np.where(dense & RIGHT_PRESENT, 1, -1), dense, False)


def test_coverage() -> None:
    pages = _pages({5000: RIGHT_PRESENT, 7000: RIGHT_RESERVED, PAGES - 1: RIGHT_PRESENT})
    pages.rights[2048:3072] = RIGHT_BAD_TABLE
    asked = set(pages_to_ask(pages, 1024, 0, np.array([9999]), sample=10).tolist())
    assert {4999, 5000, 5001, 6999, 7000, 7001, PAGES - 2, PAGES - 1, 9999} <= asked
    assert not asked & set(range(2048, 3072))
    for first in {*range(0, PAGES, 1024)} - {2048}:
        assert {first, first + 1023} <= asked
    inside = [page for page in asked if page % 1024 not in (0, 1023)]
    assert len({page // 1024 for page in inside}) >= 1020
    again = pages_to_ask(pages, 1024, 0, np.array([9999]), sample=10)
    assert asked == set(again.tolist())
    assert asked != set(pages_to_ask(pages, 1024, 1, sample=10).tolist())


# -- intent ------------------------------------------------------------


@pytest.mark.book("4.1")
def test_intent_comes_from_records_not_from_tables() -> None:
    planted = planted_machine()
    machine = planted.machine
    before = intended_pages(machine.kernel, planted.mm, no_execute=False)
    machine.ram.fill(planted.mm, 4096)
    machine.ram.fill(0x101000, 4096)
    after = intended_pages(machine.kernel, planted.mm, no_execute=False)
    assert np.array_equal(before.pfn, after.pfn)
    assert np.array_equal(before.rights, after.rights)
    assert after.pfn[0xC0000 + 0x123] == 0x123
    assert after.rights[TEXT >> 12] == RIGHT_PRESENT | RIGHT_USER
    assert after.rights[DATA >> 12] == RIGHT_PRESENT | RIGHT_USER | RIGHT_WRITE


def test_intent_of_a_kernel_that_has_not_started() -> None:
    with pytest.raises(MmucheckError, match="not started"):
        intended_pages(Kernel(), 0x101000, no_execute=False)


@pytest.mark.parametrize(
    ("bit", "no_execute", "wrong"),
    [
        (RIGHT_WRITE, False, True),
        (RIGHT_USER, False, True),
        (RIGHT_PRESENT, False, True),
        (RIGHT_RESERVED, False, True),
        (RIGHT_BAD_TABLE, False, True),
        (RIGHT_NX, True, True),
        (RIGHT_NX, False, False),
        (1 << 8, False, False),
    ],
)
def test_contradicts(bit: int, no_execute: bool, wrong: bool) -> None:
    meant = _pages({7: RIGHT_PRESENT})
    held = _pages({7: RIGHT_PRESENT ^ bit})
    held.pfn[:] = meant.pfn
    meant = Pages(meant.pfn, meant.rights, no_execute)
    assert np.flatnonzero(contradicts(meant, held)).tolist() == ([7] if wrong else [])


# -- stamps ------------------------------------------------------------


@given(PFNS)
def test_stamp_names_its_frame_and_is_no_entry(pfn: int) -> None:
    stamp = stamp_words(np.array([pfn]))
    assert recognise(stamp, 1 << 24).tolist() == [pfn]
    assert not stamp[0] & 1
    for ring in Ring:
        stored = stored_words(np.array([pfn]), ring)
        assert recognise(stored, 1 << 24).tolist() == [-1]
        assert not stored[0] & 1
    assert recognise(stamp, pfn).tolist() == [-1]


def _ram_with_table(free: int, entry_bytes: int) -> Ram:
    """Frame 3 is a table whose entries are all present but ``free`` in a row, from entry 40."""
    ram = Ram(16 * 4096)
    kind = np.uint32 if entry_bytes == 4 else np.uint64
    entries = ram.table(3 << 12, 4096 // entry_bytes, kind)
    entries[:] = (np.arange(len(entries)) << 12) | 1
    entries[40 : 40 + free] = 0
    return ram


@pytest.mark.parametrize(("entry_bytes", "needed"), [(4, 4), (8, 2)])
def test_tables_are_stamped_where_nothing_is_mapped(entry_bytes: int, needed: int) -> None:
    tables, none = np.array([3]), np.empty(0, np.int64)
    ram = _ram_with_table(needed, entry_bytes)
    before = ram.read(0, ram.size)
    witnesses = FrameWitnesses.choose(ram, tables, entry_bytes, none)
    assert witnesses.stampable_at(tables).all()
    word = witnesses.data_words(tables)
    assert word[0] * 4 // entry_bytes in range(40, 40 + needed)
    present = ram.table(3 << 12, FRAME_WORDS)[:: entry_bytes // 4] & 1
    with stamped(ram, tables, word):
        stamped_present = ram.table(3 << 12, FRAME_WORDS)[:: entry_bytes // 4] & 1
        assert np.array_equal(present, stamped_present)
        code = ram.read((3 << 12) + int(word[0]) * 4 - 1, 7)
        assert code[0] == 0xB8
        assert code[5:] == b"\x90\xc3"
        assert recognise(ram.table(3 << 12, FRAME_WORDS)[word], 16).tolist() == [3]
    assert ram.read(0, ram.size) == before
    ram = _ram_with_table(needed - 1, entry_bytes)
    full = FrameWitnesses.choose(ram, tables, entry_bytes, none)
    assert not full.stampable_at(tables).any()
    assert full.data_words(tables)[0] >= 0
    assert full.masks(tables)[0] == 0xFFFFFFFF & ~0x60


def test_natural_witnesses_differ_from_each_other() -> None:
    ram = Ram(16 * 4096)
    for pfn in (1, 2, 3):
        ram.write32(pfn << 12, 0xAAAA)
    ram.write32((2 << 12) + 8, 0xBBBB)
    guest = np.array([1, 2, 3, 4])
    witnesses = FrameWitnesses.choose(ram, np.empty(0, np.int64), 4, guest)
    assert witnesses.data_words(guest).tolist() == [0, 2, -1, -1]
    assert not witnesses.stampable_at(guest).any()
    assert witnesses.stampable_at(np.array([0, 5])).all()


def test_untouched_memory_stays_untouched() -> None:
    """A stamp takes a page of the host; it is given back."""
    ram = Ram(64 * MIB)
    ram.write32(5 << 12, 1)
    pfns = np.arange(0, 64 * MIB >> 12)
    word = np.full(len(pfns), 100)

    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    before = resident()
    with stamped(ram, pfns, word):
        assert resident() - before > len(pfns) * 3 // 4
    assert resident() - before < len(pfns) // 4
    assert ram.read32(5 << 12) == 1
    assert not any(ram.read(6 << 12, MIB))


# -- the CPU ------------------------------------------------------------


def test_asking_in_any_order_gives_the_same_answers() -> None:
    machine = planted_machine().machine
    pages = np.arange(0x8000, 0x8100)
    plain = ask_mmu(machine.cpu, pages, Meter())
    urgent = ask_mmu(machine.cpu, pages, Meter(), np.array([TEXT >> 12, MORE >> 12]))
    assert np.array_equal(plain.answers, urgent.answers)
    assert np.array_equal(plain.pages, urgent.pages)
    assert (plain.answers[:, TEXT - 0x8000000 >> 12] >= 0).any()


def test_real_accesses_tell_frames_and_error_codes() -> None:
    planted = planted_machine()
    machine = planted.machine
    pages = np.array([0, TEXT >> 12, DATA >> 12, 0xC0900])
    reading, left_out = access_pages(
        machine, spec_of(machine), pages, np.ones(PAGES, np.bool_), Meter()
    )
    text, data = (planted.entry(va) >> 12 for va in (TEXT, DATA))
    expected = {
        (Ring.KERNEL, Access.READ): [-16, text, data, 0x900],
        (Ring.KERNEL, Access.FETCH): [-16, text, data, 0x900],
        (Ring.KERNEL, Access.WRITE): [-18, -19, data, 0x900],
        (Ring.USER, Access.READ): [-20, text, data, -21],
        (Ring.USER, Access.FETCH): [-20, text, data, -21],
        (Ring.USER, Access.WRITE): [-22, -23, data, -23],
    }
    assert {q: reading.answers[row].tolist() for row, q in enumerate(QUESTIONS)} == expected
    assert left_out.hidden == left_out.devices == 0


def test_unsettled_pages_are_neither_stored_to_nor_run() -> None:
    machine = planted_machine().machine
    settled = np.ones(PAGES, np.bool_)
    settled[DATA >> 12] = False
    page = np.array([DATA >> 12])
    reading, _ = access_pages(machine, spec_of(machine), page, settled, Meter())
    said = {
        question.access
        for question, row in zip(QUESTIONS, reading.answers, strict=True)
        if row[0] != UNSAID
    }
    assert said == {Access.READ}


def test_places_share_nothing() -> None:
    machine = small_machine()
    spec = spec_of(machine)
    guest = (machine.guest.start, machine.guest.end)
    reserved = np.array([0x101])
    one, two = find_places(spec, np.ones(PAGES, np.bool_), reserved, guest)
    assert one.window != two.window
    assert not set(one.frames.tolist()) & set(two.frames.tolist())
    assert frames_in_ram(machine.ram, one.frames).all()
    assert one.window < 0xC0000000


def test_no_place_without_an_absent_user_entry() -> None:
    """Every page-directory entry is taken: said in the report, and all else still compared."""
    planted = planted_machine()
    machine = planted.machine
    machine.ram.fill(0x800000, 4096)
    for index in range(0x300):
        if not machine.ram.read32(planted.mm + 4 * index):
            machine.ram.write32(planted.mm + 4 * index, 0x800067)
    machine.cpu.flush_tlb_global()
    with pytest.raises(NoPlace, match="absent user entry"):
        access_pages(
            machine, spec_of(machine), np.array([0xC0900]), np.ones(PAGES, np.bool_), Meter()
        )
    report = diff(machine)
    assert "absent user entry" in report.notes[0]
    assert report.questions["access"] == 0
    assert report.ok


def test_no_place_where_the_guest_is_not_mapped() -> None:
    planted = planted_machine(cpu_model="486")
    planted.change(planted.machine.symbol("gdt"), clear=2)
    planted.machine.cpu.flush_tlb_global()
    report = diff(planted.machine)
    assert "own page" in report.notes[0]
    assert report.findings[0].va == planted.machine.symbol("gdt") & ~0xFFF
