# SPDX-License-Identifier: GPL-2.0-or-later
"""``msync()`` and ``fsync()``: from PTEs to pages to the disk, and truncation."""

import pytest

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.arch_i386.pgtable import pte_dirty
from kernel_model.arch_i386.processor import NoProcessor
from kernel_model.errno import EBUSY, EINVAL, EIO, ENOMEM
from kernel_model.errors import EndlessLoop
from kernel_model.mm.filemap.sync import MS_ASYNC, MS_INVALIDATE, MS_SYNC
from kernel_model.mm.page_flags import PG_DIRTY, PG_ERROR, PG_LOCKED
from kernel_model.structs.mm import VM_LOCKED
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.file_world import PRIVATE, SHARED, Disk, FileWorld
from tests.kernel_model.mm.file_world_2_6 import file_world

pytestmark = pytest.mark.usefixtures("either_release")

BASE = 0x40000000
PAGES = 8


@pytest.fixture
def world() -> FileWorld:
    return file_world()


def mapped(world: FileWorld, disk: Disk, flags: int = SHARED) -> int:
    return world.map(world.new_mm(), world.open(disk), BASE, PAGES, 0, flags)


def dirty_ptes(world: FileWorld, vma: int) -> list[int]:
    view = world.vma(vma)
    ptes = world.ptes(world.pgd(int(view.vm_mm)), BASE, BASE + PAGES * PAGE_SIZE)
    return [vaddr for vaddr, ptep in ptes if pte_dirty(world.kernel.tables.entry(ptep))]


def state(world: FileWorld, vma: int) -> dict[str, list[int]]:
    """Indices of the pages of a file that are clean, dirty, or being written."""
    file = int(world.vma(vma).vm_file)
    dirty, written = world.must_be_written(file), world.being_written(file)
    clean = [page for page in world.pages(file) if page not in dirty + written]
    kinds = {"clean": clean, "dirty": dirty, "written": written}
    return {kind: sorted(map(world.cache.index, pages)) for kind, pages in kinds.items()}


ASYNC: dict[str, tuple[dict[str, list[int]], int]] = {
    "2.4": ({"clean": [0, 2], "dirty": [], "written": [1, 3]}, 2),
    "2.6": ({"clean": [0, 2], "dirty": [1, 3], "written": []}, 0),
}
"""What ``MS_ASYNC`` leaves, and how many pages it had the disk write."""


def test_a_dirty_page_goes_from_state_to_state(world: FileWorld, either_release: str) -> None:
    disk = Disk(bytes(4 * PAGE_SIZE))
    vma = mapped(world, disk)
    for index in (1, 3):
        world.store(vma, BASE + index * PAGE_SIZE, b"mine")
    assert dirty_ptes(world, vma) == [BASE + PAGE_SIZE, BASE + 3 * PAGE_SIZE]
    assert state(world, vma) == {"clean": [0, 1, 2, 3], "dirty": [], "written": []}
    end = BASE + PAGES * PAGE_SIZE
    assert world.filemap.sys_msync(BASE, PAGES * PAGE_SIZE, 0) == 0
    assert dirty_ptes(world, vma) == []
    assert state(world, vma) == {"clean": [0, 2], "dirty": [1, 3], "written": []}
    assert world.filemap.msync_interval(vma, BASE, end, MS_ASYNC) == 0
    left, begun = ASYNC[either_release]
    assert state(world, vma) == left
    assert len([call for call in disk.calls if call[0] == "write"]) == begun
    assert world.filemap.msync_interval(vma, BASE, end, MS_SYNC) == 0
    assert state(world, vma) == {"clean": [0, 1, 2, 3], "dirty": [], "written": []}
    assert [call for call in disk.calls if call[0] == "write"] == [("write", 1), ("write", 3)]


class Flushes(NoProcessor):
    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []
        self.all = 0

    def flush_tlb_one(self, vaddr: int) -> None:
        self.pages.append(vaddr)

    def flush_tlb_all(self) -> None:
        self.all += 1


@pytest.mark.book("3.8")
def test_each_entry_that_becomes_clean_is_flushed(world: FileWorld) -> None:
    vma = mapped(world, Disk(bytes(PAGES * PAGE_SIZE)))
    world.store(vma, BASE + PAGE_SIZE, b"mine")
    world.touch(vma, BASE + 2 * PAGE_SIZE)
    processor = world.kernel.tlb.processor = Flushes()
    processor.load_cr3(world.pgd(int(world.vma(vma).vm_mm)))
    world.filemap.filemap_sync(vma, BASE, PAGES * PAGE_SIZE)
    assert processor.pages == [BASE + PAGE_SIZE]
    assert processor.all == 1
    processor.load_cr3(0)
    world.store(vma, BASE, b"mine")
    world.filemap.filemap_sync(vma, BASE, PAGES * PAGE_SIZE)
    assert processor.pages == [BASE + PAGE_SIZE], "of a space that is not loaded nothing is kept"


