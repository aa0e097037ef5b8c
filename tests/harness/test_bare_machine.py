# SPDX-License-Identifier: GPL-2.0-or-later
"""A PC with a kernel of a few bytes: loaded, halted, woken, and dead; its tables compared."""

import struct

import pytest

from harness.bare_machine import BareMachine
from harness.diff_image import diff_tables
from harness.expectation import Maps, expected
from harness.machine import GuestDied, GuestStopped, Limits
from harness.verdict import Verdict
from kernel_model.errors import BadInput
from tests.elf_bytes import Elf, Phdr

pytestmark = pytest.mark.usefixtures("either_release")

MIB = 1 << 20
BASE = 0x100000
HLT, SPIN = b"\xf4", b"\xeb\xfe"
SAY = b"".join(b"\xb0" + bytes([letter]) + b"\xe6\xe9" for letter in b"ok")
"""``mov $letter,%al; out %al,$0xe9``."""
DIRECTORY, TABLE, FRAME, VA = 0x200000, 0x201000, 0x300000, 0x00400000


def program(code: bytes, *, vaddr: int = BASE, **more: int) -> bytes:
    return Elf([Phdr(vaddr, code, **more)], fields={"e_entry": vaddr}).build()  # type: ignore[arg-type]


def put(address: int, value: int) -> bytes:
    """``movl $value, address``."""
    return b"\xc7\x05" + struct.pack("<II", address, value)


PAGING = (
    put(DIRECTORY, 0x202000 | 3)
    + put(0x202000 + (BASE >> 12) * 4, BASE | 3)
    + put(0x202000 + (TABLE >> 12) * 4, TABLE | 3)
    + put(DIRECTORY + 4, TABLE | 7)
    + put(TABLE, FRAME | 5)
    + b"\xb8"
    + struct.pack("<I", DIRECTORY)
    + bytes.fromhex("0f22d8 0f20c0 0d00000180 0f22c0")  # CR3; CR0 |= PG | WP
)
OWN = [Maps(BASE, BASE, write=True), Maps(TABLE, TABLE, write=True)]
LOAD = b"\xa1" + struct.pack("<I", VA)
"""``mov VA, %eax``."""


def test_it_halts_and_goes_on() -> None:
    machine = BareMachine(program(SAY + HLT + b"\x40" + HLT))
    assert machine.run() is machine
    assert bytes(machine.console) == b"ok"
    before = machine.cpu.registers.eax
    machine.run()
    assert machine.cpu.registers.eax == before + 1


def test_linked_high_and_loaded_low() -> None:
    machine = BareMachine(program(HLT, vaddr=0xC0100000, paddr=BASE))
    machine.run()
    assert machine.cpu.registers.eip == BASE + 1


def test_its_tables() -> None:
    machine = BareMachine(program(PAGING + HLT)).run()
    report = diff_tables(machine.cpu, expected([*OWN, Maps(VA, FRAME, user=True)]))
    assert report.ok, report.findings
    assert report.mapped == 3


@pytest.mark.parametrize(
    ("wanted", "va"),
    [
        (Maps(VA, FRAME + 4096, user=True), VA),
        (Maps(VA, FRAME, user=True, write=True), VA),
        (Maps(VA, FRAME), VA),
        (Maps(VA + 4096, FRAME, user=True), VA),
    ],
)
def test_what_is_mapped_otherwise(wanted: Maps, va: int) -> None:
    machine = BareMachine(program(PAGING + HLT)).run()
    report = diff_tables(machine.cpu, expected([*OWN, wanted]))
    assert {finding.verdict for finding in report.findings} == {Verdict.UNEXPECTED}
    assert report.findings[0].va == va


@pytest.mark.parametrize("flush", [b"\x0f\x01\x3d" + struct.pack("<I", VA), b""], ids=bool)
def test_a_flush_of_its_own(flush: bytes) -> None:
    """Warm the TLB, take the page away, with INVLPG and without."""
    machine = BareMachine(program(PAGING + LOAD + put(TABLE, 0) + flush + HLT)).run()
    report = diff_tables(machine.cpu, expected(OWN, absent=[VA]))
    verdicts = {finding.verdict for finding in report.findings}
    assert verdicts == (set() if flush else {Verdict.MISSING_FLUSH})


def test_a_triple_fault_is_told() -> None:
    with pytest.raises(GuestDied, match="triple fault") as died:
        BareMachine(program(PAGING + b"\xa1" + struct.pack("<I", 0x8000000) + HLT)).run()
    report = died.value.report
    assert report.control["cr2"] == 0x8000000
    assert any("PDE[32]" in line for line in report.walk)
    assert any("mov eax" in text for _, _, text in report.instructions)


def test_a_limit_ends_it() -> None:
    with pytest.raises(GuestStopped):
        BareMachine(program(SPIN), limits=Limits(instructions=1000)).run()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an ELF file"),
        (program(HLT, vaddr=0x40000000), "there is RAM up to 0x1000000"),
        (Elf([Phdr(BASE, HLT)], bits=64).build(), "give an ELF program for i386"),
        (Elf([]).build(), "no PT_LOAD segment"),
    ],
)
def test_what_cannot_be_loaded(content: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        BareMachine(content)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(BadInput, match=r"/no/such\.elf: cannot be read: No such file"):
        BareMachine("/no/such.elf")


@pytest.mark.parametrize(
    ("mappings", "said"),
    [
        ([Maps(0x1001, 0)], "align it"),
        ([Maps(0x1000, 0, size=100)], "multiple of page_size"),
        ([Maps(0x1000, 0, size=8192), Maps(0x2000, 0)], "two rows translate 0x00002000"),
        ([Maps(1 << 32, 0)], "give a 32-bit address"),
        ([Maps(0x1000, 0, size=8192, page_size=8192)], "size 0x2000 at va"),
    ],
)
def test_mappings_that_cannot_be(mappings: list[Maps], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        expected(mappings)


def test_mappings_of_many_pages() -> None:
    listed = expected([Maps(0x400000, 0x800000, 8 * MIB, user=True, page_size=4 * MIB)], [0x1000])
    assert listed.va.tolist() == [0x400000, 0x800000]
    assert listed.pa.tolist() == [0x800000, 0xC00000]
    assert listed.rights.tolist() == [4, 4]
    assert listed.absent.tolist() == [0x1000]
