# SPDX-License-Identifier: GPL-2.0-or-later
"""Shared anonymous memory: where its pages are, what it may take, and that it comes back."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.config import MIB, KernelConfig
from kernel_model.errno import EFBIG, EINVAL, ENOMEM, ENOSPC
from kernel_model.errors import KernelBug
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.page_flags import PG_ACTIVE, PG_DIRTY, PG_LAUNDER
from kernel_model.mm.shmem import Sgp
from kernel_model.mm.shmem.entries import SHMEM_MAX_INDEX, path_of
from kernel_model.structs.mm import VM_LOCKED
from tests.kernel_model.mm.file_world import FileWorld, SigBus

BASE = 0x50000000
EDGES = [0, 1, 15, 16, 17, 1039, 1040, 16 + 511 * 1024, 16 + 512 * 1024 - 1]
EDGES += [16 + 512 * 1024, 16 + 512 * 1024 + 1023, 16 + 513 * 1024, 16 + 1536 * 1024 - 1]
EDGES += [16 + 1536 * 1024, SHMEM_MAX_INDEX - 1]


@pytest.fixture
def world() -> FileWorld:
    return FileWorld()


def new_file(world: FileWorld, pages: int = 40) -> tuple[int, int, int]:
    """(file, inode, VMA) of a mapping of ``pages`` pages."""
    file = world.shmem_files.shmem_file_setup("dev/zero", pages * PAGE_SIZE)
    assert file > 0
    vma = world.map(world.new_mm(), file, BASE, pages)
    return file, world.files.inode_of(file), vma


def reclaim(world: FileWorld, rounds: int = 3) -> None:
    for _ in range(rounds):
        world.kernel.vmscan.refill_inactive(500)
        zone = world.kernel.allocator.page_zone(world.memmap.page(1000))
        world.kernel.vmscan.shrink_cache(500, zone, GFP_KERNEL, 1)


# -- the index -------------------------------------------------------------------------------------


@given(index=st.one_of(st.sampled_from(EDGES[4:]), st.integers(16, SHMEM_MAX_INDEX - 1)))
def test_every_page_has_an_entry_of_its_own(index: int) -> None:
    """The places on the way are the digits of the page's number, so the number is back."""
    places, entry = path_of(index)
    blocks = places[0] if len(places) == 1 else 512 + (places[0] - 512) * 1024 + places[1]
    assert len(places) == (1 if places[0] < 512 else 2)
    assert 16 + blocks * 1024 + entry == index
    assert all(0 <= place < 1024 for place in (*places, entry))


@given(
    indices=st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, 5000)), max_size=12),
    cuts=st.lists(st.one_of(st.sampled_from(EDGES), st.integers(0, 5000)), max_size=3),
)
@settings(max_examples=60)
def test_the_index_is_a_sparse_array(indices: list[int], cuts: list[int]) -> None:
    """Against a dictionary: set entries, cut from the end, count frames; all come back."""
    world = SHARED_WORLD
    _file, inode, _ = new_file(world, 1)
    entries, words = world.shmem.entries, world.ram.words
    world.files.inode(inode).i_size = SHMEM_MAX_INDEX * PAGE_SIZE
    before = world.kernel.allocator.nr_free_pages()
    oracle: dict[int, int] = {}
    for number, index in enumerate(indices):
        assert bool(entries.shmem_swp_entry(inode, index)) == (index in _reachable(oracle, index))
        place = entries.shmem_swp_alloc(inode, index)
        assert entries.shmem_swp_entry(inode, index) == place
        assert words[place] == oracle.get(index, 0)
        words[place] = oracle[index] = 100 + number
    for cut in [*sorted(cuts, reverse=True), 0]:
        assert dict(entries.entries(inode)) == oracle
        freed: list[int] = []
        count = entries.truncate(inode, cut, freed.append)
        assert sorted(freed) == sorted(slot for index, slot in oracle.items() if index >= cut)
        assert count == len(freed)
        oracle = {index: slot for index, slot in oracle.items() if index < cut}
        frames = _frames_needed({index for index in indices if index < cut}, cut)
        assert frames <= len(entries.frames(inode)) <= frames + 3
    assert entries.frames(inode) == []
    assert world.kernel.allocator.nr_free_pages() == before
    world.exit_mm(int(world.image.current_task.mm))


