# SPDX-License-Identifier: GPL-2.0-or-later
"""``read()`` and ``write()``: limits, flags, failures half way, and what the CPU is told."""

from collections.abc import Callable

import pytest

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.arch_i386.processor import NoProcessor
from kernel_model.errno import EFAULT, EFBIG, EINVAL, EIO, ENOMEM, ENOSPC
from kernel_model.mm.filemap.sync import MS_SYNC
from kernel_model.mm.filemap.write import (
    MAX_LFS_FILESIZE,
    MAX_NON_LFS,
    O_APPEND,
    O_LARGEFILE,
    O_SYNC,
)
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.structs.mmzone import MAX_ORDER
from kernel_model.structs.sched import RLIMIT_FSIZE
from tests.kernel_model.mm.file_world import Disk, FileWorld
from tests.kernel_model.mm.file_world_2_6 import file_world

pytestmark = pytest.mark.usefixtures("either_release")


@pytest.fixture
def world() -> FileWorld:
    return file_world()


def test_appending_ignores_the_position(world: FileWorld) -> None:
    disk = Disk(b"begin")
    file = world.open(disk, flags=O_APPEND)
    assert world.filemap.write(file, b"-end", 1) == 4
    assert world.filemap.read(file, 100, 0) == b"begin-end"
    assert disk.content == b"begin\0\0\0\0", "the bytes themselves are written later"


def test_a_synchronous_file_is_written_at_once(world: FileWorld) -> None:
    disk = Disk(b"begin")
    file = world.open(disk, flags=O_SYNC)
    assert world.filemap.write(file, b"BEGAN", 0) == 5
    assert disk.content == b"BEGAN"
    assert not world.must_be_written(file) + world.being_written(file)


@pytest.mark.parametrize(
    ("flags", "limit", "pos", "count", "answer"),
    [
        (0, None, -1, 1, -EINVAL),
        (0, None, 0, 0, 0),
        (0, 100, 90, 20, 10),
        (0, 100, 100, 1, -EFBIG),
        (0, 100, 200, 0, 0),
        (0, None, MAX_NON_LFS - 3, 9, 3),
        (0, None, MAX_NON_LFS, 1, -EFBIG),
        (O_LARGEFILE, None, MAX_NON_LFS, 1, 1),
        (O_LARGEFILE, None, MAX_LFS_FILESIZE, 1, -EFBIG),
    ],
)
def test_limits(
    world: FileWorld, flags: int, limit: int | None, pos: int, count: int, answer: int
) -> None:
    class Sparse(Disk):
        def truncate(self, size: int) -> None:
            """Gigabytes of zeros are not kept."""

    file = world.open(Sparse(b"x"), flags=flags)
    if limit is not None:
        world.image.current_task.rlim[RLIMIT_FSIZE].rlim_cur = limit
    assert world.filemap.write(file, b"y" * count, pos) == answer
    expected = pos + answer if answer > 0 else 1
    assert world.files.inode(world.files.inode_of(file)).i_size == expected


def test_a_file_does_not_grow_past_the_limit(world: FileWorld) -> None:
    disk = Disk(b"x")
    file = world.open(disk)
    inode = world.files.inode_of(file)
    world.image.current_task.rlim[RLIMIT_FSIZE].rlim_cur = 100
    assert world.filemap.vmtruncate(inode, 101) == -EFBIG
    assert (world.files.inode(inode).i_size, disk.size) == (1, 1)
    assert world.filemap.vmtruncate(inode, 100) == 0
    assert disk.size == 100


def test_an_error_of_the_file_is_told_once(world: FileWorld) -> None:
    file = world.open(Disk(b"x"))
    world.files.file(file).f_error = -EIO
    assert world.filemap.write(file, b"y", 0) == -EIO
    assert world.filemap.write(file, b"y", 0) == 1


