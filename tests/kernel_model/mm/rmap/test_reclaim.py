# SPDX-License-Identifier: GPL-2.0-or-later
"""Reclaim of 2.6 takes a page away from every process that maps it, by either reverse map."""

from collections.abc import Iterator

import pytest

from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.mm.memory import Fault
from kernel_model.mm.rmap.interface import SwapResult
from tests.kernel_model.mm.rmap.world import World

PAGE = 4096
READ_WRITE = 3
SHARED, ANONYMOUS = 1, 0x22
ACCESSED = 0x20
KINDS = pytest.mark.parametrize("kind", ["object", "pte_chain"])


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    case = getattr(request.node, "callspec", None)
    made = World(case.params["kind"] if case else "object")
    yield made
    for mm in list(made.mms):
        made.exit(mm)


def family(world: World, pages: int, children: int = 3) -> tuple[list[int], int]:
    """A process with written pages, and children of it and of one another; where the pages are."""
    first = world.start()
    addr = world.spaces.do_mmap_pgoff(0, 0, pages * PAGE, READ_WRITE, ANONYMOUS, 0)
    for number in range(pages):
        assert world.write(first, addr + number * PAGE, 100 + number)
    processes = [first]
    for number in range(children):
        processes.append(world.fork(processes[number // 2]))
    return processes, addr


def age(world: World, mms: list[int], addr: int) -> None:
    """Nobody has used the page lately."""
    for mm in mms:
        tables = world.memory.tables
        ptep = tables.pte_offset(tables.pgd(mm), addr)
        tables.tables.set_pte(ptep, tables.tables.entry(ptep) & ~ACCESSED)


def lock(world: World, page: int) -> None:
    world.memmap.set_bit(page, world.image.constants.page_flags.locked)


@KINDS
@pytest.mark.book("3.10", "4.6")
def test_four_processes_lose_their_pages_and_get_them_back(world: World, kind: str) -> None:
    processes, addr = family(world, pages=8)
    world.allocator.drain_local_pages()
    free = world.allocator.nr_free_pages()
    assert world.evict() >= 8
    world.allocator.drain_local_pages()
    # The swap cache's tree took a slab of nodes.
    assert world.allocator.nr_free_pages() >= free + 8 - 1
    for number in range(8):
        ptes = {world.pte(mm, addr + number * PAGE) for mm in processes}
        assert len(ptes) == 1
        (pte,) = ptes
        assert pte
        assert not pte & 0x81
        assert world.areas.swap_count(world.areas.ptes.pte_to_swp_entry(pte)) == len(processes)
    for mm in processes:
        assert world.spaces.areas.mm(mm).rss == 0
        contents = [world.read(mm, addr + number * PAGE) for number in range(8)]
        assert contents == list(range(100, 108))
    page = world.page(processes[0], addr)
    assert all(world.page(mm, addr) == page for mm in processes)
    assert world.walk.mapcount(page) == len(processes)


@KINDS
@pytest.mark.book("4.6", "4.8")
def test_a_page_that_comes_back_to_be_written_to_is_copied_at_once(world: World, kind: str) -> None:
    """The others still mean the slot, so the frame is theirs."""
    (first, second, *_), addr = family(world, pages=1)
    world.evict()
    world.run(second)
    vma = world.spaces.find_vma(second, addr)
    assert world.memory.handle_mm_fault(second, vma, addr, True) is Fault.MAJOR
    assert world.pte(second, addr) & 2
    assert world.write(second, addr, 7)
    assert world.read(first, addr) == 100


@KINDS
@pytest.mark.book("4.6")
def test_the_last_who_means_a_slot_writes_to_the_frame_itself(world: World, kind: str) -> None:
    (first, *others), addr = family(world, pages=1)
    for mm in others:
        world.exit(mm)
    world.evict()
    world.run(first)
    assert world.read(first, addr) == 100
    page = world.page(first, addr)
    assert world.write(first, addr, 5)
    assert world.page(first, addr) == page


@KINDS
@pytest.mark.book("3.10")
def test_each_use_counts_once(world: World, kind: str) -> None:
    processes, addr = family(world, pages=1)
    page = world.page(processes[0], addr)
    age(world, processes, addr)
    world.memmap.clear_bit(page, world.image.constants.page_flags.referenced)
    for mm in processes[:3]:
        world.read(mm, addr)
    assert world.walk.page_referenced(page, is_locked=False) == 3
    assert world.walk.page_referenced(page, is_locked=False) == 0


@KINDS
@pytest.mark.book("3.10")
def test_a_page_that_one_process_locked_stays(world: World, kind: str) -> None:
    processes, addr = family(world, pages=1)
    world.run(processes[-1])
    assert world.spaces.sys_mlock(addr, PAGE) == 0
    # Locking writes the page in: it has a copy of its own.
    page = world.page(processes[-1], addr)
    age(world, processes[-1:], addr)
    lock(world, page)
    assert world.swap.add_to_swap(page)
    world.allocator.get_page(page)
    assert world.walk.try_to_unmap(page) is SwapResult.FAIL
    world.allocator.put_page(page)
    world.memmap.clear_bit(page, world.image.constants.page_flags.locked)
    world.evict()
    assert world.pte(processes[-1], addr) & 1


@pytest.mark.book("3.10")
def test_a_page_that_somebody_used_lately_stays(world: World) -> None:
    """Only the object-based map looks once more."""
    processes, addr = family(world, pages=1)
    page = world.page(processes[0], addr)
    lock(world, page)
    assert world.swap.add_to_swap(page)
    world.allocator.get_page(page)
    age(world, processes, addr)
    world.read(processes[2], addr)
    assert world.walk.try_to_unmap(page) is SwapResult.FAIL
    age(world, processes, addr)
    assert world.walk.try_to_unmap(page) is SwapResult.SUCCESS
    assert not any(world.pte(mm, addr) & 0x81 for mm in processes)
    world.memmap.clear_bit(page, world.image.constants.page_flags.locked)
    world.allocator.put_page(page)


@pytest.mark.book("3.10")
def test_a_page_that_the_kernel_holds_is_not_pulled_from_under_it(world: World) -> None:
    processes, addr = family(world, pages=1, children=0)
    (page,), error = world.memory.get_user_pages(processes[0], addr, 1, write=True)
    assert not error
    age(world, processes, addr)
    lock(world, page)
    assert world.swap.add_to_swap(page)
    world.allocator.get_page(page)
    assert world.walk.try_to_unmap(page) is SwapResult.FAIL
    world.allocator.put_page(page)
    assert world.walk.try_to_unmap(page) is SwapResult.SUCCESS
    world.memmap.clear_bit(page, world.image.constants.page_flags.locked)
    world.allocator.put_page(page)


@KINDS
@pytest.mark.book("3.10")
def test_a_shared_page_of_a_file_is_written_and_read_again(world: World, kind: str) -> None:
    file = world.open(b"".join(bytes([n]) * PAGE for n in range(4)))
    processes = []
    for number in range(3):
        mm = world.start()
        addr = world.spaces.do_mmap_pgoff(file.file, 0, 4 * PAGE, READ_WRITE, SHARED, 0)
        assert world.write(mm, addr + number * PAGE, 1000 + number)
        processes.append((mm, addr))
    for mm, addr in processes:
        assert [world.read(mm, addr + n * PAGE) for n in range(3)] == [1000, 1001, 1002]
    assert world.evict(4) >= 3
    assert [int.from_bytes(file.contents[n * PAGE :][:4], "little") for n in range(3)] == [
        *(1000, 1001, 1002)
    ]
    for mm, addr in processes:
        assert not any(world.pte(mm, addr + n * PAGE) for n in range(4))
        assert [world.read(mm, addr + n * PAGE) for n in range(3)] == [1000, 1001, 1002]


@KINDS
@pytest.mark.book("2.8", "3.10", "6.7")
def test_processes_use_more_memory_than_there_is(kind: str) -> None:
    """kswapd and the allocations themselves swap out what nobody uses; everything comes back."""
    world = World(kind, ram=6 << 20, swap_pages=1500)
    free = world.allocator.nr_free_pages()
    processes = [world.start() for _ in range(3)]
    pages = free // 2
    places = {}
    for mm in processes:
        world.run(mm)
        addr = world.spaces.do_mmap_pgoff(0, 0, pages * PAGE, READ_WRITE, ANONYMOUS, 0)
        places[mm] = addr
        for number in range(pages):
            assert world.write(mm, addr + number * PAGE, mm + number & 0xFFFFFFFF)
    assert sum(world.areas.counts(0)[1:]) > pages // 2
    for mm, addr in places.items():
        for number in range(pages):
            assert world.read(mm, addr + number * PAGE) == mm + number & 0xFFFFFFFF
    counted = world.allocator.page_state.total
    assert counted("kswapd_steal") + counted("allocstall") > 0
    assert counted("pgmajfault") > pages // 2


@KINDS
@pytest.mark.book("6.7")
def test_without_swap_memory_runs_out(kind: str) -> None:
    world = World(kind, ram=6 << 20, swap_pages=0)
    mm = world.start()
    pages = world.allocator.nr_free_pages() + 100
    addr = world.spaces.do_mmap_pgoff(0, 0, pages * PAGE, READ_WRITE, ANONYMOUS, 0)

    def write_all() -> None:
        for number in range(pages):
            world.write(mm, addr + number * PAGE, 1)

    with pytest.raises(EndlessLoop, match="nobody to kill"):
        write_all()


@KINDS
def test_only_a_locked_frame_is_unmapped(world: World, kind: str) -> None:
    processes, addr = family(world, pages=1)
    with pytest.raises(KernelBug, match="not locked"):
        world.walk.try_to_unmap(world.page(processes[0], addr))


@KINDS
def test_an_anonymous_frame_without_a_slot_is_not_unmapped(world: World, kind: str) -> None:
    processes, addr = family(world, pages=1)
    page = world.page(processes[0], addr)
    age(world, processes, addr)
    lock(world, page)
    with pytest.raises(KernelBug, match="has no swap slot"):
        world.walk.try_to_unmap(page)
    world.mms.clear()
