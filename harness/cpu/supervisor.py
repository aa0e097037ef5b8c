# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory as the CPU itself reaches it when it delivers a trap: IDT, GDT, TSS, stack.

Such accesses are supervisor accesses by virtual address, whatever ring is running (Intel SDM
volume 3A, section 4.6.1), and they fault like any other. The CPU's own MMU is asked, which
marks entries accessed and dirty as delivery does on hardware. Its answer is remembered
together with the table entries it came from and trusted only while CR0, CR3, CR4 and those
entries stand unchanged, which makes an access cost 0.4 us.

What can fail: :class:`SupervisorFault` for a #PF; :class:`OutsideRam` where no RAM answers.
"""

import ctypes
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

from harness.cpu import library
from harness.cpu.context import HIDDEN_CPL, SavedContext
from harness.cpu.entries import entry_words
from kernel_model.ram import PAGE_SIZE, Ram

_OFFSET: Final = PAGE_SIZE - 1
_READ: Final = 1
_WRITE: Final = 2
_MASK: Final = 0xFFFFFFFF

CellReader = Callable[["memoryview[int]"], Any]
"""Reads fixed words of RAM, given ``Ram.words``."""


class SupervisorFault(Exception):
    """The access raised #PF: the faulting address and the error code."""

    def __init__(self, va: int, error_code: int) -> None:
        super().__init__(f"#PF at {va:#010x}, error code {error_code}")
        self.va = va
        self.error_code = error_code


class OutsideRam(Exception):
    """The access went to a physical address where there is no RAM."""

    def __init__(self, va: int, paddr: int) -> None:
        super().__init__(f"virtual {va:#010x} is physical {paddr:#x}, outside RAM")
        self.va = va
        self.paddr = paddr


def reader(indices: list[int]) -> CellReader:
    """Reads the words of RAM at ``indices`` in one call; comparable, whatever their number."""
    return itemgetter(*indices) if indices else _read_nothing


def _read_nothing(_words: "memoryview[int]") -> tuple[()]:
    return ()


class SupervisorMemory:
    """The guest's memory by virtual address, with ring 0's rights.

    ``context`` is the CPU's latched context, ``scratch`` another one of the same CPU.
    """

    def __init__(self, ram: Ram, context: SavedContext, scratch: SavedContext) -> None:
        self._ram = ram
        self._words = ram.words
        self._context = context
        self._scratch = scratch
        layout = context.layout
        self._cr0, self._cr3, self._cr4 = layout.cr0, layout.cr3, layout.cr4
        self._regime = (-1, -1, -1)
        self._known: dict[int, tuple[int, CellReader, Any, list[int]]] = {}
        self._result = ctypes.c_uint64()
        self._result_address = ctypes.addressof(self._result)
        self.trace: list[int] | None = None
        """Indices of the u32 of RAM consulted since it was set to a list, tables included."""

    def begin(self) -> bool:
        """Start a delivery; true when a control register has changed and all is forgotten."""
        words = self._context.words
        regime = (words[self._cr0], words[self._cr3], words[self._cr4])
        if regime == self._regime:
            return False
        self._regime = regime
        self._known.clear()
        return True

    def paddr(self, va: int, write: bool = False, user: bool = False) -> int:
        """The physical address behind ``va``; rights are checked, A and D are set.

        ``user``: with ring 3's rights, for a handler that runs in ring 3 itself.
        """
        known = self._known.get(va >> 12 << 2 | user << 1 | write)
        if known is None or known[1](self._words) != known[2]:
            known = self._ask(va, write, user)
        if self.trace is not None:
            self.trace += known[3]
        return known[0] | va & _OFFSET

    def _ask(self, va: int, write: bool, user: bool) -> tuple[int, CellReader, Any, list[int]]:
        context = self._context
        words, layout = context.words, context.layout
        hidden = words[layout.hidden]
        words[layout.hidden] = hidden & ~HIDDEN_CPL | (HIDDEN_CPL if user else 0)
        context.restore()
        words[layout.hidden] = hidden
        context.dirty = True
        access = _WRITE if write else _READ
        if library.translate(context.handle, va, access, self._result_address):
            self._scratch.save()
            raise SupervisorFault(va, self._scratch.words[layout.error_code])
        paddr = self._result.value
        if not self._ram.contains(paddr):
            raise OutsideRam(va, paddr)
        cells = entry_words(self._ram, context.control, va)
        read = reader(cells)
        known = (paddr & ~_OFFSET, read, read(self._words), cells)
        self._known[va >> 12 << 2 | user << 1 | write] = known
        return known

    def read32(self, va: int) -> int:
        """A u32; one that crosses a page is read through both."""
        if va & 3:
            return sum(self.read8(va + n & _MASK) << 8 * n for n in range(4))
        index = self.paddr(va) >> 2
        if self.trace is not None:
            self.trace.append(index)
        return self._words[index]

    def read8(self, va: int) -> int:
        paddr = self.paddr(va)
        if self.trace is not None:
            self.trace.append(paddr >> 2)
        return self._ram.bytes[paddr]

    def write32(self, va: int, value: int) -> None:
        """A u32; all its bytes are translated before the first is written."""
        places = [self.paddr(va + n & _MASK, True) for n in range(4)]
        for place, byte in zip(places, value.to_bytes(4, "little"), strict=True):
            self._ram.bytes[place] = byte
