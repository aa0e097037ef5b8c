# SPDX-License-Identifier: GPL-2.0-or-later
"""The CPU behind its interface: runs and their ends, registers, flushes, questions, ports."""

import _thread
import threading
import time

import pytest

from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    EFER_NXE,
    PTE_NX,
    PTE_PS,
    Access,
    ControlRegisters,
    Ring,
)
from harness.cpu import CpuError, Stop, StopReason, create
from harness.cpu import context as context_module
from harness.cpu.unicorn_cpu import MODELS, UnicornCpu
from kernel_model.config import CPU_MODELS
from kernel_model.errors import BadInput
from kernel_model.ram import Ram
from tests.harness.cpu.small_kernel import (
    FREE_VA,
    HLT,
    KERNEL,
    KERNEL_CS,
    KERNEL_DS,
    OUT,
    SPIN,
    USER_CODE,
    SmallKernel,
    interrupt,
    jump_eax,
    load_eax,
    mov_eax,
    store_eax,
)

CPUID_EDX = {"pse": 1 << 3, "pae": 1 << 6, "pge": 1 << 13}
CPUID_EXTENDED_NX = 1 << 20


def flat_cpu(code: bytes, model: str = "pentium3") -> UnicornCpu:
    ram = Ram(1 << 20)
    ram.write(0x8000, code)
    return UnicornCpu(ram, model)


# -- models and the boot state --------------------------------------------------------------


@pytest.mark.parametrize("model", CPU_MODELS)
def test_cpuid_agrees_with_the_kernel_models_table(model: str) -> None:
    # mov $1,%eax; cpuid; mov %edx,%esi; mov $0x80000000,%eax; cpuid; mov %eax,%edi;
    # mov $0x80000001,%eax; cpuid; hlt
    code = "b801000000 0fa2 89d6 b800000080 0fa2 89c7 b801000080 0fa2 f4"
    cpu = flat_cpu(bytes.fromhex(code), model)
    assert cpu.start(0x8000).kind is Stop.HALTED
    registers, features = cpu.registers, CPU_MODELS[model]
    for name, bit in CPUID_EDX.items():
        assert bool(registers.esi & bit) == getattr(features, name), name
    extended = registers.edi >= 0x80000001
    assert (extended and bool(registers.edx & CPUID_EXTENDED_NX)) == features.nx


def test_all_models_of_the_kernel_model_exist() -> None:
    assert set(MODELS) == set(CPU_MODELS)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BadInput, match="386sx"):
        create(Ram(1 << 20), "386sx")
    with pytest.raises(BadInput, match="bochs"):
        create(Ram(1 << 20), name="bochs")


def test_it_starts_flat_with_paging_off_as_a_boot_loader_leaves_it() -> None:
    # mov %cs,%ecx; mov %ds,%edx; mov %cr0,%ebx; mov 0x9000,%esi; hlt
    cpu = flat_cpu(bytes.fromhex("8cc9 8cda 0f20c3 8b3500900000 f4"))
    cpu.ram.write32(0x9000, 0x1234)
    assert cpu.ring == 0
    cpu.start(0x8000)
    registers = cpu.registers
    assert (registers.ecx, registers.edx, registers.esi) == (KERNEL_CS, KERNEL_DS, 0x1234)
    assert registers.ebx & (CR0_PE | CR0_PG) == CR0_PE


def test_general_registers_come_together_in_the_order_of_their_numbers() -> None:
    # mov $0x10,%eax; mov $0x11,%ecx; ... mov $0x17,%edi; hlt
    code = b"".join(bytes([0xB8 + n]) + (0x10 + n).to_bytes(4, "little") for n in range(8))
    cpu = flat_cpu(code + HLT)
    cpu.start(0x8000)
    assert cpu.registers.general() == list(range(0x10, 0x18))
    cpu.registers.edx = 5
    assert cpu.registers.general()[2] == 5


def test_calibration_names_the_field_it_cannot_find(monkeypatch: pytest.MonkeyPatch) -> None:
    reordered = context_module._GENERAL_REGISTERS[::-1]
    monkeypatch.setattr(context_module, "_GENERAL_REGISTERS", reordered)
    with pytest.raises(CpuError, match="general registers"):
        context_module.calibrate.__wrapped__()


