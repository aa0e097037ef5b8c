# SPDX-License-Identifier: GPL-2.0-or-later
"""Real loads, stores and fetches, by guest code in ring 0 and ring 3, over stamped frames.

The guest's probe (``guest/include/probe.h``) makes the accesses; stamps (:mod:`.stamps`) tell
which frame each one reached; the guest's own fault handler tells the error code and CR2.
Page tables, stamps, the guest's data, registers and CR2 are afterwards as they were.

Left out, and counted: frames outside RAM (devices), whose reading may have effects; stores and
fetches where the MMU, asked, already contradicts the architecture, since a store could change
an unknown frame and a fetch run anything; frames that cannot be stamped.

What can fail: :class:`~harness.readings.probe_place.NoPlace` if the guest cannot run at all;
:class:`ProbeTrapped` and the machine's own errors if it dies on the way.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from harness.architecture import Access, Ring
from harness.cpu.entries import table_frames
from harness.elf import ElfImage
from harness.machine import TrapHandler
from harness.mappings import I64, PAGE_SHIFT, RIGHT_BAD_TABLE
from harness.progress import Meter
from harness.readings.probe_place import (
    CHUNK_PAGES,
    NoPlace,
    Place,
    find_places,
    frames_in_ram,
)
from harness.readings.reading import (
    ASTRAY,
    QUESTIONS,
    UNSAID,
    Question,
    Reading,
    fault,
    faults,
)
from harness.readings.spec import SpecView
from harness.readings.stamps import (
    FRAME_WORDS,
    USUAL_SLOT,
    FrameWitnesses,
    recognise,
    stamp_words,
    stamped,
    stored_words,
)
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.ram import Ram
from kernel_model.structs.statics import THREAD_SIZE

__all__ = ["NAME", "LeftOut", "ProbeTrapped", "access_pages"]

NAME: Final = "access"
_SYMBOLS: Final = ("probe_kernel", "probe_user", "probe_user_text_start")
_ACCESS_NUMBERS: Final = {Access.READ: 0, Access.WRITE: 1, Access.FETCH: 2}
_ORDER: Final = (Access.READ, Access.FETCH, Access.WRITE)
"""Within one run: a store changes what the others look at."""
_STORES: Final = [QUESTIONS.index(Question(ring, Access.WRITE)) for ring in Ring]

Bools = npt.NDArray[np.bool_]


class ProbingCpu(Protocol):
    """The CPU as far as the probe needs it; see :class:`harness.cpu.interface.Cpu`."""

    @property
    def ring(self) -> int: ...
    def preserved(self) -> AbstractContextManager[None]: ...
    def invalidate_all_code(self) -> None: ...
    def flush_tlb_global(self) -> None: ...


class Probed(Protocol):
    """A machine whose guest can be called: ours, or the same one on another PC."""

    ram: Ram
    kernel: Kernel
    guest: ElfImage
    exit_status: int | None
    on_trap: TrapHandler

    @property
    def cpu(self) -> ProbingCpu: ...
    def symbol(self, name: str) -> int: ...
    def call(self, function: str | int, *arguments: int) -> int: ...


class ProbeTrapped(MmucheckError):
    """The probe met a trap that none of its accesses should raise."""


@dataclass(slots=True)
class LeftOut:
    """Pages that were not accessed, or not in every way, and why."""

    devices: int = 0
    without_stamp: int = 0
    hidden: int = 0

    def as_json(self) -> dict[str, int]:
        return {
            "devices": self.devices,
            "without_stamp": self.without_stamp,
            "hidden": self.hidden,
        }


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Pages tried in one run: their frames (-1: absent) and what the architecture expects."""

    pages: I64
    pfns: I64
    expected: I64
    settled: Bools
    data: I64
    stampable: Bools
    masks: npt.NDArray[np.uint32]

    @property
    def addresses(self) -> I64:
        """Of the data word of each page; any aligned word will do where nothing is shown."""
        word = np.where(self.data < 0, USUAL_SLOT + 1, self.data)
        return np.asarray(self.pages * (FRAME_WORDS * 4) + word * 4)

    @property
    def places(self) -> I64:
        """Index of the data word in RAM, in words; 0 where there is none."""
        known = (self.pfns >= 0) & (self.data >= 0)
        return np.where(known, self.pfns * FRAME_WORDS + self.data, 0)

    def wanted(self, question: Question) -> Bools:
        """Which pages are put to this question."""
        expected = self.expected[QUESTIONS.index(question)]
        denied = faults(expected)
        if question.access is Access.READ:
            return np.asarray(denied | (expected >= 0) & (self.data >= 0))
        return np.asarray(self.settled & (denied | (expected >= 0) & self.stampable))


