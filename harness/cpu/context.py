# SPDX-License-Identifier: GPL-2.0-or-later
"""The saved context of the emulator: where each register lies in it, and fast access to it.

Unicorn's exceptions carry an error code, and leave an "exception in flight" behind, that no
register number reaches; and its registers are dear to read one by one. A *saved context* is a
copy of the whole CPU that is plain bytes: one call to save, a ``memoryview`` to read and
change it, one call to restore. Nothing documents its layout, so :func:`calibrate` finds every
field by writing magic values through the official functions, and then proves the fields with
exceptions whose vector and error code are known.

What can fail: another Unicorn with another layout raises
:class:`~harness.cpu.interface.CpuError` at start-up, naming the field.

Never write CR0, CR3 or CR4 of a context through the library: that flushes the TLB of a CPU
which is not there. Changing the bytes is safe, and flushes nothing.
"""

import ctypes
import functools
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from unicorn import unicorn_const as const
from unicorn import x86_const
from unicorn.unicorn_py3.unicorn import Uc, UcContext, uc_version, uclib

from harness.architecture import ControlRegisters
from harness.cpu import library
from harness.cpu.interface import CpuError

GENERAL_NAMES: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENT_NAMES: Final = ("es", "cs", "ss", "ds", "fs", "gs")
SEGMENT_WORDS: Final = 6
"""One segment cache in u32 words: selector, padding, base (two words), limit, flags."""
BASE: Final = 2
LIMIT: Final = 4
FLAGS: Final = 5

# The emulator's "hidden flags", the part of the state that translated code depends on.
HIDDEN_CPL: Final = 3
HIDDEN_INHIBIT_IRQ: Final = 1 << 3
HIDDEN_CS32: Final = 1 << 4
HIDDEN_SS32: Final = 1 << 5
HIDDEN_ADDSEG: Final = 1 << 6
HIDDEN_PE: Final = 1 << 7
HIDDEN_LMA: Final = 1 << 14
HIDDEN_IO_BREAKPOINT: Final = 1 << 24

DESCRIPTOR_BIG: Final = 1 << 22
"""D/B in the upper word of a descriptor, which is also the layout of a cache's flags."""

EFLAGS_ARITHMETIC: Final = 0x8D5
"""CF PF AF ZF SF OF: kept apart from EFLAGS while the guest runs, as is DF."""
EFLAGS_DF: Final = 1 << 10
OPERATION_EFLAGS: Final = 1
"""``cc_op``: the arithmetic flags stand ready in ``cc_src``."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Indices of u32 words in a saved context. Registers are u64; the low word comes first."""

    general: int
    """EAX; the others follow in the order of :data:`GENERAL_NAMES`, two words apart."""
    eip: int
    eflags: int
    arithmetic: int
    operation: int
    direction: int
    hidden: int
    segments: int
    """The cache of ES; the others follow in the order of :data:`SEGMENT_NAMES`."""
    ldt: int
    tr: int
    gdt: int
    idt: int
    cr0: int
    dr0: int
    error_code: int
    software: int
    """Nonzero when the exception in flight is an ``int n``."""
    old_exception: int

    @property
    def cr2(self) -> int:
        return self.cr0 + 4

    @property
    def cr3(self) -> int:
        return self.cr0 + 6

    @property
    def cr4(self) -> int:
        return self.cr0 + 8

    @property
    def dr6(self) -> int:
        return self.dr0 + 12

    @property
    def dr7(self) -> int:
        return self.dr0 + 14

    def segment(self, name: str) -> int:
        return self.segments + SEGMENT_WORDS * SEGMENT_NAMES.index(name)


