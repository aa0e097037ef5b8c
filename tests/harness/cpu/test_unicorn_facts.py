# SPDX-License-Identifier: GPL-2.0-or-later
"""What the harness relies on in Unicorn, each fact by itself and without the harness.

An upgrade of Unicorn that changes one of them fails here first, with the fact's name.
"""

import ctypes
import struct

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_32, UC_PROT_ALL, Uc, UcError, x86_const
from unicorn import unicorn_const as const
from unicorn.unicorn_py3.unicorn import uclib

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, CR4_PAE
from harness.cpu import library
from harness.cpu.context import HIDDEN_IO_BREAKPOINT, SavedContext, calibrate
from kernel_model.ram import Ram

PGD, PTES, CODE = 0x1000, 0x2000, 0x8000
READ, WRITE, EXEC = 1, 2, 4


class Bare:
    """Unicorn with 1 MiB of RAM at 0, mapped one to one with 4 KiB pages when paging is on."""

    def __init__(self, model: int = x86_const.UC_CPU_X86_PENTIUM3) -> None:
        self.ram = Ram(1 << 20)
        self.uc = Uc(UC_ARCH_X86, UC_MODE_32)
        self.uc.ctl_set_cpu_model(model)
        self.uc.ctl_exits_enabled(True)
        self.uc.mem_map_ptr(0, self.ram.size, UC_PROT_ALL, self.ram.address)
        self.context = SavedContext(self.uc, calibrate())
        self.vectors: list[int] = []

    def paging_on(self) -> None:
        self.ram.write32(PGD, PTES | 7)
        for n in range(256):
            self.ram.write32(PTES + 4 * n, n << 12 | 7)
        self.uc.reg_write(x86_const.UC_X86_REG_CR3, PGD)
        self.uc.reg_write(x86_const.UC_X86_REG_CR0, CR0_PE | CR0_WP | CR0_PG)

    def translate(self, va: int, protection: int = READ) -> int | None:
        paddr = ctypes.c_uint64()
        error = library.translate(self.context.handle, va, protection, ctypes.addressof(paddr))
        return None if error else paddr.value

    def run(self, code: bytes, **limits: int) -> None:
        self.ram.write(CODE, code)
        self.uc.ctl_flush_tb()
        self.uc.emu_start(CODE, 0, **limits)

    def collect_traps(self) -> None:
        """Note the vector and stop."""

        def note(uc: Uc, vector: int, _data: object) -> None:
            self.vectors.append(vector)
            uc.emu_stop()

        self.uc.hook_add(const.UC_HOOK_INTR, note)


@pytest.fixture
def bare() -> Bare:
    return Bare()


def test_second_page_fault_is_called_a_double_fault_unless_the_field_is_cleared(bare: Bare) -> None:
    bare.paging_on()
    bare.collect_traps()
    load_unmapped = bytes.fromhex("a100004000")
    bare.run(load_unmapped)
    bare.run(load_unmapped)
    assert bare.vectors == [14, 8]
    bare.context.save()
    bare.context.words[bare.context.layout.old_exception] = 0xFFFFFFFF
    bare.context.restore()
    bare.run(load_unmapped)
    assert bare.vectors == [14, 8, 14]


def test_the_translator_answers_from_the_tlb(bare: Bare) -> None:
    bare.paging_on()
    assert bare.translate(0x5000) == 0x5000
    bare.ram.write32(PTES + 4 * 5, 0x9007)
    assert bare.translate(0x5000) == 0x5000, "the stale translation is what a missing flush shows"
    bare.uc.reg_write(x86_const.UC_X86_REG_CR3, PGD)
    assert bare.translate(0x5000) == 0x9000


def test_the_whole_tlb_can_be_flushed_by_itself(bare: Bare) -> None:
    bare.paging_on()
    assert bare.translate(0x5000) == 0x5000
    bare.ram.write32(PTES + 4 * 5, 0x9007)
    library.control(bare.context.handle, ctypes.c_int(library.CTL_TLB_FLUSH))
    assert bare.translate(0x5000) == 0x9000


def test_restoring_a_context_flushes_nothing(bare: Bare) -> None:
    bare.paging_on()
    assert bare.translate(0x5000) == 0x5000
    bare.ram.write32(PTES + 4 * 5, 0x9007)
    bare.context.save()
    bare.context.restore()
    assert bare.translate(0x5000) == 0x5000


