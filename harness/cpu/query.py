# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking the emulator's MMU without running the guest.

The library's ``uc_vmem_translate`` is no pure probe: it walks as the access would, so it
consults the TLB first (and gives the stale answer of a missing flush), fills it, sets
accessed and dirty bits, and on a fault overwrites CR2. All of that but the TLB's contents is
undone here: CR2 and the ring by restoring the saved context, A and D by restoring the table
entries.

A TLB entry filled by a question remembers that its page is dirty; a later store of the guest
would then leave D clear. So where a question did change an entry, and only there, the
translation is flushed. An entry that was in the TLB before changes nothing, hence stays:
stale ones are not lost by asking.

For many questions the tables are copied once before and compared once after
(:meth:`MmuQuery.asking`), which costs a few milliseconds a block and nothing a question.

What can fail: :class:`~harness.cpu.interface.CpuError` for nested or misplaced blocks.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from itertools import repeat
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from harness.architecture import Access, Ring
from harness.cpu import library
from harness.cpu.context import HIDDEN_CPL, SavedContext
from harness.cpu.entries import entry_words, table_frames
from harness.cpu.interface import CpuError
from kernel_model.ram import PAGE_SIZE, Ram

_PROTECTION: Final = {Access.READ: 1, Access.WRITE: 2, Access.FETCH: 4}


class _Asked(Protocol):
    """The CPU as far as a question needs it."""

    ram: Ram
    context: SavedContext

    def flush_tlb_one(self, vaddr: int) -> None: ...
    def flush_tlb_global(self) -> None: ...


class MmuQuery:
    """Questions to the MMU of one CPU, in any ring."""

    def __init__(self, cpu: _Asked) -> None:
        self._cpu = cpu
        self._result = ctypes.c_uint64()
        self._result_address = ctypes.addressof(self._result)
        self._block = False

    def translate(self, va: int, access: Access, ring: Ring) -> int | None:
        """Physical address, or None where the access would fault; 7 us."""
        cpu = self._cpu
        context = cpu.context
        context.latch()
        words = cpu.ram.words
        before = [(index, words[index]) for index in entry_words(cpu.ram, context.control, va)]
        with self._in_ring(ring):
            error = library.translate(context.handle, va, _PROTECTION[access], self._result_address)
        marked = [(index, word) for index, word in before if words[index] != word]
        if marked and not self._block:
            for index, word in marked:
                words[index] = word
            cpu.flush_tlb_one(va)
        return None if error else self._result.value

    def translate_many(
        self, vas: npt.NDArray[np.unsignedinteger], access: Access, ring: Ring
    ) -> npt.NDArray[np.int64]:
        """Physical addresses, -1 where the access would fault; 0.6 us an address."""
        if not self._block:
            with self.asking():
                return self.translate_many(vas, access, ring)
        count = len(vas)
        results = np.zeros(count, np.uint64)
        places = range(results.ctypes.data, results.ctypes.data + 8 * count, 8)
        handle = self._cpu.context.handle
        with self._in_ring(ring):
            answers = map(
                library.translate,
                repeat(handle),
                vas.tolist(),
                repeat(_PROTECTION[access]),
                places,
            )
            errors = np.fromiter(answers, np.int32, count)
        return np.where(errors == 0, results.astype(np.int64), -1)

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """A block of questions between which neither guest nor kernel changes the tables.

        At its end the tables are as they were, and the TLB is flushed if a question had
        marked one of them.
        """
        if self._block:
            raise CpuError("a block of MMU questions is already open")
        cpu = self._cpu
        cpu.context.latch()
        frames = table_frames(cpu.ram, cpu.context.control)
        tables = np.frombuffer(cpu.ram.buffer, np.uint64).reshape(-1, PAGE_SIZE // 8)
        before = tables[frames]
        self._block = True
        try:
            yield
        finally:
            self._block = False
            if not np.array_equal(before, tables[frames]):
                tables[frames] = before
                cpu.flush_tlb_global()

    @contextlib.contextmanager
    def _in_ring(self, ring: Ring) -> Iterator[None]:
        """Let the CPU stand in ``ring``; afterwards it is as the context says, CR2 included."""
        context = self._cpu.context
        words, index = context.words, context.layout.hidden
        hidden = words[index]
        words[index] = hidden & ~HIDDEN_CPL | ring
        context.restore()
        try:
            yield
        finally:
            words[index] = hidden
            context.restore()
