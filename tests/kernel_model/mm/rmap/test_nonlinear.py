# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of a file in any order: page by page, through forks, faults, reclaim and unmapping."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.monitors.reverse_map import reverse_map_census
from kernel_model.errno import EINVAL
from kernel_model.mm.filemap.linux_2_6.mapped_by import SharedTrees
from kernel_model.mm.memory import Fault
from kernel_model.mm.memory.fault import Cause
from kernel_model.mm.rmap.interface import SwapResult
from kernel_model.mm.rmap.nonlinear import CLUSTER_SIZE
from kernel_model.mm.swapops import TwoLevelPtes
from kernel_model.structs.linux_2_6.mm import VM_NONLINEAR
from kernel_model.structs.mman import MADV_DONTNEED
from tests.kernel_model.mm.rmap.world import MappedFile, World

PAGE = 4096
PAGES = 40
READ_WRITE, SHARED, ANONYMOUS = 3, 1, 0x22
NONBLOCK = 0x10000
PTES = TwoLevelPtes()
KINDS = pytest.mark.parametrize("kind", ["object", "pte_chain"])


class Window:
    """A process that maps a file of :data:`PAGES` pages, each with its number in its first word."""

    def __init__(self, kind: str = "object") -> None:
        self.world = World(kind)
        contents = b"".join(n.to_bytes(4, "little").ljust(PAGE, b"\0") for n in range(PAGES))
        self.file: MappedFile = self.world.open(contents)
        self.mm = self.world.start()
        self.addr = self.map()
        self.order = list(range(PAGES))

    def map(self) -> int:
        mmap = self.world.spaces.do_mmap_pgoff
        return mmap(self.file.file, 0, PAGES * PAGE, READ_WRITE, SHARED, 0)

    def remap(self, page: int, count: int, pgoff: int, flags: int = 0) -> int:
        self.world.run(self.mm)
        error = self.world.spaces.sys_remap_file_pages(
            self.addr + page * PAGE, count * PAGE, 0, pgoff, flags
        )
        if not error:
            self.order[page : page + count] = range(pgoff, pgoff + count)
        return error

    def pte(self, page: int) -> int:
        return self.world.pte(self.mm, self.addr + page * PAGE)

    def read(self, page: int) -> int:
        return self.world.read(self.mm, self.addr + page * PAGE)

    def check(self) -> None:
        """Page by page: what is there, or is noted to belong there, is the page that was asked."""
        world = self.world
        for page, index in enumerate(self.order):
            pte = self.pte(page)
            if pte & 1:
                frame = world.memmap.page(pte >> 12)
                assert world.cache.find_page(self.file.mapping, index) == frame
            elif pte:
                assert PTES.pte_to_pgoff(pte) == index
            else:
                assert index == page
        world.pages_are_as_meant(self.mm)
        reverse_map_census(world.image, world.memmap, world.walk, world.mms)

    @property
    def vma(self) -> int:
        return self.world.spaces.find_vma(self.mm, self.addr)


@pytest.fixture
def window(request: pytest.FixtureRequest) -> Iterator[Window]:
    case = getattr(request.node, "callspec", None)
    kind = case.params.get("kind", "object") if case else "object"
    made = Window(kind)
    yield made
    made.check()
    for mm in list(made.world.mms):
        made.world.exit(mm)


@KINDS
@pytest.mark.book("4.8")
def test_each_page_is_where_it_was_asked_for(window: Window, kind: str) -> None:
    assert window.remap(0, 4, 20) == window.remap(10, 1, 3) == window.remap(11, 2, 20) == 0
    assert [window.read(page) for page in range(PAGES)] == window.order
    assert window.world.spaces.areas.vma(window.vma).vm_flags & VM_NONLINEAR
    window.check()
    assert window.world.write(window.mm, window.addr, 777)
    assert window.read(11) == 777


@KINDS
@pytest.mark.book("4.8")
def test_what_is_not_in_memory_is_noted_and_fetched_by_a_fault(window: Window, kind: str) -> None:
    assert window.remap(5, 2, 30, NONBLOCK) == 0
    assert [PTES.pte_to_pgoff(window.pte(page)) for page in (5, 6)] == [30, 31]
    window.check()
    window.world.run(window.mm)
    handle = window.world.memory.handle_mm_fault
    assert handle(window.mm, window.vma, window.addr + 5 * PAGE, False) is Fault.MAJOR
    assert window.world.memory.faults.counts == {Cause.FILE_PTE: 1}
    assert [window.read(page) for page in (5, 6)] == [30, 31]


@KINDS
@pytest.mark.book("4.8")
def test_a_child_has_the_pages_in_the_same_order(window: Window, kind: str) -> None:
    assert window.remap(2, 3, 9, NONBLOCK) == window.remap(7, 3, 12) == 0
    child = window.world.fork(window.mm)
    read = [window.world.read(child, window.addr + page * PAGE) for page in range(12)]
    assert read == window.order[:12]


@KINDS
@pytest.mark.book("3.10", "4.8")
def test_reclaim_leaves_the_number_of_a_page_that_is_out_of_order(
    window: Window, kind: str
) -> None:
    assert window.remap(0, 6, 30) == 0
    for page in range(12):
        window.read(page)
    assert window.world.evict(4) >= 12
    assert [PTES.pte_to_pgoff(window.pte(page)) for page in range(6)] == window.order[:6]
    assert not any(window.pte(page) for page in range(6, 12))
    window.check()
    assert [window.read(page) for page in range(12)] == window.order[:12]


