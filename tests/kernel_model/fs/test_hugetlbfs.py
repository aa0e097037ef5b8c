# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of huge pages: what may be mapped and where, what it costs, and what nobody may do."""

from collections.abc import Callable

import pytest

from harness.monitors.huge_pages import HugePagesWrong
from kernel_model.errors import MmucheckError
from kernel_model.mm.memory import Fault
from kernel_model.mm.mmap.linux_2_6 import AddressSpaces
from kernel_model.structs.fs import FMODE_READ
from kernel_model.structs.linux_2_6.mm import VM_HUGETLB, VM_RESERVED
from kernel_model.structs.mman import (
    MADV_DONTNEED,
    MADV_RANDOM,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    MS_SYNC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from tests.kernel_model.mm.hugetlb.huge_kernel import CONFIGS, READ_WRITE, HugeKernel

pytestmark = pytest.mark.book("3.10", "4.8", release="2.6")
EINVAL, ENOMEM, EACCES, ENOSPC, EFAULT = 22, 12, 13, 28, 14
PRESENT, WRITE, USER, ACCESSED, DIRTY, PSE = 0x1, 0x2, 0x4, 0x20, 0x40, 0x80
PAGE = 4096
TASK_SIZE = 0xC0000000


@pytest.mark.parametrize("kind", CONFIGS)
def test_entries_that_map_it(kind: str) -> None:
    huge = HugeKernel(kind, 3)
    process, inode = huge.processes.start(), huge.new_file()
    at = huge.map(process, inode, 2)
    assert at % huge.size == 0
    entries = [huge.entry(process, at + n * huge.size) for n in range(2)]
    assert {e & 0xFFF for e in entries} == {PRESENT | WRITE | USER | ACCESSED | DIRTY | PSE}
    assert len({e >> 12 for e in entries}) == 2
    read_only = huge.map(process, inode, 1, prot=PROT_READ)
    assert huge.entry(process, read_only) & 0xFFF == PRESENT | USER | ACCESSED | PSE
    assert huge.frame(process, read_only) == huge.frame(process, at)
    nobodys = huge.map(process, inode, 1, prot=PROT_NONE)
    assert huge.entry(process, nobodys) & (PRESENT | USER | PSE) == PSE
    huge.check()
    assert (huge.free, huge.pages(inode)) == (1, [0, 1])
    huge.processes.exit(process)
    assert (huge.free, huge.pages(inode)) == (1, [0, 1])
    huge.unlink(inode)
    assert huge.free == 3
    huge.check()


@pytest.mark.parametrize("kind", ["2-level", "PAE"])
def test_what_cannot_be_mapped(kind: str) -> None:
    huge = HugeKernel(kind, 3)
    process, inode, small = huge.processes.start(), huge.new_file(), huge.size // PAGE
    huge.map(process, inode, 1)
    refused = [
        (EINVAL, {"flags": MAP_PRIVATE}),
        (EINVAL, {"length": huge.size // 2}),
        (EINVAL, {"length": huge.size + PAGE}),
        (EINVAL, {"page": 1}),
        (EINVAL, {"page": small // 2}),
        (EINVAL, {"at": 0x50000000 + huge.size // 2}),
        (EINVAL, {"at": 0x50000000, "length": huge.size // 2}),
        (ENOMEM, {"page": small, "prot": PROT_READ}),
        (ENOMEM, {"at": TASK_SIZE}),
        (EACCES, {"mode": FMODE_READ}),
    ]
    for error, how in refused:
        assert huge.map(process, inode, 1, **how) == -error, how
    # The mapping that was too long for a reader was taken from rss, and had never been added to it.
    assert (huge.free, huge.pages(inode), huge.rss(process)) == (2, [0], small - small)
    assert huge.map(process, inode, 1, flags=MAP_PRIVATE, prot=PROT_READ) > 0
    assert huge.map(process, inode, 1, mode=FMODE_READ, prot=PROT_READ) > 0
    huge.check()


@pytest.mark.parametrize("kind", ["2-level", "PAE"])
def test_a_mapping_that_fails_half_way_leaves_its_pages_in_the_file(kind: str) -> None:
    """As in 2.6.11, whose ``rss`` then says less than nothing; the file is as long as it was."""
    huge = HugeKernel(kind, 3)
    process, inode = huge.processes.start(), huge.new_file()
    with huge.processes.running(process) as mm:
        space = huge.kernel.spaces.areas.mm(mm)
        before = space.total_vm, space.map_count
    assert huge.map(process, inode, 5) == -ENOMEM
    assert (space.total_vm, space.map_count) == before
    assert (huge.free, huge.pages(inode)) == (0, [0, 1, 2])
    assert huge.kernel.files.inode(inode).i_size == 0
    assert huge.rss(process) == (3 - 5) * huge.size // PAGE & 0xFFFFFFFF
    huge.check()
    assert huge.fs.hugetlbfs_setattr_size(inode, 0) == 0
    assert huge.free == 3


def test_a_mount_has_limits() -> None:
    huge = HugeKernel("PAE", 6)
    huge.limited(blocks=3, inodes=2)
    process, first, second = huge.processes.start(), huge.new_file(), huge.new_file()
    sb = huge.fs.super_block(huge.mount)
    assert huge.fs.hugetlbfs_get_inode(huge.mount) == -ENOSPC
    assert huge.map(process, first, 2) > 0
    assert huge.map(process, second, 2) == -ENOMEM
    assert (sb.free_blocks, sb.free_inodes, huge.free) == (0, 0, 3)
    huge.unlink(second)
    assert (sb.free_blocks, sb.free_inodes, huge.free) == (1, 1, 4)
    assert huge.fs.hugetlbfs_setattr_size(first, huge.size) == 0
    assert (sb.free_blocks, huge.free) == (2, 5)
    huge.processes.exit(process)
    huge.unlink(first)
    assert (sb.free_blocks, sb.free_inodes, huge.free) == (3, 2, 6)
    huge.fs.put_super(huge.mount)


@pytest.mark.parametrize("kind", ["2-level", "PAE"])
@pytest.mark.parametrize("downwards", [False, True], ids=["upwards", "downwards"])
def test_where_it_goes(kind: str, downwards: bool) -> None:
    """In the direction of the address space, from one whole huge page to the next."""
    huge = HugeKernel(kind, 6)
    spaces, size = huge.kernel.spaces, huge.size
    assert isinstance(spaces, AddressSpaces)
    process, inode = huge.processes.start(), huge.new_file()
    with huge.processes.running(process) as mm:
        task, space = huge.kernel.image.current_task, spaces.areas.mm(mm)
        task.rlim[3].rlim_cur = 8 << 20 if downwards else 0xFFFFFFFF
        spaces.arch_pick_mmap_layout(mm)
        space.free_area_cache = space.mmap_base
        base = space.mmap_base
        spaces.do_mmap_pgoff(0, 0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, 0)
    first, second = huge.map(process, inode, 1), huge.map(process, inode, 1)
    if downwards:
        assert first == (base - PAGE) // size * size - size
        assert second == first - size
    else:
        assert first == -(-(base + PAGE) // size) * size
        assert second == first + size
    wished = 0x60000000 + size // 2
    with huge.processes.running(process):
        file = huge.fs.open(inode, "huge", FMODE_READ)
        search = spaces.get_unmapped_area
        assert search(file, wished, size, 0, 0) == 0x60000000 + size
        assert search(file, 0, size + PAGE, 0, 0) == -EINVAL
        assert search(file, 0, TASK_SIZE + size, 0, 0) == -ENOMEM
        assert search(file, first, size, 0, 0) == (second - size if downwards else second + size)
        huge.kernel.files.fput(file)


def test_nothing_is_charged_for_them() -> None:
    huge = HugeKernel("PAE", 8)
    statics, process, inode = huge.kernel.statics, huge.processes.start(), huge.new_file()
    before = int(statics.vm_committed_space)
    statics.sysctl_overcommit_memory, statics.sysctl_overcommit_ratio = 2, 0
    at = huge.map(process, inode, 4)
    assert at > 0
    assert statics.vm_committed_space == before
    with huge.processes.running(process) as mm:
        space = huge.kernel.spaces.areas.mm(mm)
        pages = 4 * huge.size // PAGE
        assert (space.total_vm, space.shared_vm, space.reserved_vm) == (pages, pages, pages)
        assert (space.rss, space.anon_rss, space.nr_ptes) == (pages, 0, 0)
        (vma,) = huge.kernel.spaces.areas.list(mm)
        flags = huge.kernel.spaces.areas.vma(vma).vm_flags
        assert flags & (VM_HUGETLB | VM_RESERVED) == VM_HUGETLB | VM_RESERVED
    assert huge.unmap(process, at, 4 * huge.size) == 0
    assert (space.total_vm, space.rss, statics.vm_committed_space) == (0, 0, before)


def test_the_pool_is_not_counted_as_memory_to_promise() -> None:
    huge = HugeKernel("2-level", 0)
    statics, spaces = huge.kernel.statics, huge.kernel.spaces
    statics.sysctl_overcommit_memory, statics.sysctl_overcommit_ratio = 2, 100
    statics.sysctl_overcommit_ratio = 100
    huge.processes.enter(huge.processes.start())
    wanted = int(statics.totalram_pages) - int(statics.vm_committed_space) - 500
    assert spaces.vm_enough_memory(wanted)
    spaces.limits.vm_unacct_memory(wanted)
    huge.pool.set_max_huge_pages(1)
    assert not spaces.vm_enough_memory(wanted)


@pytest.mark.parametrize("kind", ["2-level", "PAE"])
def test_what_nobody_may_do_to_a_mapping(kind: str) -> None:
    huge = HugeKernel(kind, 3)
    kernel, spaces, size = huge.kernel, huge.kernel.spaces, huge.size
    process, inode = huge.processes.start(), huge.new_file()
    at = huge.map(process, inode, 3, at=0x50000000)
    filemap = kernel.file_memory.filemap
    with huge.processes.running(process) as mm:
        target = at + 8 * size
        fixed = MREMAP_MAYMOVE | MREMAP_FIXED
        calls: list[tuple[int, Callable[[], int]]] = [
            (EACCES, lambda: spaces.sys_mprotect(at, size, PROT_READ)),
            (EACCES, lambda: spaces.sys_mprotect(at, 3 * size, READ_WRITE)),
            (EINVAL, lambda: spaces.do_mremap(at, size, 2 * size, MREMAP_MAYMOVE, 0)),
            (EINVAL, lambda: spaces.do_mremap(at, size, size, fixed, target)),
            (EINVAL, lambda: spaces.advise.sys_madvise(at, size, MADV_DONTNEED, filemap)),
            (EINVAL, lambda: spaces.do_munmap(mm, at, size // 2)),
            (EINVAL, lambda: spaces.do_munmap(mm, at + PAGE, size)),
            (EINVAL, lambda: spaces.do_mremap(at, 3 * size, 3 * size - PAGE, 0, 0)),
            (EINVAL - 11, lambda: spaces.advise.sys_madvise(at, PAGE, MADV_RANDOM, filemap)),
            (0, lambda: filemap.sys_msync(at, 3 * size, MS_SYNC)),
            (0, lambda: spaces.sys_mlock(at, 3 * size)),
            (0, lambda: spaces.sys_munlock(at, 3 * size)),
        ]
        for error, call in calls:
            assert call() == -error, error
        space = spaces.areas.mm(mm)
        assert (space.map_count, space.locked_vm) == (1, 0)
        assert [huge.frame(process, at + n * size) > 0 for n in range(4)] == [True] * 3 + [False]
        assert spaces.do_munmap(mm, at + size, size) == 0
        assert space.map_count == 2
    assert [huge.frame(process, at + n * size) > 0 for n in range(3)] == [True, False, True]
    huge.check()


@pytest.mark.parametrize("kind", ["2-level", "PAE"])
def test_the_kernel_looks_at_them(kind: str) -> None:
    huge = HugeKernel(kind, 2)
    kernel, process, inode = huge.kernel, huge.processes.start(), huge.new_file()
    at = huge.map(process, inode, 2)
    memmap, frames = kernel.allocator.memmap, huge.size // PAGE
    with huge.processes.running(process) as mm:
        pages, error = kernel.memory.get_user_pages(mm, at + 5 * PAGE, frames, write=True)
        assert error == 0
        first, second = (huge.frame(process, at + n * huge.size) for n in range(2))
        expected = [first + n for n in range(5, frames)] + [second + n for n in range(5)]
        assert [memmap.pfn(page) for page in pages] == expected
        assert memmap.count(memmap.page(first)) == 2 + frames - 5
        for page in pages:
            kernel.allocator.put_page(page)
        page = kernel.memory.follow_page(mm, at + huge.size + 3 * PAGE)
        assert memmap.pfn(page) == second + 3
        assert huge.fs.hugetlbfs_setattr_size(inode, huge.size) == 0
        assert kernel.memory.get_user_pages(mm, at + huge.size, 1, write=False) == ([], -EFAULT)
        vma = kernel.spaces.find_vma(mm, at)
        assert kernel.memory.handle_mm_fault(mm, vma, at + huge.size, False) is Fault.SIGBUS
    huge.check()


@pytest.mark.parametrize("kind", ["2-level", "PAE"])
def test_truncation_unmaps_what_lies_behind_it_in_every_process(kind: str) -> None:
    huge = HugeKernel(kind, 6)
    size, small = huge.size, huge.size // PAGE
    process, inode = huge.processes.start(), huge.new_file()
    whole = huge.map(process, inode, 4)
    end = huge.map(process, inode, 2, page=2 * small)
    start = huge.map(process, inode, 1)
    child = huge.processes.fork(process)
    refused = (size // 2, 3 * size + PAGE, 5 * size)
    assert [huge.fs.hugetlbfs_setattr_size(inode, n) for n in refused] == [-EINVAL] * 3
    assert huge.fs.hugetlbfs_setattr_size(inode, 3 * size) == 0
    for who in (process, child):
        assert [bool(huge.frame(who, whole + n * size)) for n in range(4)] == [True] * 3 + [False]
        assert [bool(huge.frame(who, end + n * size)) for n in range(2)] == [True, False]
        assert huge.frame(who, start)
    assert (huge.pages(inode), huge.free) == ([0, 1, 2], 3)
    grandchild = huge.processes.fork(child)
    assert not huge.frame(grandchild, whole + 3 * size)
    huge.check()
    assert huge.fs.hugetlbfs_setattr_size(inode, 0) == 0
    assert huge.free == 6
    for who in (grandchild, child, process):
        huge.processes.exit(who)
    huge.unlink(inode)
    assert (huge.free, huge.kernel.statics.inodes_stat.nr_inodes) == (6, 0)


def test_a_page_table_that_is_in_the_way_goes() -> None:
    """It maps nothing any more, but a mapping nearby keeps ``munmap()`` from freeing it."""
    huge = HugeKernel("2-level", 1)
    spaces, process, inode = huge.kernel.spaces, huge.processes.start(), huge.new_file()
    at = 0x50000000
    with huge.processes.running(process) as mm:
        flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
        for page in (at, at - PAGE):
            spaces.do_mmap_pgoff(0, page, PAGE, READ_WRITE, flags, 0)
            assert spaces.sys_mlock(page, PAGE) == 0
        space = spaces.areas.mm(mm)
        space_tables = space.nr_ptes
        # The page goes behind the back of munmap(), which would free its table.
        huge.kernel.memory.zap_page_range(mm, at, PAGE)
        assert spaces.do_munmap(mm, at - PAGE, PAGE) == 0
    assert huge.map(process, inode, 1, at=at) == at
    assert (space_tables, space.nr_ptes) == (2, 0)
    huge.check()
    huge.processes.exit(process)


FAULTS = {
    "a user is not put at unmapping": ("put_page", "users, but 0 entries"),
    "a child is no user": ("get_page", "users, but 2 entries"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_census_finds_a_wrong_count(fault: str) -> None:
    huge = HugeKernel("PAE", 2)
    process, inode = huge.processes.start(), huge.new_file()
    at = huge.map(process, inode, 1)
    name, told = FAULTS[fault]
    allocator = huge.kernel.allocator
    setattr(allocator, name, lambda page: None)
    try:
        if name == "get_page":
            huge.processes.fork(process)
        else:
            huge.unmap(process, at, huge.size)
    finally:
        delattr(allocator, name)
    with pytest.raises(HugePagesWrong, match=told):
        huge.check()


def test_the_census_finds_a_lost_page_and_a_wrong_list() -> None:
    huge = HugeKernel("PAE", 2)
    huge.check()
    huge.kernel.statics.free_huge_pages_node[0] = 1
    with pytest.raises(HugePagesWrong, match="node 0 says 1"):
        huge.check()
    huge.kernel.statics.free_huge_pages_node[0] = 2
    huge.kernel.statics.nr_huge_pages = 3
    with pytest.raises(HugePagesWrong, match="nr_huge_pages is 3, but there are 2"):
        huge.check()
    huge.kernel.statics.nr_huge_pages = 2
    process, inode = huge.processes.start(), huge.new_file()
    at = huge.map(process, inode, 1)
    tables = huge.kernel.memory.tables
    free = huge.kernel.allocator.memmap.pfn(next(huge.pool.free_pages()))
    tables.tables.set_pmd(tables.pmd_offset(process, at), free << 12 | 0xE7)
    with pytest.raises(MmucheckError, match="which is no huge page in use"):
        huge.check()


def test_write_protection() -> None:
    huge = HugeKernel("PAE", 1)
    process, inode = huge.processes.start(), huge.new_file()
    at = huge.map(process, inode, 1)
    read_only = huge.map(process, inode, 1, prot=PROT_READ)
    assert not huge.processes.handle_fault(process, read_only, write=True)
    assert huge.entry(process, at) & PROT_WRITE
