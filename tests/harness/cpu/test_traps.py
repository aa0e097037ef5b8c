# SPDX-License-Identifier: GPL-2.0-or-later
"""Delivery of traps through the guest's IDT, GDT and TSS: the frames, the checks, the deaths.

Expectations are written down from the Intel SDM, volume 3A chapter 6 and volume 2A INT n.
"""

import struct
from collections.abc import Callable

import pytest

from harness.cpu import Stop
from tests.harness.cpu.small_kernel import (
    CODE,
    DPL3_CODE,
    FREE_FRAME,
    FREE_VA,
    GDT,
    HLT,
    IDT,
    KERNEL,
    KERNEL_CS,
    KERNEL_DS,
    SPIN,
    STACK_TOP,
    STUBS,
    TSS,
    TSS_SELECTOR,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_STACK_TOP,
    Frame,
    SmallKernel,
    descriptor,
    gate,
    interrupt,
    load_eax,
    mov_eax,
    push,
    store_eax,
)

pytestmark = pytest.mark.usefixtures("either_release")

IF, RF, TF = 1 << 9, 1 << 16, 1 << 8
EXT, IN_IDT = 1, 2
UNDEFINED = bytes.fromhex("0f0b")
DIVIDE_BY_ZERO = bytes.fromhex("31c9 f7f1")
ALWAYS_GP = bytes.fromhex("b8f87f0000 8ed8")
"""``mov %eax,%ds`` with a selector beyond the GDT: #GP(0x7ff8) on the second instruction."""


def only(kernel: SmallKernel) -> Frame:
    (frame,) = kernel.seen
    return frame


# -- frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error_code"),
    [(load_eax(FREE_VA), 4), (store_eax(FREE_VA), 6), (load_eax(KERNEL), 5), (store_eax(CODE), 7)],
)
def test_a_page_fault_of_ring_3_changes_the_stack(
    either_kernel: SmallKernel, code: bytes, error_code: int
) -> None:
    kernel = either_kernel
    kernel.run_user(code)
    frame = only(kernel)
    assert (frame.vector, frame.error_code) == (14, error_code)
    expected = [USER_CODE, USER_CS, 0x202 | RF, USER_STACK_TOP, USER_DS]
    assert frame.words == expected
    assert frame.address == STACK_TOP - 24
    assert kernel.cpu.ring == 0
    assert kernel.cpu.registers.cs == KERNEL_CS
    assert kernel.cpu.registers.ss == KERNEL_DS
    assert not kernel.cpu.registers.eflags & (IF | RF)


def test_a_page_fault_of_ring_0_stays_on_its_stack(either_kernel: SmallKernel) -> None:
    kernel = either_kernel
    kernel.run_kernel(push(0x1234) + store_eax(FREE_VA))
    frame = only(kernel)
    assert (frame.vector, frame.error_code) == (14, 2)
    assert frame.words[:2] == [CODE + 10, KERNEL_CS]
    assert frame.words[3] == 0x1234, "what ring 0 pushed lies right above the frame"
    assert frame.address == STACK_TOP - 4 - 16


def test_int_n_has_no_error_code_and_returns_behind_itself(kernel: SmallKernel) -> None:
    kernel.run_user(interrupt(0x80))
    frame = only(kernel)
    assert frame.words[:5] == [USER_CODE + 2, USER_CS, 0x202, USER_STACK_TOP, USER_DS]
    assert frame.address == STACK_TOP - 20


@pytest.mark.parametrize(
    ("code", "vector", "error_code", "offset"),
    [
        (DIVIDE_BY_ZERO, 0, None, 2),
        (b"\xcc", 3, None, 1),
        (bytes.fromhex("b0ff fec0 b07f fec0 ce"), 4, None, 9),
        (UNDEFINED, 6, None, 0),
        (HLT, 13, 0, 0),
        (ALWAYS_GP, 13, 0x7FF8, 5),
    ],
    ids=["#DE", "INT3", "INTO", "#UD", "HLT", "#GP"],
)
def test_exceptions_of_ring_3(
    kernel: SmallKernel, code: bytes, vector: int, error_code: int | None, offset: int
) -> None:
    """A fault leaves EIP on the instruction and sets RF in the frame, a trap does neither."""
    kernel.run_user(code)
    frame = only(kernel)
    assert (frame.vector, frame.error_code, frame.eip) == (vector, error_code, USER_CODE + offset)
    assert bool(frame.eflags & RF) == (vector not in (3, 4))


def test_a_single_step_is_a_trap(kernel: SmallKernel) -> None:
    kernel.run_user(b"\x90\x90", eflags=0x302)
    frame = only(kernel)
    assert (frame.vector, frame.eip) == (1, USER_CODE + 1)
    assert frame.eflags & TF
    assert not frame.eflags & RF
    assert not kernel.cpu.registers.eflags & TF


