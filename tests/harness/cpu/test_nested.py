# SPDX-License-Identifier: GPL-2.0-or-later
"""The CPU runs guest code while the guest waits in a hypercall, and nothing of it remains.

These are facts about Unicorn 2.1.4 on which constructors rest: ``uc_emu_start`` inside its own
interrupt hook, thousands of times, with traps inside, as deep as wanted.
"""

import pytest

from harness.cpu import CpuError, Stop, StopReason
from tests.harness.cpu.small_kernel import (
    DATA,
    FREE_FRAME,
    FREE_VA,
    HLT,
    KERNEL,
    SPIN,
    Frame,
    SmallKernel,
    interrupt,
    load_eax,
    mov_eax,
    store_eax,
)

NESTED = KERNEL + 0x50000
COUNTER = KERNEL + 0x60000
MARK = DATA + 0x100
HOLE = 0x200000
CLOBBER = bytes.fromhex("31db 31c9 31d2 31f6 31ff 31ed fd")  # all registers 0; std
INCREMENT = b"\xff\x05" + COUNTER.to_bytes(4, "little")
DONE = 0x81


@pytest.fixture
def kernel() -> SmallKernel:
    kernel = SmallKernel()
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    return kernel


def nest(kernel: SmallKernel, code: bytes) -> StopReason:
    """Run ``code`` nested; ``int $DONE`` in it is its end."""
    kernel.write(NESTED, code)
    kernel.cpu.snoop(NESTED - KERNEL, len(code))
    return kernel.cpu.start_nested(NESTED)


def serve(kernel: SmallKernel, code: bytes, ends: list[StopReason]) -> None:
    """Have ``int $0x80`` served by a nested run of ``code``."""

    def on_frame(frame: Frame) -> None:
        if frame.vector == DONE:
            kernel.cpu.stop()
        elif frame.vector == 0x80:
            ends.append(nest(kernel, code))

    kernel.on_frame = on_frame


@pytest.mark.parametrize("ring", [0, 3])
def test_registers_are_as_before(kernel: SmallKernel, ring: int) -> None:
    ends: list[StopReason] = []
    serve(kernel, CLOBBER + mov_eax(7) + store_eax(MARK) + interrupt(DONE), ends)
    program = mov_eax(0x1234) + interrupt(0x80) + interrupt(0x82)
    frames: list[dict[str, int]] = []
    inner = kernel.on_frame
    assert inner is not None

    def on_frame(frame: Frame) -> None:
        before = kernel.cpu.registers.snapshot()
        inner(frame)
        if frame.vector == 0x80:
            assert kernel.cpu.registers.snapshot() == before
        if frame.vector in (0x82, 13):
            frames.append({"eax": kernel.saved_eax()})
            kernel.cpu.stop()

    kernel.on_frame = on_frame
    run = kernel.run_user if ring else kernel.run_kernel
    assert run(program).kind is Stop.HYPERCALL
    assert frames == [{"eax": 0x1234}]
    assert [end.kind for end in ends] == [Stop.HYPERCALL]
    assert kernel.read32(MARK) == 7


def test_thousands_of_nested_runs_with_faults_inside(kernel: SmallKernel) -> None:
    """A fault in a nested run is a page fault each time, and never becomes a double fault."""
    count = 3000
    kernel.set_pte(FREE_VA, 0)
    fault = load_eax(FREE_VA)
    nested = fault + INCREMENT + interrupt(DONE)
    kernel.write(NESTED, nested)
    faults: list[tuple[int, int | None, int]] = []

    def on_frame(frame: Frame) -> None:
        if frame.vector == 0x80:
            assert kernel.cpu.start_nested(NESTED).kind is Stop.HYPERCALL
        elif frame.vector == 14:
            faults.append((frame.vector, frame.error_code, kernel.cpu.read_cr2()))
            kernel.skip(frame, len(fault))
        else:
            kernel.cpu.stop()

    kernel.on_frame = on_frame
    loop = b"\xb9" + count.to_bytes(4, "little") + interrupt(0x80) + bytes.fromhex("49 75fb") + HLT
    assert kernel.run_kernel(loop).kind is Stop.HALTED
    assert kernel.read32(COUNTER) == count
    assert faults == [(14, 0, FREE_VA)] * count