def test_a_reserved_page_stays_dirty_in_the_pte(world: FileWorld) -> None:
    vma = mapped(world, Disk(bytes(PAGE_SIZE)))
    world.store(vma, BASE, b"mine")
    (page,) = world.pages(int(world.vma(vma).vm_file))
    world.memmap.set_bit(page, world.image.constants.page_flags.reserved)
    world.filemap.filemap_sync(vma, BASE, PAGE_SIZE)
    assert dirty_ptes(world, vma) == [BASE]


@pytest.mark.parametrize(
    ("start", "length", "flags", "answer"),
    [
        (BASE + 1, 4096, MS_SYNC, -EINVAL),
        (BASE, 4096, 8, -EINVAL),
        (BASE, 4096, MS_SYNC | MS_ASYNC, -EINVAL),
        (BASE, 0, MS_SYNC, 0),
        (BASE, 1, MS_SYNC, 0),
        (BASE - 4096, 8192, MS_SYNC, -ENOMEM),
        (BASE, (PAGES + 1) * 4096, MS_SYNC, -ENOMEM),
        (BASE + PAGES * 4096, 4096, MS_SYNC, -ENOMEM),
        (BASE, 4096, MS_INVALIDATE, 0),
    ],
)
def test_arguments(world: FileWorld, start: int, length: int, flags: int, answer: int) -> None:
    vma = mapped(world, Disk(bytes(PAGES * PAGE_SIZE)))
    world.store(vma, BASE, b"mine")
    assert world.filemap.sys_msync(start, length, flags) == answer
    reached = (answer == 0 and length > 0) or (answer == -ENOMEM and start <= BASE < start + length)
    assert dirty_ptes(world, vma) == ([] if reached else [BASE])


WRAPPED = {"2.4": -EINVAL, "2.6": -ENOMEM}


def test_a_range_past_the_end_of_all_addresses(world: FileWorld, either_release: str) -> None:
    """2.4 takes it for a bad argument, 2.6 for pages that nobody maps."""
    mapped(world, Disk(b"x"))
    assert world.filemap.sys_msync(0xFFFFF000, 8192, MS_SYNC) == WRAPPED[either_release]
    assert world.filemap.sys_msync(0xFFFFF000, 8192, 8) == -EINVAL


def test_what_is_locked_cannot_be_invalidated(world: FileWorld) -> None:
    vma = mapped(world, Disk(bytes(PAGE_SIZE)), SHARED | VM_LOCKED)
    assert world.filemap.sys_msync(BASE, 4096, MS_INVALIDATE | MS_SYNC) == -EBUSY
    assert world.filemap.sys_msync(BASE, 4096, MS_SYNC) == 0
    assert world.filemap.madvise_dontneed(vma, BASE, BASE + 4096) == -EINVAL


def test_a_private_mapping_has_nothing_to_write(world: FileWorld) -> None:
    disk = Disk(bytes(PAGE_SIZE))
    mapped(world, disk, PRIVATE)
    assert world.filemap.write(int(world.vma(world.vmas[0]).vm_file), b"mine", 0) == 4
    assert world.filemap.sys_msync(BASE, 4096, MS_SYNC) == 0
    assert ("write", 0) not in disk.calls


def test_the_first_error_is_told_and_the_rest_is_written(world: FileWorld) -> None:
    disk = Disk(bytes(PAGES * PAGE_SIZE))
    vma = mapped(world, disk)
    for index in range(4):
        world.store(vma, BASE + index * PAGE_SIZE, b"mine")
    disk.broken = {1}
    assert world.filemap.sys_msync(BASE, PAGES * PAGE_SIZE, MS_SYNC) == -EIO
    assert [disk.content[index * PAGE_SIZE] for index in range(4)] == [*b"m", 0, *b"mm"]
    pages = {world.cache.index(page): page for page in world.pages(int(world.vma(vma).vm_file))}
    assert [world.memmap.test(pages[index], PG_ERROR) for index in range(4)] == [0, 1, 0, 0]
    assert not any(world.memmap.test(page, PG_DIRTY) for page in pages.values())


def test_a_file_without_fsync_cannot_be_synced(world: FileWorld) -> None:
    file = world.open(Disk(b"x"))
    world.kernel.statics.hostfs_file_operations.fsync = 0
    assert world.filemap.sys_fsync(file) == -EINVAL