@pytest.mark.parametrize(("kind", "open_"), [(0xE, False), (0xF, True)])
def test_only_an_interrupt_gate_closes_interrupts(
    kernel: SmallKernel, kind: int, open_: bool
) -> None:
    kernel.set_gate(0x80, gate(STUBS + 0x800, kind=kind, dpl=3))
    kernel.run_user(interrupt(0x80))
    assert bool(kernel.cpu.registers.eflags & IF) == open_


@pytest.mark.parametrize("flags", [0x202, 0xAD7, 0x246, 0x602])
def test_the_frame_carries_all_flags(kernel: SmallKernel, flags: int) -> None:
    kernel.run_user(interrupt(0x80), eflags=flags)
    assert only(kernel).eflags == flags


def test_the_flags_of_the_last_operation_are_in_the_frame(kernel: SmallKernel) -> None:
    """The emulator keeps them as operands until someone asks."""
    kernel.run_user(bytes.fromhex("b0ff 0401") + load_eax(FREE_VA))
    assert only(kernel).eflags & 0x8D5 == 0x55, "0xff + 1: CF PF AF ZF"


@pytest.mark.parametrize("ring", [0, 3])
def test_ten_thousand_faults(either_kernel: SmallKernel, ring: int) -> None:
    """Each store faults once and then is run again: its value is the number of the round."""
    kernel = either_kernel
    rounds = 5000

    def serve(frame: Frame) -> None:
        if frame.vector == 14:
            assert frame.error_code == (6 if ring else 2)
            kernel.set_pte(FREE_VA, FREE_FRAME | 7)
            return
        assert kernel.ram.read32(FREE_FRAME) == len(kernel.seen) // 2 - 1
        kernel.set_pte(FREE_VA, 0)
        kernel.cpu.flush_tlb_one(FREE_VA)
        if len(kernel.seen) == 2 * rounds:
            kernel.cpu.stop()

    kernel.on_frame = serve
    # xor %ebx,%ebx; L: mov %ebx,FREE_VA; inc %ebx; int $0x80; jmp L
    code = bytes.fromhex("31db 891d") + struct.pack("<I", FREE_VA) + b"\x43" + interrupt(0x80)
    code += b"\xeb" + bytes([256 - len(code)])
    reason = kernel.run_user(code) if ring else kernel.run_kernel(code)
    assert reason.kind is Stop.HYPERCALL
    assert [frame.vector for frame in kernel.seen] == [14, 0x80] * rounds


def test_a_frame_over_the_end_of_a_page(kernel: SmallKernel) -> None:
    kernel.write(TSS + 4, struct.pack("<I", STACK_TOP - 0x1000 + 8))
    kernel.run_user(store_eax(FREE_VA))
    frame = only(kernel)
    assert (frame.error_code, frame.address) == (6, STACK_TOP - 0x1000 + 8 - 24)
    assert frame.words == [USER_CODE, USER_CS, 0x202 | RF, USER_STACK_TOP, USER_DS]


def test_an_unaligned_stack(kernel: SmallKernel) -> None:
    kernel.write(TSS + 4, struct.pack("<I", STACK_TOP - 0x1000 + 9))
    kernel.run_user(store_eax(FREE_VA))
    assert only(kernel).words == [USER_CODE, USER_CS, 0x202 | RF, USER_STACK_TOP, USER_DS]


def test_delivery_marks_stack_and_tables_accessed_and_dirty(kernel: SmallKernel) -> None:
    for va in (IDT, TSS, STACK_TOP - 4):
        kernel.set_pte(va, va - KERNEL & ~0xFFF | 3)
    kernel.cpu.flush_tlb_global()
    kernel.run_user(interrupt(0x80))
    assert kernel.pte(STACK_TOP - 4) & 0x60 == 0x60
    assert kernel.pte(IDT) & 0x60 == 0x20
    assert kernel.pte(TSS) & 0x60 == 0x20


def test_delivery_marks_descriptors_accessed(kernel: SmallKernel) -> None:
    kernel.set_descriptor(0x10, descriptor(0x9A))
    kernel.set_descriptor(0x18, descriptor(0x92))
    kernel.run_user(interrupt(0x80))
    assert kernel.ram.read8(GDT - KERNEL + 0x15) == 0x9B
    assert kernel.ram.read8(GDT - KERNEL + 0x1D) == 0x93