def test_calibration_notices_a_wrong_error_code(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ((bytes.fromhex("cd42"), (0x42, 0, False)),)
    monkeypatch.setattr(context_module, "_CHECKS", wrong)
    with pytest.raises(CpuError, match="exception fields"):
        context_module.calibrate.__wrapped__()


# -- how a run ends -------------------------------------------------------------------------


def test_halt_ends_a_run() -> None:
    cpu = flat_cpu(b"\x90" + HLT)
    assert cpu.start(0x8000) == StopReason(Stop.HALTED)
    assert cpu.registers.eip == 0x8002


def test_an_instruction_limit_is_exact_and_can_be_continued() -> None:
    cpu = flat_cpu(b"\x40" * 100 + HLT)
    assert cpu.start(0x8000, max_instructions=40).kind is Stop.LIMIT_INSTRUCTIONS
    assert (cpu.registers.eax, cpu.registers.eip) == (40, 0x8000 + 40)
    assert cpu.start(max_instructions=10).kind is Stop.LIMIT_INSTRUCTIONS
    assert cpu.registers.eax == 50
    assert cpu.start().kind is Stop.HALTED
    assert cpu.registers.eax == 100


def test_counting_in_small_steps_changes_nothing_but_the_sum() -> None:
    """Of a loop of 8,194 instructions, by steps of 100: what a step did not finish is left out."""
    code = bytes.fromhex("b900100000 49 75fd f4")
    seen = []
    for steps in (100, 0):
        cpu = flat_cpu(code)
        cpu.count_by(steps)
        assert cpu.start(0x8000, max_instructions=5000).kind is Stop.LIMIT_INSTRUCTIONS
        seen.append((cpu.registers.snapshot(), cpu.counted))
        assert cpu.start(max_instructions=5000).kind is Stop.HALTED
        seen.append((cpu.registers.snapshot(), cpu.counted))
    assert seen[0] == seen[2]
    assert seen[1][0] == seen[3][0]
    assert [counted for _, counted in seen] == [5000, 8100, 5000, 5000]


def test_an_instruction_limit_holds_for_code_that_ran_before() -> None:
    cpu = flat_cpu(bytes.fromhex("b900100000 49 75fd f4"))
    assert cpu.start(0x8000).kind is Stop.HALTED
    assert cpu.start(0x8000, max_instructions=100).kind is Stop.LIMIT_INSTRUCTIONS


def test_a_time_limit_ends_a_loop() -> None:
    cpu = flat_cpu(SPIN)
    begin = time.monotonic()
    assert cpu.start(0x8000, timeout_seconds=0.25).kind is Stop.TIMEOUT
    assert 0.2 < time.monotonic() - begin < 5
    assert cpu.registers.eip == 0x8000


def test_ctrl_c_ends_a_loop() -> None:
    cpu = flat_cpu(SPIN)
    timer = threading.Timer(0.15, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        cpu.start(0x8000, timeout_seconds=20)
    timer.join()
    assert cpu.start(0x8000, timeout_seconds=0.01).kind is Stop.TIMEOUT


def test_a_long_run_loses_nothing_and_does_nothing_twice() -> None:
    """Half a second and more of adding to memory; a stop from outside would add once too often."""
    # mov $count,%ecx; mov $0x9000,%edi; L: incl (%edi); dec %ecx; jnz L; hlt
    count = 40_000_000
    code = b"\xb9" + count.to_bytes(4, "little") + bytes.fromhex("bf00900000 ff07 49 75fb f4")
    cpu = flat_cpu(code)
    assert cpu.start(0x8000, timeout_seconds=60).kind is Stop.HALTED
    assert cpu.ram.read32(0x9000) == count


def test_an_error_in_a_handler_leaves_the_run_and_the_cpu_stays_usable(kernel: SmallKernel) -> None:
    def fail(_frame: object) -> None:
        raise LookupError("handler")

    kernel.on_frame = fail
    with pytest.raises(LookupError, match="handler"):
        kernel.run_kernel(interrupt(0x80) + SPIN)
    kernel.on_frame = None
    assert kernel.run_kernel(interrupt(0x80)).kind is Stop.HYPERCALL


def test_keyboard_interrupt_in_a_handler_leaves_the_run(kernel: SmallKernel) -> None:
    def fail(_frame: object) -> None:
        raise KeyboardInterrupt

    kernel.on_frame = fail
    with pytest.raises(KeyboardInterrupt):
        kernel.run_kernel(interrupt(0x80) + SPIN)


def test_starting_inside_a_run_is_refused(kernel: SmallKernel) -> None:
    kernel.on_frame = lambda _frame: kernel.cpu.start()
    with pytest.raises(CpuError, match="inside a run"):
        kernel.run_kernel(interrupt(0x80))


HOLE = 0x200000


@pytest.mark.parametrize(
    ("code", "what"),
    [(load_eax(HOLE + 4), "read"), (store_eax(HOLE + 4), "write")],
)
def test_an_access_to_a_hole_names_the_physical_address(code: bytes, what: str) -> None:
    ram = Ram(4 << 20, [(0, HOLE), (HOLE + 0x10000, 4 << 20)])
    ram.write(0x8000, mov_eax(5) + code + mov_eax(6) + SPIN)
    cpu = UnicornCpu(ram)
    reason = cpu.start(0x8000, timeout_seconds=20)
    assert reason.died
    assert reason.paddr == HOLE + 4
    assert what in reason.detail
    assert f"{HOLE + 4:#x}" in reason.detail
    assert (cpu.registers.eax, cpu.registers.eip) == (5, 0x8005), "the state of the culprit"


def test_ram_behind_a_hole_is_ram() -> None:
    ram = Ram(4 << 20, [(0, HOLE), (HOLE + 0x10000, 4 << 20)])
    ram.write32(HOLE + 0x10000, 0x77)
    ram.write(0x8000, load_eax(HOLE + 0x10000) + HLT)
    cpu = UnicornCpu(ram)
    assert cpu.start(0x8000).kind is Stop.HALTED
    assert cpu.registers.eax == 0x77


def test_a_jump_out_of_ram_names_the_physical_address() -> None:
    cpu = flat_cpu(mov_eax(0x00F00000) + jump_eax())
    reason = cpu.start(0x8000, timeout_seconds=20)
    assert (reason.died, reason.paddr) == (True, 0xF00000)
    assert "fetch" in reason.detail


def test_a_pte_that_points_outside_ram_names_the_physical_address(kernel: SmallKernel) -> None:
    kernel.set_pte(FREE_VA, 0xFEC00000 | 7)
    reason = kernel.run_user(load_eax(FREE_VA + 8))
    assert (reason.died, reason.paddr) == (True, 0xFEC00008)


def test_a_jump_to_zero_is_no_exit() -> None:
    cpu = flat_cpu(bytes.fromhex("31c0") + jump_eax())
    cpu.ram.write(0, mov_eax(42) + HLT)
    assert cpu.start(0x8000).kind is Stop.HALTED
    assert cpu.registers.eax == 42


# -- registers ------------------------------------------------------------------------------


def test_registers_read_and_write_between_runs() -> None:
    cpu = flat_cpu(bytes.fromhex("01d8 f4"))
    registers = cpu.registers
    registers.eax, registers.ebx = 40, 2
    cpu.start(0x8000)
    assert registers.eax == 42
    registers.eip = 0x8000
    registers.eax = 0xFFFFFFFF
    cpu.start()
    assert registers.eax == 1
    assert registers.eflags & 1, "carry"


@pytest.mark.parametrize("flags", [0x2, 0x8D7, 0x46, 0x402, 0x246])
def test_eflags_read_and_write_between_runs(flags: int) -> None:
    cpu = flat_cpu(bytes.fromhex("9c 58 f4"))  # pushf; pop %eax; hlt
    cpu.registers.esp = 0x9000
    cpu.registers.eflags = flags
    assert cpu.registers.eflags == flags
    cpu.start(0x8000)
    assert (cpu.registers.eax, cpu.registers.eflags) == (flags, flags)


@pytest.mark.parametrize("flags", [0x2, 0x8D7, 0x46, 0x402])
def test_eflags_set_by_a_hypercall_are_the_guests(flags: int) -> None:
    cpu = flat_cpu(bytes.fromhex("39c0 e74d 9c 58 f4"))
    cpu.registers.esp = 0x9000

    def change() -> None:
        assert cpu.registers.eflags & 0x8D5 == 0x44, "equal: ZF and PF"
        cpu.registers.eflags = flags
        assert cpu.registers.eflags == flags

    cpu.on_hypercall = change
    cpu.start(0x8000)
    assert cpu.registers.eax == flags


def test_a_hypercall_may_change_any_register() -> None:
    cpu = flat_cpu(mov_eax(1) + OUT + b"\x40" * 4 + HLT)
    cpu.ram.write(0x8800, b"\x43" + HLT)

    def move() -> None:
        assert (cpu.registers.eax, cpu.registers.eip) == (1, 0x8007)
        cpu.registers.eax = 100
        cpu.registers.eip = 0x8800
        cpu.registers.esp = 0x7777
        cpu.registers.ebx = 5

    cpu.on_hypercall = move
    assert cpu.start(0x8000).kind is Stop.HALTED
    seen = cpu.registers.snapshot()
    assert [seen[name] for name in ("eax", "ebx", "esp", "eip")] == [100, 6, 0x7777, 0x8802]


def test_a_hypercall_stops_before_the_next_instruction() -> None:
    cpu = flat_cpu(OUT + b"\x40" * 4 + HLT)
    cpu.on_hypercall = cpu.stop
    assert cpu.start(0x8000) == StopReason(Stop.HYPERCALL)
    assert (cpu.registers.eax, cpu.registers.eip) == (0, 0x8002)
    assert cpu.start().kind is Stop.HALTED
    assert cpu.registers.eax == 4


# -- ports ----------------------------------------------------------------------------------


def test_other_ports_reach_their_handlers() -> None:
    seen: list[tuple[int, int, int]] = []
    # mov $0x11223344,%eax; out %al,$0xe9; out %ax,$0x80; mov $0x1234,%dx; out %eax,%dx; in $7,%al
    cpu = flat_cpu(bytes.fromhex("b844332211 e6e9 66e780 66ba3412 ef e407 f4"))
    cpu.on_out = lambda port, size, value: seen.append((port, size, value))
    cpu.on_in = lambda port, size: port + size
    cpu.start(0x8000)
    assert seen == [(0xE9, 1, 0x44), (0x80, 2, 0x3344), (0x1234, 4, 0x11223344)]
    assert cpu.registers.eax == 0x11223308


def test_rep_outs_reaches_a_port_byte_by_byte() -> None:
    text = bytearray()
    # mov $0x9000,%esi; mov $5,%ecx; mov $0xe9,%dx; rep outsb; hlt
    cpu = flat_cpu(bytes.fromhex("be00900000 b905000000 66bae900 f36e f4"))
    cpu.ram.write(0x9000, b"hello")
    cpu.on_out = lambda _port, _size, value: text.append(value)
    cpu.start(0x8000)
    assert text == b"hello"


@pytest.mark.parametrize("access", ["e74d", "e64d", "66ba4d00 ef", "e6e9", "e4e9", "66ba00f0 ed"])
def test_ring_3_may_use_no_port(kernel: SmallKernel, access: str) -> None:
    """#GP on the instruction, whose effects are undone; no handler is called."""
    seen: list[int] = []
    kernel.cpu.on_out = lambda port, _size, _value: seen.append(port)
    kernel.cpu.on_in = lambda port, _size: seen.append(port) or 0
    code = bytes.fromhex(access)
    length = 1 if code[0] == 0x66 else 2
    kernel.run_user(mov_eax(0x55) + code + SPIN)
    (frame,) = kernel.seen
    assert (frame.vector, frame.error_code) == (13, 0)
    assert frame.eip == USER_CODE + 5 + len(code) - length
    assert kernel.ram.read32(frame.address - KERNEL - 4) == 0x55, "EAX as pushed by the stub"
    assert seen == []


def test_iopl_3_opens_the_ports_to_ring_3(kernel: SmallKernel) -> None:
    seen: list[int] = []
    kernel.cpu.on_out = lambda port, _size, _value: seen.append(port)
    kernel.run_user(bytes.fromhex("e6e9") + interrupt(0x80), eflags=0x3202)
    assert seen == [0xE9]
    assert kernel.seen[-1].vector == 0x80


def test_the_io_bitmap_opens_single_ports_to_ring_3(kernel: SmallKernel) -> None:
    seen: list[int] = []
    kernel.cpu.on_out = lambda port, _size, _value: seen.append(port)
    kernel.cpu.on_in = lambda port, _size: 0x99
    kernel.allow_ports({0xE9})
    # out %al,$0xe9; in $0xe9,%al; out %ax,$0xe8
    kernel.run_user(bytes.fromhex("e6e9 e4e9 66e7e8"))
    (frame,) = kernel.seen
    assert seen == [0xE9]
    assert (frame.vector, frame.eip) == (13, USER_CODE + 4)
    assert kernel.ram.read8(frame.address - KERNEL - 4) == 0x99


# -- raw images -----------------------------------------------------------------------------


def test_control_registers_of_an_image_without_any_gdt() -> None:
    """PAE with NX and a 2 MiB page, nothing else in memory; both rings are asked."""
    ram = Ram(8 << 20)
    ram.write64(0x3000, 0x4001)
    ram.write64(0x4000 + 8, 0x400000 | PTE_PS | PTE_NX | 7)
    control = ControlRegisters(0x8005003B, 0x3000, CR4_PAE | CR4_PGE | 0x600, EFER_NXE)
    cpu = create(ram, "coreduo")
    cpu.load_control(control)
    assert cpu.control == control
    assert cpu.translate(0x200123, Access.WRITE, Ring.USER) == 0x400123
    assert cpu.translate(0x200123, Access.FETCH, Ring.USER) is None
    cpu.load_control(ControlRegisters(control.cr0, 0x3000, control.cr4, 0))
    assert cpu.translate(0x200123) is None, "without NXE bit 63 is reserved"


def test_one_image_after_another_on_one_cpu() -> None:
    ram = Ram(8 << 20)
    ram.write32(0x1000, 0x400000 | PTE_PS | 3)
    ram.write64(0x3000, 0x4001)
    ram.write64(0x4000, 0x600000 | PTE_PS | 3)
    cpu = create(ram)
    cr0 = CR0_PE | CR0_PG
    for _ in range(3):
        cpu.load_control(ControlRegisters(cr0, 0x1000, CR4_PSE))
        assert cpu.translate(0x123) == 0x400123
        cpu.load_control(ControlRegisters(cr0, 0x3000, CR4_PAE))
        assert cpu.translate(0x123) == 0x600123
        cpu.load_control(ControlRegisters(CR0_PE, 0))
        assert cpu.translate(0x123) == 0x123


@pytest.mark.parametrize(
    ("model", "control", "word"),
    [
        ("486", ControlRegisters(CR0_PE, 0, CR4_PSE), "PSE"),
        ("pentium", ControlRegisters(CR0_PE, 0, CR4_PAE), "PAE"),
        ("pentium", ControlRegisters(CR0_PE, 0, CR4_PGE), "PGE"),
        ("pentium3", ControlRegisters(CR0_PE, 0, CR4_PAE, EFER_NXE), "NXE"),
        ("coreduo", ControlRegisters(CR0_PE, 0, CR4_PAE, 0x500), "long mode"),
        ("pentium3", ControlRegisters(CR0_PE, 1 << 32), "CR3"),
    ],
)
def test_control_registers_the_model_lacks_are_refused(
    model: str, control: ControlRegisters, word: str
) -> None:
    with pytest.raises(BadInput, match=word):
        create(Ram(1 << 20), model).load_control(control)


def test_a_guest_may_write_debug_registers_and_hypercalls_come_back(kernel: SmallKernel) -> None:
    """The I/O breakpoint is armed again at the next trap."""
    # xor %eax,%eax; mov %eax,%dr7; int $0x80, whose stub makes the hypercall
    kernel.run_kernel(bytes.fromhex("31c0 0f23f8") + interrupt(0x80) + SPIN)
    assert [frame.vector for frame in kernel.seen] == [0x80]


def test_faults_of_many_cpus_do_not_mix() -> None:
    kernels = [SmallKernel() for _ in range(3)]
    for number, kernel in enumerate(kernels):
        kernel.run_user(mov_eax(number) + load_eax(0x08100000 + number))
    assert [kernel.cpu.read_cr2() for kernel in kernels] == [0x08100000 + n for n in range(3)]


def test_the_stop_reason_speaks() -> None:
    assert str(StopReason(Stop.TIMEOUT, "3 s")) == "the limit on time was reached: 3 s"
