# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions inside of exceptions, and what the delivery remembers."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cpu import Stop
from harness.traps import Delivery
from tests.harness.cpu.small_kernel import (
    CODE,
    FREE_VA,
    GDT,
    HLT,
    IDT,
    KERNEL,
    KERNEL_CS,
    OUT,
    SPIN,
    STACK_TOP,
    STUBS,
    TSS,
    TSS_SELECTOR,
    USER_CODE,
    USER_CS,
    Frame,
    SmallKernel,
    absent,
    gate,
    interrupt,
    load_eax,
    push,
)
from tests.harness.cpu.test_traps import (
    ALWAYS_GP,
    DIVIDE_BY_ZERO,
    EXT,
    HANDLER,
    IN_IDT,
    UNDEFINED,
    bad_gate,
    only,
)

pytestmark = pytest.mark.usefixtures("either_release")

# -- double and triple faults ---------------------------------------------------------------


@pytest.mark.parametrize("run", ["run_kernel", "run_user"])
def test_contributory_after_page_fault_is_a_double_fault(kernel: SmallKernel, run: str) -> None:
    absent(kernel, 14)
    getattr(kernel, run)(load_eax(0x08123456))
    frame = only(kernel)
    assert (frame.vector, frame.error_code) == (8, 0)
    assert frame.eip == (USER_CODE if run == "run_user" else CODE + 5)
    assert kernel.cpu.read_cr2() == 0x08123456


@pytest.mark.parametrize("code", [ALWAYS_GP, DIVIDE_BY_ZERO])
def test_contributory_after_contributory_is_a_double_fault(
    kernel: SmallKernel, code: bytes
) -> None:
    absent(kernel, 0, 13)
    kernel.run_user(code)
    assert (only(kernel).vector, only(kernel).error_code) == (8, 0)


def test_contributory_after_benign_is_delivered(kernel: SmallKernel) -> None:
    absent(kernel, 6)
    kernel.run_user(UNDEFINED)
    assert (only(kernel).vector, only(kernel).error_code) == (11, 6 << 3 | IN_IDT | EXT)


def split_idt(kernel: SmallKernel, first_reachable: int) -> int:
    """Move the IDT so that only gates from ``first_reachable`` on lie on a mapped page."""
    page = KERNEL + 0x50000
    base = page - 8 * first_reachable
    kernel.write(page, kernel.ram.read(IDT - KERNEL + 8 * first_reachable, 0x800))
    kernel.set_pte(base, 0)
    kernel.cpu.flush_tlb_global()
    kernel.write(CODE + 0x800, struct.pack("<HI", 0x7FF, base))
    kernel.run_kernel(bytes.fromhex("0f011d") + struct.pack("<I", CODE + 0x800) + HLT)
    return base


def test_page_fault_after_contributory_is_delivered(either_kernel: SmallKernel) -> None:
    base = split_idt(either_kernel, 14)
    either_kernel.run_user(ALWAYS_GP)
    frame = only(either_kernel)
    assert (frame.vector, frame.error_code, frame.eip) == (14, 0, USER_CODE + 5)
    assert either_kernel.cpu.read_cr2() == base + 13 * 8


def test_page_fault_after_page_fault_is_a_double_fault(kernel: SmallKernel) -> None:
    """Here the second comes from the stack of ring 0; the handler of #DF runs in ring 3."""
    kernel.write(TSS + 4, struct.pack("<I", FREE_VA + 0x1000))
    kernel.set_gate(8, gate(USER_CODE + 0x40, selector=USER_CS))
    code = load_eax(0x08123456).ljust(0x40, b"\x90") + SPIN
    kernel.run_user(code, max_instructions=2000)
    assert [kernel.ram.read32(0x22000 - 16 + 4 * n) for n in range(2)] == [0, USER_CODE]
    assert kernel.cpu.read_cr2() == FREE_VA + 0x1000 - 24


def test_a_page_fault_on_the_inner_stack_carries_a_supervisor_code(kernel: SmallKernel) -> None:
    """The access is the CPU's own, in ring 0's name, though ring 3 was running."""
    kernel.write(TSS + 4, struct.pack("<I", FREE_VA + 0x1000))
    kernel.set_gate(14, gate(USER_CODE + 0x40, selector=USER_CS))
    kernel.run_user(interrupt(0x80).ljust(0x40, b"\x90") + SPIN, max_instructions=2000)
    assert [kernel.ram.read32(0x22000 - 16 + 4 * n) for n in range(2)] == [2, USER_CODE]


@pytest.mark.parametrize("ring", [0, 3])
def test_a_fault_inside_a_double_fault_shuts_down(kernel: SmallKernel, ring: int) -> None:
    absent(kernel, 8, 13, 14)
    run = kernel.run_user if ring else kernel.run_kernel
    reason = run(load_eax(0x08123456))
    assert reason.died
    assert reason.detail.startswith("#PF(")
    assert reason.detail.endswith("then #DF(0x0), then triple fault")
    assert kernel.seen == []


def test_the_cpu_is_usable_after_a_shutdown(kernel: SmallKernel) -> None:
    saved = kernel.ram.read(IDT - KERNEL, 0x800)
    absent(kernel, 8, 13, 14)
    assert kernel.run_user(load_eax(0x08123456)).died
    kernel.write(IDT, saved)
    kernel.run_kernel(load_eax(0x08123456))
    assert only(kernel).vector == 14


def test_no_idt_at_all_shuts_down(kernel: SmallKernel) -> None:
    kernel.write(CODE + 0x800, bytes(6))
    reason = kernel.run_kernel(
        bytes.fromhex("0f011d") + struct.pack("<I", CODE + 0x800) + interrupt(0x80)
    )
    assert reason.died
    assert "triple fault" in reason.detail