# -- checks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "vector", "offset"),
    [(interrupt(0x20), 0x20, 0), (b"\x90\xcc", 3, 1), (bytes.fromhex("9090b07ffec0ce"), 4, 6)],
)
def test_int_n_of_ring_3_needs_a_gate_of_dpl_3(
    kernel: SmallKernel, code: bytes, vector: int, offset: int
) -> None:
    """#GP names the gate, and EIP is on the instruction, whose length differs."""
    kernel.set_gate(vector, gate(STUBS + 16 * vector, dpl=0))
    kernel.run_user(code)
    frame = only(kernel)
    assert (frame.vector, frame.error_code) == (13, vector << 3 | IN_IDT)
    assert frame.eip == USER_CODE + offset


def test_ring_0_may_use_any_gate_and_exceptions_ignore_the_dpl(kernel: SmallKernel) -> None:
    kernel.run_kernel(interrupt(0x20))
    assert only(kernel).vector == 0x20
    kernel.seen.clear()
    kernel.run_user(UNDEFINED)
    assert only(kernel).vector == 6


def bad_gate(data: bytes) -> Callable[[SmallKernel, int], None]:
    return lambda kernel, vector: kernel.set_gate(vector, data)


def short_idt(kernel: SmallKernel, vector: int) -> None:
    """Lower the limit so that it cuts off the last byte of the gate, and load it."""
    kernel.write(CODE + 0x800, struct.pack("<HI", vector * 8 + 6, IDT))
    kernel.run_kernel(bytes.fromhex("0f011d") + struct.pack("<I", CODE + 0x800) + HLT)


HANDLER = STUBS + 0x80 * 16
CHECKS: list[tuple[str, Callable[[SmallKernel, int], None], int, Callable[[int], int]]] = [
    ("beyond the limit", short_idt, 13, lambda vector: vector << 3 | IN_IDT),
    ("not present", bad_gate(gate(HANDLER, p=0, dpl=3)), 11, lambda v: v << 3 | IN_IDT),
    ("no gate", bad_gate(gate(HANDLER, kind=0xC, dpl=3)), 13, lambda v: v << 3 | IN_IDT),
    ("empty", bad_gate(bytes(8)), 13, lambda v: v << 3 | IN_IDT),
    ("null selector", bad_gate(gate(HANDLER, selector=3, dpl=3)), 13, lambda _: 0),
    ("beyond the GDT", bad_gate(gate(HANDLER, selector=0x40, dpl=3)), 13, lambda _: 0x40),
    ("in an empty LDT", bad_gate(gate(HANDLER, selector=0xC, dpl=3)), 13, lambda _: 0xC),
    ("a data segment", bad_gate(gate(HANDLER, selector=0x1B, dpl=3)), 13, lambda _: 0x18),
    ("a system segment", bad_gate(gate(HANDLER, selector=0x30, dpl=3)), 13, lambda _: 0x30),
]


@pytest.mark.parametrize(("name", "spoil", "vector", "error"), CHECKS, ids=[c[0] for c in CHECKS])
def test_checks_of_the_gate_for_int_n(
    kernel: SmallKernel,
    name: str,
    spoil: Callable[[SmallKernel, int], None],
    vector: int,
    error: Callable[[int], int],
) -> None:
    spoil(kernel, 0x80)
    kernel.seen.clear()
    kernel.run_user(interrupt(0x80))
    frame = only(kernel)
    assert (frame.vector, frame.error_code, frame.eip) == (vector, error(0x80), USER_CODE)


@pytest.mark.parametrize(
    ("name", "spoil", "vector", "error"), CHECKS[1:], ids=[c[0] for c in CHECKS[1:]]
)
def test_checks_of_the_gate_for_an_exception_say_external(
    kernel: SmallKernel,
    name: str,
    spoil: Callable[[SmallKernel, int], None],
    vector: int,
    error: Callable[[int], int],
) -> None:
    spoil(kernel, 6)
    kernel.run_user(UNDEFINED)
    frame = only(kernel)
    assert (frame.vector, frame.error_code, frame.eip) == (vector, error(6) | EXT, USER_CODE)


def test_a_handler_segment_that_is_not_present(kernel: SmallKernel) -> None:
    kernel.set_descriptor(DPL3_CODE, descriptor(0x1A))
    kernel.set_gate(0x80, gate(HANDLER, selector=DPL3_CODE, dpl=3))
    kernel.run_user(interrupt(0x80))
    assert (only(kernel).vector, only(kernel).error_code) == (11, DPL3_CODE & ~3)


def test_a_handler_may_not_be_less_privileged(kernel: SmallKernel) -> None:
    kernel.set_gate(0x80, gate(HANDLER, selector=DPL3_CODE, dpl=3))
    kernel.run_kernel(interrupt(0x80))
    assert (only(kernel).vector, only(kernel).error_code) == (13, DPL3_CODE & ~3)