def test_waiting_for_a_page_that_nobody_unlocks_has_no_end(world: FileWorld) -> None:
    file = world.open(Disk(b"x"))
    world.filemap.write(file, b"y", 0)
    (page,) = world.pages(file)
    world.memmap.set_bit(page, PG_LOCKED)
    with pytest.raises(EndlessLoop, match="lock_page"):
        world.filemap.sys_fsync(file)


# -- truncation ----------------------------------------------------------------------------------


@pytest.mark.book("4.4")
@pytest.mark.parametrize("pgoff", [0, 2, 5, 6])
@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 5 * 4096 + 7, 6 * 4096])
def test_every_mapping_loses_what_is_cut(world: FileWorld, pgoff: int, size: int) -> None:
    """Page n of a VMA stays mapped exactly if page n + vm_pgoff still has a byte of the file."""
    disk = Disk(b"\xff" * (6 * PAGE_SIZE))
    file, mm = world.open(disk), world.new_mm()
    world.files.get_file(file)
    world.filemap.read(file, disk.size, 0)
    one = world.map(mm, file, BASE, 6 - pgoff or 1, pgoff)
    two = world.map(mm, file, 0x50000000, 3, 1, PRIVATE)
    for vma, first in ((one, pgoff), (two, 1)):
        start = int(world.vma(vma).vm_start)
        for number in range(int(world.vma(vma).vm_end) - start >> 12):
            if number + first < 6:
                world.touch(vma, start + number * PAGE_SIZE)
    assert world.filemap.vmtruncate(world.files.inode_of(file), size) == 0
    for vma, first in ((one, pgoff), (two, 1)):
        view = world.vma(vma)
        start, end = int(view.vm_start), int(view.vm_end)
        left = [(v - start >> 12) + first for v, _ in world.ptes(world.pgd(mm), start, end)]
        whole = range(first, min(first + (end - start >> 12), 6))
        assert left == [index for index in whole if index * PAGE_SIZE < size]
    assert sorted(map(world.cache.index, world.pages(file))) == list(range(-(-size // PAGE_SIZE)))
    assert disk.size == size
    assert world.filemap.vmtruncate(world.files.inode_of(file), 6 * PAGE_SIZE) == 0
    assert world.filemap.read(file, 1 << 20, 0) == b"\xff" * size + bytes(6 * PAGE_SIZE - size)


def test_a_page_in_use_outlives_its_file(world: FileWorld, either_release: str) -> None:
    """2.4 takes it off its list at once, in 2.6 its last user does."""
    file = world.open(Disk(b"kept" * 1024))
    world.filemap.read(file, 1, 0)
    (page,) = world.pages(file)
    world.kernel.allocator.get_page(page)
    world.filemap.vmtruncate(world.files.inode_of(file), 0)
    assert (world.memmap.count(page), world.cache.mapping(page)) == (1, 0)
    assert world.frame(page)[:4] == b"kept"
    listed = world.memmap.test(page, world.image.constants.page_flags.lru)
    assert listed == {"2.4": False, "2.6": True}[either_release]
    world.kernel.allocator.put_page(page)
    check_machine(world.kernel, world.ledger)


def test_invalidating_asks_who_has_a_page_or_who_maps_it(
    world: FileWorld, either_release: str
) -> None:
    """Somebody who has a page without mapping it, as ``read()`` does, matters to 2.4 alone."""
    file = world.open(Disk(b"kept" * 1024))
    world.filemap.read(file, 1, 0)
    (page,) = world.pages(file)
    world.kernel.allocator.get_page(page)
    world.filemap.invalidate_inode_pages(world.mapping(file))
    assert world.pages(file) == {"2.4": [page], "2.6": []}[either_release]
    world.kernel.allocator.put_page(page)
    check_machine(world.kernel, world.ledger)


def test_invalidating_keeps_what_is_dirty_used_or_locked(world: FileWorld) -> None:
    disk = Disk(bytes(PAGES * PAGE_SIZE))
    vma = mapped(world, disk)
    file = int(world.vma(vma).vm_file)
    world.filemap.read(file, PAGES * PAGE_SIZE, 0)
    world.filemap.write(file, b"y", 0)
    world.touch(vma, BASE + PAGE_SIZE)
    pages = {world.cache.index(page): page for page in world.pages(file)}
    world.memmap.set_bit(pages[2], PG_LOCKED)
    world.filemap.invalidate_inode_pages(world.mapping(file))
    assert sorted(map(world.cache.index, world.pages(file))) == [0, 1, 2]
