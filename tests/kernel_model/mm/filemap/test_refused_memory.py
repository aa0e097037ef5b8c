# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory is refused at each allocation in turn: the operation fails, nothing is left half done,
and the same operation works when there is memory again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errno import ENOMEM
from kernel_model.errors import MmucheckError
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.page_flags import PG_LOCKED, PG_UPTODATE
from kernel_model.mm.shmem import Shmem
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.file_world import Disk, OutOfMemory
from tests.kernel_model.mm.file_world_2_6 import file_world

pytestmark = pytest.mark.usefixtures("either_release")

FILE, SHMEM = 0x40000000, 0x50000000
PAGES = 60


class Scene:
    """A file of 12 pages and shared memory whose first three pages are out, both mapped."""

    def __init__(self) -> None:
        self.world = world = file_world()
        self.disk = Disk(bytes(range(256)) * 16 * 12)
        self.file, mm = world.open(self.disk), world.new_mm()
        world.files.get_file(self.file)
        self.vma = world.map(mm, self.file, FILE, 20)
        self.shm = world.shmem_files.shmem_file_setup("dev/zero", PAGES * PAGE_SIZE)
        self.shared = world.map(mm, self.shm, SHMEM, PAGES)
        for index in range(3):
            world.store(self.shared, SHMEM + index * PAGE_SIZE, bytes([index + 1]) * 8)
        world.touch(self.vma, FILE)
        world.unmap_all()
        world.filemap.truncate_inode_pages(world.mapping(self.file), 0)
        world.shrink(100, world.image.constants.gfp.kernel, 4)
        assert not world.pages(self.file) + world.pages(self.shm)
        self.opened: list[int] = []

    def opening(self, file: int) -> bool:
        if file > 0:
            self.opened.append(file)
        return file > 0

    def check(self) -> None:
        """No page is locked, empty, or held by somebody unknown; no count is off."""
        world = self.world
        check_machine(world.kernel, world.ledger)
        users = [ptep for vma in world.vmas for ptep in self._ptes(vma)]
        pages = world.pages(self.file) + world.pages(self.shm)
        for page in pages:
            assert world.memmap.test(page, PG_UPTODATE)
            assert not world.memmap.test(page, PG_LOCKED)
            assert world.memmap.count(page) == 1 + users.count(world.memmap.pfn(page))
        inode = world.files.inode_of(self.shm)
        out = list(world.shmem.entries.entries(inode))
        assert world.shmem.entries.info(inode).swapped == len(out)
        sb = world.kernel.statics.shmem_sb
        held = len(world.pages(self.shm)) + len(out)
        assert sb.max_blocks - sb.free_blocks == held

    def _ptes(self, vma: int) -> Iterator[int]:
        view, world = self.world.vma(vma), self.world
        span = int(view.vm_start), int(view.vm_end)
        for _, ptep in world.ptes(world.pgd(int(view.vm_mm)), *span):
            yield world.kernel.tables.entry(ptep) >> 12

    def close(self) -> None:
        """Everything that files took comes back."""
        world = self.world
        for file in [*self.opened, self.file]:
            world.files.fput(file)
        world.exit_mm(int(world.image.current_task.mm))
        assert not {"page cache", "shmem index"} & set(world.ledger._owners.values())
        assert not any(world.kernel.swap_areas.counts(0)[1:])
        statics = world.kernel.statics
        assert statics.inodes_stat.nr_inodes == 0
        sb = statics.shmem_sb
        assert (sb.free_blocks, sb.free_inodes) == (sb.max_blocks, sb.max_inodes)


def _touched(scene: Scene, vma: int, vaddr: int) -> bool:
    try:
        scene.world.touch(vma, vaddr)
    except OutOfMemory:
        return False
    return True


def _read(scene: Scene) -> bool:
    parts: list[bytes] = []

    def take(page: int, offset: int, length: int) -> int:
        parts.append(scene.world.frame(page)[offset : offset + length])
        return length

    done = scene.world.filemap.generic_file_read(scene.file, 3 * PAGE_SIZE, PAGE_SIZE, take)
    assert done == -ENOMEM or done == len(b"".join(parts))
    assert b"".join(parts) == bytes(scene.disk.content[PAGE_SIZE:][: max(done, 0)])
    return done == 3 * PAGE_SIZE


def _write(scene: Scene) -> bool:
    done = scene.world.filemap.write(scene.file, b"w" * 3 * PAGE_SIZE, 5000)
    assert done == -ENOMEM or (5000 + done) % PAGE_SIZE == 0 or done == 3 * PAGE_SIZE
    return done == 3 * PAGE_SIZE


def _willneed(scene: Scene) -> bool:
    error = scene.world.filemap.madvise_willneed(scene.vma, FILE, FILE + 6 * PAGE_SIZE)
    assert error in (0, -ENOMEM)
    return error == 0


