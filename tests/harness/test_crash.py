# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of a guest that died."""

import json
import struct

import pytest

from harness.cpu import Stop, StopReason
from harness.crash import crash_report, read_virtual
from tests.harness.cpu.small_kernel import (
    CODE,
    FREE_FRAME,
    FREE_VA,
    KERNEL,
    STACK_TOP,
    USER_CODE,
    USER_STACK_TOP,
    SmallKernel,
    absent,
    interrupt,
    load_eax,
    mov_eax,
    push,
)

pytestmark = pytest.mark.usefixtures("either_release")


@pytest.fixture
def kernel() -> SmallKernel:
    """A kernel that cannot take a page fault."""
    kernel = SmallKernel()
    absent(kernel, 8, 13, 14)
    return kernel


def test_a_death_in_ring_0(kernel: SmallKernel) -> None:
    reason = kernel.run_kernel(push(0xCAFE) + mov_eax(7) + load_eax(0x08123456) + mov_eax(9))
    report = crash_report(kernel.cpu, reason, lambda va: [f"asked about {va:#x}"])
    assert report.ring == 0
    assert report.registers["eax"] == 7
    assert report.registers["eip"] == CODE + 15
    assert report.control["cr2"] == 0x08123456
    assert report.walk == ("asked about 0x8123456",)
    assert report.stack[0] == (STACK_TOP - 4, 0xCAFE)
    texts = [text for _, _, text in report.instructions]
    around = texts.index("mov eax, dword ptr [0x8123456]")
    assert texts[around - 2 : around + 2] == [
        "push 0xcafe",
        "mov eax, 7",
        "mov eax, dword ptr [0x8123456]",
        "mov eax, 9",
    ]
    assert report.instructions[around][0] == CODE + 15


def test_the_text_points_at_the_instruction(kernel: SmallKernel) -> None:
    reason = kernel.run_kernel(load_eax(0x08123456))
    text = str(crash_report(kernel.cpu, reason))
    assert text.splitlines()[0].startswith("the guest died: #PF(0x0)")
    (line,) = [line for line in text.splitlines() if line.startswith(" >")]
    assert line.split()[1:3] == [f"{CODE + 5:08x}", "a156341208"]
    assert "cr2 08123456" in text
    assert "walk" not in text


def test_it_is_json(kernel: SmallKernel) -> None:
    reason = kernel.run_kernel(load_eax(0x08123456))
    report = json.loads(json.dumps(crash_report(kernel.cpu, reason).as_dict()))
    assert report["registers"]["eip"] == CODE + 5
    assert report["instructions"][0]["address"] == CODE
    assert report["stack"][0]["address"] == STACK_TOP


def test_a_death_in_ring_3_is_seen_with_ring_3s_eyes(kernel: SmallKernel) -> None:
    kernel.run_user(b"\xbc" + struct.pack("<I", STACK_TOP) + load_eax(0x08123456))
    report = crash_report(kernel.cpu, StopReason(Stop.DIED, "test"))
    assert report.ring == 3
    assert report.registers["esp"] == STACK_TOP
    assert report.stack == ((STACK_TOP, None),), "ring 3 cannot read it"
    assert report.instructions[-1][0] > USER_CODE


def test_nothing_mapped_where_the_guest_died(kernel: SmallKernel) -> None:
    code = b"\xbc" + bytes(4) + b"\xb8" + struct.pack("<I", 0x08200000) + bytes.fromhex("ffe0")
    reason = kernel.run_kernel(code)
    report = crash_report(kernel.cpu, reason)
    assert report.instructions == ((0x08200000, "", "(cannot be fetched)"),)
    assert report.stack == ((0, None),)
    assert "cannot be read" in str(report)


def test_bytes_that_are_no_instruction(kernel: SmallKernel) -> None:
    absent(kernel, 6, 11)
    reason = kernel.run_kernel(bytes.fromhex("0f0b"))
    kernel.cpu.registers.eip = CODE + 0x300
    kernel.write(CODE + 0x300, bytes.fromhex("ffffffff"))
    assert crash_report(kernel.cpu, reason).instructions[-1][2] == "(no instruction)"


def test_a_report_leaves_the_tables_alone(kernel: SmallKernel) -> None:
    reason = kernel.run_kernel(load_eax(0x08123456))
    before = kernel.ram.read(0, 0x40000)
    crash_report(kernel.cpu, reason)
    assert kernel.ram.read(0, 0x40000) == before


def test_reading_stops_where_the_ring_ends(kernel: SmallKernel) -> None:
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    kernel.ram.write(FREE_FRAME + 0xFF0, b"0123456789abcdef")
    assert read_virtual(kernel.cpu, FREE_VA + 0xFFA, 100) == b"abcdef"
    assert read_virtual(kernel.cpu, USER_STACK_TOP, 4) == b""
    assert len(read_virtual(kernel.cpu, KERNEL + 0x1FF0, 0x30)) == 0x30


def test_interrupt_reason_is_the_first_line(kernel: SmallKernel) -> None:
    absent(kernel, 0x80)
    reason = kernel.run_user(interrupt(0x80))
    assert str(crash_report(kernel.cpu, reason)).startswith("the guest died: int 0x80")