class SavedContext:
    """One context kept for life, with its bytes in view.

    ``latched`` says that the bytes are the CPU as it stands; ``dirty`` that they were changed
    and must go back before the guest runs. Restoring a context that was never saved, or that
    belongs to another CPU, would abort the process: the constructor saves at once.
    """

    def __init__(self, uc: Uc, layout: Layout) -> None:
        self.layout = layout
        self._owner: UcContext = uc.context_save()
        self.handle = _pointer(uc._uch)
        context = _pointer(self._owner.context)
        self._save = functools.partial(library.context_save, self.handle, context)
        self._restore = functools.partial(library.context_restore, self.handle, context)
        self.words = _words(self._owner, uclib.uc_context_size(uc._uch))
        self.latched = False
        self.dirty = False
        self.running = False
        """Inside a run the arithmetic flags live outside EFLAGS."""
        self._flags = ctypes.c_uint32()
        self._flags_reference = ctypes.byref(self._flags)

    def save(self) -> None:
        self._save()
        self.latched = True
        self.dirty = False

    def latch(self) -> None:
        """Save unless the bytes are already the CPU as it stands."""
        if not self.latched:
            self.save()

    def restore(self) -> None:
        self._restore()
        self.dirty = False

    def release(self) -> None:
        """Put changes into the CPU and stop mirroring it."""
        if self.dirty:
            self.restore()
        self.latched = False

    @property
    def cpl(self) -> int:
        return self.words[self.layout.hidden] & HIDDEN_CPL

    @property
    def control(self) -> ControlRegisters:
        """CR0, CR3 and CR4: what decides where table entries lie. EFER is not among the bytes."""
        words, layout = self.words, self.layout
        return ControlRegisters(words[layout.cr0], words[layout.cr3], words[layout.cr4])

    def read_eflags(self) -> int:
        """EFLAGS with the arithmetic flags, which the emulator computes only when asked."""
        words, layout = self.words, self.layout
        if words[layout.operation] == OPERATION_EFLAGS:
            arithmetic = words[layout.arithmetic] & EFLAGS_ARITHMETIC
        else:
            library.reg_read(self.handle, _EFLAGS, self._flags_reference)
            arithmetic = self._flags.value & EFLAGS_ARITHMETIC
        return words[layout.eflags] | arithmetic | words[layout.direction] & EFLAGS_DF

    def write_eflags(self, value: int) -> None:
        words, layout = self.words, self.layout
        value |= 2
        words[layout.arithmetic] = value & EFLAGS_ARITHMETIC
        words[layout.operation] = OPERATION_EFLAGS
        words[layout.direction] = 0xFFFFFFFF if value & EFLAGS_DF else 1
        if self.running:
            value &= ~(EFLAGS_ARITHMETIC | EFLAGS_DF)
        words[layout.eflags] = value
        self.dirty = True

    def hidden_after(self, code_flags: int, stack_base: int, stack_flags: int) -> int:
        """The hidden flags once CS and SS have these caches; DS and ES stay.

        ``*_flags`` are upper words of descriptors. SS sets the ring: its DPL is the CPL.
        """
        words, layout = self.words, self.layout
        hidden = words[layout.hidden]
        hidden &= ~(HIDDEN_CPL | HIDDEN_CS32 | HIDDEN_SS32 | HIDDEN_ADDSEG)
        hidden |= stack_flags >> 13 & HIDDEN_CPL
        hidden |= HIDDEN_CS32 if code_flags & DESCRIPTOR_BIG else 0
        hidden |= HIDDEN_SS32 if stack_flags & DESCRIPTOR_BIG else 0
        based = words[layout.segment("ds") + BASE] or words[layout.segment("es") + BASE]
        if based or stack_base or not hidden & HIDDEN_CS32:
            hidden |= HIDDEN_ADDSEG
        return hidden


_EFLAGS: Final = ctypes.c_int(x86_const.UC_X86_REG_EFLAGS)


def _pointer(handle: Any) -> ctypes.c_void_p:
    return ctypes.cast(handle, ctypes.c_void_p)


