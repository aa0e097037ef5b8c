# SPDX-License-Identifier: GPL-2.0-or-later
"""The boot allocator against a naive one written from the book: booleans and byte spans."""

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kernel_model.config import MIB, E820Entry, KernelConfig
from kernel_model.errors import EndlessLoop, KernelBug, KernelFault, KernelPanic
from kernel_model.kernel import Kernel
from kernel_model.mm.bootmem import Bootmem
from kernel_model.ram import PAGE_SIZE, Ram

RAM_END = 16 * MIB
FIRST_USABLE = 5 * MIB
PAGE_OFFSET = 0xC0000000
MAP_FRAMES = (1100, 1110)
SECOND_NODE = 0xC03F0000
"""Where the tests put a ``pg_data_t`` of their own, far behind the kernel's statics."""
SECOND_BDATA = 0xC03F8000


def bare_kernel() -> Kernel:
    """A kernel that has run nothing, over 16 MiB without a hole."""
    return Kernel(KernelConfig(e820=(E820Entry(0, RAM_END),)))


def second_node(kernel: Kernel) -> int:
    kernel.image.at(kernel.image.structs.pg_data_t, SECOND_NODE).bdata = SECOND_BDATA
    return SECOND_NODE


def first_node(kernel: Kernel) -> int:
    kernel.statics.contig_page_data.bdata = kernel.image.symbol("contig_bootmem_data")
    return kernel.image.symbol("contig_page_data")