def test_an_idt_outside_ram_names_the_physical_address(kernel: SmallKernel) -> None:
    kernel.set_pte(IDT, 0xFEC00000 | 3)
    kernel.cpu.flush_tlb_global()
    reason = kernel.run_kernel(interrupt(0x80))
    assert (reason.died, reason.paddr) == (True, 0xFEC00000 + 0x400)
    assert "int 0x80" in reason.detail


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (bad_gate(gate(0, kind=5, dpl=3, selector=TSS_SELECTOR)), "task gate"),
        (bad_gate(gate(HANDLER, kind=6, dpl=3)), "16-bit interrupt gate"),
    ],
)
def test_what_is_not_modelled_says_so(
    kernel: SmallKernel, spoil: Callable[[SmallKernel, int], None], word: str
) -> None:
    spoil(kernel, 0x80)
    reason = kernel.run_user(interrupt(0x80))
    assert reason.died
    assert word in reason.detail


def test_virtual_8086_mode_says_so(kernel: SmallKernel) -> None:
    words = (0, 0, 0, 0, 0, 0x1000, 0x20202 | 3 << 12, 0, 0x100)
    reason = kernel.run_kernel(b"".join(map(push, words)) + b"\xcf", timeout_seconds=5)
    assert reason.died
    assert "virtual-8086" in reason.detail


# -- what is remembered ---------------------------------------------------------------------


def test_changes_of_the_tables_are_seen_at_the_next_trap(kernel: SmallKernel) -> None:
    """A gate, the stack of the TSS, and the frame behind the IDT change while the guest runs."""
    copy = 0x60000
    kernel.ram.write(copy, kernel.ram.read(IDT - KERNEL, 4096))
    kernel.ram.write(copy + 8 * 0x80, gate(STUBS + 16 * 0x22, dpl=3))

    def change(frame: Frame) -> None:
        if frame.vector == 0x22:
            kernel.cpu.stop()
        elif len(kernel.seen) == 3:
            kernel.set_gate(0x80, gate(STUBS + 16 * 0x21, dpl=3))
        elif len(kernel.seen) == 6:
            kernel.write(TSS + 4, struct.pack("<I", STACK_TOP - 0x100))
        elif len(kernel.seen) == 9:
            kernel.set_pte(IDT, copy | 3)
            kernel.cpu.flush_tlb_one(IDT)

    kernel.on_frame = change
    kernel.run_user(interrupt(0x80) + bytes.fromhex("ebfc"))
    assert [frame.vector for frame in kernel.seen] == [0x80] * 3 + [0x21] * 6 + [0x22]
    stacks = [frame.address for frame in kernel.seen]
    assert stacks == [STACK_TOP - 20] * 6 + [STACK_TOP - 0x114] * 4


class Forgetful(Delivery):
    """Decides every trap anew."""

    def deliver(self, vector: int, error_code: int, software: bool) -> None:
        self._known.clear()
        self._memory._known.clear()
        self._redelivery._known.clear()
        super().deliver(vector, error_code, software)


SYSTEM_WORDS = st.one_of(
    st.integers(0, 511).map(lambda n: IDT - KERNEL + 4 * n),
    st.sampled_from(
        [IDT - KERNEL + 8 * v + 4 * h for v in (6, 8, 11, 13, 14, 0x80) for h in (0, 1)]
    ),
    st.integers(0, 15).map(lambda n: GDT - KERNEL + 4 * n),
    st.integers(0, 25).map(lambda n: TSS - KERNEL + 4 * n),
    st.sampled_from([0x2000 + 4 * n for n in (4, 5, 6, 7)]),
)
SYSTEM_VALUES = st.one_of(
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from([0, 0x8E00, 0xEE00, 0x6003, 0x7003, 0x5001, KERNEL_CS << 16, STACK_TOP - 8]),
)
CHANGES = st.lists(st.tuples(SYSTEM_WORDS, SYSTEM_VALUES), max_size=6)


def hostile_run(
    changes: list[tuple[int, int]], forgetful: bool
) -> tuple[str, list[Frame], dict[str, int]]:
    """Change one word of the system tables at each trap; how it all ends."""
    kernel = SmallKernel()
    if forgetful:
        kernel.cpu.on_trap = Forgetful(kernel.cpu).deliver
    pending = list(changes)

    def change(frame: Frame) -> None:
        if not pending:
            kernel.cpu.stop()
            return
        address, value = pending.pop()
        kernel.ram.write32(address, value)
        kernel.cpu.flush_tlb_global()

    kernel.on_frame = change
    reason = kernel.run_user(interrupt(0x80) + bytes.fromhex("ebfc"), max_instructions=20_000)
    return str(reason), kernel.seen[:50], kernel.cpu.registers.snapshot()


@settings(max_examples=100, deadline=None)
@given(CHANGES)
def test_hostile_tables_end_in_a_reason_and_remembering_changes_nothing(
    changes: list[tuple[int, int]],
) -> None:
    assert hostile_run(changes, forgetful=False) == hostile_run(changes, forgetful=True)


def test_out_in_a_handler_is_an_instruction_like_others() -> None:
    """The stub's hypercall and a trap may alternate for long without mixing."""
    kernel = SmallKernel()
    kernel.cpu.on_hypercall = lambda: None
    # mov $2000,%ecx; L: out; int $0x80; loop L; hlt
    code = b"\xb9\xd0\x07\0\0" + OUT + interrupt(0x80) + bytes.fromhex("e2fa") + HLT
    assert kernel.run_kernel(code).kind is Stop.HALTED
    assert kernel.cpu.registers.ecx == 0
