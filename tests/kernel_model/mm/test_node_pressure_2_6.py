# SPDX-License-Identifier: GPL-2.0-or-later
"""Random requests on random nodes, until memory is short: who serves them, and what comes back.

:class:`Oracle` reads the rules of ``__alloc_pages()`` of linux-2.6.11 once more, on the counts that
stand in RAM. A request goes along the zonelist of its node: first it wants every zone to keep
``pages_low``, then ``pages_min``, of which one that is ``__GFP_HIGH`` leaves a half and one that
cannot wait three quarters; a process that frees memory takes what there is. Nothing can be
reclaimed here. When all is given back, each zone has the blocks it had.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import boot
from kernel_model.mm.gfp import PF_MEMALLOC
from kernel_model.mm.linux_2_6.buddy import Buddy26
from kernel_model.mm.linux_2_6.mmzone import for_each_zone
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26
from kernel_model.proc import proc_files
from kernel_model.release.constants import LINUX_2_6

pytestmark = [pytest.mark.book("2.8", "6.7"), pytest.mark.book("2.1", release="2.6")]
GFP = LINUX_2_6.gfp
SPANS = ((0, 5120), (5120, 7168), (7168, 9216))
NODES = len(SPANS)
MASKS = {
    "atomic": GFP.atomic,
    "nowait": 0,
    "cold": GFP.atomic | GFP.cold,
    "dma": GFP.atomic | GFP.dma,
    "high": GFP.atomic | GFP.highmem,
    "waits": GFP.wait | GFP.noretry,
    "waits, high": GFP.wait | GFP.noretry | GFP.high,
}


class Oracle:
    """Where requests must be served from, and what is counted of them."""

    def __init__(self, allocator: NodePageAllocator26, zones: list[Any]) -> None:
        self._allocator = allocator
        self._zones = {(zone.number >> 2, zone.index): zone for zone in zones}
        self.counted: Counter[tuple[int, str]] = Counter()

    def zonelist(self, home: int, gfp: int) -> list[tuple[int, int]]:
        """Node and zone, best first: at home, then on the nodes that follow, in a ring."""
        best = 0 if gfp & GFP.dma else 2 if gfp & GFP.highmem else 1
        return [
            ((home + step) % NODES, index)
            for step in range(NODES)
            for index in range(best, -1, -1)
            if ((home + step) % NODES, index) in self._zones
        ]

    def source(self, home: int, gfp: int, order: int, *, frees_memory: bool) -> int:
        """The node that serves a request; -1: none does."""
        listed = self.zonelist(home, gfp)
        wanted = listed[0][1]
        for place in listed:
            if self._leaves(place, int(self._zones[place].view.pages_low), order, wanted):
                return place[0]
        for place in listed:
            mark = int(self._zones[place].view.pages_min)
            mark -= mark // 2 if gfp & GFP.high else 0
            mark -= 0 if gfp & GFP.wait else mark // 4
            if self._leaves(place, mark, order, wanted):
                return place[0]
        if frees_memory:
            return next((nid for nid, index in listed if self._has(nid, index, gfp, order)), -1)
        return -1

    def _leaves(self, place: tuple[int, int], mark: int, order: int, wanted: int) -> bool:
        """Whether a zone keeps enough: in all, and in blocks that are large enough."""
        zone = self._zones[place]
        free = zone.free_pages - (1 << order) + 1
        if free <= mark + int(zone.view.lowmem_reserve[wanted]):
            return False
        for smaller in range(order):
            free -= zone.nr_free(smaller) << smaller
            mark >>= 1
            if free <= mark:
                return False
        return True

    def _has(self, nid: int, index: int, gfp: int, order: int) -> bool:
        """Whether a zone, or a list of the CPU, has a block at all."""
        zone = self._zones[nid, index]
        on_list = order == 0 and zone.pagesets[0][bool(gfp & GFP.cold)].count
        return bool(on_list) or any(zone.nr_free(larger) for larger in range(order, 11))

    def count(self, home: int, wanted: int, found: int) -> None:
        """A request of a CPU of node ``home``, for node ``wanted``, was served by ``found``."""
        self.counted[found, "local_node" if found == home else "other_node"] += 1
        if wanted == found:
            self.counted[found, "numa_hit"] += 1
        else:
            self.counted[found, "numa_miss"] += 1
            self.counted[wanted, "numa_foreign"] += 1


class Pressure:
    """A machine with three nodes, and blocks that somebody holds."""

    def __init__(self) -> None:
        config = KernelConfig(ram=36 * MIB, release="2.6", nodes=NODES, node_spans=SPANS)
        self.kernel = boot(config)
        assert isinstance(self.kernel.allocator, NodePageAllocator26)
        self.allocator = self.kernel.allocator
        self.zones = [zone for zone in for_each_zone(self.kernel.image) if zone.size]
        self.oracle = Oracle(self.allocator, self.zones)
        self.held: list[tuple[int, int]] = []
        self.allocator.drain_local_pages()
        self._blocks, self._stat = self.blocks(), self.numastat()

    def blocks(self) -> list[list[int]]:
        """Of each zone how many blocks of each order are free."""
        return [zone.free_counts() for zone in self.zones]

    def numastat(self) -> Counter[tuple[int, str]]:
        told = proc_files(self.kernel)["numastat"].data(self.kernel)
        return Counter({(row["node"], name): row[name] for row in told for name in row})

    def ask(self, mask: str, order: int, home: int, wanted: int | None, *, dying: bool) -> int:
        """One request; the node that served it, or -1."""
        gfp, allocator = MASKS[mask], self.allocator
        allocator.node_id = home
        at = home if wanted is None else wanted
        current = self.kernel.image.current_task
        if dying:
            current.flags |= PF_MEMALLOC
        expected = self.oracle.source(at, gfp, order, frees_memory=dying)
        if wanted is None:
            page = allocator.alloc_pages(gfp, order)
        else:
            page = allocator.alloc_pages_node(wanted, gfp, order)
        current.flags &= ~PF_MEMALLOC & 0xFFFFFFFF
        found = allocator.memmap.page_to_nid(page) if page else -1
        assert found == expected, f"node {found} served, not node {expected}"
        if page:
            first, last = (allocator.memmap.pfn(page) + n for n in (0, (1 << order) - 1))
            assert SPANS[found][0] <= first <= last < SPANS[found][1]
            listed = self.oracle.zonelist(at, gfp)[0][0]
            self.oracle.count(home, listed, found)
            self.held.append((page, order))
        return found

    def give_back(self, number: int) -> None:
        if self.held:
            self.allocator.free_pages(*self.held.pop(number % len(self.held)))

    def end(self) -> None:
        """All comes back, and all was counted."""
        counted = self.numastat()
        counted.subtract(self._stat)
        counted = Counter({key: count for key, count in counted.items() if count})
        assert counted == self.oracle.counted, "what numastat counts"
        for page, order in self.held:
            self.allocator.free_pages(page, order)
        self.allocator.drain_local_pages()
        assert self.blocks() == self._blocks, "some frame did not come back"


REQUEST = st.tuples(
    st.sampled_from(sorted(MASKS)),
    st.sampled_from([0, 0, 0, 1, 2, 5, 8, 9, 10]),
    st.integers(0, NODES - 1),
    st.one_of(st.none(), st.integers(0, NODES - 1)),
    st.booleans(),
    st.sampled_from([1, 1, 3, 20]),
)
STEPS = st.lists(st.one_of(REQUEST, REQUEST, st.integers(0, 1 << 16)), min_size=20, max_size=60)


@settings(max_examples=20, deadline=None)
@given(full=st.booleans(), steps=STEPS)
def test_nodes_serve_in_the_order_of_the_rules_and_every_frame_comes_back(
    full: bool, steps: list[Any]
) -> None:
    pressure = Pressure()
    if full:
        exhaust(pressure)
    for step in steps:
        if isinstance(step, int):
            pressure.give_back(step)
            continue
        mask, order, home, wanted, dying, times = step
        for _ in range(times):
            if pressure.ask(mask, order, home, wanted, dying=dying) < 0:
                break
    pressure.end()


def exhaust(pressure: Pressure) -> list[int]:
    """Large blocks first, for who may wait; the nodes that served node 1, in their order."""
    served = []
    for order in (10, 7, 4, 1, 0):
        while (nid := pressure.ask("waits", order, 1, None, dying=False)) >= 0:
            served.append(nid)
    return served


def test_all_memory_of_a_node_goes_before_any_of_the_next_down_to_the_marks() -> None:
    pressure = Pressure()
    served = exhaust(pressure)
    assert list(dict.fromkeys(served)) == [1, 2, 0]
    # Who may go deeper begins at home again, and one who frees memory takes the last.
    assert [pressure.ask("atomic", 0, home, None, dying=False) for home in range(3)] == [0, 1, 2]
    last = []
    while (nid := pressure.ask("dma", 0, 2, None, dying=True)) >= 0:
        last.append(nid)
    assert set(last) == {0}
    assert pressure.ask("waits", 0, 2, 2, dying=False) == -1
    pressure.end()


# -- planted -------------------------------------------------------------------------------------


def backwards(pressure: Pressure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring is gone round the other way."""
    for pgdat in pressure.allocator.pgdats():
        zones = _zones(pressure, pgdat)
        listed = [int(zone) for zone in zones if zone]
        end = pgdat + pressure.kernel.image.structs.pg_data_t.size
        at_home = [zone for zone in listed if pgdat <= zone < end]
        others = [zone for zone in listed if zone not in at_home]
        for place, zone in enumerate(at_home + others[::-1]):
            zones[place] = zone