def _reachable(oracle: dict[int, int], index: int) -> set[int]:
    """``index`` if its frame of entries is there already: because another entry is in it."""
    if index < 16 or any(one >= 16 and path_of(one)[0] == path_of(index)[0] for one in oracle):
        return {index}
    return set()


def _frames_needed(indices: set[int], cut: int) -> int:
    paths = [path_of(index)[0] for index in indices if index >= 16]
    return len({places[:depth] for places in paths for depth in range(len(places) + 1)})


SHARED_WORLD: FileWorld = FileWorld(KernelConfig(ram=16 * MIB))


# -- pages -----------------------------------------------------------------------------------------


@pytest.mark.book("4.4.1")
def test_pages_go_to_swap_and_come_back(world: FileWorld) -> None:
    file, inode, vma = new_file(world)
    free = int(world.kernel.statics.nr_swap_pages)
    for index in range(40):
        world.store(vma, BASE + index * PAGE_SIZE, bytes([index + 1]) * 9)
    world.swap_out_vma(vma)
    reclaim(world, 1)
    info = world.shmem.entries.info(inode)
    assert (info.swapped, len(world.pages(file))) == (40, 0)
    cached = [
        world.kernel.swap_cache.lookup(entry) for _, entry in world.shmem.entries.entries(inode)
    ]
    assert all(cached), "first they are in the swap cache"
    for page in cached:
        assert world.memmap.test(page, PG_DIRTY)
        world.kernel.allocator.put_page(page)
    reclaim(world, 3)
    slots = [entry for _, entry in world.shmem.entries.entries(inode)]
    assert not any(world.kernel.swap_cache.lookup(entry) for entry in slots), "then on the disk"
    assert world.kernel.statics.nr_swap_pages == free - 40
    assert len(world.shmem.entries.frames(inode)) == 2, "24 entries do not fit into the inode"
    for index in range(40):
        assert world.load(vma, BASE + index * PAGE_SIZE, 9) == bytes([index + 1]) * 9
    assert (info.swapped, len(world.pages(file))) == (0, 40)
    assert world.kernel.statics.nr_swap_pages == free
    assert all(world.memmap.test(page, PG_DIRTY) for page in world.pages(file))


def test_a_page_never_written_to_is_dropped_and_its_block_with_it(world: FileWorld) -> None:
    file, inode, vma = new_file(world)
    sb = world.kernel.statics.shmem_sb
    for index in range(5):
        world.touch(vma, BASE + index * PAGE_SIZE)
    assert world.files.inode(inode).i_blocks == 40
    assert sb.max_blocks - sb.free_blocks == 5
    world.swap_out_vma(vma)
    reclaim(world)
    assert not world.pages(file)
    assert world.shmem.entries.info(inode).swapped == 0
    assert world.files.inode(inode).i_blocks == 40, "the file does not know yet"
    assert world.load(vma, BASE + PAGE_SIZE, 4) == bytes(4)
    assert world.files.inode(inode).i_blocks == 8
    assert sb.max_blocks - sb.free_blocks == 1


@pytest.mark.parametrize("why", ["swap is full", "locked", "not for reclaim"])
def test_a_page_that_cannot_go_stays_dirty(world: FileWorld, why: str) -> None:
    file, inode, vma = new_file(world)
    world.store(vma, BASE, b"mine")
    world.swap_out_vma(vma)
    (page,) = world.pages(file)
    if why == "swap is full":
        world.kernel.statics.nr_swap_pages = 0
    if why == "locked":
        world.shmem.entries.info(inode).flags |= VM_LOCKED
    if why == "not for reclaim":
        assert world.filemap.filemap_fdatasync(world.mapping(file)) == 0
    else:
        reclaim(world)
    assert world.pages(file) == [page]
    assert world.memmap.test(page, PG_DIRTY)
    assert world.memmap.test(page, PG_ACTIVE) == (why != "not for reclaim")
    assert not world.memmap.test(page, PG_LAUNDER)
    assert world.load(vma, BASE, 4) == b"mine"


