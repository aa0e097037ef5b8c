# SPDX-License-Identifier: GPL-2.0-or-later
"""The TLB of the emulated CPU, and its MMU when it is asked."""

import numpy as np
import pytest

from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    PTE_A,
    PTE_D,
    Access,
    ControlRegisters,
    Ring,
)
from harness.cpu import CpuError, Stop
from harness.cpu.unicorn_cpu import UnicornCpu
from kernel_model.ram import Ram
from tests.harness.cpu.small_kernel import (
    CODE,
    DATA,
    FREE_FRAME,
    FREE_VA,
    HLT,
    KERNEL,
    KERNEL_PTES,
    OUT,
    PGD,
    SPIN,
    STACK_TOP,
    USER_CODE,
    SmallKernel,
    interrupt,
    load_eax,
    mov_eax,
    store_eax,
)
from tests.harness.cpu.test_unicorn_cpu import (
    flat_cpu,
)

# -- the TLB and the kernel model's processor -----------------------------------------------


def read_twice() -> bytes:
    """Read FREE_VA, trap, read it again, trap."""
    return load_eax(FREE_VA) + interrupt(0x80) + load_eax(FREE_VA) + interrupt(0x80)


@pytest.mark.parametrize(
    ("flush", "expected"),
    [
        ("none", 1),
        ("flush_tlb_one", 2),
        ("flush_tlb_all", 2),
        ("flush_tlb_global", 2),
        ("load_cr3", 2),
        ("other page", 1),
    ],
)
def test_what_ring_3_reads_after_a_changed_pte(
    either_kernel: SmallKernel, flush: str, expected: int
) -> None:
    kernel = either_kernel
    kernel.ram.write32(FREE_FRAME, 1)
    kernel.ram.write32(FREE_FRAME + 0x1000, 2)
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    values: list[int] = []

    def change(frame: object) -> None:
        values.append(kernel.saved_eax())
        kernel.set_pte(FREE_VA, FREE_FRAME + 0x1000 | 7)
        cpu = kernel.cpu
        actions = {
            "none": lambda: None,
            "flush_tlb_one": lambda: cpu.flush_tlb_one(FREE_VA),
            "other page": lambda: cpu.flush_tlb_one(FREE_VA + 0x1000),
            "flush_tlb_all": cpu.flush_tlb_all,
            "flush_tlb_global": cpu.flush_tlb_global,
            "load_cr3": lambda: cpu.load_cr3(PGD),
        }
        if len(values) == 2:
            cpu.stop()
        else:
            actions[flush]()

    kernel.on_frame = change
    assert kernel.run_user(read_twice()).kind is Stop.HYPERCALL
    assert values == [1, expected]


def test_flushing_one_page_under_an_instruction_limit_keeps_the_limit(kernel: SmallKernel) -> None:
    kernel.on_frame = lambda _frame: kernel.cpu.flush_tlb_one(FREE_VA)
    # each round: int $0x80 and its stub, then a jump
    reason = kernel.run_user(interrupt(0x80) + bytes.fromhex("ebfc"), max_instructions=1000)
    assert reason.kind is Stop.LIMIT_INSTRUCTIONS
    assert 100 < len(kernel.seen) < 200


def test_a_stop_before_a_flush_is_not_forgotten(kernel: SmallKernel) -> None:
    def stop_and_flush(_frame: object) -> None:
        kernel.cpu.stop()
        kernel.cpu.flush_tlb_one(FREE_VA)

    kernel.on_frame = stop_and_flush
    assert kernel.run_user(interrupt(0x80) + SPIN).kind is Stop.HYPERCALL


def test_a_flush_in_a_hypercall_leaves_the_guest_undisturbed(kernel: SmallKernel) -> None:
    kernel.on_frame = lambda frame: (
        kernel.cpu.stop() if frame.vector == 3 else kernel.cpu.flush_tlb_one(FREE_VA)
    )
    # mov $1000,%ecx; L: int $0x80; add $3,%ebx; loop L; int3
    kernel.run_user(bytes.fromhex("b9e8030000 cd80 83c303 e2f9 cc"))
    assert kernel.cpu.registers.ebx == 3000
    assert len(kernel.seen) == 1001


def test_reads_of_the_control_registers(kernel: SmallKernel) -> None:
    assert kernel.cpu.read_cr3() == PGD
    assert kernel.cpu.read_cr4() == 0
    kernel.run_kernel(load_eax(0x08123456))
    assert kernel.cpu.read_cr2() == 0x08123456
    assert kernel.cpu.control == ControlRegisters(CR0_PE | CR0_WP | CR0_PG, PGD)


def test_cr3_written_in_a_hypercall_is_the_guests(kernel: SmallKernel) -> None:
    """And the registers changed before it are not lost."""
    other = 0x50000
    for n in range(0, 4096, 4):
        kernel.ram.write32(other + n, kernel.ram.read32(PGD + n))

    def switch() -> None:
        kernel.cpu.registers.ebx = 77
        kernel.cpu.load_cr3(other)
        assert kernel.cpu.read_cr3() == other

    kernel.cpu.on_hypercall = switch
    # mov %cr3,%esi
    kernel.run_kernel(OUT + bytes.fromhex("0f20de") + HLT)
    assert (kernel.cpu.registers.ebx, kernel.cpu.registers.esi) == (77, other)