class NaiveNode:
    """A node as the book tells it: a flag a frame, and the byte at which the last one ended."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.taken = dict.fromkeys(range(start // PAGE_SIZE, end // PAGE_SIZE), True)
        self.last_end = start
        self.spans: list[range] = []

    def run_is_free(self, address: int, size: int) -> bool:
        frames = range(address // PAGE_SIZE, -(-(address + size) // PAGE_SIZE))
        return all(not self.taken.get(frame, True) for frame in frames)

    def find(self, size: int, align: int, goal: int) -> int | None:
        """First fit, at or above the page of the goal if that is in this node, else anywhere."""
        step = max(align, PAGE_SIZE)
        lowest = goal if self.start <= goal < self.end else self.start
        for bound in (lowest, self.start):
            aligned = -(-bound // align) * align
            first = aligned // PAGE_SIZE * PAGE_SIZE
            for address in range(first, self.end - size + 1, step):
                if self.run_is_free(address, size):
                    return address
        return None

    def alloc(self, size: int, align: int, goal: int) -> int | None:
        address = self.find(size, align, goal)
        if address is None:
            return None
        behind = -(-self.last_end // align) * align
        next_page = -(-self.last_end // PAGE_SIZE) * PAGE_SIZE
        if self.last_end % PAGE_SIZE and address == next_page and align <= PAGE_SIZE:
            address = behind
        self.last_end = address + size
        for frame in range(address // PAGE_SIZE, -(-self.last_end // PAGE_SIZE)):
            self.taken[frame] = True
        self.spans.append(range(address, self.last_end))
        return address

    def frames_touched(self, address: int, size: int) -> range:
        return range(address // PAGE_SIZE, -(-(address + size) // PAGE_SIZE))

    def frames_inside(self, address: int, size: int) -> range:
        return range(-(-address // PAGE_SIZE), (address + size) // PAGE_SIZE)


SIZES = st.one_of(
    st.integers(1, 200),
    st.builds(
        lambda pages, more: max(pages * PAGE_SIZE + more, 1),
        st.integers(0, 12),
        st.integers(-40, 40),
    ),
    st.sampled_from([2048, PAGE_SIZE, MIB, 20 * MIB]),
)
ALIGNMENTS = st.integers(0, 20).map(lambda shift: 1 << shift)
GOALS = st.one_of(
    st.just(0),
    st.integers(0, RAM_END + MIB),
    st.integers(0, 33).map(lambda half: half * MIB // 2),
)
ADDRESSES = st.integers(FIRST_USABLE, RAM_END - 1)
LENGTHS = st.one_of(st.integers(1, 3 * PAGE_SIZE), st.integers(1, 900).map(lambda n: n * PAGE_SIZE))


class BootmemMachine(RuleBasedStateMachine):
    """Random calls on one node or two, the model and the naive allocator side by side."""

    @initialize(two=st.booleans(), freed=st.lists(st.tuples(ADDRESSES, LENGTHS), max_size=6))
    def boot(self, two: bool, freed: list[tuple[int, int]]) -> None:
        self.kernel = kernel = bare_kernel()
        self.bootmem = kernel.bootmem
        self.two = two
        border = 8 * MIB if two else RAM_END
        self.nodes = {first_node(kernel): NaiveNode(0, border)}
        if two:
            first, second = first_node(kernel), second_node(kernel)
            self.bootmem.init_bootmem_node(first, MAP_FRAMES[0], 0, border // PAGE_SIZE)
            self.bootmem.init_bootmem_node(
                second, MAP_FRAMES[1], border // PAGE_SIZE, RAM_END // PAGE_SIZE
            )
            # The node set up last stands first on pgdat_list, and is asked first.
            self.nodes = {second: NaiveNode(border, RAM_END)} | self.nodes
        else:
            assert self.bootmem.init_bootmem(MAP_FRAMES[0], RAM_END // PAGE_SIZE) == 512
        for address, size in freed:
            self.free(address, size)

    def node_of(self, address: int) -> tuple[int, NaiveNode]:
        return next((p, n) for p, n in self.nodes.items() if n.start <= address < n.end)

    @rule(address=ADDRESSES, size=LENGTHS)
    def free(self, address: int, size: int) -> None:
        pgdat, node = self.node_of(address)
        size = min(size, node.end - address)
        frames = node.frames_inside(address, size)
        if node.last_end // PAGE_SIZE in frames:
            return
        first_free = next((frame for frame in frames if not node.taken[frame]), None)
        arguments = (pgdat, address, size) if self.two else (address, size)
        call = self.bootmem.free_bootmem_node if self.two else self.bootmem.free_bootmem
        if first_free is None:
            call(*arguments)
        else:
            with pytest.raises(KernelBug) as caught:
                call(*arguments)
            assert (caught.value.file, caught.value.line) == ("bootmem.c", 135)
        for frame in frames:
            if frame == first_free:
                break
            node.taken[frame] = False
            self.kernel.ram.fill(frame * PAGE_SIZE, PAGE_SIZE, 0xA5)
            page = range(frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE)
            node.spans = [
                span for span in node.spans if span.stop <= page.start or span.start >= page.stop
            ]

    @rule(address=ADDRESSES, size=LENGTHS)
    def reserve(self, address: int, size: int) -> None:
        pgdat, node = self.node_of(address)
        size = min(size, node.end - address)
        said = len(self.kernel.image.log)
        if self.two:
            self.bootmem.reserve_bootmem_node(pgdat, address, size)
        else:
            self.bootmem.reserve_bootmem(address, size)
        frames = node.frames_touched(address, size)
        twice = [frame for frame in frames if node.taken[frame]]
        assert self.kernel.image.log[said:] == [
            f"hm, page {frame * PAGE_SIZE - node.start:08x} reserved twice.\n" for frame in twice
        ]
        node.taken |= dict.fromkeys(frames, True)

    @rule(size=SIZES, align=ALIGNMENTS, goal=GOALS)
    def alloc(self, size: int, align: int, goal: int) -> None:
        for node in self.nodes.values():
            expected = node.alloc(size, align, goal)
            if expected is not None:
                break
        self.check_answer(
            lambda: self.bootmem.alloc(size, align, goal), node, expected, size, align
        )

    @precondition(lambda self: self.two)
    @rule(size=SIZES, align=ALIGNMENTS, goal=GOALS, which=st.integers(0, 1))
    def alloc_node(self, size: int, align: int, goal: int, which: int) -> None:
        pgdat, node = list(self.nodes.items())[which]
        expected = node.alloc(size, align, goal)
        self.check_answer(
            lambda: self.bootmem.alloc_node(pgdat, size, align, goal), node, expected, size, align
        )

    def check_answer(
        self, call: Any, node: NaiveNode, expected: int | None, size: int, align: int
    ) -> None:
        if expected is None:
            with pytest.raises(KernelPanic, match="Out of memory"):
                call()
            assert self.kernel.image.log[-1] == f"<1>bootmem alloc of {size} bytes failed!\n"
            return
        address = call() - PAGE_OFFSET
        assert address == expected
        assert address % align == 0
        assert self.kernel.ram.read(address, size).count(0) == size
        others = node.spans[:-1]
        assert all(span.stop <= address or address + size <= span.start for span in others)
        self.kernel.ram.fill(address, size, 0x5A)

    @invariant()
    def each_map_says_what_is_taken(self) -> None:
        for pgdat, node in getattr(self, "nodes", {}).items():
            bdata = self.bootmem.node(pgdat)
            bits = "".join("01"[taken] for taken in reversed(node.taken.values()))
            assert self.bootmem.bitmap(bdata).value() == int(bits, 2)
            assert bdata.node_boot_start == node.start
            assert bdata.node_low_pfn * PAGE_SIZE == node.end

    @invariant()
    def no_allocation_was_touched_by_another(self) -> None:
        for node in getattr(self, "nodes", {}).values():
            for span in node.spans:
                ends = self.kernel.ram.read8(span.start), self.kernel.ram.read8(span.stop - 1)
                assert ends == (0x5A, 0x5A)


@pytest.mark.parametrize("fault", ["merge", "goal", "zero", "offset", "reserve"])
def test_the_naive_allocator_finds_planted_faults(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_merge, real_fit, real_alloc = Bootmem._merge, Bootmem._first_fit, Bootmem._alloc_core
    real_fill = Ram.fill

    def merge(self: Bootmem, bdata: Any, start: int, size: int, align: int) -> tuple[int, int]:
        paddr, frames = real_merge(self, bdata, start, size, align)
        bdata.last_offset = 0
        return paddr, frames

    def first_fit(self: Bootmem, bdata: Any, size: int, align: int, goal: int) -> int | None:
        return real_fit(self, bdata, size, align, 0)

    def alloc_core(self: Bootmem, bdata: Any, *arguments: int) -> int:
        vaddr = real_alloc(self, bdata, *arguments)
        if vaddr:
            bdata.last_offset = (bdata.last_offset + 1) % PAGE_SIZE
        return vaddr

    def fill(self: Ram, paddr: int, length: int, value: int = 0) -> None:
        if value:
            real_fill(self, paddr, length, value)

    owner, name, replacement = {
        "merge": (Bootmem, "_merge", merge),
        "goal": (Bootmem, "_first_fit", first_fit),
        "zero": (Ram, "fill", fill),
        "offset": (Bootmem, "_alloc_core", alloc_core),
        "reserve": (Bootmem, "_reserve_core", lambda self, bdata, addr, size: None),
    }[fault]
    monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            BootmemMachine,
            settings=settings(
                max_examples=300, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


TestBootmem = pytest.mark.book("5.1", "5.3", "5.4", "5.5")(BootmemMachine.TestCase)


@pytest.fixture
def kernel() -> Kernel:
    """One node of 16 MiB; everything from 5 MiB up is free."""
    made = bare_kernel()
    made.bootmem.init_bootmem(MAP_FRAMES[0], RAM_END // PAGE_SIZE)
    made.bootmem.free_bootmem(FIRST_USABLE, RAM_END - FIRST_USABLE)
    return made


@pytest.mark.book("5.3")
@pytest.mark.parametrize(("frames", "map_bytes"), [(1, 4), (8, 4), (32, 4), (33, 8), (4096, 512)])
def test_the_map_has_a_bit_a_frame_in_whole_words_and_all_is_taken(
    frames: int, map_bytes: int
) -> None:
    kernel = bare_kernel()
    assert kernel.bootmem.init_bootmem(MAP_FRAMES[0], frames) == map_bytes
    at = MAP_FRAMES[0] * PAGE_SIZE
    assert kernel.ram.read(at, map_bytes + 1) == b"\xff" * map_bytes + b"\0"
    assert kernel.statics.min_low_pfn == MAP_FRAMES[0]
    assert kernel.statics.max_low_pfn == frames
    assert list(kernel.bootmem.pgdats()) == [kernel.image.symbol("contig_page_data")]


@pytest.mark.book("5.4")
def test_requests_share_a_page_until_it_is_full(kernel: Kernel) -> None:
    alloc, base = kernel.bootmem.alloc, FIRST_USABLE + PAGE_OFFSET
    bdata = kernel.statics.contig_bootmem_data
    assert alloc(100, 32, 0) == base
    assert alloc(10, 32, 0) == base + 128
    assert (bdata.last_pos, bdata.last_offset) == (FIRST_USABLE // PAGE_SIZE, 138)
    assert alloc(PAGE_SIZE, 1, 0) == base + 138
    assert (bdata.last_pos, bdata.last_offset) == (FIRST_USABLE // PAGE_SIZE + 1, 138)
    assert alloc(PAGE_SIZE - 138, 1, 0) == base + PAGE_SIZE + 138
    assert bdata.last_offset == 0
    assert alloc(1, 1, 0) == base + 2 * PAGE_SIZE


@pytest.mark.book("5.4")
def test_a_whole_page_alignment_is_never_merged_into_a_started_page(kernel: Kernel) -> None:
    kernel.bootmem.alloc(100, 32, 0)
    assert kernel.bootmem.alloc(100, PAGE_SIZE, 0) == FIRST_USABLE + PAGE_SIZE + PAGE_OFFSET
    assert kernel.bootmem.alloc(1, 2 * PAGE_SIZE, 0) % (2 * PAGE_SIZE) == 0


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda b: b.alloc(0, 32, 0), 162),
        (lambda b: b.alloc(8, 3, 0), 165),
        (lambda b: b.alloc(8, 48, 0), 165),
        (lambda b: b.reserve_bootmem(0, 0), 86),
        (lambda b: b.reserve_bootmem(0x1000, (1 << 32) - 0x1000), 92),
        (lambda b: b.reserve_bootmem(RAM_END, 1), 95),
        (lambda b: b.reserve_bootmem(RAM_END - PAGE_SIZE, PAGE_SIZE + 1), 97),
        (lambda b: b.free_bootmem(FIRST_USABLE, 0), 119),
        (lambda b: b.free_bootmem(RAM_END, PAGE_SIZE), 121),
        (lambda b: b.free_bootmem(RAM_END - PAGE_SIZE, PAGE_SIZE), 135),
    ],
)
@pytest.mark.book("5.4", "5.5")
def test_bad_use_reaches_the_bug_of_the_real_source_line(kernel: Kernel, call, line: int) -> None:
    before = kernel.ram.read(MAP_FRAMES[0] * PAGE_SIZE, 512)
    with pytest.raises(KernelBug) as caught:
        call(kernel.bootmem)
    assert (caught.value.file, caught.value.line) == ("bootmem.c", line)
    assert kernel.ram.read(MAP_FRAMES[0] * PAGE_SIZE, 512) == before


def test_what_ends_exactly_at_the_nodes_end_is_good(kernel: Kernel) -> None:
    kernel.bootmem.reserve_bootmem(RAM_END - 1, 1)
    kernel.bootmem.free_bootmem(RAM_END - PAGE_SIZE, PAGE_SIZE)
    kernel.bootmem.free_bootmem(FIRST_USABLE - PAGE_SIZE, PAGE_SIZE + PAGE_SIZE - 1)


def test_less_than_a_page_frees_nothing(kernel: Kernel) -> None:
    before = kernel.ram.read(MAP_FRAMES[0] * PAGE_SIZE, 512)
    kernel.bootmem.free_bootmem(MIB + 1, PAGE_SIZE - 2)
    kernel.bootmem.free_bootmem(MIB + 1, 2 * PAGE_SIZE - 2)
    kernel.bootmem.free_bootmem(0xFFFFF000, 0x2000)
    assert kernel.ram.read(MAP_FRAMES[0] * PAGE_SIZE, 512) == before


@pytest.mark.book("5.5")
def test_a_free_that_begins_below_its_node_wraps_and_frees_nothing() -> None:
    kernel = bare_kernel()
    node = second_node(kernel)
    kernel.bootmem.init_bootmem_node(node, MAP_FRAMES[0], 2048, 4096)
    for address, size in ((0, MIB), (7 * MIB, 2 * MIB), (0, 16 * MIB)):
        kernel.bootmem.free_bootmem_node(node, address, size)
        assert kernel.bootmem.bitmap(kernel.bootmem.node(node)).value() == (1 << 2048) - 1


def test_a_reservation_below_its_node_is_an_error() -> None:
    kernel = bare_kernel()
    node = second_node(kernel)
    kernel.bootmem.init_bootmem_node(node, MAP_FRAMES[0], 2048, 4096)
    with pytest.raises(KernelBug, match=r"bootmem\.c:92"):
        kernel.bootmem.reserve_bootmem_node(node, 7 * MIB, 2 * MIB)
    with pytest.raises(KernelFault, match="below the node"):
        kernel.bootmem.reserve_bootmem_node(node, 0, MIB)


@pytest.mark.book("5.4")
def test_a_misaligned_node_scans_for_ever() -> None:
    kernel = bare_kernel()
    node = second_node(kernel)
    kernel.bootmem.init_bootmem_node(node, MAP_FRAMES[0], 2049, 4096)
    with pytest.raises(EndlessLoop, match="never ends"):
        kernel.bootmem.alloc_node(node, 1, 2 * PAGE_SIZE, 0)
    with pytest.raises(KernelPanic):
        kernel.bootmem.alloc_node(node, 1, PAGE_SIZE, 0)
    kernel.bootmem.free_bootmem_node(node, 9 * MIB, MIB)
    assert kernel.bootmem.alloc_node(node, 1, MIB, 0) == PAGE_OFFSET + 9 * MIB


def test_a_node_set_up_twice_closes_the_list_and_is_walked_for_ever() -> None:
    kernel = bare_kernel()
    for _ in range(2):
        kernel.bootmem.init_bootmem(MAP_FRAMES[0], 4096)
    with pytest.raises(EndlessLoop, match="twice"):
        kernel.bootmem.alloc(1, 32, 0)
    kernel.bootmem.free_bootmem(FIRST_USABLE, PAGE_SIZE)
    assert kernel.bootmem.alloc(1, 32, 0) == FIRST_USABLE + PAGE_OFFSET


@pytest.mark.book("5.4")
@pytest.mark.parametrize("line", [16, 32, 64, 128])
@pytest.mark.parametrize(
    "form",
    [
        "alloc_bootmem",
        "alloc_bootmem_low",
        "alloc_bootmem_pages",
        "alloc_bootmem_low_pages",
        "alloc_bootmem_node",
        "alloc_bootmem_pages_node",
        "alloc_bootmem_low_pages_node",
    ],
)
def test_the_forms_differ_in_goal_and_alignment(line: int, form: str) -> None:
    """Without ``low`` above 16 MiB if there is room; ``pages`` at a page, else at a cache line."""
    kernel = Kernel(KernelConfig(e820=(E820Entry(0, 32 * MIB),), l1_cache_bytes=line))
    pgdat = kernel.image.symbol("contig_page_data")
    bootmem = kernel.bootmem
    bootmem.init_bootmem(MAP_FRAMES[0], 8192)
    bootmem.free_bootmem(FIRST_USABLE, 32 * MIB - FIRST_USABLE)
    bootmem.alloc(5, 1, 16 * MIB if "low" not in form else 0)
    arguments = (pgdat, 100) if form.endswith("node") else (100,)
    answer = getattr(bootmem, form)(*arguments)
    base = FIRST_USABLE if "low" in form else 16 * MIB
    assert answer - PAGE_OFFSET == base + (PAGE_SIZE if "pages" in form else line)


@pytest.mark.book("5.4")
def test_without_room_above_the_goal_the_scan_starts_again_below(kernel: Kernel) -> None:
    assert kernel.bootmem.alloc_bootmem(8) == FIRST_USABLE + PAGE_OFFSET
    kernel.bootmem.reserve_bootmem(12 * MIB, 4 * MIB)
    assert kernel.bootmem.alloc(MIB, MIB, 15 * MIB) == FIRST_USABLE + MIB + PAGE_OFFSET


@pytest.mark.book("5.1")
def test_the_boot_log_has_each_call_with_its_answer(kernel: Kernel) -> None:
    kernel.bootmem.phase = "here"
    vaddr = kernel.bootmem.alloc(24, 8, 0)
    kernel.bootmem.reserve_bootmem(15 * MIB, 1)
    last = [(c.phase, c.function, c.arguments, c.result) for c in kernel.bootmem.calls[-2:]]
    assert last == [
        ("here", "__alloc_bootmem", (24, 8, 0), vaddr - PAGE_OFFSET),
        ("here", "reserve_bootmem", (15 * MIB, 1), None),
    ]
