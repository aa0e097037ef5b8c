# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot code and the ring-0 probe on a bare CPU, where nothing faults."""

import struct
from pathlib import Path

import pytest
from unicorn.x86_const import UC_X86_REG_TR

from guest import build
from harness.hypercalls import Hypercall
from kernel_model.structs.statics import STATICS
from tests.guest.bare_machine import PAGE_OFFSET, BareMachine

CODE = bytes.fromhex("b878563412c3")  # mov $0x12345678, %eax; ret
PAGE = 0x700000
TABLE = 0x600000
READ, WRITE, FETCH = 0, 1, 2
VARIANTS = ("nohm", "hm", "pae")


def gate(machine: BareMachine, vector: int) -> tuple[int, int, int]:
    """Handler, selector and type of an interrupt gate."""
    paddr = machine.symbols["idt"] - PAGE_OFFSET + 8 * vector
    low, selector, kind, high = struct.unpack("<HHxBH", machine.ram.read(paddr, 8))
    return high << 16 | low, selector, kind


@pytest.mark.book("3.6.1")
@pytest.mark.parametrize("variant", VARIANTS)
def test_boot_turns_paging_on_and_jumps_high(built: Path, variant: str) -> None:
    machine = BareMachine(built / variant / "kernel.elf")
    assert [call for call, _ in machine.boot()] == [Hypercall.START_KERNEL, Hypercall.IDLE]
    assert machine.read("CR3") == 0x101000
    assert machine.read("CR4") == 0
    assert machine.read("CR0") & 0x80010001 == 0x80010001
    assert machine.read("EIP") > PAGE_OFFSET
    assert machine.read("ESP") == machine.symbols["kernel_stack_top"]
    selectors = [machine.read(name) for name in ("CS", "DS", "ES", "SS")]
    assert selectors == [0x10, 0x18, 0x18, 0x18]


def test_boot_sets_the_cr4_bits_of_a_running_kernel_before_paging(built: Path) -> None:
    machine = BareMachine(built / "nohm" / "kernel.elf")
    machine.ram.write32(STATICS, 0x90)
    for index in (0, 768):  # only with CR4.PSE is this a way into the image
        machine.ram.write32(0x101000 + 4 * index, 0x83)
    assert machine.boot()[-1][0] is Hypercall.IDLE
    assert machine.read("CR4") == 0x90


def test_descriptor_tables(built: Path) -> None:
    machine = BareMachine(built / "nohm" / "kernel.elf")
    machine.boot()
    open_to_ring3 = {vector for vector in range(256) if gate(machine, vector)[2] & 0x60 == 0x60}
    present = {vector for vector in range(256) if gate(machine, vector)[2] & 0x80}
    assert present == {*range(32), 0x20, 0x80, 0x82}
    assert open_to_ring3 == {3, 4, 5, 0x80}
    assert gate(machine, 14)[1:] == (0x10, 0x8E)
    assert gate(machine, 0x80)[0] == machine.symbols["system_call"]
    selector, base, limit, _ = machine.uc.reg_read(UC_X86_REG_TR)
    assert (selector, base, limit) == (0x60, machine.symbols["tss"], 103)
    tss = machine.symbols["tss"] - PAGE_OFFSET
    assert machine.ram.read32(tss + 4) == machine.symbols["kernel_stack_top"]
    assert machine.ram.read32(tss + 8) == 0x18
    assert machine.ram.read32(tss + 100) >> 16 > limit  # no I/O bitmap


def test_function_called_by_the_harness_returns_through_a_hypercall(built: Path) -> None:
    machine = BareMachine(built / "nohm" / "kernel.elf")
    machine.boot()
    machine.ram.write(PAGE, CODE)
    machine.symbols["code"] = PAGE + PAGE_OFFSET
    assert machine.call("code") == [(Hypercall.RETURN, 0x12345678)]


def test_probe_reads_writes_and_fetches(built: Path) -> None:
    machine = BareMachine(built / "nohm" / "kernel.elf")
    machine.boot()
    va = PAGE + PAGE_OFFSET
    machine.ram.write(PAGE, CODE)
    machine.ram.write32(PAGE + 8, 0xCAFE)
    entries = [(va + 8, READ, 0), (va + 12, WRITE, 0xBEEF), (va, FETCH, 0), (va + 12, READ, 0)]
    table = b"".join(struct.pack("<6I", *entry, 0, 0, 0) for entry in entries)
    machine.ram.write(TABLE, table)
    calls = machine.call("probe_kernel", TABLE + PAGE_OFFSET, len(entries))
    assert calls[0][0] is Hypercall.RETURN
    rows = list(struct.iter_unpack("<6I", machine.ram.read(TABLE, len(table))))
    assert [row[2] for row in rows] == [0xCAFE, 0xBEEF, 0x12345678, 0xBEEF]
    assert not any(any(row[3:]) for row in rows)
    assert machine.ram.read32(PAGE + 12) == 0xBEEF
    assert machine.ram.read32(machine.symbols["probe_resume_eip"] - PAGE_OFFSET) == 0


def test_probe_of_nothing_returns(built: Path) -> None:
    machine = BareMachine(built / "nohm" / "kernel.elf")
    machine.boot()
    assert machine.call("probe_kernel", TABLE + PAGE_OFFSET, 0)[0][0] is Hypercall.RETURN


@pytest.mark.parametrize("variant", VARIANTS)
def test_structs_check_finds_every_offset_right(built: Path, variant: str) -> None:
    machine = BareMachine(built / variant / "structs_check.elf")
    assert machine.boot()[-1] == (Hypercall.EXIT, 0)
    assert machine.console.startswith("structs_check: ")


def test_structs_check_finds_a_wrong_offset(built: Path, tmp_path: Path) -> None:
    include = tmp_path / "hm" / "include"
    include.mkdir(parents=True)
    for header in (built / "hm" / "include").iterdir():
        lines = header.read_text().splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith("_Static_assert"))
        row = 'X(__builtin_offsetof(struct page, flags), 24, "page.flags")'
        (include / header.name).write_text(text.replace(row, row.replace("24", "28")))
    program = next(p for p in build.programs() if str(p.path) == "hm/structs_check.elf")
    build.compile_program(program, tmp_path, tmp_path / "cache")
    machine = BareMachine(tmp_path / program.path)
    calls = machine.boot()
    assert [call for call, _ in calls][-2:] == [Hypercall.ASSERT_FAILED, Hypercall.EXIT]
    assert machine.console.startswith("page.flags: compiled 24, declared 28\n")
    assert calls[-1] == (Hypercall.EXIT, 1)