def test_a_source_that_faults_ends_the_write(world: FileWorld) -> None:
    """The pages before stand; nothing stays locked, and no reference is left."""
    file = world.open(Disk(bytes(3 * PAGE_SIZE)))
    calls: list[int] = []

    def source(page: int, offset: int, length: int) -> int:
        calls.append(offset)
        return 0 if len(calls) < 3 else 1

    assert world.filemap.generic_file_write(file, 3 * PAGE_SIZE, 10, source) == 2 * PAGE_SIZE - 10
    assert calls == [10, 0, 0]
    calls[:] = [0, 0, 0]
    assert world.filemap.generic_file_write(file, 5, 0, source) == -EFAULT
    for page in world.pages(file):
        assert world.memmap.count(page) == 1
        assert not world.memmap.test(page, 0)


def test_a_page_that_cannot_be_read_cannot_be_written_in_part(world: FileWorld) -> None:
    disk = Disk(b"x" * 2 * PAGE_SIZE)
    disk.broken = {1}
    file = world.open(disk)
    assert world.filemap.write(file, b"y" * 20, PAGE_SIZE - 10) == 10
    assert world.filemap.write(file, b"y" * 20, PAGE_SIZE) == -EIO
    with pytest.raises(OSError, match="generic_file_read"):
        world.filemap.read(file, 1, PAGE_SIZE)
    assert world.filemap.write(file, b"z" * PAGE_SIZE, PAGE_SIZE) == PAGE_SIZE, "a whole page can"
    disk.broken.clear()
    assert world.filemap.sys_fsync(file) == 0
    assert disk.content[PAGE_SIZE:] == b"z" * PAGE_SIZE


@pytest.mark.parametrize(("number", "answer"), [(28, -ENOSPC), (5, -EIO)])
def test_a_full_disk_shows_at_fsync(world: FileWorld, number: int, answer: int) -> None:
    class Full(Disk):
        def write_page(self, index: int, data: bytes) -> None:
            raise OSError(number, "full")

    file = world.open(Full(bytes(100)))
    assert world.filemap.write(file, b"y", 0) == 1
    assert world.filemap.sys_fsync(file) == answer
    assert world.filemap.sys_fsync(file) == 0, "the kernel forgets the page's bytes"


def test_a_page_behind_the_end_is_not_written(world: FileWorld) -> None:
    disk = Disk(bytes(2 * PAGE_SIZE))
    file = world.open(disk)
    world.filemap.read(file, 2 * PAGE_SIZE, 0)
    world.files.inode(world.files.inode_of(file)).i_size = PAGE_SIZE
    (page,) = (page for page in world.pages(file) if world.cache.index(page) == 1)
    world.cache.set_page_dirty(page)
    assert world.filemap.sys_fsync(file) == -EIO
    assert ("write", 1) not in disk.calls


def test_reading_stops_where_the_taker_does(world: FileWorld) -> None:
    file = world.open(Disk(bytes(3 * PAGE_SIZE)))
    taken: list[int] = []

    def actor(page: int, offset: int, length: int) -> int:
        taken.append(length)
        return length if len(taken) == 1 else 7

    assert world.filemap.generic_file_read(file, 9000, 4000, actor) == 96 + 7
    assert taken == [96, PAGE_SIZE]
    assert world.filemap.generic_file_read(file, -1, 0, actor) == -EINVAL
    assert world.filemap.read(file, 10, 3 * PAGE_SIZE) == b""


BREAKS: dict[str, Callable[[FileWorld, int], object]] = {
    "2.4": lambda world, file: setattr(world.files.file(file), "f_reada", 0),
    "2.6": lambda world, file: world.filemap.read(file, 1, PAGE_SIZE),
}
"""After what a part of a page is a use of its own: ``lseek()``; another page."""


def test_reading_on_counts_one_use_for_each_page(world: FileWorld, either_release: str) -> None:
    """Small reads in sequence use a page once."""
    file = world.open(Disk(bytes(2 * PAGE_SIZE)))
    world.filemap.read(file, 10, 0)
    world.filemap.read(file, 10, 10)
    world.filemap.read(file, 10, 20)
    (page,) = world.pages(file)
    assert not world.active(page)
    BREAKS[either_release](world, file)
    world.filemap.read(file, 10, 20)
    assert world.active(page)


