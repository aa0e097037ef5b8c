# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults in mapped files: what is read along, where a file ends, disks that fail, no memory."""

from collections.abc import Callable

import pytest

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.config import MIB, KernelConfig
from kernel_model.errno import EBADF, EINVAL, EIO, ENOEXEC
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.page_flags import PG_ERROR, PG_REFERENCED
from kernel_model.structs.mm import VM_RAND_READ
from tests.kernel_model.mm.file_world import (
    PRIVATE,
    SHARED,
    Disk,
    FileWorld,
    OutOfMemory,
    SigBus,
)
from tests.kernel_model.mm.file_world_2_6 import file_world

pytestmark = pytest.mark.usefixtures("either_release")

BASE = 0x40000000


@pytest.fixture
def world() -> FileWorld:
    return file_world()


def mapped(
    world: FileWorld, disk: Disk, pages: int = 40, pgoff: int = 0, flags: int = SHARED
) -> int:
    return world.map(world.new_mm(), world.open(disk), BASE, pages, pgoff, flags)


def content(pages: float) -> bytes:
    return bytes(at // PAGE_SIZE + 1 for at in range(int(pages * PAGE_SIZE)))


def reads(disk: Disk) -> list[int]:
    return [index for name, index in disk.calls if name == "read"]


AROUND: dict[str, Callable[[int, int], range]] = {
    "2.4": lambda index, cluster: range(index & -cluster, (index & -cluster) + cluster),
    "2.6": lambda index, cluster: range(max(index - 16, 0), max(index - 16, 0) + 32),
}
"""What a fault on a page reads, if the file and memory go so far: 2.4 its cluster, 2.6 128 KiB."""


@pytest.mark.book("4.6")
@pytest.mark.parametrize(("ram", "cluster"), [(15, 4), (16, 8), (128, 8)])
def test_a_fault_brings_what_lies_around(either_release: str, ram: int, cluster: int) -> None:
    """``page_cluster`` is 2 below 16 MiB, else 3; the end of the file is that of what is read."""
    world, around = file_world(KernelConfig(ram=ram * MIB)), AROUND[either_release]
    disk = Disk(content(60.5))
    vma = mapped(world, disk, pages=61)
    assert world.load(vma, BASE + 25 * PAGE_SIZE, 1) == bytes([26])
    first = list(around(25, cluster))
    assert reads(disk) == first
    disk.calls.clear()
    assert world.load(vma, BASE + 60 * PAGE_SIZE, 1) == bytes([61])
    assert reads(disk) == [at for at in around(60, cluster) if at < 61 and at not in first]
    disk.calls.clear()
    world.load(vma, BASE + first[0] * PAGE_SIZE, 1)
    assert not disk.calls, "it was there already"


def test_a_cluster_is_cut_by_the_end_of_the_vma(world: FileWorld, either_release: str) -> None:
    """2.6 does not look at it."""
    disk = Disk(content(20))
    vma = mapped(world, disk, pages=3, pgoff=7)
    world.load(vma, BASE + 2 * PAGE_SIZE, 1)
    assert reads(disk) == {"2.4": [8, 9], "2.6": list(range(20))}[either_release]


def test_what_is_read_in_vain_is_not_read_for_ever(world: FileWorld, either_release: str) -> None:
    """2.6 counts the faults that found their page, and stops when 100 more did not."""
    disk = Disk(content(3))
    vma = mapped(world, disk)
    world.load(vma, BASE, 1)
    world.swap_out_vma(vma)
    world.load(vma, BASE, 1)
    for _ in range(101):
        world.swap_out_vma(vma)
        world.filemap.truncate_inode_pages(world.mapping(int(world.vma(vma).vm_file)), 0)
        disk.calls.clear()
        world.load(vma, BASE + PAGE_SIZE, 1)
        last = reads(disk)
        assert last in ([0, 1, 2], [1])
    assert last == {"2.4": [0, 1, 2], "2.6": [1]}[either_release]


def test_a_vma_of_random_use_brings_one_page(world: FileWorld) -> None:
    disk = Disk(content(20))
    vma = mapped(world, disk, flags=SHARED | VM_RAND_READ)
    assert world.load(vma, BASE + 5 * PAGE_SIZE, 1) == bytes([6])
    assert reads(disk) == [5]


def test_the_last_page_ends_in_zeros(world: FileWorld) -> None:
    vma = mapped(world, Disk(content(2.25)))
    page = world.load(vma, BASE + 2 * PAGE_SIZE, PAGE_SIZE)
    assert page.count(3) == 1024
    assert page.count(0) == 3072


@pytest.mark.book("4.6")
def test_behind_the_end_is_a_bus_error_for_the_process_itself(world: FileWorld) -> None:
    """Another process that looks in, as a debugger does, gets a page of zeros."""
    disk = Disk(content(2.25))
    vma = mapped(world, disk)
    with pytest.raises(SigBus):
        world.touch(vma, BASE + 3 * PAGE_SIZE)
    assert not world.pages(int(world.vma(vma).vm_file))
    world.image.current_task.mm = 0
    assert world.load(vma, BASE + 3 * PAGE_SIZE, 4) == bytes(4)
    assert reads(disk) == [3]


def test_a_file_of_no_bytes_has_no_pages(world: FileWorld) -> None:
    with pytest.raises(SigBus):
        world.touch(mapped(world, Disk()), BASE)


@pytest.mark.parametrize(("failures", "works"), [(1, True), (2, True), (3, False)])
def test_a_page_that_was_not_read_is_tried_twice_more(
    world: FileWorld, failures: int, works: bool
) -> None:
    class Flaky(Disk):
        left = failures

        def _call(self, name: str, index: int) -> None:
            super()._call(name, index)
            if index == 1 and self.left:
                self.left -= 1
                raise OSError(5, "flaky")

    disk = Flaky(content(4))
    vma = mapped(world, disk)
    page_one = BASE + PAGE_SIZE
    if works:
        assert world.load(vma, page_one, 1) == bytes([2])
    else:
        with pytest.raises(SigBus):
            world.touch(vma, page_one)
        (page,) = (p for p in world.pages(int(world.vma(vma).vm_file)) if world.cache.index(p) == 1)
        assert world.memmap.test(page, PG_ERROR)
        assert world.memmap.count(page) == 1
        assert world.load(vma, page_one, 1) == bytes([2]), "the next fault tries again"
    assert reads(disk).count(1) == failures + 1


def test_the_second_use_of_a_page_activates_it(world: FileWorld) -> None:
    vma = mapped(world, Disk(content(2)))
    world.touch(vma, BASE)
    (page,) = (p for p in world.pages(int(world.vma(vma).vm_file)) if world.cache.index(p) == 0)
    assert world.memmap.test(page, PG_REFERENCED)
    world.swap_out_vma(vma)
    world.touch(vma, BASE)
    assert world.active(page)


def test_without_memory_there_is_no_page(world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    vma = mapped(world, Disk(content(2)))
    world.touch(vma, BASE)
    world.swap_out_vma(vma)
    world.filemap.invalidate_inode_pages(world.mapping(int(world.vma(vma).vm_file)))
    monkeypatch.setattr(world.kernel.allocator, "alloc_pages", lambda *_: 0)
    with pytest.raises(OutOfMemory):
        world.touch(vma, BASE)


@pytest.mark.book("4.4.1")
@pytest.mark.parametrize(
    ("missing", "flags", "answer"),
    [
        ("writepage", SHARED, -EINVAL),
        ("writepage", PRIVATE, 0),
        ("readpage", PRIVATE, -ENOEXEC),
        ("", SHARED, 0),
    ],
)
def test_a_file_is_mapped_as_its_operations_allow(
    world: FileWorld, missing: str, flags: int, answer: int
) -> None:
    """Who may write through a mapping needs a file system that writes back."""
    vma = mapped(world, Disk(content(1)), flags=PRIVATE)
    view = world.vma(vma)
    view.vm_ops, view.vm_flags = 0, flags
    if missing:
        setattr(world.kernel.statics.hostfs_aops, missing, 0)
    assert world.filemap.generic_file_mmap(int(view.vm_file), vma) == answer
    assert view.vm_ops == (0 if answer else world.image.symbol("generic_file_vm_ops"))


# -- advice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "flags", "clusters"),
    [
        (1, 2, SHARED, range(4)),
        (3, 5, SHARED, range(8)),
        (9, 40, SHARED, range(8, 10)),
        (1, 3, SHARED | VM_RAND_READ, range(1, 3)),
    ],
)
def test_willneed_reads_whole_clusters_or_what_was_asked_for(
    world: FileWorld, either_release: str, start: int, end: int, flags: int, clusters: range
) -> None:
    """2.4 reads as a fault would, 2.6 as it was told; neither reads behind the end of the file."""
    expected = {"2.4": clusters, "2.6": range(start, min(end, 10))}[either_release]
    disk = Disk(content(9.5))
    vma = mapped(world, disk, flags=flags)
    base = int(world.vma(vma).vm_start)
    assert world.filemap.madvise_willneed(vma, base + start * 4096, base + end * 4096) == 0
    assert reads(disk) == list(expected)
    present = world.filemap.mincore_vma(vma, base, base + 12 * PAGE_SIZE)
    assert present == bytes(index in expected for index in range(12))


REFUSALS: dict[str, tuple[Callable[[FileWorld, int], None], dict[str, int]]] = {
    "nothing there to read": (
        lambda world, vma: setattr(world.vma(vma), "vm_pgoff", 100),
        {"2.4": -EIO, "2.6": 0},
    ),
    "no file": (
        lambda world, vma: setattr(world.vma(vma), "vm_file", 0),
        {"2.4": -EBADF, "2.6": -EBADF},
    ),
    "more than RLIMIT_RSS": (
        lambda world, vma: setattr(world.image.current_task.rlim[5], "rlim_cur", 1),
        {"2.4": -EIO, "2.6": 0},
    ),
}
"""To 2.6 it is nobody's loss what cannot be read ahead."""


@pytest.mark.parametrize("case", REFUSALS)
def test_willneed_refuses(world: FileWorld, either_release: str, case: str) -> None:
    vma = mapped(world, Disk(content(4)))
    spoil, answers = REFUSALS[case]
    spoil(world, vma)
    answer = world.filemap.madvise_willneed(vma, BASE, BASE + 2 * PAGE_SIZE)
    assert answer == answers[either_release]


def test_what_cannot_be_read_ahead_is_left(world: FileWorld, either_release: str) -> None:
    """2.6 never reads more ahead than half of what could be had; 2.4 does what it is told."""
    disk = Disk(bytes(200 * PAGE_SIZE))
    vma, allocator = mapped(world, disk, pages=200), world.kernel.allocator
    keep = 60 + sum(int(zone.view.pages_high) for zone in for_each_zone(world.image))
    while allocator.nr_free_pages() > keep:
        assert allocator.alloc_pages(world.image.constants.gfp.atomic, 0)
    could = allocator.nr_free_pages() + allocator.lru.nr_inactive()
    assert could // 2 < 200
    assert world.filemap.madvise_willneed(vma, BASE, BASE + 200 * PAGE_SIZE) == 0
    assert len(reads(disk)) == {"2.4": 200, "2.6": could // 2}[either_release]
