# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas of the vmalloc range, mixed, over the real buddy allocator.

:class:`VmallocMachine` does what a kernel of either release does with the range; where an area
must come to lie, and what only one release has, its subclass says. Truth is a first fit of our
own, the record of the calls, the census of :mod:`harness.monitors.vmlist` (the reference walk of
the kernel's page tables), the frame ledger, and the bytes that users wrote.
"""

from dataclasses import dataclass, field
from itertools import chain
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from harness.monitors.frames import FrameLedger
from harness.monitors.slabs import slab_census
from harness.monitors.vmlist import VM_ALLOC, VM_IOREMAP, VM_MAP, vmlist_census
from kernel_model.arch_i386.pgtable import PAGE_KERNEL
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.vmalloc import linux_2_6
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.slab_settling import settle

PAGE_OFFSET, PAGE = 0xC0000000, 4096
DMA_FRAMES, HIGH_FRAMES = 16 * MIB // PAGE, 64 * MIB // PAGE
DEVICE, PCD = 0xF0000000, 0x10
LAST_ADDRESS = 0xFFFFFFFF
MOST_PAGES = 900
KINDS = {"vmalloc": 1 << 20, "vmalloc_32": HIGH_FRAMES, "vmalloc_dma": DMA_FRAMES}
"""The frames below which each must stay."""
FLAGS = dict.fromkeys(KINDS, VM_ALLOC) | {
    **{"array": VM_ALLOC, "ioremap": VM_IOREMAP, "reserved": VM_IOREMAP, "vmap": VM_MAP}
}
"""What the ``vm_struct`` of each kind says."""
PAGES = st.one_of(st.integers(1, 8), st.integers(1, 300))
HIGH = {"ram": 72 * MIB, "highmem_pages": 8 * MIB // PAGE}


@dataclass
class Area:
    """An area as its user knows it: ``size`` in whole pages, and the bytes at some places."""

    kind: str
    size: int
    frames: tuple[int, ...] = ()
    """Those that are known beforehand."""
    pte_flags: int = 0
    array: int = 0
    """Where the area lies in which the kernel keeps the list of its frames; 0: it has none."""
    written: dict[int, bytes] = field(default_factory=dict)


def machines(release: str) -> dict[str, KernelConfig]:
    """The builds on which areas are tried."""
    return {
        "low memory": KernelConfig(release=release, ram=32 * MIB),
        "high memory": KernelConfig(release=release, highmem=Highmem.GB4, **HIGH),
        "PAE": KernelConfig(release=release, highmem=Highmem.GB64, **HIGH),
    }


class VmallocMachine(RuleBasedStateMachine):
    """What a kernel does with the range. ``areas`` is what it holds, by address."""

    machines: ClassVar[dict[str, KernelConfig]]
    kinds_of_ram: ClassVar[tuple[str, ...]] = tuple(KINDS)
    """Areas that their users write to."""
    alignment: ClassVar[int] = 1
    """That of large areas for devices."""
    noted_of_ptes: ClassVar[int] = 0
    """What the ``vm_struct`` says of PTEs with PCD."""

    @initialize(name=st.integers(0, 2), before_table_end=st.integers(0, 9))
    def boot(self, name: int, before_table_end: int) -> None:
        """A machine whose next area begins some pages before the end of a page table."""
        self.kernel = Kernel(self.machines[sorted(self.machines)[name]])
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        self.vmalloc, self.ram = self.kernel.vmalloc, self.kernel.ram
        self.areas: dict[int, Area] = {}
        self.start, self.end = self.kernel.vmalloc_range
        self.serial = 0
        settle(self.kernel.slab)
        self.live_at_boot = {v: c.live for v, c in slab_census(self.kernel).items()}
        self.free_at_boot = self._free_frames()
        self.free_when_checked = -1
        self.tables_at_boot = self._page_tables()
        self.reserve(self.kernel.tables.shape.pmd_size - (before_table_end + 1) * PAGE)

    def _free_frames(self) -> int:
        """Those that CPUs keep on lists of their own included."""
        allocator, zones = self.kernel.allocator, for_each_zone(self.kernel.image)
        kept = chain.from_iterable(allocator.cpu_free_pages(zone) for zone in zones if zone.size)
        return allocator.nr_free_pages() + sum(1 for _ in kept)

    def _page_tables(self) -> int:
        """Page tables of the range. They stay for good: the kernel never frees one of its own."""
        return sum(1 for owner in self.ledger._owners.values() if owner == "page table")

    def _pages_held(self) -> int:
        """The frames of areas, those of arrays included."""
        return sum(
            area.size // PAGE for area in self.areas.values() if FLAGS[area.kind] == VM_ALLOC
        )

    # -- what a release has of its own -----------------------------------------------------------

    def _place(self, size: int, *, device: bool = False) -> int:
        """Where an area of ``size`` bytes must come to lie; 0: there is no room."""
        taken = [(addr, area.size + PAGE) for addr, area in self.areas.items()]
        return self._first_fit(taken, size + PAGE, device=device)

    def _first_fit(self, taken: list[tuple[int, int]], size: int, *, device: bool) -> int:
        """The lowest place for ``size`` bytes. ``taken`` are (address, size)."""
        raise NotImplementedError

    def _reserved(self, size: int) -> int:
        """``get_vm_area()``: the address of the area."""
        raise NotImplementedError

    def _allocated(self, kind: str, pages: int) -> dict[int, Area]:
        """The areas that an allocation makes, its own first; none when it cannot be."""
        place = self._place(pages * PAGE)
        return {place: Area(kind, pages * PAGE)} if place else {}

    # -- allocating --------------------------------------------------------------------------

    @rule(kind=st.sampled_from(sorted(KINDS)), pages=PAGES, less=st.integers(0, PAGE - 1))
    def allocate(self, kind: str, pages: int, less: int) -> None:
        if self._pages_held() + pages <= MOST_PAGES:
            self._allocate(kind, pages, less)

    def _allocate(self, kind: str, pages: int, less: int) -> None:
        made = self._allocated(kind, pages)
        addr = getattr(self.vmalloc, kind)(pages * PAGE - less)
        assert addr == next(iter(made), 0), "not the first gap that fits"
        self.areas |= made

    @rule(size=st.sampled_from([0, 40 * MIB * 2, 0xFFFFFFFF]))
    def allocate_what_cannot_be(self, size: int) -> None:
        """Nothing, or more than all of RAM."""
        assert self.vmalloc.vmalloc(size) == 0

    @rule(size=st.sampled_from([1, 4, 300, 450, 800]).map(lambda size: size * MIB))
    def reserve(self, size: int) -> None:
        """An area that nobody maps: these fill the range."""
        place = self._place(size, device=True)
        if place > LAST_ADDRESS:
            return  # The kernel would make an area at address 0, of a process.
        addr = self._reserved(size)
        assert addr == place, "not the first gap that fits"
        if addr:
            self.areas[addr] = Area("reserved", size)

    @rule(over=st.integers(-2, 1))
    def reserve_up_to_the_end(self, over: int) -> None:
        """What is left behind the last area, or a page more, or less."""
        ends = (addr + area.size + PAGE for addr, area in self.areas.items())
        last = -(-max(ends, default=0) // self.alignment) * self.alignment
        if self.areas and self.end - last > 4 * PAGE:
            self.reserve(self.end - last + (over - 1) * PAGE)

    @rule(page=st.integers(0, 5000), offset=st.integers(0, PAGE - 1), size=st.integers(1, 70_000))
    def ioremap(self, page: int, offset: int, size: int) -> None:
        paddr = DEVICE + page * PAGE + offset
        whole = (offset + size + PAGE - 1) // PAGE * PAGE
        place = self._place(whole, device=True)
        if place + whole >= self.end:
            return  # Behind the range is what the kernel runs on.
        vaddr = self.vmalloc.ioremap(paddr, size, PCD)
        assert vaddr == (place + offset if place else 0)
        if place:
            first = paddr // PAGE
            frames = tuple(range(first, first + whole // PAGE))
            self.areas[place] = Area("ioremap", whole, frames, self.noted_of_ptes)

    @rule(paddr=st.integers(0, 2 * MIB), size=st.integers(1, 20_000))
    def ioremap_low(self, paddr: int, size: int) -> None:
        """The hole below 1 MiB is in the direct map; other RAM that is in use is refused."""
        if paddr >= 0xA0000 and paddr + size <= 0x100000:
            assert self.vmalloc.ioremap(paddr, size) == PAGE_OFFSET + paddr
            self.vmalloc.iounmap(PAGE_OFFSET + paddr)
        elif paddr >= 0x10000 and paddr + size <= 0x90000:
            assert self.vmalloc.ioremap(paddr, size) == 0

    # -- freeing -----------------------------------------------------------------------------

    def _of_users(self) -> list[int]:
        """Areas but those that the kernel made for itself."""
        return sorted(addr for addr, area in self.areas.items() if area.kind != "array")

    @precondition(lambda self: self.areas)
    @rule(which=st.integers(0, 50), offset=st.integers(0, PAGE - 1))
    def free(self, which: int, offset: int) -> None:
        addrs = self._of_users()
        self._free(addrs[which % len(addrs)], offset)

    def _free(self, addr: int, offset: int) -> None:
        self._check_bytes(addr)
        area = self.areas.pop(addr)
        if area.kind == "ioremap":
            self.vmalloc.iounmap(addr + offset)
        else:
            self.vmalloc.vfree(addr)
        self.areas.pop(area.array, None)

    @rule(page=st.integers(0, 2000), offset=st.sampled_from([0, 1, 2048]))
    def free_what_is_no_area(self, page: int, offset: int) -> None:
        """Leaves a line in the log and nothing else."""
        addr = self.start + page * PAGE + offset
        if addr not in self.areas:
            lines = len(self.kernel.image.log)
            self.vmalloc.vfree(addr)
            assert len(self.kernel.image.log) == lines + 1

    # -- using -------------------------------------------------------------------------------

    def _of_ram(self) -> list[int]:
        return [addr for addr in self._of_users() if self.areas[addr].kind in self.kinds_of_ram]

    @precondition(lambda self: self._of_ram())
    @rule(which=st.integers(0, 50), start=st.integers(0, 300 * PAGE), count=st.integers(1, 9000))
    def write(self, which: int, start: int, count: int) -> None:
        addrs = self._of_ram()
        addr = addrs[which % len(addrs)]
        area = self.areas[addr]
        start %= area.size
        count = min(count, area.size - start)
        self.serial += 1
        data = (self.serial.to_bytes(4, "little") * (count // 4 + 1))[:count]
        assert self.vmalloc.vwrite(addr + start, data) == count
        overlapping = [at for at, old in area.written.items() if at < start + count]
        for at in [at for at in overlapping if at + len(area.written[at]) > start]:
            del area.written[at]
        area.written[start] = data

    def _check_bytes(self, addr: int) -> None:
        for start, data in self.areas[addr].written.items():
            same = self.vmalloc.vread(addr + start, len(data)) == data
            assert same, f"the bytes at {addr + start:#x} changed"

    @rule(page=st.integers(0, 1200), count=st.integers(1, 30_000))
    def read_across(self, page: int, count: int) -> None:
        """What /dev/kmem shows of a stretch: bytes where somebody wrote, zeros in guard pages."""
        at = self.start + self.kernel.tables.shape.pmd_size + page * PAGE
        data = self.vmalloc.vread(at, count)
        assert len(data) == count
        for addr, area in self.areas.items():
            guard = addr + area.size - at
            shown = data[max(guard, 0) : max(guard + PAGE, 0)]
            assert not any(shown), f"the guard page behind {addr:#x} shows something"
            for start, written in area.written.items():
                first = addr + start - at
                if first >= 0 and first + len(written) <= count:
                    same = data[first : first + len(written)] == written
                    assert same, f"{addr + start:#x} shows something else"

    # -- what must hold ----------------------------------------------------------------------

    @invariant()
    def what_ram_says_is_what_was_done(self) -> None:
        if not hasattr(self, "live_at_boot"):
            return
        free = self._free_frames()
        if free != self.free_when_checked:
            check_machine(self.kernel, self.ledger)
            self.free_when_checked = free
        seen = vmlist_census(self.kernel)
        assert [(area.addr, area.size - PAGE) for area in seen] == sorted(
            (addr, area.size) for addr, area in self.areas.items()
        )
        for found in seen:
            area = self.areas[found.addr]
            assert (found.flags, found.pte_flags) == (FLAGS[area.kind], area.pte_flags)
            if found.flags == VM_ALLOC:
                highest = KINDS.get(area.kind, 1 << 20)
                assert max(found.frames) < highest, f"{area.kind}: a frame too high"
                assert all(self.ledger.owner(frame) == "vmalloc" for frame in found.frames)
            else:
                assert found.frames == area.frames
        owned = sum(1 for owner in self.ledger._owners.values() if owner == "vmalloc")
        assert owned == self._pages_held(), "frames without a page"

    def teardown(self) -> None:
        if not hasattr(self, "live_at_boot"):
            return
        for addr in self._of_users():
            self._free(addr, 0)
        self.what_ram_says_is_what_was_done()
        check_machine(self.kernel, self.ledger)
        settle(self.kernel.slab)
        assert {v: c.live for v, c in slab_census(self.kernel).items()} == self.live_at_boot
        lost = self.free_at_boot - self._free_frames()
        assert lost == self._page_tables() - self.tables_at_boot, "frames were lost"


class VmallocMachine24(VmallocMachine):
    """The range of 2.4."""

    machines = machines("2.4")

    def _first_fit(self, taken: list[tuple[int, int]], size: int, *, device: bool) -> int:
        """Every gap is tried. Only behind another area does the kernel look at the end."""
        places = [self.start] + [addr + length for addr, length in taken]
        place = min(
            place
            for place in places
            if all(place + size <= addr or addr + length <= place for addr, length in taken)
        )
        return place if place == self.start or place + size <= self.end else 0

    def _reserved(self, size: int) -> int:
        return self.vmalloc.get_vm_area(size, VM_IOREMAP)


class VmallocMachine26(VmallocMachine):
    """The range of 2.6: device memory is aligned, each area knows its frames, and frames that
    somebody has can be mapped side by side."""

    machines = machines("2.6")
    kinds_of_ram = (*KINDS, "vmap")
    alignment = 128 * PAGE
    noted_of_ptes = PCD
    vmalloc: linux_2_6.Vmalloc

    def _first_fit(self, taken: list[tuple[int, int]], size: int, *, device: bool) -> int:
        """Device memory begins at a multiple of the power of two above its size, of 128 pages at
        most. An area that begins below the place in mind moves that place on without a look at
        the end of the range. A place behind the last address stands for 0.
        """
        align = min(1 << (size - PAGE).bit_length(), self.alignment) if device else 1
        place = -(-self.start // align) * align
        for addr, length in sorted(taken):
            if addr >= place and place + size <= addr:
                break
            looks, behind = addr >= place, -(-(addr + length) // align) * align
            place = max(place, behind)
            if place > LAST_ADDRESS:
                break
            if looks and place + size > self.end:
                return 0
        return place

    def _reserved(self, size: int) -> int:
        area = self.vmalloc.get_vm_area(size, VM_IOREMAP)
        return int(self.vmalloc.area(area).addr) if area else 0

    def _allocated(self, kind: str, pages: int) -> dict[int, Area]:
        """The list of more frames than a page can name is an area itself, made behind it."""
        made = super()._allocated(kind, pages)
        if not made or pages <= PAGE // 4:
            return made
        (addr, area), size = next(iter(made.items())), -(-pages * 4 // PAGE) * PAGE
        self.areas |= made
        area.array = self._place(size)
        del self.areas[addr]
        return made | {area.array: Area("array", size)} if area.array else {}

    @precondition(lambda self: not any(area.array for area in self.areas.values()))
    @rule(more=st.integers(1, 40))
    def allocate_many(self, more: int) -> None:
        self._allocate("vmalloc", PAGE // 4 + more, 0)

    @rule(pages=st.integers(1, 40))
    def vmap(self, pages: int) -> None:
        """Frames that somebody has, mapped where they lie side by side."""
        allocator, gfp = self.kernel.allocator, self.kernel.image.constants.gfp
        frames = [allocator.alloc_page(gfp.highuser, "vmapped") for _ in range(pages)]
        place = self._place(pages * PAGE)
        assert self.vmalloc.vmap(frames, VM_MAP, PAGE_KERNEL) == place
        if place:
            numbers = tuple(allocator.memmap.pfn(page) for page in frames)
            self.areas[place] = Area("vmap", pages * PAGE, numbers)
        else:
            self._give_back(frames)

    def _give_back(self, pages: list[int]) -> None:
        memmap = self.kernel.allocator.memmap
        for page in pages:
            assert memmap.count(page) == 1, "the frame is not its owner's alone"
            self.kernel.allocator.free_page(page)

    def _free(self, addr: int, offset: int) -> None:
        area = self.areas[addr]
        if area.kind != "vmap":
            super()._free(addr, offset)
            return
        self._check_bytes(addr)
        del self.areas[addr]
        self.vmalloc.vunmap(addr)
        self._give_back([self.kernel.allocator.memmap.page(frame) for frame in area.frames])