@pytest.mark.parametrize("depth", [1, 16, 40])
def test_nested_runs_nest(kernel: SmallKernel, depth: int) -> None:
    kernel.write(NESTED, INCREMENT + interrupt(0x80) + interrupt(DONE))
    deep = [0]

    def on_frame(frame: Frame) -> None:
        if frame.vector == 0x80 and deep[0] < depth:
            deep[0] += 1
            assert kernel.cpu.start_nested(NESTED).kind is Stop.HYPERCALL
        elif frame.vector == DONE:
            kernel.cpu.stop()

    kernel.on_frame = on_frame
    assert kernel.run_kernel(interrupt(0x80) + HLT).kind is Stop.HALTED
    assert kernel.read32(COUNTER) == depth


def test_flushes_inside_a_nested_run(kernel: SmallKernel) -> None:
    """The outer run sees a translation that was changed, and flushed, while it waited."""
    frame = FREE_FRAME + 0x1000
    kernel.ram.write32(FREE_FRAME, 1)
    kernel.ram.write32(frame, 2)
    kernel.write(NESTED, interrupt(0x83) + interrupt(DONE))

    def on_frame(trap: Frame) -> None:
        if trap.vector == 0x80:
            kernel.cpu.start_nested(NESTED)
        elif trap.vector == 0x83:
            kernel.set_pte(FREE_VA, frame | 7)
            kernel.cpu.flush_tlb_one(FREE_VA)
        else:
            kernel.cpu.stop()

    kernel.on_frame = on_frame
    code = load_eax(FREE_VA) + interrupt(0x80) + load_eax(FREE_VA) + store_eax(MARK) + HLT
    assert kernel.run_kernel(code).kind is Stop.HALTED
    assert kernel.read32(MARK) == 2


def test_a_nested_run_that_dies_leaves_the_cpu_there(kernel: SmallKernel) -> None:
    kernel.set_pte(FREE_VA, 0x40000000 | 7)
    ends: list[StopReason] = []
    seen: list[int] = []
    serve(kernel, load_eax(FREE_VA) + interrupt(DONE), ends)
    inner = kernel.on_frame
    assert inner is not None

    def on_frame(frame: Frame) -> None:
        inner(frame)
        seen.append(kernel.cpu.registers.eip)
        raise LookupError("the nested run died")

    kernel.on_frame = on_frame
    with pytest.raises(LookupError, match="nested run died"):
        kernel.run_kernel(interrupt(0x80) + HLT)
    assert ends[0].died
    assert ends[0].paddr == 0x40000000
    assert seen == [NESTED]


def test_an_exception_inside_ends_both_runs(kernel: SmallKernel) -> None:
    kernel.write(NESTED, interrupt(0x83))

    def on_frame(frame: Frame) -> None:
        if frame.vector == 0x83:
            raise LookupError("inside")
        kernel.cpu.start_nested(NESTED)

    kernel.on_frame = on_frame
    with pytest.raises(LookupError, match="inside"):
        kernel.run_kernel(interrupt(0x80) + HLT)
    kernel.on_frame = None
    assert kernel.run_kernel(interrupt(0x80)).kind is Stop.HYPERCALL


@pytest.mark.parametrize("limit", [{"timeout_seconds": 0.2}, {"max_instructions": 100_000}])
def test_the_limits_of_the_outer_run_hold(kernel: SmallKernel, limit: dict[str, float]) -> None:
    ends: list[StopReason] = []
    serve(kernel, SPIN, ends)
    assert kernel.run_kernel(interrupt(0x80) + SPIN, **limit).kind in (
        Stop.TIMEOUT,
        Stop.LIMIT_INSTRUCTIONS,
    )
    assert ends[0].kind in (Stop.TIMEOUT, Stop.LIMIT_INSTRUCTIONS)


def test_a_limit_on_instructions_still_ends_the_outer_run(kernel: SmallKernel) -> None:
    ends: list[StopReason] = []
    serve(kernel, INCREMENT + interrupt(DONE), ends)
    reason = kernel.run_kernel(interrupt(0x80) + SPIN, max_instructions=100_000)
    assert ends[0].kind is Stop.HYPERCALL
    assert reason.kind is Stop.LIMIT_INSTRUCTIONS


def test_nothing_nests_in_nothing(kernel: SmallKernel) -> None:
    with pytest.raises(CpuError, match="inside a hypercall"):
        kernel.cpu.start_nested(NESTED)
