# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that takes frames, mixed: after each step each frame has exactly one owner.

:class:`FrameMachine` does what a kernel of either release does with frames; where a frame must
come from, how memory is reclaimed, and what only one release has, its subclass says. The builds
are uniform memory, two nodes, high memory with two levels and with PAE, and of 2.6 two CPUs.
"""

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.pgtable import PAGE_SHARED
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import EndlessLoop
from kernel_model.kernel import Kernel
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.linux_2_6.mmzone import COLD, HOT
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.vmscan import Vmscan26
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.vmscan import Vmscan
from tests.harness.frame_accounting import check_machine
from tests.harness.frame_oracle_2_6 import FrameOracle26, ZoneSeen
from tests.harness.made_to_reclaim import MADE_TO_RECLAIM
from tests.kernel_model.mm.cached_pages import cache_page, new_space
from tests.kernel_model.mm.user_spaces import UserSpaces

USER_BASE, USER_FAR = 0x08000000, 0x7FC00000
MASKS = st.sampled_from(
    [
        *(("atomic", ""), ("atomic", "dma"), ("atomic", "highmem"), ("atomic", "cold")),
        *(("nofs", ""), ("kernel", "")),
    ]
)
"""Names of GFP masks, and of a bit besides; 2.4 has no cold frames, and asks for any."""
TABLE = 4 << 20


def machines(release: str, **more: dict[str, Any]) -> dict[str, KernelConfig]:
    """The builds on which frames are taken. ``more`` are those that one release has alone."""
    high = {"ram": 70 * MIB, "highmem_pages": 6 << 8}
    builds: dict[str, dict[str, Any]] = {
        "uniform": {"ram": 16 * MIB},
        "nodes": {"ram": 32 * MIB, "nodes": 2},
        "highmem": {"highmem": Highmem.GB4, **high},
        "PAE": {"highmem": Highmem.GB64, **high},
        **more,
    }
    return {
        name: KernelConfig(release=release, swap_pages=300, **build)
        for name, build in builds.items()
    }


class FrameMachine(RuleBasedStateMachine):
    """What a kernel does with frames. ``blocks``, ``spaces`` and the rest are what it holds."""

    machines: ClassVar[dict[str, KernelConfig]]

    @initialize(number=st.integers(0, 4), room=st.sampled_from([200, 500, 100_000]))
    def boot(self, number: int, room: int) -> None:
        """A machine with about ``room`` free frames: where little is free, much is reclaimed."""
        self.kernel = Kernel(list(self.machines.values())[number % len(self.machines)])
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        self.allocator, self.memmap = self.kernel.allocator, self.kernel.allocator.memmap
        self.gfp = self.kernel.image.constants.gfp
        self.reclaiming = MADE_TO_RECLAIM[self.kernel.config.release]
        self.begin()
        self.blocks: list[tuple[int, int]] = []
        self.programs = UserSpaces(self.kernel)
        self.spaces: dict[int, int] = {}
        self.file = new_space(self.kernel)
        self.index = 0
        self.kmapped: list[int] = []
        self.start_program()
        self.grow_program(0, 50)
        for order in range(self.kernel.image.constants.max_order - 1, -1, -1):
            while self.allocator.nr_free_pages() - (1 << order) >= room:
                gfp = self.gfp.atomic | self.gfp.highmem
                if not self.allocator.alloc_pages(gfp, order, "ballast"):
                    break

    # -- what a release has of its own -------------------------------------------------------

    def begin(self) -> None:
        """The kernel is up; nothing is held so far."""

    def look(self) -> Any:
        """What is free, as far as :meth:`taken` and :meth:`given_back` must know it."""
        raise NotImplementedError

    def taken(self, page: int, gfp: int, order: int, before: Any) -> None:
        """A request that does not wait was answered as it must be."""
        raise NotImplementedError

    def given_back(self, page: int, order: int, before: Any) -> None:
        """A block whose last user is gone lies where it must."""

    def reclaim_in_ones_own_name(self, gfp: int, wanted: int) -> None:
        """What an allocation does that waits."""
        raise NotImplementedError

    def wake_kswapd(self) -> None:
        """Its zones are short of memory."""
        raise NotImplementedError

    def kswapd_has_slept(self) -> None:
        """What must hold when it has run."""
        raise NotImplementedError

    # -- blocks ----------------------------------------------------------------------------

    @rule(
        mask=MASKS, order=st.one_of(st.integers(0, 3), st.integers(0, 9)), times=st.integers(1, 40)
    )
    def take(self, mask: tuple[str, str], order: int, times: int) -> None:
        gfp = getattr(self.gfp, mask[0]) | (getattr(self.gfp, mask[1]) if mask[1] else 0)
        for _ in range(times):
            before = None if gfp & self.gfp.wait else self.look()
            try:
                page = self.allocator.alloc_pages(gfp, order, "test block")
            except EndlessLoop:
                return
            if before is not None:
                self.taken(page, gfp, order, before)
            if not page:
                return
            self.blocks.append((page, order))

    @precondition(lambda self: self.blocks)
    @rule(start=st.integers(0, 1000), count=st.integers(1, 60), step=st.sampled_from([1, 2, 3, -1]))
    def give_back(self, start: int, count: int, step: int) -> None:
        first = start % len(self.blocks)
        chosen = self.blocks[first : first + count][::step]
        self.blocks = [block for block in self.blocks if block not in chosen]
        for page, order in chosen:
            before = self.look()
            self.allocator.free_pages(page, order)
            self.given_back(page, order, before)

    @precondition(lambda self: self.blocks)
    @rule(which=st.integers(0, 1000))
    def use_twice(self, which: int) -> None:
        """One more user: the first free is not the last."""
        page, order = self.blocks[which % len(self.blocks)]
        self.memmap.set_count(page, self.memmap.count(page) + 1)
        before = self.look()
        self.allocator.free_pages(page, order)
        assert self.look() == before

    # -- user pages --------------------------------------------------------------------------

    @precondition(lambda self: len(self.spaces) < 4)
    @rule()
    def start_program(self) -> None:
        try:
            pgd = self.programs.start()
        except EndlessLoop:
            return
        if pgd:
            self.spaces[pgd] = 0

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3), count=st.integers(1, 120))
    def grow_program(self, which: int, count: int) -> None:
        pgd = sorted(self.spaces)[which % len(self.spaces)]
        for _ in range(count):
            base = USER_FAR if self.spaces[pgd] % 5 == 0 else USER_BASE
            vaddr = base + self.spaces[pgd] * 4096
            try:
                pfn = self.programs.new_page(pgd, vaddr, PAGE_SHARED)
            except EndlessLoop:
                return
            if pfn < 0:
                return
            assert self.ledger.owner(pfn) == "user page"
            self.spaces[pgd] += 1

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3), start=st.integers(0, 400), write=st.booleans())
    def touch(self, which: int, start: int, write: bool) -> None:
        pgd = sorted(self.spaces)[which % len(self.spaces)]
        numbers = self.programs.page_numbers(pgd)
        first = start % len(numbers) if numbers else 0
        for number in numbers[first : first + 40]:
            try:
                self.programs.handle_fault(pgd, number << 12, write=write)
            except EndlessLoop:
                return

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3))
    def exit_program(self, which: int) -> None:
        pgd = sorted(self.spaces)[which % len(self.spaces)]
        del self.spaces[pgd]
        self.programs.exit(pgd)

    @rule()
    def trim_page_tables(self) -> None:
        self.kernel.page_tables.check_pgt_cache(0, 0)

    @precondition(lambda self: self.spaces)
    @rule(which=st.integers(0, 3), table=st.integers(0, 20))
    def add_and_drop_a_page_table(self, which: int, table: int) -> None:
        pgd, tables = sorted(self.spaces)[which % len(self.spaces)], self.kernel.tables
        vaddr = 0x40000000 + table * TABLE
        pmdp = tables.pmd_offset(tables.pgd_offset(pgd, vaddr), vaddr)
        try:
            if self.kernel.page_tables.pte_alloc(pmdp, vaddr):
                self.kernel.page_tables.pte_free(pmdp)
        except EndlessLoop:
            return

    # -- reclaim ---------------------------------------------------------------------------------

    @rule(count=st.integers(1, 40), mask=st.sampled_from(["atomic", "highuser"]))
    def read_a_file(self, count: int, mask: str) -> None:
        for _ in range(count):
            self.index += 1
            try:
                if not cache_page(self.kernel, self.file, self.index, getattr(self.gfp, mask)):
                    return
            except EndlessLoop:
                return

    @rule(mask=st.sampled_from(["kernel", "nofs"]), wanted=st.integers(1, 64))
    def reclaim(self, mask: str, wanted: int) -> None:
        self.reclaim_in_ones_own_name(getattr(self.gfp, mask), wanted)

    @precondition(lambda self: any(self.spaces.values()))
    @rule(write=st.booleans(), back=st.booleans())
    def swap_out(self, write: bool, back: bool) -> None:
        """Pages lose their frames, which stay in the swap cache; then those may be written and
        go, and some of the pages may come back."""
        self.reclaiming.press(self.kernel, write=write)
        if back:
            self.touch(0, 0, write=False)

    @rule()
    def kswapd(self) -> None:
        self.wake_kswapd()
        self.kernel.vmscan.kswapd()
        self.kswapd_has_slept()

    # -- high memory -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 30))
    def kmap(self, count: int) -> None:
        for _ in range(count):
            try:
                page = self.allocator.alloc_page(self.gfp.highuser, "kmapped")
            except EndlessLoop:
                return
            assert self.kernel.highmem.kmap(page)
            self.kmapped.append(page)

    @precondition(lambda self: self.kmapped)
    @rule(count=st.integers(1, 40))
    def kunmap(self, count: int) -> None:
        for page in self.kmapped[:count]:
            self.kernel.highmem.kunmap(page)
            self.allocator.free_page(page)
        del self.kmapped[:count]

    # -- what must hold --------------------------------------------------------------------------

    @invariant()
    def each_frame_has_one_owner(self) -> None:
        if hasattr(self, "kmapped"):
            check_machine(self.kernel, self.ledger)

    @invariant()
    def nothing_is_left_of_reclaim_in_the_task(self) -> None:
        if hasattr(self, "kmapped"):
            assert self.allocator.current.flags == 0

    def teardown(self) -> None:
        if not hasattr(self, "kmapped"):
            return
        for pgd in list(self.spaces):
            self.programs.exit(pgd)
        assert not any(self.kernel.swap_areas.counts(0)[1:])
        assert self.kernel.swap_cache.swapper_space
        self.each_frame_has_one_owner()
        owners = set(self.ledger._owners.values())
        assert "user page" not in owners


class FrameMachine24(FrameMachine):
    """2.4: a zone gives what lies above the marks of all zones before it."""

    machines = machines("2.4", robin={"ram": 32 * MIB, "nodes": 2, "round_robin": True})
    allocator: PageAllocator24

    def _zonelists(self, gfp: int) -> list[list[Buddy]]:
        at = self.allocator._zonelists + (gfp & self.gfp.zonemask) * self.allocator._zonelist_bytes
        return [self.allocator.zones_of(pgdat + at) for pgdat in self.allocator.pgdats()]

    def look(self) -> dict[int, int]:
        """Each zone's free frames."""
        return {zone.vaddr: zone.free_pages for zone in for_each_zone(self.kernel.image)}

    def taken(self, page: int, gfp: int, order: int, before: dict[int, int]) -> None:
        """Without waiting a zone gives what lies above a quarter of pages_min of all before it;
        and NULL is right only if no zone has that, or none has a block."""
        for zones in self._zonelists(gfp):
            least = 1 << order
            for zone in zones:
                least += zone.pages_min // 4
                enough = before[zone.vaddr] > least
                if page and self.allocator.page_zone(page).vaddr == zone.vaddr:
                    assert enough, f"{zone.name} had {before[zone.vaddr]}, needed > {least}"
                elif not page and enough:
                    assert not any(zone.free_counts()[order:]), f"{zone.name} has a block"

    def given_back(self, page: int, order: int, before: dict[int, int]) -> None:
        home = self.allocator.page_zone(page).vaddr
        assert self.look() == before | {home: before[home] + (1 << order)}

    def reclaim_in_ones_own_name(self, gfp: int, wanted: int) -> None:
        assert isinstance(self.kernel.vmscan, Vmscan)
        for zone in for_each_zone(self.kernel.image):
            self.kernel.vmscan.shrink_caches(self.allocator.zone(zone.vaddr), 1, gfp, wanted)

    def wake_kswapd(self) -> None:
        assert isinstance(self.kernel.vmscan, Vmscan)
        self.kernel.vmscan.wake_kswapd()

    def kswapd_has_slept(self) -> None:
        assert not any(zone.view.need_balance for zone in for_each_zone(self.kernel.image))

    @invariant()
    def no_block_is_held_back_for_the_task(self) -> None:
        if hasattr(self, "kmapped"):
            assert self.allocator.current.nr_local_pages == 0