def test_asking_marks_accessed_and_dirty_and_moves_cr2(bare: Bare) -> None:
    bare.paging_on()
    assert bare.translate(0x5000, WRITE) == 0x5000
    assert bare.ram.read32(PTES + 4 * 5) == 0x5067
    assert bare.translate(0x400123) is None
    assert bare.uc.reg_read(x86_const.UC_X86_REG_CR2) == 0x400123


def test_asking_knows_the_ring_from_the_hidden_flags(bare: Bare) -> None:
    bare.paging_on()
    bare.ram.write32(PTES + 4 * 5, 0x5003)
    bare.context.save()
    for ring, expected in ((3, None), (0, 0x5000)):
        words, hidden = bare.context.words, bare.context.layout.hidden
        words[hidden] = words[hidden] & ~3 | ring
        bare.context.restore()
        assert bare.translate(0x5000) == expected


def test_a_frame_outside_ram_translates(bare: Bare) -> None:
    bare.paging_on()
    bare.ram.write32(PTES + 4 * 5, 0xFEC00007)
    assert bare.translate(0x5008) == 0xFEC00008


def test_a_directory_entry_outside_ram_reads_as_not_present(bare: Bare) -> None:
    bare.paging_on()
    bare.ram.write32(PGD + 4, 0xFEC00007)
    assert bare.translate(0x400000) is None


@pytest.mark.parametrize(("bit", "legal"), [(36, True), (39, True), (40, False), (51, False)])
def test_forty_physical_address_bits(bit: int, legal: bool) -> None:
    """Whatever the model, entries of PAE may use bits 12-39; the rest is reserved."""
    bare = Bare()
    bare.ram.write64(0x3000, 0x4001)
    bare.ram.write64(0x4000, 0x5007)
    bare.ram.write64(0x5000, 1 << bit | 7)
    bare.uc.reg_write(x86_const.UC_X86_REG_CR4, CR4_PAE)
    bare.uc.reg_write(x86_const.UC_X86_REG_CR3, 0x3000)
    bare.uc.reg_write(x86_const.UC_X86_REG_CR0, CR0_PE | CR0_PG)
    assert bare.translate(0x123) == ((1 << bit | 0x123) if legal else None)


def test_every_ring_may_use_every_port(bare: Bare) -> None:
    """Unicorn drops the check of IOPL: the harness makes it."""
    ports: list[int] = []
    bare.uc.hook_add(
        const.UC_HOOK_INSN,
        lambda _uc, port, *_rest: ports.append(port),
        None,
        1,
        0,
        x86_const.UC_X86_INS_OUT,
    )
    bare.context.save()
    bare.context.words[bare.context.layout.hidden] |= 3
    bare.context.restore()
    bare.collect_traps()
    bare.run(bytes.fromhex("e74d cd80"))
    assert (ports, bare.vectors) == ([0x4D], [0x80])


@pytest.mark.parametrize("armed", [False, True])
def test_an_io_breakpoint_ends_the_instruction(bare: Bare, armed: bool) -> None:
    """Without it the block runs on behind the ``out``, whatever its hook asks for."""
    bare.uc.hook_add(
        const.UC_HOOK_INSN, lambda uc, *_: uc.emu_stop(), None, 1, 0, x86_const.UC_X86_INS_OUT
    )
    bare.collect_traps()
    bare.context.save()
    words, layout = bare.context.words, bare.context.layout
    if armed:
        words[layout.dr0], words[layout.dr7] = 0x4D, 0x400 | 2 | 2 << 16
        words[layout.hidden] |= HIDDEN_IO_BREAKPOINT
    bare.context.restore()
    bare.run(bytes.fromhex("e74d 43 43 f4"))
    assert bare.uc.reg_read(x86_const.UC_X86_REG_EBX) == (0 if armed else 2)
    assert bare.vectors == ([1] if armed else [])


def test_translated_code_must_be_dropped_before_instructions_are_counted(bare: Bare) -> None:
    endless = bytes.fromhex("b9 40420f00 49 75fd f4")  # mov $1000000,%ecx; dec; jnz; hlt
    bare.ram.write(CODE, endless)
    bare.uc.emu_start(CODE, 0)
    bare.uc.emu_start(CODE, 0, count=100)
    assert bare.uc.reg_read(x86_const.UC_X86_REG_ECX) == 0, "old code ran uncounted"
    bare.run(endless, count=100)
    assert bare.uc.reg_read(x86_const.UC_X86_REG_ECX) > 999_900


