# SPDX-License-Identifier: GPL-2.0-or-later
"""Where 2.6 must take a frame from, and where it must put one that comes back.

Each CPU keeps single free frames of each zone on two lists, of hot and of cold ones (book 2.8,
6.7); those are neither in the zone's blocks nor in use. Single frames come from the front of a
list and go back to it; a list that is short is filled up from the zone at its end, one that is
long gives its oldest back. Larger blocks know no list. What the allocator did is held against
two snapshots, by the limits that follow from the size of the zone.
"""

from dataclasses import dataclass, field

from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.mmzone import COLD, HOT, Zone26
from kernel_model.mm.mmzone import for_each_zone

MAX_ORDER = 11
Lists = dict[tuple[int, int], list[int]]


@dataclass(frozen=True)
class ZoneSeen:
    """A zone at one moment."""

    zone: Zone26 = field(compare=False)
    free: int
    """Frames in blocks."""
    blocks: list[int]
    """Of each order, how many."""
    lists: Lists
    """CPU, kind -> the frames on the list, the one to be taken next first."""

    @property
    def batch(self) -> int:
        """How many frames move between list and zone at once: a 4096th of it, 16 at most."""
        return max(min(self.zone.present_pages // 1024, 64) // 4, 1)

    def low(self, kind: int) -> int:
        """With no more frames than this a list is filled up first."""
        return 2 * self.batch if kind == HOT else 0

    def high(self, kind: int) -> int:
        """With this many it gives some back first."""
        return (6 if kind == HOT else 2) * self.batch

    def above(self, mark: int, order: int, wanted: int, *, atomic: bool = False) -> bool:
        """Whether a block may be taken: so much must remain, and besides what is kept from
        requests for zone ``wanted``; of larger blocks half as much with each order. One who can
        not wait may use half of it, and a quarter of the rest."""
        free = self.free - (1 << order) + 1
        if atomic:
            mark -= mark // 2
            mark -= mark // 4
        if free <= mark + int(self.zone.view.lowmem_reserve[wanted]):
            return False
        for smaller in range(order):
            free -= self.blocks[smaller] << smaller
            mark //= 2
            if free <= mark:
                return False
        return True


class FrameOracle26:
    """What must become of each request that does not wait."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._gfp = kernel.image.constants.gfp

    @property
    def cpu(self) -> int:
        return int(self._kernel.image.current_task.processor)

    def look(self) -> dict[int, ZoneSeen]:
        """Every zone, by its address."""
        seen = {}
        for each in for_each_zone(self._kernel.image):
            zone = Zone26(self._kernel.image, each.vaddr)
            lists = {
                (cpu, kind): list(zone.pagesets[cpu][kind].pages())
                for cpu in range(self._kernel.config.nr_cpus)
                for kind in (HOT, COLD)
            }
            blocks = [zone.nr_free(order) for order in range(MAX_ORDER)]
            seen[zone.vaddr] = ZoneSeen(zone, zone.free_pages, blocks, lists)
        return seen

    def _zones(self, gfp: int, before: dict[int, ZoneSeen]) -> list[ZoneSeen]:
        """The zones that serve a request, best first: those of the CPU's node, then the others."""
        dma, high = gfp & self._gfp.dma, gfp & self._gfp.highmem
        best = 0 if dma else 2 if high else 1
        fitting = [seen for seen in before.values() if seen.zone.index <= best]

        def distance(seen: ZoneSeen) -> tuple[bool, int]:
            return self._node(seen) != 0, -seen.zone.index

        return sorted(fitting, key=distance)

    def _node(self, seen: ZoneSeen) -> int:
        kind = self._kernel.image.structs.pg_data_t
        return int(self._kernel.image.at(kind, int(seen.zone.view.zone_pgdat)).node_id)

    def source(self, gfp: int, order: int, before: dict[int, ZoneSeen]) -> int:
        """The zone that a request that does not wait is served from; 0: none may."""
        zones = self._zones(gfp, before)
        wanted = zones[0].zone.index
        for seen in zones:
            if seen.above(int(seen.zone.view.pages_low), order, wanted):
                return seen.zone.vaddr
        for seen in zones:
            if seen.above(int(seen.zone.view.pages_min), order, wanted, atomic=True):
                return seen.zone.vaddr
        return 0

    # -- what was done -------------------------------------------------------------------------

    def taken(self, page: int, gfp: int, order: int, before: dict[int, ZoneSeen]) -> None:
        """``page`` came of a request that does not wait."""
        source, after = self.source(gfp, order, before), self.look()
        assert bool(page) == bool(source), "the watermarks were not kept"
        for vaddr, old in before.items():
            if vaddr != source:
                self._same(old, after[vaddr])
            elif order:
                self._moved(old, after[vaddr], -(1 << order), {})
            else:
                self._taken_from_list(
                    page, COLD if gfp & self._gfp.cold else HOT, old, after[vaddr]
                )

    def _taken_from_list(self, page: int, kind: int, old: ZoneSeen, new: ZoneSeen) -> None:
        before, after = old.lists[self.cpu, kind], new.lists[self.cpu, kind]
        filled = min(old.batch, old.free) if len(before) <= old.low(kind) else 0
        assert len(after) == len(before) + filled - 1, "a list is filled up when it is short"
        taken, rest = (before[0], before[1:]) if before else (page, [])
        assert (page, after[: len(rest)]) == (taken, rest), "the first of the list is taken"
        self._moved(old, new, -filled, {(self.cpu, kind): after})

    def given_back(self, page: int, order: int, kind: int, before: dict[int, ZoneSeen]) -> None:
        """A block came back without users."""
        home, after = self._kernel.allocator.page_zone(page).vaddr, self.look()
        for vaddr, old in before.items():
            if vaddr != home:
                self._same(old, after[vaddr])
            elif order:
                self._moved(old, after[vaddr], 1 << order, {})
            else:
                frames = old.lists[self.cpu, kind]
                more = old.batch if len(frames) >= old.high(kind) else 0
                kept = [page, *frames[: len(frames) - more]]
                self._moved(old, after[vaddr], more, {(self.cpu, kind): kept})

    def drained(self, before: dict[int, ZoneSeen]) -> None:
        """The lists of this CPU are empty, and their frames in blocks."""
        after = self.look()
        for vaddr, old in before.items():
            mine = [key for key in old.lists if key[0] == self.cpu]
            count = sum(len(old.lists[key]) for key in mine)
            self._moved(old, after[vaddr], count, {key: [] for key in mine})

    def _same(self, old: ZoneSeen, new: ZoneSeen) -> None:
        self._moved(old, new, 0, {})

    def _moved(self, old: ZoneSeen, new: ZoneSeen, more: int, changed: Lists) -> None:
        """So many frames more are in blocks, and no other list than these has changed."""
        name = old.zone.name
        assert new.free == old.free + more, (
            f"{name} has {new.free} frames, had {old.free}, {more:+}"
        )
        assert new.lists == old.lists | changed, f"{name}: a list is not as it must be"