def one_short(pressure: Pressure, monkeypatch: pytest.MonkeyPatch) -> None:
    """No zonelist has its last zone."""
    for pgdat in pressure.allocator.pgdats():
        zones = _zones(pressure, pgdat)
        zones[[int(zone) for zone in zones].index(0) - 1] = 0


def _zones(pressure: Pressure, pgdat: int) -> Any:
    image = pressure.kernel.image
    return image.at(image.structs.pg_data_t, pgdat).node_zonelists[0].zones


def at_home(pressure: Pressure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node that was asked for is not heeded."""
    monkeypatch.setattr(
        NodePageAllocator26,
        "alloc_pages_node",
        lambda self, nid, gfp, order: self.alloc_pages(gfp, order),
    )


def deeper(pressure: Pressure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may go as deep as one who cannot wait."""
    real = Buddy26.watermark_ok

    def generous(self: Buddy26, order: int, mark: int, classzone_idx: int, **how: bool) -> bool:
        return real(self, order, mark // 2, classzone_idx, **how)

    monkeypatch.setattr(Buddy26, "watermark_ok", generous)


def no_reserve(pressure: Pressure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for Normal empties DMA as if it were for that."""
    real = Buddy26.watermark_ok
    monkeypatch.setattr(
        Buddy26,
        "watermark_ok",
        lambda self, order, mark, _, **how: real(self, order, mark, 0, **how),
    )


def not_counted(pressure: Pressure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NodePageAllocator26, "_zone_statistics", lambda *_: None)


def lost(pressure: Pressure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second frame that comes back does not."""
    real, calls = NodePageAllocator26.free_pages, []

    def forgetful(self: NodePageAllocator26, page: int, order: int) -> None:
        calls.append(page)
        if len(calls) != 2:
            real(self, page, order)

    monkeypatch.setattr(NodePageAllocator26, "free_pages", forgetful)


@pytest.mark.parametrize(
    "plant", [backwards, one_short, at_home, deeper, no_reserve, not_counted, lost]
)
def test_planted_faults_are_found(
    plant: Callable[[Pressure, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        for home, wanted in ((0, 2), (1, None), (2, 1)):
            pressure.ask("atomic", 3, home, wanted, dying=False)
        exhaust(pressure)
        pressure.ask("dma", 0, 1, None, dying=True)
        pressure.end()

    pressure = Pressure()
    run()
    pressure = Pressure()
    plant(pressure, monkeypatch)
    with pytest.raises(AssertionError):
        run()
