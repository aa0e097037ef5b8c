# SPDX-License-Identifier: GPL-2.0-or-later
"""``SYSENTER`` and the way back, on the small kernel; truth is the manual (SDM 2B)."""

import struct

import pytest

from harness.cpu.sysenter import MSR_SYSENTER_CS, MSR_SYSENTER_EIP, MSR_SYSENTER_ESP
from tests.harness.cpu.small_kernel import (
    CODE,
    DATA,
    HLT,
    KERNEL,
    KERNEL_CS,
    KERNEL_DS,
    STACK_TOP,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_STACK_TOP,
    SmallKernel,
    interrupt,
    mov_eax,
    store_eax,
)

ENTRY = KERNEL + 0x50000
SEEN = DATA + 0x100
FAST_STACK = STACK_TOP - 0x200
SYSENTER = bytes.fromhex("0f34")
SYSEXIT = bytes.fromhex("0f35")
SET_STACK = 5
"""Bytes of the instruction that :meth:`SmallKernel.run_kernel` puts first."""
IF = 1 << 9
GENERAL_PROTECTION, INVALID_OPCODE, DONE = 13, 6, 0x80


def write_msr(number: int, value: int) -> bytes:
    return b"\xb9" + struct.pack("<I", number) + b"\x31\xd2" + mov_eax(value) + b"\x0f\x30"


def back_to(eip: int) -> bytes:
    """Keep ESP, CS, SS and EFLAGS at SEEN, then return to ring 3."""
    code = b"\x89\x25" + struct.pack("<I", SEEN)
    code += bytes.fromhex("8cc8") + store_eax(SEEN + 4) + bytes.fromhex("8cd0")
    code += store_eax(SEEN + 8) + bytes.fromhex("9c58") + store_eax(SEEN + 12)
    return code + struct.pack("<BIBI", 0xBA, eip, 0xB9, USER_STACK_TOP) + SYSEXIT


def set_up(kernel: SmallKernel, selector: int) -> None:
    code = write_msr(MSR_SYSENTER_CS, selector) + write_msr(MSR_SYSENTER_EIP, ENTRY)
    kernel.run_kernel(code + write_msr(MSR_SYSENTER_ESP, FAST_STACK) + HLT)


def seen(kernel: SmallKernel) -> list[int]:
    return [kernel.read32(SEEN + 4 * n) for n in range(4)]


@pytest.mark.parametrize("prefix", ["", "2e", "6626"])
@pytest.mark.parametrize("low_bits", [0, 3])
def test_into_ring_0_and_back(prefix: str, low_bits: int) -> None:
    """The selectors follow from one, its RPL is not looked at, and interrupts are off."""
    kernel = SmallKernel()
    set_up(kernel, KERNEL_CS | low_bits)
    enter = bytes.fromhex("4040") + bytes.fromhex(prefix) + SYSENTER
    kernel.write(ENTRY, back_to(USER_CODE + len(enter)))
    kernel.run_user(enter + interrupt(DONE))
    esp, cs, ss, eflags = seen(kernel)
    assert (esp, cs & 0xFFFF, ss & 0xFFFF) == (FAST_STACK, KERNEL_CS, KERNEL_DS)
    assert not eflags & IF
    (frame,) = kernel.seen
    assert (frame.vector, frame.eip) == (DONE, USER_CODE + len(enter) + 2)
    assert (frame.cs, frame.ss, frame.esp) == (USER_CS, USER_DS, USER_STACK_TOP)


@pytest.mark.parametrize("selector", [0, 3])
@pytest.mark.parametrize("in_ring_3", [False, True])
def test_without_a_segment_it_is_a_fault(selector: int, in_ring_3: bool) -> None:
    kernel = SmallKernel()
    set_up(kernel, selector)
    run = kernel.run_user if in_ring_3 else kernel.run_kernel
    run(bytes.fromhex("43") + SYSENTER + HLT)
    (frame,) = kernel.seen
    assert (frame.vector, frame.error_code) == (GENERAL_PROTECTION, 0)
    assert frame.eip == (USER_CODE if in_ring_3 else CODE + SET_STACK) + 1


@pytest.mark.parametrize("model", ["486", "pentium"])
def test_a_model_without_it(model: str) -> None:
    kernel = SmallKernel(model)
    kernel.run_user(b"\x43" + SYSENTER)
    (frame,) = kernel.seen
    assert (frame.vector, frame.eip) == (INVALID_OPCODE, USER_CODE + 1)


@pytest.mark.parametrize("model", ["486", "pentium", "pentium2", "pentium3", "coreduo"])
def test_cpuid_says_which_model_has_it(model: str) -> None:
    kernel = SmallKernel(model)
    kernel.run_kernel(mov_eax(1) + bytes.fromhex("0fa2 89d0") + store_eax(SEEN) + HLT)
    assert kernel.cpu.has_sysenter == bool(kernel.read32(SEEN) >> 11 & 1)


def test_after_a_nested_run_was_stopped() -> None:
    """Unicorn looks for hooks differently then; see :meth:`Execution._add_hooks`."""
    kernel = SmallKernel()
    kernel.write(ENTRY, interrupt(0x81))
    again = []

    def on_frame(frame: object) -> None:
        if kernel.seen[-1].vector == 0x82:
            again.append(kernel.cpu.start_nested(ENTRY))
        else:
            kernel.cpu.stop()

    kernel.on_frame = on_frame
    kernel.run_kernel(interrupt(0x82) + SYSENTER)
    assert len(again) == 1
    assert [frame.vector for frame in kernel.seen] == [0x82, 0x81, GENERAL_PROTECTION]
