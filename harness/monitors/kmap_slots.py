# SPDX-License-Identifier: GPL-2.0-or-later
"""Who holds the slots of ``kmap_atomic()``.

A slot is one CPU's, for a moment: whoever maps a frame in it unmaps it before anybody sleeps, and
long before a process runs again. The kernel writes down no owner, and without CONFIG_DEBUG_HIGHMEM
it does not even unmap; so :class:`KmapSlots` listens to ``kernel_model.events``, and keeps for each
slot that is held its frame and the functions that mapped it. ``preempt_count`` of 2.6 counts those
too whose frame needed no slot. Source: book 3.10; linux-2.6.11 ``include/asm-i386/kmap_types.h``.

What can fail: :class:`SlotTaken`, :class:`SlotLeaked`.
"""

import sys
from dataclasses import dataclass
from typing import Final

from harness.monitors.entry_writers import Call, calls_to, kernel_functions
from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.arch_i386.highmem import KmType, KmType26
from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.config import Highmem
from kernel_model.errors import MmucheckError
from kernel_model.events import Announcer, Rights
from kernel_model.image import SWAPPER_PG_DIR, KernelImage

_DEPTH: Final = 6
"""How many functions are kept of those that led to a slot."""


@dataclass(frozen=True, slots=True)
class Held:
    """A slot that maps frame ``pfn`` for somebody; ``calls`` are the functions, innermost first."""

    name: str
    cpu: int
    pfn: int
    calls: tuple[Call, ...]

    def __str__(self) -> str:
        return (
            f"slot KM_{self.name} of CPU {self.cpu}, frame {self.pfn:#x}, mapped by "
            f"{kernel_functions(self.calls)}"
        )


class SlotTaken(MmucheckError):
    """A slot was mapped anew while ``first`` held it, who now reads and writes another frame."""

    def __init__(self, first: Held, second: Held) -> None:
        super().__init__(f"{first}, is held, and taken by {kernel_functions(second.calls)}")
        self.first = first
        self.second = second


class SlotLeaked(MmucheckError):
    """The kernel is done, and ``held`` slots are not given back, or ``count`` is not 0."""

    def __init__(self, held: list[Held], count: int) -> None:
        slots = "; ".join(map(str, held)) or "the frames that were mapped needed no slot"
        super().__init__(f"kmap_atomic() without kunmap_atomic(), preempt_count {count}: {slots}")
        self.held = held
        self.count = count


class KmapSlots:
    """A :class:`~kernel_model.events.MemoryListener` that keeps book of one machine's slots."""

    def __init__(self, image: KernelImage) -> None:
        fixed = fixed_addresses(image.config)
        self._per_cpu = fixed.plan.km_type_nr
        self._kinds = next(kinds for kinds in (KmType, KmType26) if len(kinds) == self._per_cpu)
        self._first = fixed.to_virt(fixed.slots["FIX_KMAP_BEGIN"]) >> PAGE_SHIFT
        self._pages = range(self._first - self._per_cpu * image.config.nr_cpus + 1, self._first + 1)
        self._counts = getattr(image.statics, "preempt_count", ())
        self._held: dict[int, Held] = {}

    @staticmethod
    def watch(image: KernelImage) -> "KmapSlots | None":
        """Join the listeners of a kernel that has such slots; ``None``: it has none."""
        if image.config.highmem is Highmem.NONE:
            return None
        slots = KmapSlots.of(image.events)
        if slots is None:
            slots = KmapSlots(image)
            image.events.listeners.append(slots)
        return slots

    @staticmethod
    def of(events: Announcer) -> "KmapSlots | None":
        """Those that listen to ``events``, if any do."""
        return next((x for x in events.listeners if isinstance(x, KmapSlots)), None)

    def held(self) -> list[Held]:
        """The slots in use, from the lowest address up."""
        return [self._held[page] for page in sorted(self._held)]

    def check(self) -> None:
        """The kernel is about to leave, and holds nothing.

        :raises SlotLeaked: if it does.
        """
        counts = [int(count) for count in self._counts]
        if self._held or any(counts):
            raise SlotLeaked(self.held(), sum(counts) if counts else len(self._held))

    # -- events --------------------------------------------------------------------------------

    def page_mapped(self, mm: int, vaddr: int, pfn: int, rights: Rights) -> None:
        page = vaddr >> PAGE_SHIFT
        if mm != SWAPPER_PG_DIR or page not in self._pages:
            return
        cpu, kind = divmod(self._first - page, self._per_cpu)
        # Frame 1 is the announcer's, frame 2 that of kmap_atomic().
        held = Held(self._kinds(kind).name, cpu, pfn, calls_to(sys._getframe(3), _DEPTH))
        first = self._held.get(page)
        self._held[page] = held
        if first is not None:
            raise SlotTaken(first, held)

    def page_unmapped(self, mm: int, vaddr: int) -> None:
        if mm == SWAPPER_PG_DIR:
            self._held.pop(vaddr >> PAGE_SHIFT, None)

    def page_abandoned(self, mm: int, vaddr: int) -> None:
        self.page_unmapped(mm, vaddr)

    def page_moved(self, mm: int, old: int, new: int) -> None:
        """Slots stay where they are."""

    def frame_taken(self, pfn: int, order: int, purpose: str) -> None:
        """Frames are the ledger's."""

    def frame_given_back(self, pfn: int, order: int) -> None:
        """Frames are the ledger's."""

    def kernel_table_made(self, vaddr: int, size: int) -> None:
        """The slots' page table is as old as the kernel."""

    def kernel_tables_shared(self, mm: int, vaddr: int, size: int) -> None:
        """Every directory has it."""