def _words(context: UcContext, size: int) -> "memoryview[int]":
    address = _pointer(context.context).value
    assert address is not None
    view = memoryview((ctypes.c_char * (size // 8 * 8)).from_address(address))
    return view.cast("B").cast("I")


class _SystemRegister(ctypes.Structure):
    """``uc_x86_mmr``: how GDTR, IDTR, LDTR and TR are written."""

    _fields_ = (
        ("selector", ctypes.c_uint16),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


_GENERAL_REGISTERS: Final = tuple(
    getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in GENERAL_NAMES
)
_MAGIC: Final = 0xA5C30F00
_MAGIC_LIMIT: Final = 0x3A20
"""The limits of GDTR and IDTR are u16."""


@functools.cache
def calibrate() -> Layout:
    """Find and prove the layout of this Unicorn's contexts; about 2 ms, once a process."""
    uc = Uc(const.UC_ARCH_X86, const.UC_MODE_32)
    layout = _find_fields(uc)
    _check_fresh(SavedContext(uc, layout))
    _check_exceptions(uc, layout)
    return layout


def _find_fields(uc: Uc) -> Layout:
    context = uc.context_save()
    registers = [
        *_GENERAL_REGISTERS,
        x86_const.UC_X86_REG_EIP,
        x86_const.UC_X86_REG_CR2,
        *(x86_const.UC_X86_REG_DR0 + n for n in range(4)),
    ]
    for number, register in enumerate(registers):
        context.reg_write(register, _MAGIC + number)
    tables = ("LDTR", "TR", "GDTR", "IDTR")
    for number, name in enumerate(tables):
        value = _SystemRegister(0, _MAGIC + 0x100 + number, _MAGIC_LIMIT + number, 0)
        register = getattr(x86_const, f"UC_X86_REG_{name}")
        uclib.uc_context_reg_write(context.context, register, ctypes.byref(value))
    data = _words(context, uclib.uc_context_size(uc._uch)).tobytes()

    general = _find(data, "general registers", range(_MAGIC, _MAGIC + 8))
    eip = _find(data, "EIP", [_MAGIC + 8])
    cr0 = _find(data, "CR2", [_MAGIC + 9]) - 4
    dr0 = _find(data, "DR0-DR3", range(_MAGIC + 10, _MAGIC + 14))
    found = []
    for number, name in enumerate(tables):
        pattern = struct.pack("<QI", _MAGIC + 0x100 + number, _MAGIC_LIMIT + number)
        found.append(_index(data, name, pattern) - BASE)
    segments = found[0] - len(SEGMENT_NAMES) * SEGMENT_WORDS
    # EFLAGS follows EIP, then come the operands and the kind of the last arithmetic
    # operation; the hidden flags stand before the segments.
    if segments != eip + 14 or found != list(range(found[0], cr0, SEGMENT_WORDS)):
        raise CpuError(_unknown("the segment caches"))
    return Layout(
        general=general,
        eip=eip,
        eflags=eip + 2,
        arithmetic=eip + 6,
        operation=eip + 10,
        direction=eip + 11,
        hidden=eip + 12,
        segments=segments,
        ldt=found[0],
        tr=found[1],
        gdt=found[2],
        idt=found[3],
        cr0=cr0,
        dr0=dr0,
        error_code=dr0 - 4,
        software=dr0 - 3,
        old_exception=dr0 + 24,
    )


def _find(data: bytes, name: str, values: Sequence[int]) -> int:
    return _index(data, name, struct.pack(f"<{len(values)}Q", *values))


def _index(data: bytes, name: str, pattern: bytes) -> int:
    offset = data.find(pattern)
    if offset < 0 or offset % 4 or data.find(pattern, offset + 1) >= 0:
        raise CpuError(_unknown(name))
    return offset // 4


def _unknown(name: str) -> str:
    major, minor, _ = uc_version()
    return f"cannot find {name} in a context of Unicorn {major}.{minor}: install unicorn==2.1.4"


def _check_fresh(context: SavedContext) -> None:
    """A CPU that has run nothing must show the values of a reset."""
    words, layout = context.words, context.layout
    expected = {
        "old_exception": (words[layout.old_exception], 0xFFFFFFFF),
        "error_code": (words[layout.error_code], 0),
        "cc_op": (words[layout.operation], OPERATION_EFLAGS),
        "DF": (words[layout.direction], 1),
        "hflags": (words[layout.hidden] & 0xB3, HIDDEN_PE | HIDDEN_CS32 | HIDDEN_SS32),
        "CR0.PE": (words[layout.cr0] & 1, 1),
    }
    for name, (found, value) in expected.items():
        if found != value:
            raise CpuError(f"{_unknown(name)} (found {found:#x} where {value:#x} belongs)")


_CHECKS: Final = (
    (bytes.fromhex("cd42"), (0x42, 0, True)),  # int $0x42
    (bytes.fromhex("b8f87f0000 8ed8"), (13, 0x7FF8, False)),  # mov $0x7ff8,%eax; mov %eax,%ds
    (bytes.fromhex("31c9 f7f1"), (0, 0, False)),  # xor %ecx,%ecx; div %ecx
)


def _check_exceptions(uc: Uc, layout: Layout) -> None:
    """Raise exceptions whose vector and error code are known and read them back.

    The second and third are both contributory: they come out as themselves only when
    clearing ``old_exception`` works.
    """
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    uc.mem_map_ptr(0, mmap.PAGESIZE, const.UC_PROT_ALL, address)
    context = SavedContext(uc, layout)
    seen: list[tuple[int, int, bool]] = []

    def on_interrupt(_uc: Uc, vector: int, _data: object) -> None:
        context.save()
        words = context.words
        seen.append((vector, words[layout.error_code], bool(words[layout.software])))
        words[layout.old_exception] = 0xFFFFFFFF
        context.restore()
        uc.emu_stop()

    hook = uc.hook_add(const.UC_HOOK_INTR, on_interrupt)
    for code, expected in _CHECKS:
        memory[: len(code)] = code
        uc.ctl_flush_tb()
        uc.emu_start(0, mmap.PAGESIZE - 1)
        if seen[-1:] != [expected]:
            raise CpuError(
                f"{_unknown('the exception fields')} (expected {expected}, saw {seen[-1:]})"
            )
    uc.hook_del(hook)
    uc.mem_unmap(0, mmap.PAGESIZE)