def test_the_start_of_a_page_read_twice_is_two_uses_or_one(
    world: FileWorld, either_release: str
) -> None:
    """2.4 looks where a read begins, 2.6 at the page that was read before."""
    file = world.open(Disk(bytes(PAGE_SIZE)))
    world.filemap.read(file, 10, 0)
    world.filemap.read(file, 10, 0)
    (page,) = world.pages(file)
    assert world.active(page) == {"2.4": True, "2.6": False}[either_release]


def test_writing_twice_is_two_uses_in_2_6_alone(world: FileWorld, either_release: str) -> None:
    """2.4 only says that the page was used."""
    file = world.open(Disk(bytes(PAGE_SIZE)))
    world.filemap.write(file, b"y", 0)
    (page,) = world.pages(file)
    assert not world.active(page)
    world.filemap.write(file, b"y", 1)
    assert world.active(page) == {"2.4": False, "2.6": True}[either_release]


# -- the CPU is told -------------------------------------------------------------------------------


class Bus(NoProcessor):
    """A CPU that notes what others wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: set[int] = set()

    def snoop(self, paddr: int, length: int) -> None:
        self.heard.update(range(paddr, paddr + length))


def test_the_cpu_hears_of_every_byte_that_changes(world: FileWorld) -> None:
    """All frames of files are compared around each operation. Free frames are full of rubbish
    first, so that filling one changes it."""
    bus, memmap = Bus(), world.memmap
    world.kernel.tlb.processor = bus
    file, mm = world.open(Disk(bytes(range(1, 256)) * 40)), world.new_mm()
    inode = world.files.inode_of(file)
    world.files.get_file(file)
    vma = world.map(mm, file, 0x40000000, 4)
    shm = world.shmem_files.shmem_file_setup("dev/zero", 4 * PAGE_SIZE)
    shared = world.map(mm, shm, 0x50000000, 4)
    for zone in for_each_zone(world.image):
        for order in range(MAX_ORDER):
            for page in zone.free_blocks(order):
                world.ram.fill(memmap.pfn(page) * PAGE_SIZE, PAGE_SIZE << order, 0xA5)
    operations: dict[str, Callable[[], object]] = {
        "a fault": lambda: world.touch(vma, 0x40000000),
        "write()": lambda: world.filemap.write(file, b"news", 5000),
        "write() of a whole page": lambda: world.filemap.write(file, b"n" * 4096, 12288),
        "write() behind the end": lambda: world.filemap.write(file, b"n", 20000),
        "truncate()": lambda: world.filemap.vmtruncate(inode, 5001),
        "the store changed": lambda: world.hostfs.written(inode, 1, 10, b"store"),
        "writing the last page back": lambda: world.filemap.sys_msync(0x40000000, 8192, MS_SYNC),
        "a fault in shmem": lambda: world.touch(shared, 0x50000000),
    }
    for name, operation in operations.items():
        if name == "writing the last page back":
            world.store(vma, 0x40001FF0, b"past end")
        bus.heard.clear()
        before = bytes(world.ram.bytes)
        operation()
        frames = [memmap.pfn(page) * PAGE_SIZE for page in world.pages(file) + world.pages(shm)]
        changed = {
            at
            for frame in frames
            for at in range(frame, frame + PAGE_SIZE)
            if world.ram.bytes[at] != before[at]
        }
        assert changed, name
        assert not changed - bus.heard, f"{name}: bytes changed behind the CPU's back"


def test_no_memory_for_a_page(world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.open(Disk(bytes(100)))
    monkeypatch.setattr(world.kernel.allocator, "alloc_pages", lambda *_: 0)
    assert world.filemap.write(file, b"y", 0) == -ENOMEM
    with pytest.raises(OSError, match=f"{ENOMEM}"):
        world.filemap.read(file, 1, 0)