OPERATIONS: dict[str, Callable[[Scene], bool]] = {
    "open()": lambda scene: scene.opening(scene.world.hostfs.open(Disk(b"x"), "x", 3)),
    "read()": _read,
    "write()": _write,
    "a fault": lambda scene: _touched(scene, scene.vma, FILE + PAGE_SIZE),
    "madvise(WILLNEED)": _willneed,
    "a shared anonymous mapping": lambda scene: scene.opening(
        scene.world.shmem_files.shmem_file_setup("x", 1)
    ),
    "a fault in new shmem": lambda scene: _touched(scene, scene.shared, SHMEM + 4 * PAGE_SIZE),
    "a fault beyond the inode's entries": lambda scene: _touched(
        scene, scene.shared, SHMEM + 50 * PAGE_SIZE
    ),
    "a fault in shmem that is out": lambda scene: _touched(scene, scene.shared, SHMEM + PAGE_SIZE),
}


@dataclass(frozen=True)
class Takes:
    """How many allocations an operation takes, and which of them it cannot do without.

    Some only come to nothing if ``times`` in a row do, because a page that was not read ahead is
    asked for again.
    """

    allocations: int
    needed: frozenset[int]
    times: int = 1


def all_of(allocations: int) -> Takes:
    """None may fail."""
    return Takes(allocations, frozenset(range(1, allocations + 1)))


TAKES: dict[str, dict[str, Takes]] = {
    "2.4": {
        "open()": all_of(3),
        "read()": all_of(3),
        "write()": all_of(4),
        "a fault": all_of(4),
        "madvise(WILLNEED)": all_of(8),
        "a shared anonymous mapping": all_of(3),
        "a fault in new shmem": all_of(1),
        "a fault beyond the inode's entries": all_of(3),
        "a fault in shmem that is out": all_of(1),
    },
    "2.6": {
        "open()": all_of(3),
        "read()": all_of(3 + 1),
        "write()": all_of(4 + 1),
        "a fault": Takes(12 + 1, frozenset({1, 2, 3}), times=2),
        "madvise(WILLNEED)": Takes(6 + 1, frozenset()),
        "a shared anonymous mapping": all_of(3),
        "a fault in new shmem": Takes(1 + 1, frozenset({1})),
        "a fault beyond the inode's entries": Takes(3 + 1, frozenset({1, 2, 3})),
        "a fault in shmem that is out": Takes(1 + 2, frozenset({1, 2})),
    },
}
"""In 2.6 the first page of a file takes a node of its tree, too, and one that is read from swap a
node of the swap cache's. Shmem asks again when its own tree gets none; who faults on a file, when
what lies around the page could not be read."""


def refuse(scene: Scene, number: int, patch: pytest.MonkeyPatch, times: int) -> list[int]:
    """The allocations from that number on give nothing, so many ``times``. Returns the numbers that
    were asked."""
    kernel, asked = scene.world.kernel, list[int]()

    def refusing(real: Callable[..., int]) -> Callable[..., int]:
        def allocate(*arguments: Any) -> int:
            asked.append(len(asked) + 1)
            return 0 if number <= asked[-1] < number + times else real(*arguments)

        return allocate

    patch.setattr(kernel.allocator, "alloc_pages", refusing(kernel.allocator.alloc_pages))
    patch.setattr(kernel.slab, "kmem_cache_alloc", refusing(kernel.slab.kmem_cache_alloc))
    return asked


@pytest.mark.parametrize("name", OPERATIONS)
def test_memory_is_refused_at_each_place(
    name: str, either_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation, takes = OPERATIONS[name], TAKES[either_release][name]
    for number in count(1):
        scene = Scene()
        with monkeypatch.context() as patch:
            asked = refuse(scene, number, patch, takes.times)
            worked = operation(scene)
        scene.check()
        assert worked == (number not in takes.needed), f"allocation {number} was refused"
        if not worked:
            assert operation(scene), "with memory it works"
            scene.check()
        for index in range(3):
            content = scene.world.load(scene.shared, SHMEM + index * PAGE_SIZE, 8)
            assert content == bytes([index + 1]) * 8
        scene.close()
        if number not in asked:
            assert number - 1 == takes.allocations
            return


def test_a_block_that_is_not_given_back_is_found(
    either_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(self: Any, inode: int, mapping: int, index: int) -> int:
        self._sb.free_blocks -= 1
        page = self._pages.page_cache_alloc(mapping)
        return page or -ENOMEM

    monkeypatch.setattr(Shmem, "_new_page", forgetful)
    with pytest.raises((AssertionError, MmucheckError)):
        test_memory_is_refused_at_each_place("a fault in new shmem", either_release, monkeypatch)


def test_a_page_that_stays_locked_is_found(
    either_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FilePages, "unlock_page", lambda self, page: None)
    with pytest.raises((AssertionError, MmucheckError)):
        test_memory_is_refused_at_each_place("write()", either_release, monkeypatch)