def access_pages(
    machine: Probed, spec: SpecView, pages: I64, settled: Bools, meter: Meter
) -> tuple[Reading, LeftOut]:
    """Try ``pages`` (numbers, sorted) in the address space that CR3 names.

    ``settled`` is dense: the pages where the MMU, asked, and the architecture agree.
    """
    return _Accesses(machine, spec, settled, meter).run(pages)


class _Accesses:
    """One run over many pages."""

    def __init__(self, machine: Probed, spec: SpecView, settled: Bools, meter: Meter) -> None:
        missing = [name for name in _SYMBOLS if name not in machine.guest.symbols]
        if missing:
            raise NoPlace(f"the ring-0 image {machine.guest.name} has no {missing[0]}")
        if machine.exit_status is not None:
            raise NoPlace(f"the guest has ended with status {machine.exit_status}")
        if machine.cpu.ring != 0:
            raise NoPlace("the CPU stands in ring 3: let the guest go on to its kernel first")
        self._machine = machine
        self._spec = spec
        self._settled = settled
        self._meter = meter
        self._words = np.frombuffer(machine.ram.buffer, np.uint32)
        guest = machine.guest
        self._guest = (guest.start, guest.end)
        image = [virt_to_phys(address) >> PAGE_SHIFT for address in (guest.start, guest.end - 1)]
        stack = virt_to_phys(machine.kernel.image.current) >> PAGE_SHIFT
        pages = THREAD_SIZE >> PAGE_SHIFT
        in_use = [np.arange(image[0], image[1] + 1), np.arange(stack, stack + pages)]
        self._guest_frames = np.unique(np.concatenate(in_use))
        self._tables = self._table_frames()

    def _table_frames(self) -> I64:
        """PFNs of all page tables in use, the root included."""
        root = self._spec.registers.cr3 >> PAGE_SHIFT
        tables = table_frames(self._machine.ram, self._spec.registers)
        return np.union1d(tables, np.array([root]))

    def run(self, pages: I64) -> tuple[Reading, LeftOut]:
        pfns = self._spec.pages.pfn[pages]
        answers = np.full((len(QUESTIONS), len(pages)), UNSAID, np.int64)
        left_out = LeftOut()
        device = (pfns >= 0) & ~frames_in_ram(self._machine.ram, pfns)
        left_out.devices = int(np.count_nonzero(device))
        todo = ~device & (self._spec.pages.rights[pages] != RIGHT_BAD_TABLE)
        reserved = np.union1d(self._tables, self._guest_frames)
        places = find_places(self._spec, self._settled, reserved, self._guest)
        self._meter.start("loads, stores, fetches", int(np.count_nonzero(todo)))
        with self._machine_kept():
            for place in places:
                tried = self._try_from(place, pages, np.flatnonzero(todo), answers, left_out)
                todo[tried] = False
        left_out.hidden = int(np.count_nonzero(todo))
        return Reading(NAME, pages, answers), left_out

    @contextmanager
    def _machine_kept(self) -> Iterator[None]:
        """Registers, CR2 and the trap handler of the machine are afterwards as they were."""
        machine = self._machine
        handler, machine.on_trap = machine.on_trap, _refuse_trap
        try:
            with machine.cpu.preserved():
                yield
        finally:
            machine.on_trap = handler

    def _try_from(
        self, place: Place, pages: I64, todo: I64, answers: I64, left_out: LeftOut
    ) -> I64:
        """Try those pages of the indices ``todo`` that ``place`` does not hide; returns them."""
        machine, spec = self._machine, self._spec
        text = virt_to_phys(machine.symbol("probe_user_text_start")) >> PAGE_SHIFT
        changed = np.union1d(self._tables, self._guest_frames)
        with place.occupied(spec, text, changed, machine.cpu.flush_tlb_global):
            chosen = todo[~place.hides(spec, pages[todo])]
            entry_bytes = spec.mode.entry_size if spec.mode else 4
            witnesses = FrameWitnesses.choose(
                machine.ram, self._tables, entry_bytes, self._guest_frames
            )
            frames = spec.pages.pfn[pages[chosen]]
            expected = spec.reading(pages[chosen]).answers
            for part in _chunks(frames, np.any(expected[_STORES] >= 0, axis=0)):
                chunk = _Chunk(
                    pages[chosen[part]],
                    frames[part],
                    expected[:, part],
                    self._settled[pages[chosen[part]]],
                    witnesses.data_words(frames[part]),
                    witnesses.stampable_at(frames[part]) & (frames[part] >= 0),
                    witnesses.masks(frames[part]),
                )
                unstamped = ~chunk.stampable & (chunk.pfns >= 0)
                left_out.without_stamp += int(np.count_nonzero(unstamped))
                answers[:, chosen[part]] = self._try_chunk(place, chunk)
                self._meter.advance(len(part))
        return chosen

    def _try_chunk(self, place: Place, chunk: _Chunk) -> I64:
        answers = np.empty((len(QUESTIONS), len(chunk.pages)), np.int64)
        frames, first = np.unique(chunk.pfns[chunk.stampable], return_index=True)
        data = chunk.data[chunk.stampable][first]
        with stamped(self._machine.ram, frames, data):
            self._machine.cpu.invalidate_all_code()
            for ring in Ring:
                self._words[frames * FRAME_WORDS + data] = stamp_words(frames)
                self._try_ring(place, chunk, ring, answers)
        return answers

    def _try_ring(self, place: Place, chunk: _Chunk, ring: Ring, answers: I64) -> None:
        """All accesses of one ring to one chunk, in one run of the guest."""
        questions = [Question(ring, access) for access in _ORDER]
        which = [np.flatnonzero(chunk.wanted(question)) for question in questions]
        table = place.entries(self._machine.ram)[: sum(map(len, which))]
        table[:] = np.zeros((), table.dtype)
        start = 0
        for question, rows in zip(questions, which, strict=True):
            part = table[start : start + len(rows)]
            # The opcode of the stamped instruction stands one byte before the data word.
            before = 1 if question.access is Access.FETCH else 0
            part["va"] = chunk.addresses[rows] - before
            part["access"] = _ACCESS_NUMBERS[question.access]
            part["value"] = stored_words(np.maximum(chunk.pfns[rows], 0), ring)
            start += len(rows)
        natural = self._words[chunk.places]
        self._run_probe(place, ring, len(table))
        stable = self._words[chunk.places] == natural
        start = 0
        for question, rows in zip(questions, which, strict=True):
            row = answers[QUESTIONS.index(question)]
            row[:] = UNSAID
            met = table[start : start + len(rows)].copy()
            row[rows] = self._judge(question, chunk, rows, met, natural, stable)
            start += len(rows)

    def _run_probe(self, place: Place, ring: Ring, count: int) -> None:
        call = self._machine.call
        if ring is Ring.KERNEL:
            call("probe_kernel", place.table, count)
        else:
            user = (place.user_text, place.user_stack_top, place.user_table)
            call("probe_user", *user, count)

    def _judge(
        self,
        question: Question,
        chunk: _Chunk,
        rows: I64,
        met: npt.NDArray[np.void],
        natural: npt.NDArray[np.uint32],
        stable: Bools,
    ) -> I64:
        """The answers that the probe's entries ``met`` amount to, for the pages ``rows``."""
        pfns, values = chunk.pfns[rows], met["value"]
        if question.access is Access.WRITE:
            landed = self._words[chunk.places[rows]] == stored_words(pfns, question.ring)
            reached = np.where(landed & (pfns >= 0), pfns, ASTRAY)
        else:
            named = recognise(values, self._machine.ram.frames)
            reached = np.where(named >= 0, named, ASTRAY)
        if question.access is Access.READ:
            by_nature = (pfns >= 0) & ~chunk.stampable[rows]
            alike = (values ^ natural[rows]) & chunk.masks[rows] == 0
            # Page tables: the masked bits may change meanwhile, the others may not.
            kept = stable[rows] | (chunk.masks[rows] != np.uint32(0xFFFFFFFF))
            shown = np.where(kept, np.where(alike, pfns, ASTRAY), UNSAID)
            reached = np.where(by_nature, shown, reached)
        faulted = met["fault"] != 0
        honest = met["cr2"] == met["va"]
        return np.where(
            faulted, np.where(honest, fault(met["error_code"].astype(np.int64)), ASTRAY), reached
        )


def _chunks(pfns: I64, stored_to: Bools) -> Iterator[I64]:
    """Indices of the pages in parts of at most :data:`CHUNK_PAGES`.

    No two pages of a part share a frame that is stored to, or one store would hide the other.
    """
    round_number = np.zeros(len(pfns), np.int64)
    shared = np.flatnonzero(stored_to & (pfns >= 0))
    order = shared[np.argsort(pfns[shared], kind="stable")]
    first = np.concatenate(([True], np.diff(pfns[order]) != 0))[: len(order)]
    position = np.arange(len(order))
    round_number[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    for number in np.unique(round_number).tolist():
        members = np.flatnonzero(round_number == number)
        for start in range(0, len(members), CHUNK_PAGES):
            yield members[start : start + CHUNK_PAGES]


def _refuse_trap(_regs: Any, vector: int, error_code: int, cr2: int) -> None:
    raise ProbeTrapped(f"the probe met trap {vector}, error code {error_code:#x}, CR2 {cr2:#x}")