def test_an_empty_list_of_exits_lets_the_guest_run_at_zero(bare: Bare) -> None:
    """The address given to ``emu_start`` would end the run there instead."""
    bare.ram.write(0, bytes.fromhex("b82a000000 f4"))
    bare.run(bytes.fromhex("31c0 ffe0"))
    assert bare.uc.reg_read(x86_const.UC_X86_REG_EAX) == 42


def test_invalid_instructions_have_a_hook_of_their_own(bare: Bare) -> None:
    bare.collect_traps()
    seen: list[int] = []

    def invalid(uc: Uc, _data: object) -> bool:
        seen.append(uc.reg_read(x86_const.UC_X86_REG_EIP))
        uc.emu_stop()
        return True

    bare.uc.hook_add(const.UC_HOOK_INSN_INVALID, invalid)
    bare.run(bytes.fromhex("0f0b"))
    assert (seen, bare.vectors) == ([CODE], [])


@pytest.mark.parametrize("hooked", [False, True])
def test_sysenter_is_left_to_a_hook(bare: Bare, hooked: bool) -> None:
    """It faults for nothing and looks at no register; the hook sees EIP on it."""
    bare.collect_traps()
    seen: list[int] = []

    def enter(uc: Uc, _data: object) -> None:
        seen.append(uc.reg_read(x86_const.UC_X86_REG_EIP))

    if hooked:
        bare.uc.hook_add(const.UC_HOOK_INSN, enter, None, 1, 0, x86_const.UC_X86_INS_SYSENTER)
    bare.run(bytes.fromhex("4040 0f34 f4"))
    assert seen == [CODE + 2] * hooked
    assert not bare.vectors


def test_stale_code_survives_a_write_from_outside(bare: Bare) -> None:
    bare.run(bytes.fromhex("b801000000 f4"))
    bare.ram.write(CODE, bytes.fromhex("b802000000 f4"))
    bare.uc.emu_start(CODE, 0)
    assert bare.uc.reg_read(x86_const.UC_X86_REG_EAX) == 1
    bare.uc.ctl_remove_cache(CODE, CODE + 6)
    bare.uc.emu_start(CODE, 0)
    assert bare.uc.reg_read(x86_const.UC_X86_REG_EAX) == 2


def test_memory_hooks_speak_physical_addresses(bare: Bare) -> None:
    bare.paging_on()
    bare.ram.write32(PTES + 4 * 5, 0x200007)
    seen: list[int] = []
    bare.uc.hook_add(
        const.UC_HOOK_MEM_READ_UNMAPPED, lambda _uc, _kind, paddr, *_: seen.append(paddr)
    )
    with pytest.raises(UcError):
        bare.run(bytes.fromhex("a104500000"))
    assert seen == [0x200004]


def test_the_context_is_as_long_as_the_library_says(bare: Bare) -> None:
    assert len(bare.context.words) * 4 == uclib.uc_context_size(bare.uc._uch)


def test_a_descriptor_limit_is_not_enforced(bare: Bare) -> None:
    """Segment limits of data are no matter of this CPU; the delivery checks its own."""
    gdt = struct.pack("<IIII", 0, 0, 0x00000FFF, 0x00409200)
    bare.ram.write(0x3000, gdt)
    bare.ram.write(0x3800, struct.pack("<HI", 15, 0x3000))
    bare.collect_traps()
    # lgdt 0x3800; mov $8,%eax; mov %eax,%ds; mov 0x5000,%eax; int $0x80
    bare.run(bytes.fromhex("0f011500380000 b808000000 8ed8 a100500000 cd80"))
    assert bare.vectors == [0x80]


@pytest.mark.parametrize(("code", "written"), [("a3", True), ("ff05", False), ("f0ff05", False)])
def test_read_modify_write_faults_as_a_read(bare: Bare, code: str, written: bool) -> None:
    """``incl`` on an absent page: a real CPU says write (error code 2), Unicorn says read.

    A plain store is right.
    """
    bare.paging_on()
    bare.collect_traps()
    bare.run(bytes.fromhex(code + "00004000"))
    bare.context.save()
    assert bool(bare.context.words[bare.context.layout.error_code] & 2) == written