class FrameMachine26(FrameMachine):
    """2.6: single frames go through lists of the CPU."""

    machines = machines("2.6", cpus={"ram": 32 * MIB, "nr_cpus": 2})
    allocator: PageAllocator26

    def begin(self) -> None:
        self.oracle = FrameOracle26(self.kernel)

    def look(self) -> dict[int, ZoneSeen]:
        return self.oracle.look()

    def taken(self, page: int, gfp: int, order: int, before: dict[int, ZoneSeen]) -> None:
        self.oracle.taken(page, gfp, order, before)

    def given_back(self, page: int, order: int, before: dict[int, ZoneSeen]) -> None:
        self.oracle.given_back(page, order, HOT, before)

    @precondition(lambda self: any(not order for _, order in self.blocks))
    @rule(count=st.integers(1, 40), cold=st.sampled_from([HOT, COLD]))
    def give_many_back(self, count: int, cold: int) -> None:
        """Frames whose last users let go of them together; the last of them is freed first."""
        pages = [page for page, order in self.blocks if not order][:count]
        self.blocks = [block for block in self.blocks if block[0] not in pages]
        for page in reversed(pages):
            before = self.look()
            self.memmap.set_count(page, 0)
            self.allocator.pagevec_free([page], cold)
            self.oracle.given_back(page, 0, cold, before)

    @rule(cpu=st.integers(0, 1))
    def run_on(self, cpu: int) -> None:
        """From now on requests come from another CPU."""
        self.kernel.image.current_task.processor = cpu % self.kernel.config.nr_cpus

    @rule()
    def drain(self) -> None:
        before = self.look()
        self.allocator.drain_local_pages()
        self.oracle.drained(before)

    def reclaim_in_ones_own_name(self, gfp: int, wanted: int) -> None:
        assert isinstance(self.kernel.vmscan, Vmscan26)
        zones = [zone.vaddr for zone in for_each_zone(self.kernel.image)]
        self.kernel.vmscan.try_to_free_pages(zones, gfp, 0)

    def wake_kswapd(self) -> None:
        assert isinstance(self.kernel.vmscan, Vmscan26)
        for pgdat in self.allocator.pgdats():
            self.kernel.vmscan.wake_kswapd(pgdat)

    def kswapd_has_slept(self) -> None:
        """Nobody asks it for a block any more."""
        kind = self.kernel.image.structs.pg_data_t
        for pgdat in self.allocator.pgdats():
            assert self.kernel.image.at(kind, pgdat).kswapd_max_order == 0

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "kmapped"):
            for cpu in range(self.kernel.config.nr_cpus):
                self.run_on(cpu)
                self.drain()
            self.each_frame_has_one_owner()
