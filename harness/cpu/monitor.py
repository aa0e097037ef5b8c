# SPDX-License-Identifier: GPL-2.0-or-later
"""A page of our own that the CPU can run and no guest can see.

Some things cannot be asked of the emulator from outside: flush one page of the TLB, drop the
translated code of a physical page, run CPUID. They are done as the CPU itself: a prepared context
without paging, in ring 0, whose CS base lies far above 4 GiB, so that neither the code's own
TLB entry nor any other entry made here can ever match a guest's address.

The page lies above the 40 physical address bits of this CPU: no page table reaches it.
What can fail: :class:`~harness.cpu.interface.CpuError` when an instruction did not run.
"""

import ctypes
import mmap
from typing import Final

from unicorn import unicorn_const as const
from unicorn.unicorn_py3.unicorn import Uc

from harness.architecture import CR0_PG
from harness.cpu import library
from harness.cpu.context import BASE, HIDDEN_CPL, HIDDEN_LMA, Layout, SavedContext
from harness.cpu.interface import CpuError

_PADDR: Final = 1 << 44
_LOW_ALIAS: Final = 1 << 32
"""Without the LMA flag this CPU cuts a linear address to 32 bits: an alias of low memory."""
_CODE: Final = bytes.fromhex("0f0138 f4 0fa2 f4")  # invlpg (%eax); hlt; cpuid; hlt
_TB_REMOVE: Final = ctypes.c_int(library.CTL_TB_REMOVE)
_INVLPG: Final = 0
_CPUID: Final = 4


class Monitor:
    """Runs on the CPU ``uc`` between two instructions of the guest.

    Every method leaves the CPU in the monitor's state: the caller restores its own context.
    """

    def __init__(self, uc: Uc, layout: Layout) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._page[: len(_CODE)] = _CODE
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        uc.mem_map_ptr(_PADDR, mmap.PAGESIZE, const.UC_PROT_ALL, address)
        self._handle = ctypes.cast(uc._uch, ctypes.c_void_p)
        self._context = SavedContext(uc, layout)
        words = self._context.words
        words[layout.cr0] &= ~CR0_PG
        words[layout.hidden] &= ~HIDDEN_CPL
        self._high_hidden = words[layout.hidden] | HIDDEN_LMA
        self._low_hidden = words[layout.hidden] & ~HIDDEN_LMA
        words[layout.hidden] = self._high_hidden
        words[layout.segment("cs") + BASE + 1] = _PADDR >> 32
        self._begin, self._end = ctypes.c_uint64(), ctypes.c_uint64()

    def flush_page(self, va: int) -> None:
        """``invlpg`` of the page of ``va``, in every ring's TLB; 1.5 us."""
        context = self._context
        words, layout = context.words, context.layout
        words[layout.general] = va
        context.restore()
        if library.start_held(self._handle, _INVLPG, 0, 0, 0):
            raise CpuError(f"the monitor's invlpg of {va:#x} did not run")

    def cpuid(self, leaf: int) -> tuple[int, int, int, int]:
        """What CPUID answers: EAX, EBX, ECX, EDX."""
        context = self._context
        words, general = context.words, context.layout.general
        prepared = words.tobytes()
        words[general] = leaf
        context.restore()
        if library.start_held(self._handle, _CPUID, 0, 0, 0):
            raise CpuError("the monitor's cpuid did not run")
        context.save()
        eax, ecx, edx, ebx = (words[general + place] for place in (0, 2, 4, 6))
        words[:] = memoryview(prepared).cast("I")
        return eax, ebx, ecx, edx

    def drop_code(self, paddr: int, length: int) -> None:
        """Forget the code translated from ``length`` bytes at physical ``paddr``."""
        context, begin, end = self._context, self._begin, self._end
        low = paddr < _LOW_ALIAS
        if low:
            context.words[context.layout.hidden] = self._low_hidden
        context.restore()
        context.words[context.layout.hidden] = self._high_hidden
        begin.value = paddr + (_LOW_ALIAS if low else 0)
        end.value = begin.value + length
        if library.control(self._handle, _TB_REMOVE, begin, end):
            raise CpuError(f"cannot drop the code at physical {paddr:#x}")
