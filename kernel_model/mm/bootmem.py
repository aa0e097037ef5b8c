# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot memory allocator: one bit a frame, first fit, until the buddy allocator is up.

Models linux-2.4.22 ``mm/bootmem.c`` (book chapter 5). In RAM: a ``bootmem_data_t`` per node
(static for node 0) and its bitmap, one bit a frame from ``node_boot_start`` on, set = taken.
Small requests share a page: ``last_pos`` and ``last_offset`` remember where the previous
allocation ended, and one that starts on the next page begins right behind it.

What can fail: :class:`KernelBug` as the kernel's own checks do, :class:`KernelPanic` when
nothing fits, and :class:`EndlessLoop` where the real code would scan for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from kernel_model.arch_i386.page import (
    PAGE_OFFSET,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.bitops import Bitmap, lowest_set
from kernel_model.errors import EndlessLoop, KernelBug, KernelFault, KernelPanic
from kernel_model.image import KernelImage

MAX_DMA_ADDRESS: Final = PAGE_OFFSET + (16 << 20)
_FILE: Final = "bootmem.c"
_U32: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class BootmemCall:
    """One call of the interface: arguments in bytes or PFNs, ``result`` as the call returned."""

    phase: str
    function: str
    arguments: tuple[int, ...]
    result: int | None = None
    pgdat: int = 0
    """The node asked, by its descriptor; 0 for a call that names none."""


@dataclass(frozen=True, slots=True)
class BugLines:
    """Where in ``mm/bootmem.c`` each check stands."""

    reserve_nothing: int
    reserve_wraps: int
    reserve_above: int
    reserve_past_end: int
    free_nothing: int
    free_past_end: int
    free_twice: int
    alloc_nothing: int
    alloc_alignment: int


class Bootmem:
    """The allocator over all nodes on ``pgdat_list``. Pointers are kernel virtual addresses."""

    LINES = BugLines(86, 92, 95, 97, 119, 121, 135, 162, 165)

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self._statics = image.statics
        self._node_next = image.constants.fields.node_next
        self.phase = "reset"
        self.calls: list[BootmemCall] = []
        """Every call made so far: the boot log."""

    def _record(
        self, function: str, *arguments: int, result: int | None = None, pgdat: int = 0
    ) -> None:
        self.calls.append(BootmemCall(self.phase, function, arguments, result, pgdat))

    # -- the nodes ----------------------------------------------------------------------

    def node(self, pgdat: int) -> Any:
        """The ``bootmem_data_t`` of a node, a view."""
        structs = self._image.structs
        return self._image.at(
            structs.bootmem_data_t, self._image.at(structs.pg_data_t, pgdat).bdata
        )

    def pgdats(self) -> Iterator[int]:
        """The nodes in the order of ``pgdat_list``. One set up twice closes it into a ring."""
        seen: set[int] = set()
        pgdat = int(self._statics.pgdat_list)
        while pgdat:
            if pgdat in seen:
                raise EndlessLoop(f"pgdat_list has the node at {pgdat:#x} twice")
            yield pgdat
            seen.add(pgdat)
            node = self._image.at(self._image.structs.pg_data_t, pgdat)
            pgdat = int(getattr(node, self._node_next))

    def bitmap(self, bdata: Any) -> Bitmap:
        """The boot map of a node; bit 0 is the frame at ``node_boot_start``."""
        frames = bdata.node_low_pfn - (bdata.node_boot_start >> PAGE_SHIFT)
        return Bitmap(self._image.ram, virt_to_phys(bdata.node_bootmem_map), frames)

    def init_bootmem_core(self, pgdat: int, mapstart: int, start: int, end: int) -> int:
        """Give the node ``pgdat`` a boot map at frame ``mapstart`` for frames ``start`` to
        ``end - 1``, all taken; put it on ``pgdat_list``. Returns the map's bytes (book 5.3).
        """
        node = self._image.at(self._image.structs.pg_data_t, pgdat)
        bdata = self.node(pgdat)
        mapsize = ((end - start + 7) // 8 + 3) & ~3
        setattr(node, self._node_next, self._statics.pgdat_list)
        self._statics.pgdat_list = pgdat
        bdata.node_bootmem_map = phys_to_virt(mapstart << PAGE_SHIFT)
        bdata.node_boot_start = start << PAGE_SHIFT
        bdata.node_low_pfn = end
        self._image.ram.fill(mapstart << PAGE_SHIFT, mapsize, 0xFF)
        for pfn in self.map_frames(bdata):
            self._image.events.frame_taken(pfn, 0, "boot map")
        return mapsize

    def map_frames(self, bdata: Any) -> range:
        """The frames that the boot map itself takes, as its last user counts them."""
        first = virt_to_phys(bdata.node_bootmem_map) >> PAGE_SHIFT
        frames = int(bdata.node_low_pfn) - (int(bdata.node_boot_start) >> PAGE_SHIFT)
        return range(first, first + (frames // 8 + PAGE_SIZE - 1) // PAGE_SIZE)

    def init_bootmem(self, start: int, pages: int) -> int:
        """Set up node 0 for frames 0 to ``pages - 1``, with its map at frame ``start``."""
        self._statics.max_low_pfn = pages
        self._statics.min_low_pfn = start
        pgdat = self._image.symbol("contig_page_data")
        self._statics.contig_page_data.bdata = self._image.symbol("contig_bootmem_data")
        size = self.init_bootmem_core(pgdat, start, 0, pages)
        self._record("init_bootmem", start, pages, result=size)
        return size

    def init_bootmem_node(self, pgdat: int, freepfn: int, startpfn: int, endpfn: int) -> int:
        """The same for a node of its own (book 5.1)."""
        size = self.init_bootmem_core(pgdat, freepfn, startpfn, endpfn)
        self._record("init_bootmem_node", freepfn, startpfn, endpfn, result=size, pgdat=pgdat)
        return size

    def record_free_all(self, pages: int) -> None:
        """Note in the boot log that the allocator retired, with the frames it gave back."""
        self._record("free_all_bootmem", result=pages)

    # -- reserving and freeing ------------------------------------------------------------

    def _reserve_core(self, bdata: Any, addr: int, size: int) -> None:
        """Take every frame that ``size`` bytes at ``addr`` touch, even in part."""
        lines = self.LINES
        boot_start = bdata.node_boot_start
        first = ((addr - boot_start) & _U32) // PAGE_SIZE
        last = ((addr + size - boot_start + PAGE_SIZE - 1) & _U32) // PAGE_SIZE
        if not size:
            raise KernelBug(_FILE, lines.reserve_nothing, "reserve_bootmem of 0 bytes")
        if first >= last:
            raise KernelBug(
                _FILE, lines.reserve_wraps, f"reserve_bootmem({addr:#x}, {size:#x}) wraps"
            )
        if addr >> PAGE_SHIFT >= bdata.node_low_pfn:
            raise KernelBug(
                _FILE, lines.reserve_above, f"reserve_bootmem({addr:#x}, {size:#x}) above the node"
            )
        if (addr + size + PAGE_SIZE - 1) // PAGE_SIZE > bdata.node_low_pfn:
            raise KernelBug(
                _FILE,
                lines.reserve_past_end,
                f"reserve_bootmem({addr:#x}, {size:#x}) past the node's end",
            )
        bitmap = self.bitmap(bdata)
        if last > bitmap.length:
            raise KernelFault(
                f"reserve_bootmem({addr:#x}, {size:#x}) lies below the node: the kernel would set "
                "bits behind its boot map"
            )
        self._report_twice(first, bitmap.read(first, last))
        bitmap.write(first, last, -1)

    def _report_twice(self, first: int, twice: int) -> None:
        """Say which frames were taken already: the bits of ``twice``, from frame ``first`` on."""
        while twice:
            index = lowest_set(twice)
            self._image.printk(f"hm, page {(first + index) * PAGE_SIZE:08x} reserved twice.\n")
            twice &= twice - 1

    def _note_freed(self, bdata: Any, addr: int) -> None:
        """Memory from ``addr`` on is about to be free."""

    def _free_core(self, bdata: Any, addr: int, size: int) -> None:
        """Give back the frames that lie wholly inside ``size`` bytes at ``addr``."""
        lines = self.LINES
        boot_start = bdata.node_boot_start
        if not size:
            raise KernelBug(_FILE, lines.free_nothing, "free_bootmem of 0 bytes")
        if ((addr + size) & _U32) // PAGE_SIZE > bdata.node_low_pfn:
            raise KernelBug(
                _FILE,
                lines.free_past_end,
                f"free_bootmem({addr:#x}, {size:#x}) past the node's end",
            )
        self._note_freed(bdata, addr)
        # A range that begins below the node wraps to a huge index, and nothing is freed.
        start = ((addr + PAGE_SIZE - 1) & _U32) // PAGE_SIZE
        first = (start - boot_start // PAGE_SIZE) & _U32
        last = ((addr + size - boot_start) & _U32) // PAGE_SIZE
        if first >= last:
            return
        bitmap = self.bitmap(bdata)
        already_free = lowest_set(~bitmap.read(first, last) & ((1 << (last - first)) - 1))
        if already_free >= 0:
            bitmap.write(first, first + already_free, 0)
            raise KernelBug(
                _FILE, lines.free_twice, f"frame {first + already_free} of the node freed twice"
            )
        bitmap.write(first, last, 0)

    def reserve_bootmem(self, addr: int, size: int) -> None:
        """Take ``size`` bytes at physical ``addr``; says so in the log if they were taken."""
        self._record("reserve_bootmem", addr, size)
        self._reserve_core(self._statics.contig_bootmem_data, addr, size)

    def free_bootmem(self, addr: int, size: int) -> None:
        """Free ``size`` bytes at physical ``addr``, whole frames only (book 5.5)."""
        self._record("free_bootmem", addr, size)
        self._free_core(self._statics.contig_bootmem_data, addr, size)

    def reserve_bootmem_node(self, pgdat: int, physaddr: int, size: int) -> None:
        self._record("reserve_bootmem_node", physaddr, size, pgdat=pgdat)
        self._reserve_core(self.node(pgdat), physaddr, size)

    def free_bootmem_node(self, pgdat: int, physaddr: int, size: int) -> None:
        self._record("free_bootmem_node", physaddr, size, pgdat=pgdat)
        self._free_core(self.node(pgdat), physaddr, size)

    # -- allocating -------------------------------------------------------------------------

    def _first_fit(self, bdata: Any, size: int, align: int, goal: int) -> int | None:
        """Index of the first frame of the run to use; ``None`` when there is none.

        Scans upwards from the goal, then once more from the bottom of the node.
        """
        boot_start = bdata.node_boot_start
        offset = 0
        if align and boot_start & (align - 1):
            offset = (align - (boot_start & (align - 1))) >> PAGE_SHIFT
        preferred = 0
        if goal and goal >= boot_start and goal >> PAGE_SHIFT < bdata.node_low_pfn:
            preferred = goal - boot_start
        # With align 0 the mask is 0 and the goal is lost, as on the real kernel.
        preferred = ((preferred + align - 1) & ~(align - 1) & _U32) >> PAGE_SHIFT
        preferred += offset
        frames = (size + PAGE_SIZE - 1) // PAGE_SIZE
        step = align >> PAGE_SHIFT or 1
        bitmap = self.bitmap(bdata)
        found = _find_clear_run(bitmap, preferred, step, frames)
        if found is None and preferred:
            found = _find_clear_run(bitmap, offset, step, frames)
            if found is None and offset:
                raise EndlessLoop(
                    f"__alloc_bootmem({size}, {align}, {goal:#x}): the node begins at "
                    f"{boot_start:#x}, which {align} does not divide, so the scan never ends"
                )
        return found

    def _alloc_core(self, bdata: Any, size: int, align: int, goal: int) -> int:
        """``size`` zeroed bytes at a multiple of ``align``; 0 when nothing fits (book 5.4.1)."""
        if not size:
            raise KernelBug(_FILE, self.LINES.alloc_nothing, "__alloc_bootmem of 0 bytes")
        if align & (align - 1):
            raise KernelBug(
                _FILE, self.LINES.alloc_alignment, f"alignment {align} is no power of two"
            )
        start = self._first_fit(bdata, size, align, goal)
        if start is None:
            return 0
        frames = (size + PAGE_SIZE - 1) // PAGE_SIZE
        if align <= PAGE_SIZE and bdata.last_offset and bdata.last_pos + 1 == start:
            paddr, frames = self._merge(bdata, start, size, align)
        else:
            bdata.last_pos = start + frames - 1
            bdata.last_offset = size % PAGE_SIZE
            paddr = start * PAGE_SIZE + bdata.node_boot_start
        self.bitmap(bdata).write(start, start + frames, -1)
        self._image.ram.fill(paddr, size)
        return phys_to_virt(paddr)

    def _merge(self, bdata: Any, start: int, size: int, align: int) -> tuple[int, int]:
        """Begin behind the previous allocation, in the last page of which there is room left.

        Returns the physical address and how many frames from ``start`` on are now used.
        """
        offset = (bdata.last_offset + align - 1) & ~(align - 1) & _U32
        if offset > PAGE_SIZE:
            raise KernelBug(_FILE, 0, f"offset {offset:#x} lies outside the page")
        paddr = bdata.last_pos * PAGE_SIZE + offset + bdata.node_boot_start
        room = PAGE_SIZE - offset
        if size < room:
            bdata.last_offset = offset + size
            return paddr, 0
        frames = (size - room + PAGE_SIZE - 1) // PAGE_SIZE
        bdata.last_pos = start + frames - 1
        bdata.last_offset = (size - room) % PAGE_SIZE
        return paddr, frames

    def _allocation_failed(self, size: int) -> KernelPanic:
        self._image.printk(f"<1>bootmem alloc of {size} bytes failed!\n")
        return KernelPanic("Out of memory")

    def alloc(self, size: int, align: int, goal: int) -> int:
        """``__alloc_bootmem()``: from the first node that can; panics when none can."""
        for pgdat in self.pgdats():
            if vaddr := self._alloc_core(self.node(pgdat), size, align, goal):
                self._record("__alloc_bootmem", size, align, goal, result=virt_to_phys(vaddr))
                return vaddr
        raise self._allocation_failed(size)

    def alloc_node(self, pgdat: int, size: int, align: int, goal: int) -> int:
        """``__alloc_bootmem_node()``: from this node or not at all."""
        if vaddr := self._alloc_core(self.node(pgdat), size, align, goal):
            paddr = virt_to_phys(vaddr)
            self._record("__alloc_bootmem_node", size, align, goal, result=paddr, pgdat=pgdat)
            return vaddr
        raise self._allocation_failed(size)

    @property
    def _cache_line(self) -> int:
        return self._image.config.l1_cache_bytes

    def alloc_bootmem(self, size: int) -> int:
        """``size`` bytes above the DMA zone if there is room, at a cache line."""
        return self.alloc(size, self._cache_line, virt_to_phys(MAX_DMA_ADDRESS))

    def alloc_bootmem_low(self, size: int) -> int:
        """The same, as low as possible."""
        return self.alloc(size, self._cache_line, 0)

    def alloc_bootmem_pages(self, size: int) -> int:
        """``size`` bytes above the DMA zone, at a page."""
        return self.alloc(size, PAGE_SIZE, virt_to_phys(MAX_DMA_ADDRESS))

    def alloc_bootmem_low_pages(self, size: int) -> int:
        """The same, as low as possible: what page tables are made of."""
        return self.alloc(size, PAGE_SIZE, 0)

    def alloc_bootmem_node(self, pgdat: int, size: int) -> int:
        return self.alloc_node(pgdat, size, self._cache_line, virt_to_phys(MAX_DMA_ADDRESS))

    def alloc_bootmem_pages_node(self, pgdat: int, size: int) -> int:
        return self.alloc_node(pgdat, size, PAGE_SIZE, virt_to_phys(MAX_DMA_ADDRESS))

    def alloc_bootmem_low_pages_node(self, pgdat: int, size: int) -> int:
        return self.alloc_node(pgdat, size, PAGE_SIZE, 0)


def _find_clear_run(bitmap: Bitmap, start: int, step: int, count: int) -> int | None:
    """First ``i`` = ``start`` + n * ``step`` from which ``count`` bits are clear.

    A request for no more than a frame looks at one bit, as the kernel's loop does.
    """
    end = bitmap.length
    taken = bitmap.value()
    index = start
    while index < end:
        used = lowest_set(taken >> index)
        run_end = end if used < 0 else index + used
        if run_end >= index + max(count, 1):
            return index
        free = lowest_set(~(taken >> run_end))
        gap = run_end + max(free, 1) - start
        index = start + -(-gap // step) * step
    return None