def test_pse_and_pge_switched_on_in_a_hypercall(kernel: SmallKernel) -> None:
    """The direct map becomes a 4 MiB page under the running kernel, as ``paging_init`` does."""

    def switch(_frame: object) -> None:
        kernel.ram.write32(PGD + 4 * (KERNEL >> 22), 0x1E3)
        kernel.cpu.write_cr4(kernel.cpu.read_cr4() | CR4_PSE | CR4_PGE)
        kernel.cpu.flush_tlb_all()
        kernel.ram.fill(KERNEL_PTES, 4096)
        kernel.on_frame = None

    kernel.on_frame = switch
    kernel.run_kernel(interrupt(0x80) + load_eax(DATA) + interrupt(0x80))
    assert [frame.vector for frame in kernel.seen] == [0x80, 0x80]
    assert kernel.saved_eax() == kernel.read32(DATA)


def test_two_levels_become_pae_in_a_hypercall(kernel: SmallKernel) -> None:
    """``load_cr3`` of tables in the other format, then CR4.PAE: no fetch may lie between."""
    pgd, pmd = 0x60000, 0x61000
    kernel.ram.write64(pgd + 24, pmd | 1)
    kernel.ram.write64(pmd, 0 | 0x1E3)
    kernel.ram.write64(pmd + 8, 0x200000 | 0x1E3)

    def switch(_frame: object) -> None:
        kernel.cpu.load_cr3(pgd)
        kernel.cpu.write_cr4(kernel.cpu.read_cr4() | CR4_PAE)
        kernel.cpu.flush_tlb_global()
        kernel.on_frame = None

    kernel.on_frame = switch
    kernel.ram.write32(0x200010, 0x5A)
    code = interrupt(0x80) + load_eax(KERNEL + 0x200010) + interrupt(0x80)
    assert kernel.run_kernel(code).kind is Stop.HYPERCALL
    assert [frame.vector for frame in kernel.seen] == [0x80, 0x80]
    assert kernel.saved_eax() == 0x5A
    assert kernel.cpu.control.pae


def test_code_written_from_outside_runs_once_it_is_invalidated(kernel: SmallKernel) -> None:
    """By physical address, and only the code that lies there."""
    kernel.run_user(mov_eax(1) + interrupt(0x80))
    assert kernel.saved_eax() == 1
    patch = mov_eax(2)
    kernel.write(USER_CODE, patch)
    kernel.cpu.start(CODE)
    assert kernel.saved_eax() == 1, "stale code, or this test proves nothing"
    kernel.cpu.snoop(0x20000, len(patch))
    kernel.cpu.start(CODE)
    assert kernel.saved_eax() == 2


def test_code_above_4_gib_can_be_invalidated() -> None:
    ram = Ram((4 << 30) + (2 << 20), [(0, 1 << 20), (4 << 30, (4 << 30) + (2 << 20))])
    pgd, pmd = 0x1000, 0x2000
    ram.write64(pgd, pmd | 1)
    ram.write64(pmd, 4 << 30 | 0xE3)
    cpu = UnicornCpu(ram)
    cpu.load_control(ControlRegisters(CR0_PE | CR0_PG, pgd, CR4_PAE))
    for value in (1, 2):
        ram.write((4 << 30) + 0x8000, mov_eax(value) + HLT)
        cpu.snoop((4 << 30) + 0x8000, 6)
        assert cpu.start(0x8000).kind is Stop.HALTED
        assert cpu.registers.eax == value


def test_code_can_be_invalidated_from_a_handler(kernel: SmallKernel) -> None:
    def patch(_frame: object) -> None:
        kernel.write(USER_CODE, mov_eax(len(kernel.seen)))
        if len(kernel.seen) % 2:
            kernel.cpu.invalidate_all_code()
        kernel.cpu.snoop(0x20000, 5)
        if len(kernel.seen) == 50:
            kernel.cpu.stop()

    kernel.on_frame = patch
    code = mov_eax(0) + interrupt(0x80)
    kernel.run_user(code + b"\xeb" + bytes([256 - len(code) - 2]))
    assert kernel.saved_eax() == 49


# -- asking the MMU -------------------------------------------------------------------------


def test_translate_in_any_ring(either_kernel: SmallKernel) -> None:
    cpu = either_kernel.cpu
    either_kernel.set_pte(FREE_VA, FREE_FRAME | 5)
    assert cpu.translate(DATA + 3) == DATA + 3 - KERNEL
    assert cpu.translate(DATA, Access.READ, Ring.USER) is None
    assert cpu.translate(FREE_VA + 9, Access.READ, Ring.USER) == FREE_FRAME + 9
    assert cpu.translate(FREE_VA, Access.WRITE, Ring.USER) is None
    assert cpu.translate(FREE_VA, Access.WRITE) is None, "CR0.WP"
    assert cpu.translate(FREE_VA, Access.FETCH, Ring.USER) == FREE_FRAME
    assert cpu.translate(FREE_VA + 0x1000) is None


