# SPDX-License-Identifier: GPL-2.0-or-later
"""Reclaim of pages of files: each is written by its own file system, then it may go."""

import pytest

from kernel_model.arch_i386.page import PAGE_SIZE
from tests.kernel_model.mm.file_world import Disk
from tests.kernel_model.mm.file_world_2_6 import file_world

pytestmark = pytest.mark.usefixtures("either_release")


ROUNDS = {"2.4": (1, 2), "2.6": (2, 2)}
"""In which round of reclaim a page that was just written to is written, and in which it goes.

2.4 writes at once, and waits for the end of the writing until it comes round again. 2.6 leaves what
was used since the last time; in this model writing takes no time, and then it frees in one go.
"""


@pytest.mark.parametrize(
    ("may_write", "has_writepage", "written"),
    [(True, True, True), (False, True, False), (True, False, False)],
)
def test_a_dirty_page_is_written_once_and_then_dropped(
    either_release: str, may_write: bool, has_writepage: bool, written: bool
) -> None:
    """Who may not call file systems, and pages of those that cannot write, leave it dirty."""
    world, disk = file_world(), Disk(bytes(PAGE_SIZE))
    gfp, flags = world.image.constants.gfp, world.image.constants.page_flags
    file = world.open(disk)
    world.filemap.write(file, b"mine", 0)
    if not has_writepage:
        world.kernel.statics.hostfs_aops.writepage = 0
    (page,) = world.pages(file)
    write_round, free_round = ROUNDS[either_release]
    for number in (1, 2, 3):
        world.shrink(1, gfp.kernel if may_write else gfp.nofs, 1)
        kept = not written or number < free_round
        assert world.pages(file) == [page] * kept
        assert disk.calls.count(("write", 0)) == (written and number >= write_round)
        if kept:
            assert world.memmap.test(page, flags.dirty) != (written and number >= write_round)
            assert not world.memmap.flags(page) & flags.mask("locked", "launder", "writeback")
    assert disk.content[:4] == (b"mine" if written else bytes(4))


def test_a_mapped_page_that_is_in_use_is_not_touched() -> None:
    world, disk = file_world(), Disk(bytes(PAGE_SIZE))
    file = world.open(disk)
    world.files.get_file(file)
    vma = world.map(world.new_mm(), file, 0x40000000, 1)
    world.store(vma, 0x40000000, b"mine")
    world.kernel.vmscan._swap_out = lambda classzone: False
    world.shrink(100, world.image.constants.gfp.kernel, 1)
    assert len(world.pages(file)) == 1
    assert ("write", 0) not in disk.calls
    world.unmap_all()
    world.shrink(100, world.image.constants.gfp.kernel, 2)
    assert not world.pages(file)
    assert disk.content[:4] == b"mine"


def test_closing_writes_what_is_dirty_and_a_deleted_file_is_not_written() -> None:
    world, kept, deleted = file_world(), Disk(bytes(9)), Disk(bytes(9))
    for disk in (kept, deleted):
        file = world.open(disk)
        world.filemap.write(file, b"mine", 0)
        world.files.inode(world.files.inode_of(file)).i_nlink = disk is kept
        world.files.fput(file)
    assert (kept.content[:4], deleted.content[:4]) == (b"mine", bytes(4))
    assert "page cache" not in world.ledger._owners.values()


def test_openers_of_one_store_share_its_pages() -> None:
    world, disk = file_world(), Disk(b"0123456789")
    one, two = world.open(disk), world.open(disk)
    assert world.files.inode_of(one) == world.files.inode_of(two)
    world.filemap.write(one, b"news", 0)
    assert world.filemap.read(two, 10, 0) == b"news456789"
    world.files.fput(one)
    assert world.filemap.read(two, 4, 0) == b"news"
    assert disk.content == b"0123456789"
    world.files.fput(two)
    assert disk.content == b"news456789"


def test_a_store_that_others_change_shows_in_memory() -> None:
    """As a file does that system calls write to and processes map."""
    world, disk = file_world(), Disk(b"0123456789" * 1000)
    file = world.open(disk)
    inode = world.files.inode_of(file)
    assert world.hostfs.cached(inode, 1) is None
    vma = world.map(world.new_mm(), file, 0x40000000, 4)
    world.touch(vma, 0x40001000)
    world.store(vma, 0x40001000, b"mapped")
    page = world.hostfs.cached(inode, 1)
    assert page is not None
    assert page[:10] == b"mapped2345"
    disk.content[4100:4104] = b"news"
    world.hostfs.written(inode, 1, 4, b"news")
    assert world.load(vma, 0x40001000, 10) == b"mappnews45"
    disk.content[10_000:] = b"more"
    world.hostfs.written(inode, 2, 10_000 - 8192, b"more")
    assert world.load(vma, 0x40002000 + 10_000 - 8192, 4) == b"more"
    disk.truncate(4099)
    world.hostfs.truncated(inode, 4099)
    assert world.load(vma, 0x40001000, 10) == b"map" + bytes(7)