@KINDS
@pytest.mark.book("4.8")
def test_pages_that_are_given_up_come_back_in_the_same_order(window: Window, kind: str) -> None:
    assert window.remap(0, 6, 30) == 0
    world = window.world
    world.run(window.mm)
    filemap = world.kernel.file_memory.filemap
    advise = world.spaces.advise.sys_madvise
    assert advise(window.addr, 8 * PAGE, MADV_DONTNEED, filemap) == 0
    assert [PTES.pte_to_pgoff(window.pte(page)) for page in range(6)] == window.order[:6]
    assert not window.pte(6)
    window.check()
    assert [window.read(page) for page in range(8)] == window.order[:8]


@KINDS
@pytest.mark.book("4.8")
def test_truncation_takes_pages_by_what_they_are(window: Window, kind: str) -> None:
    """Where they stand does not matter."""
    assert window.remap(0, 6, 30) == 0
    for page in range(12):
        window.read(page)
    trees = SharedTrees(window.world.image, window.world.memory.zap_page_range)
    trees.unmap_from(window.file.mapping, 32)
    present = [page for page in range(12) if window.pte(page) & 1]
    assert present == [0, 1, *range(6, 12)]
    window.check()


@pytest.mark.book("3.10")
def test_the_scan_goes_on_where_it_ended(window: Window) -> None:
    """No way leads from a frame to its PTEs: 32 pages at a time are looked at, from all VMAs."""
    assert window.remap(0, PAGES, 0) == window.remap(0, 1, 1) == window.remap(1, 1, 0) == 0
    world = window.world
    tables = world.memory.tables
    for _, ptep in list(tables.ptes(tables.pgd(window.mm), 0, 0xC0000000)):
        tables.tables.set_pte(ptep, tables.tables.entry(ptep) & ~0x20)
    page = world.page(window.mm, window.addr + 35 * PAGE)
    locked = world.image.constants.page_flags.locked
    world.memmap.set_bit(page, locked)
    area = world.spaces.areas.vma(window.vma)
    assert world.walk.try_to_unmap(page) is SwapResult.AGAIN
    assert area.vm_private_data == CLUSTER_SIZE
    present = [number for number in range(PAGES) if window.pte(number) & 1]
    first_cluster = (-window.addr % CLUSTER_SIZE or CLUSTER_SIZE) // PAGE
    assert present == list(range(first_cluster, PAGES))
    while world.walk.try_to_unmap(page) is not SwapResult.SUCCESS:
        assert area.vm_private_data
    assert not window.pte(35)
    world.memmap.clear_bit(page, locked)


@pytest.mark.book("3.10")
def test_pages_that_are_used_or_locked_stay(window: Window) -> None:
    assert window.remap(0, 2, 4) == 0
    world, page = window.world, window.world.page(window.mm, window.addr)
    locked = world.image.constants.page_flags.locked
    window.read(0)
    world.memmap.set_bit(page, locked)
    assert world.walk.try_to_unmap(page) is SwapResult.AGAIN
    assert window.pte(0) & 1
    assert world.spaces.sys_mlock(window.addr, PAGES * PAGE) == 0
    assert world.walk.try_to_unmap(page) is SwapResult.FAIL
    world.memmap.clear_bit(page, locked)


@KINDS
@pytest.mark.book("4.8")
def test_what_is_out_of_order_can_be_unmapped_and_mapped_again(window: Window, kind: str) -> None:
    assert window.remap(0, 3, 20, NONBLOCK) == window.remap(3, 3, 30) == 0
    world = window.world
    assert world.spaces.do_munmap(window.mm, window.addr, 6 * PAGE) == 0
    assert not any(window.pte(page) for page in range(6))
    addr = world.spaces.do_mmap_pgoff(0, window.addr, 6 * PAGE, READ_WRITE, ANONYMOUS | 0x10, 0)
    assert [world.read(window.mm, addr + page * PAGE) for page in range(6)] == [0] * 6
    assert world.spaces.do_munmap(window.mm, window.addr, 6 * PAGE) == 0
    window.order[:6] = range(6)


@pytest.mark.book("4.8")
def test_what_is_refused(window: Window) -> None:
    assert window.remap(0, 2, PAGES - 1) == -EINVAL
    assert window.remap(0, 1, PAGES) == -EINVAL
    assert window.remap(PAGES - 1, 2, 0) == -EINVAL
    assert window.remap(0, 1, 1 << 29) == -EINVAL
    world = window.world
    addr = world.spaces.do_mmap_pgoff(0, 0, PAGE, READ_WRITE, ANONYMOUS, 0)
    assert world.spaces.sys_remap_file_pages(addr, PAGE, 0, 0, 0) == -EINVAL


STEPS = st.lists(
    st.tuples(
        st.integers(0, PAGES - 1), st.integers(1, 6), st.integers(0, PAGES - 1), st.booleans()
    ),
    max_size=8,
)


@KINDS
@pytest.mark.book("3.10", "4.8")
@given(steps=STEPS, evicted=st.booleans())
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_order(kind: str, steps: list[tuple[int, int, int, bool]], evicted: bool) -> None:
    window = Window(kind)
    for page, count, pgoff, nonblock in steps:
        count = min(count, PAGES - page, PAGES - pgoff)
        assert window.remap(page, count, pgoff, NONBLOCK if nonblock else 0) == 0
        window.check()
    if evicted:
        window.world.evict(4)
        window.check()
    assert [window.read(page) for page in range(PAGES)] == window.order
    window.check()


def test_a_wrong_number_is_found(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        real = TwoLevelPtes.pgoff_to_pte
        patched.setattr(TwoLevelPtes, "pgoff_to_pte", lambda self, pgoff: real(self, pgoff + 1))
        assert window.remap(5, 1, 30, NONBLOCK) == 0
    with pytest.raises(AssertionError):
        window.check()
    assert window.remap(5, 1, 30, NONBLOCK) == 0