def test_asking_leaves_no_trace(either_kernel: SmallKernel) -> None:
    kernel = either_kernel
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    kernel.run_kernel(load_eax(0x08123456))
    before = kernel.ram.read(0, 0x40000)
    state = kernel.cpu.registers.snapshot()
    vas = np.arange(0, 1 << 32, 0x1000 * 31, dtype=np.uint64)
    for ring in Ring:
        for access in Access:
            kernel.cpu.translate(FREE_VA, access, ring)
            kernel.cpu.translate(0x500, access, ring)
            kernel.cpu.translate_many(vas, access, ring)
            kernel.cpu.translate_many(np.array([FREE_VA], np.uint32), access, ring)
    assert kernel.ram.read(0, 0x40000) == before
    assert kernel.cpu.read_cr2() == 0x08123456
    assert kernel.cpu.registers.snapshot() == state
    assert kernel.cpu.ring == 0


@pytest.mark.parametrize("many", [False, True])
def test_a_store_after_asking_still_marks_the_page_dirty(kernel: SmallKernel, many: bool) -> None:
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    if many:
        kernel.cpu.translate_many(np.array([FREE_VA], np.uint64), Access.WRITE, Ring.USER)
    else:
        kernel.cpu.translate(FREE_VA, Access.WRITE, Ring.USER)
    assert kernel.pte(FREE_VA) == FREE_FRAME | 7
    kernel.run_user(store_eax(FREE_VA) + interrupt(0x80))
    assert kernel.pte(FREE_VA) == FREE_FRAME | 7 | PTE_A | PTE_D


@pytest.mark.parametrize("many", [False, True])
def test_asking_shows_a_missing_flush(either_kernel: SmallKernel, many: bool) -> None:
    kernel = either_kernel
    cpu = kernel.cpu
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    kernel.run_user(load_eax(FREE_VA) + interrupt(0x80))
    kernel.set_pte(FREE_VA, FREE_FRAME + 0x1000 | 7)

    def ask() -> int | None:
        if many:
            return int(cpu.translate_many(np.array([FREE_VA]), Access.READ, Ring.USER)[0])
        return cpu.translate(FREE_VA, Access.READ, Ring.USER)

    assert [ask(), ask()] == [FREE_FRAME, FREE_FRAME], "asking twice does not lose it"
    cpu.flush_tlb_one(FREE_VA)
    assert ask() == FREE_FRAME + 0x1000


def test_many_agree_with_one(either_kernel: SmallKernel) -> None:
    cpu = either_kernel.cpu
    vas = np.array([0, FREE_VA, DATA, DATA + 1, USER_CODE, 0xFFFFFFFF, STACK_TOP], np.uint64)
    for ring in Ring:
        for access in Access:
            one = [cpu.translate(int(va), access, ring) for va in vas]
            expected = [-1 if paddr is None else paddr for paddr in one]
            assert cpu.translate_many(vas, access, ring).tolist() == expected


def test_a_block_of_questions_restores_at_its_end(kernel: SmallKernel) -> None:
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    with kernel.cpu.asking():
        kernel.cpu.translate_many(np.array([FREE_VA]), Access.WRITE)
        assert kernel.pte(FREE_VA) & PTE_D
        with pytest.raises(CpuError, match="already open"), kernel.cpu.asking():
            pass
    assert kernel.pte(FREE_VA) == FREE_FRAME | 7


def test_asking_inside_a_handler_does_not_raise_a_phantom_fault(kernel: SmallKernel) -> None:
    """The emulator remembers a failed question as an exception to come."""

    def ask(frame: object) -> None:
        assert kernel.cpu.translate(0x400) is None
        assert kernel.cpu.translate(FREE_VA, Access.READ, Ring.USER) is None
        if len(kernel.seen) == 20:
            kernel.cpu.stop()

    kernel.on_frame = ask
    kernel.run_user(interrupt(0x80) + bytes.fromhex("ebfc"))
    assert {frame.vector for frame in kernel.seen} == {0x80}


def test_a_mapped_device_translates(kernel: SmallKernel) -> None:
    kernel.set_pte(FREE_VA, 0xFEC00000 | 7)
    assert kernel.cpu.translate(FREE_VA + 0x10) == 0xFEC00010
    assert kernel.cpu.translate_many(np.array([FREE_VA]))[0] == 0xFEC00000


def test_without_paging_addresses_are_physical() -> None:
    cpu = flat_cpu(HLT)
    assert cpu.translate(0x1234, Access.WRITE, Ring.USER) == 0x1234
    assert cpu.translate_many(np.array([0, 0xFFFFF000])).tolist() == [0, 0xFFFFF000]