@pytest.mark.book("4.6")
def test_behind_the_end_is_a_bus_error(world: FileWorld) -> None:
    _, inode, vma = new_file(world, 3)
    world.files.inode(inode).i_size = PAGE_SIZE + 1
    world.touch(vma, BASE + PAGE_SIZE)
    with pytest.raises(SigBus):
        world.touch(vma, BASE + 2 * PAGE_SIZE)
    assert world.shmem.shmem_getpage(inode, SHMEM_MAX_INDEX, Sgp.CACHE) == -EFBIG
    assert world.shmem.shmem_getpage(inode, 2, Sgp.READ) == -EINVAL
    assert world.shmem.shmem_getpage(inode, 0, Sgp.READ) == 0, "a hole"


@pytest.mark.parametrize("out", [False, True])
def test_a_cut_in_the_middle_of_a_page(world: FileWorld, out: bool) -> None:
    """Also of one that is on the disk: it is brought in to be cleared."""
    _, inode, vma = new_file(world, 4)
    for index in range(4):
        world.store(vma, BASE + index * PAGE_SIZE, b"\xee" * PAGE_SIZE)
    if out:
        world.swap_out_vma(vma)
        reclaim(world, 4)
    assert world.shmem.notify_change(inode, PAGE_SIZE + 100) == 0
    assert world.shmem.notify_change(inode, 4 * PAGE_SIZE) == 0
    assert world.load(vma, BASE + PAGE_SIZE, PAGE_SIZE) == b"\xee" * 100 + bytes(PAGE_SIZE - 100)
    assert world.load(vma, BASE + 2 * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


# -- limits ----------------------------------------------------------------------------------------


def test_limits_of_blocks_and_inodes(world: FileWorld) -> None:
    _, inode, vma = new_file(world)
    world.touch(vma, BASE)
    assert world.shmem_files.shmem_set_size(0, 5) == -EINVAL
    assert world.shmem_files.shmem_set_size(2, 0) == -EINVAL
    assert world.shmem_files.shmem_set_size(2, 1) == 0
    world.touch(vma, BASE + PAGE_SIZE)
    with pytest.raises(SigBus):
        world.touch(vma, BASE + 2 * PAGE_SIZE)
    assert world.shmem.shmem_getpage(inode, 2, Sgp.CACHE) == -ENOSPC
    assert world.shmem_files.shmem_file_setup("x", 1) == -ENOSPC
    world.exit_mm(int(world.image.current_task.mm))
    sb = world.kernel.statics.shmem_sb
    assert (sb.free_blocks, sb.free_inodes) == (2, 1)


def test_a_file_needs_memory_that_there_is(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def enough(pages: int) -> bool:
        asked.append(pages)
        return pages < 10

    monkeypatch.setattr(world.shmem_files, "_enough_memory", enough)
    assert world.shmem_files.shmem_file_setup("x", 9 * PAGE_SIZE + 1) == -ENOMEM
    assert world.shmem_files.shmem_file_setup("x", 9 * PAGE_SIZE) > 0
    assert asked == [10, 9]
    too_large = SHMEM_MAX_INDEX * PAGE_SIZE
    assert world.shmem_files.shmem_file_setup("x", too_large + 1) == -EINVAL
    assert world.shmem_files.shmem_file_setup("x", too_large) == -ENOMEM


def test_a_shared_anonymous_mapping_gets_a_file_of_its_own(world: FileWorld) -> None:
    _file, _, vma = new_file(world, 7)
    view = world.vma(vma)
    assert world.shmem_files.shmem_zero_setup(vma) == 0
    assert int(view.vm_file) != 0
    assert view.vm_ops == world.image.symbol("shmem_vm_ops")
    inode = world.files.inode(world.files.inode_of(int(view.vm_file)))
    assert (inode.i_size, inode.i_nlink) == (7 * PAGE_SIZE, 0)
    assert world.files.name(int(view.vm_file)) == "dev/zero"


def test_a_cached_page_whose_slot_is_named_is_a_bug(world: FileWorld) -> None:
    _file, inode, vma = new_file(world)
    world.store(vma, BASE, b"mine")
    world.swap_out_vma(vma)
    words: Any = world.ram.words
    words[world.shmem.entries.shmem_swp_entry(inode, 0)] = 256
    with pytest.raises(KernelBug, match="its entry not free"):
        reclaim(world)