def test_a_handler_beyond_the_limit_of_its_segment(kernel: SmallKernel) -> None:
    kernel.set_descriptor(DPL3_CODE, descriptor(0x9A, limit=0xFFF, flags=4))
    kernel.set_gate(0x80, gate(HANDLER, selector=DPL3_CODE, dpl=3))
    kernel.run_user(interrupt(0x80))
    assert (only(kernel).vector, only(kernel).error_code) == (13, 0)


@pytest.mark.parametrize("selector", [DPL3_CODE, KERNEL_CS])
def test_a_handler_in_ring_3_uses_the_stack_in_use(kernel: SmallKernel, selector: int) -> None:
    """A segment of DPL 3, and a conforming one of DPL 0, which runs with the caller's CPL."""
    if selector == KERNEL_CS:
        selector = DPL3_CODE & ~3
        kernel.set_descriptor(selector, descriptor(0x9E))
    kernel.set_gate(0x21, gate(USER_CODE + 0x40, selector=selector, dpl=3))
    kernel.run_user((interrupt(0x21) + SPIN).ljust(0x40, b"\x90") + interrupt(0x80))
    frame = only(kernel)
    assert (frame.vector, frame.cs) == (0x80, DPL3_CODE)
    assert frame.esp == USER_STACK_TOP - 12
    pushed = [kernel.ram.read32(0x22000 - 12 + 4 * n) for n in range(3)]
    assert pushed == [USER_CODE + 2, USER_CS, 0x202]


def test_a_stack_of_ring_3_that_ring_3_cannot_write(kernel: SmallKernel) -> None:
    """The push for a handler in ring 3 is an access of ring 3: error code 7, not 3."""
    kernel.set_gate(0x21, gate(USER_CODE, selector=DPL3_CODE, dpl=3))
    code = b"\xbc" + struct.pack("<I", STACK_TOP) + interrupt(0x21)
    kernel.run_user(code)
    frame = only(kernel)
    assert (frame.vector, frame.error_code, frame.eip) == (14, 7, USER_CODE + 5)
    assert kernel.cpu.read_cr2() == STACK_TOP - 12


STACKS = [
    ("null", 0, None, 10, 0),
    ("beyond the GDT", 0x48, None, 10, 0x48),
    ("ring 3's selector", 0x1B, None, 10, 0x18),
    ("ring 3's segment", 0x38, descriptor(0xF2), 10, 0x38),
    ("code", 0x38, descriptor(0x9A), 10, 0x38),
    ("read-only", 0x38, descriptor(0x90), 10, 0x38),
    ("not present", 0x38, descriptor(0x12), 12, 0x38),
    ("too small", 0x38, descriptor(0x92, limit=0xFFFF, flags=4), 12, 0x38),
    ("expand-down", 0x38, descriptor(0x96, limit=0xFFFFF), 12, 0x38),
]


@pytest.mark.parametrize(
    ("name", "selector", "segment", "vector", "error_code"), STACKS, ids=[s[0] for s in STACKS]
)
def test_checks_of_the_inner_stack(
    kernel: SmallKernel,
    name: str,
    selector: int,
    segment: bytes | None,
    vector: int,
    error_code: int,
) -> None:
    """The handler of #TS and #SS runs in ring 3 here, as any stack of ring 0 would fail too."""
    if segment is not None:
        kernel.set_descriptor(selector, segment)
    kernel.write(TSS + 8, struct.pack("<I", selector))
    for number in (10, 12):
        kernel.set_gate(number, gate(USER_CODE + 0x40, selector=USER_CS))
    kernel.run_user(interrupt(0x80).ljust(0x40, b"\x90") + SPIN, max_instructions=2000)
    words = [kernel.ram.read32(0x22000 - 16 + 4 * n) for n in range(4)]
    assert words == [error_code, USER_CODE, USER_CS, 0x202 | RF]
    assert kernel.cpu.registers.eip == USER_CODE + 0x40


def test_a_tss_too_short_for_the_stack_of_ring_0(kernel: SmallKernel) -> None:
    kernel.set_descriptor(TSS_SELECTOR, descriptor(0x89, base=TSS, limit=8, flags=0))
    kernel.run_kernel(mov_eax(TSS_SELECTOR) + bytes.fromhex("0f00d8") + HLT)
    kernel.set_gate(10, gate(USER_CODE + 0x40, selector=USER_CS))
    kernel.run_user(interrupt(0x80).ljust(0x40, b"\x90") + SPIN, max_instructions=2000)
    assert kernel.ram.read32(0x22000 - 16) == TSS_SELECTOR
