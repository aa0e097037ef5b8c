# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of which the CPU was told that no code lies there; and a block that keeps the CPU."""

from harness.cpu import Stop
from tests.harness.cpu.small_kernel import (
    FREE_FRAME,
    FREE_VA,
    SmallKernel,
    interrupt,
    jump_eax,
    load_eax,
    mov_eax,
    store_eax,
)


def test_data_can_be_loaded_and_stored_and_a_fetch_ends_the_run() -> None:
    kernel = SmallKernel()
    kernel.cpu.never_execute(FREE_FRAME, FREE_FRAME + 0x1000)
    kernel.set_pte(FREE_VA, FREE_FRAME | 7)
    code = mov_eax(0x1234567) + store_eax(FREE_VA) + mov_eax(0) + load_eax(FREE_VA)
    assert kernel.run_user(code + interrupt(3)).kind is Stop.HYPERCALL
    assert kernel.ram.read32(FREE_FRAME) == 0x1234567
    reason = kernel.run_user(mov_eax(FREE_VA) + jump_eax())
    assert reason.died


def test_preserved_registers_and_cr2() -> None:
    kernel = SmallKernel()
    kernel.run_user(mov_eax(7) + load_eax(FREE_VA))
    cpu = kernel.cpu
    before, cr2 = cpu.registers.snapshot(), cpu.read_cr2()
    assert cr2 == FREE_VA
    with cpu.preserved():
        kernel.run_kernel(mov_eax(9) + load_eax(0x40000000))
        assert cpu.read_cr2() == 0x40000000
    assert (cpu.registers.snapshot(), cpu.read_cr2()) == (before, cr2)
