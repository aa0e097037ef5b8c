# SPDX-License-Identifier: GPL-2.0-or-later
"""Each cache flush of the kernel forgotten in turn, on a machine whose caches are virtual.

A row names calls in the source that do the same work; with all of them forgotten the monitor must
miss one, with all of them made it must not. A row that is ``needless`` shows that this machine
would do without; then a comment at the call says why. A row is tried on each release, with those of
its calls that the release makes. A call that has no row fails.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.monitors.virtual_caches import VirtualCaches
from kernel_model.exec import BinaryParameters
from kernel_model.structs.mman import MREMAP_MAYMOVE
from tests.harness.flush_calls import CACHES_OF, all_calls, flush_calls, forgotten, is_of
from tests.harness.flush_stage import AT, ELSEWHERE, NEW, RELEASES, Stage
from tests.harness.process_machine import PAGE, RW, SHARED, Content, R

MREMAP_FIXED_AND_MAYMOVE = MREMAP_MAYMOVE | 2
PRIVATE_FILE = 2


class WatchedContent(Content):
    """A file's store that tells the caches when the kernel reads a page to write it back."""

    stage: "CachedStage"

    def write_page(self, index: int, data: bytes) -> None:
        kernel = self.stage.kernel
        mapping = int(kernel.files.inode(self.stage.inode).i_mapping)
        self.stage.caches.kernel_reads(kernel.page_cache.find_page(mapping, index))
        super().write_page(index, data)


class CachedStage(Stage):
    """A stage whose machine has virtual caches; whenever a process ran, they know."""

    def __init__(self, build: str, release: str) -> None:
        super().__init__(build, release)
        self.caches = VirtualCaches.watch(self.kernel)
        self.file = self.inode = 0

    def read(self, addr: int = AT) -> int | str:
        value = super().read(addr)
        self.ran()
        return value

    def write(self, value: int = NEW) -> int | str:
        result = super().write(value)
        self.ran()
        return result

    def ran(self) -> None:
        """What the stage does while it is set up, before there are caches, does not count."""
        if "caches" in vars(self):
            self.caches.ran(self.process)

    # -- files ---------------------------------------------------------------------------------

    def opened(self, size: int = PAGE) -> None:
        content = WatchedContent(0)
        content.stage = self
        content.size = size
        self.file = self.world.open(content)
        self.inode = self.kernel.files.inode_of(self.file)

    def mapped_shared(self, size: int = PAGE) -> None:
        self.opened(size)
        self.world.map(AT, RW, SHARED, file=self.file)

    def read_file_page(self) -> None:
        self.mapped_shared()
        self.read()

    def written_file_page(self) -> None:
        self.mapped_shared()
        self.write()

    def written_behind_the_end(self) -> None:
        self.mapped_shared(PAGE // 2)
        self.write()

    def read_only_file_page(self) -> None:
        self.opened()
        self.world.map(AT, R, PRIVATE_FILE, file=self.file)
        self.read()

    def truncate(self) -> None:
        assert self.kernel.file_memory.filemap.vmtruncate(self.inode, PAGE // 2) == 0
        self.read()

    def read_by_call(self) -> None:
        def actor(page: int, offset: int, length: int) -> int:
            self.caches.kernel_reads(page)
            return length

        assert self.kernel.file_memory.filemap.generic_file_read(self.file, PAGE, 0, actor) == PAGE

    def write_by_call(self) -> None:
        assert self.kernel.file_memory.filemap.write(self.file, b"new", 0) == 3
        self.read()

    def written_to_the_store(self) -> None:
        self.kernel.hostfs.written(self.inode, 0, 0, b"new")
        self.read()

    def sync_and_read(self) -> None:
        self.msync()
        self.read()

    # -- other operations ----------------------------------------------------------------------

    def written_shared(self) -> None:
        self.world.map(AT, RW, SHARED | 0x20)

    def mremap(self) -> None:
        moved = self.kernel.spaces.do_mremap(AT, PAGE, PAGE, MREMAP_FIXED_AND_MAYMOVE, ELSEWHERE)
        assert moved == ELSEWHERE

    def move_and_fail(self) -> None:
        """The second of two pages moves to where no page table can be had for the first."""
        memory = self.kernel.memory
        real, asked = memory.tables.pte_alloc_map, []

        def pte_alloc(mm: int, pgd: int, vaddr: int) -> int:
            asked.append(vaddr)
            return 0 if len(asked) == 2 else real(mm, pgd, vaddr)

        memory.tables.pte_alloc_map = pte_alloc  # type: ignore[method-assign]
        try:
            assert memory.move_page_tables(self.mm, ELSEWHERE, AT, 2 * PAGE) == -1
        finally:
            memory.tables.pte_alloc_map = real  # type: ignore[method-assign]
        self.read()

    def two_written(self) -> None:
        self.world.map(AT, pages=2)
        self.write()
        self.world.write(self.process, AT + PAGE, NEW)
        self.ran()

    def exec_arguments(self) -> None:
        kernel = self.kernel
        parameters = BinaryParameters()
        assert kernel.exec.copy_strings(parameters, [b"argument"]) == 0
        page = next(page for page in parameters.page if page)
        vma = kernel.spaces.find_vma(self.mm, AT)
        assert kernel.memory.faults.put_dirty_page(self.mm, vma, page, AT) == 0
        self.ran()

    def look_at_areas(self) -> None:
        """Nothing is mapped at the guard page behind each."""
        areas = [(int(area.addr), int(area.size)) for area in self.kernel.vmalloc.areas()]
        self.caches.look_at_areas({(addr, addr + size - PAGE) for addr, size in areas})

    def vmalloc(self) -> None:
        self.kvaddr = self.kernel.vmalloc.vmalloc(PAGE)
        self.look_at_areas()

    def vfree_and_look(self) -> None:
        self.vfree()
        self.look_at_areas()

    def ioremap_and_look(self) -> None:
        assert self.kernel.vmalloc.ioremap(0x3F0000, PAGE)
        self.look_at_areas()

    def kmapped_and_looked(self) -> None:
        self.kmapped()
        self.caches.flush_cache_all()
        self.caches.look_at_areas({(self.kvaddr, self.kvaddr + PAGE)})

    def kmap_again_and_look(self) -> None:
        self.kmap_after_all_were_used()
        self.caches.look_at_areas(set())

    def sees_new_page(self) -> None:
        self.read()

    def private_file(self) -> None:
        self.opened()
        self.world.map(AT, RW, PRIVATE_FILE, file=self.file)

    def remap_and_read(self) -> None:
        self.remap_file_pages()
        self.read()

    def look_at_it(self) -> None:
        """As ``ptrace()`` and the like do."""
        pages, error = self.kernel.memory.get_user_pages(self.mm, AT, 1, write=False)
        assert not error
        self.caches.kernel_reads(pages[0])
        self.kernel.allocator.put_page(pages[0])


@dataclass(frozen=True)
class Row:
    calls: tuple[str, ...]
    warm: Callable[[CachedStage], object]
    operate: Callable[[CachedStage], object]
    needless: bool = False
    build: str = "2-level"

    def __str__(self) -> str:
        return self.calls[0]


S = CachedStage
ROWS = [
    Row(("mm/memory/linux_2_4/zap.py zap_page_range flush_cache_range",), S.written, S.munmap),
    Row(
        ("mm/memory/linux_2_6/gather.py unmap_range flush_cache_range",),
        *(S.written, S.munmap),
    ),
    Row(
        ("mm/memory/change.py change_protection flush_cache_range",),
        *(S.written, S.mprotect),
    ),
    Row(("mm/memory/change.py move_page_tables flush_cache_range",), S.written, S.mremap),
    Row(
        ("mm/memory/change.py move_page_tables flush_cache_range 2",),
        *(S.two_written, S.move_and_fail),
        needless=True,
    ),
    Row(("fork.py dup_mmap flush_cache_mm",), S.written, S.fork),
    Row(("mm/memory/memory.py flush_cache_mm flush_cache_mm",), S.written, S.fork),
    Row(("mm/mmap/linux_2_4/exit.py exit_mmap flush_cache_mm",), S.written, S.empty, needless=True),
    Row(
        ("mm/mmap/linux_2_6/unmap.py exit_mmap flush_cache_mm",),
        *(S.written, S.empty),
        needless=True,
    ),
    Row(
        ("mm/swap_out.py _try_to_swap_out flush_cache_page",),
        *(S.written, lambda stage: stage.world.swap_out()),
    ),
    Row(
        ("mm/rmap/one_pte.py unmap flush_cache_page",),
        *(S.written, lambda stage: stage.world.swap_out()),
    ),
    Row(
        ("mm/memory/linux_2_6/fremap.py _zap_pte flush_cache_page",),
        *(S.read_one_of_two, S.remap_file_pages),
    ),
    Row(
        ("mm/memory/linux_2_6/fremap.py _install flush_icache_page",),
        *(S.read_one_of_two, S.remap_and_read),
    ),
    Row(
        ("mm/memory/linux_2_6/follow.py _bring_in flush_dcache_page",),
        *(S.written, S.look_at_it),
    ),
    Row(
        ("mm/memory/remap.py _map_range flush_cache_range",),
        *(S.nothing_there, S.map_device),
        needless=True,
    ),
    Row(
        (
            "mm/memory/fault.py _do_anonymous_page flush_page_to_ram",
            "mm/memory/fault.py _do_anonymous_page clear_user_page",
        ),
        *(S.nothing, S.written),
    ),
    Row(
        (
            "mm/memory/fault.py _break_cow flush_page_to_ram",
            "mm/memory/fault.py _break_cow copy_user_page",
        ),
        *(S.shared_with_child, S.write),
    ),
    Row(
        (
            "mm/memory/fault.py _about_to_be_seen flush_page_to_ram",
            "mm/memory/fault.py _do_no_page copy_user_page",
        ),
        *(S.private_file, S.write),
    ),
    Row(("mm/memory/fault.py _establish flush_cache_page",), S.shared_with_child, S.write),
    Row(("mm/memory/fault.py _about_to_be_seen flush_icache_page",), S.opened, S.read_file_page),
    Row(
        (
            "mm/memory/fault.py _about_to_be_seen flush_page_to_ram",
            "mm/filemap/nopage.py _find_or_read flush_page_to_ram",
            "fs/hostfs.py _fill flush_dcache_page",
        ),
        *(S.opened, S.read_file_page),
    ),
    Row(
        (
            "mm/memory/fault.py _about_to_be_seen flush_page_to_ram",
            "mm/shmem/shmem.py shmem_nopage flush_page_to_ram",
            "mm/shmem/shmem.py _new_page flush_dcache_page",
        ),
        *(S.written_shared, S.sees_new_page),
    ),
    Row(
        (
            "mm/filemap/truncate.py truncate_inode_pages flush_page_to_ram",
            "mm/filemap/truncate.py truncate_inode_pages flush_dcache_page",
        ),
        *(S.read_only_file_page, S.truncate),
    ),
    Row(
        ("mm/filemap/read.py generic_file_read flush_dcache_page",),
        *(S.written_file_page, S.read_by_call),
    ),
    Row(("mm/filemap/write.py _copy flush_dcache_page",), S.read_only_file_page, S.write_by_call),
    Row(
        ("fs/hostfs.py written flush_dcache_page",),
        *(S.read_only_file_page, S.written_to_the_store),
    ),
    Row(("mm/filemap/sync.py filemap_sync flush_cache_range",), S.written_file_page, S.msync),
    Row(
        ("fs/hostfs.py writepage flush_dcache_page",),
        *(S.written_behind_the_end, S.sync_and_read),
    ),
    Row(
        (
            "mm/memory/fault.py put_dirty_page flush_dcache_page",
            "mm/memory/fault.py put_dirty_page flush_page_to_ram",
        ),
        *(S.nothing, S.exec_arguments),
    ),
    Row(("mm/vmalloc/linux_2_4.py _vmalloc_area_pages flush_cache_all",), S.nothing, S.vmalloc),
    Row(("mm/vmalloc/areas.py ioremap flush_cache_all",), S.nothing, S.ioremap_and_look),
    Row(
        ("mm/vmalloc/linux_2_4.py _vmfree_area_pages flush_cache_all",), S.vmalloc, S.vfree_and_look
    ),
    Row(("mm/vmalloc/linux_2_6.py map_vm_area flush_cache_vmap",), S.nothing, S.vmalloc),
    Row(
        ("mm/vmalloc/linux_2_6.py unmap_vm_area flush_cache_vunmap",),
        *(S.vmalloc, S.vfree_and_look),
    ),
    Row(
        ("mm/highmem.py flush_all_zero_pkmaps flush_cache_all",),
        *(S.kmapped_and_looked, S.kmap_again_and_look),
        build="highmem",
    ),
]


def made_by(release: str, row: Row) -> list[str]:
    """Those of a row's calls."""

    def makes(call: str) -> bool:
        file, _, flush = call.split()[:3]
        return is_of(release, file) and flush.startswith(CACHES_OF[release])

    return list(filter(makes, row.calls))


PARAMS = [
    pytest.param(release, row, id=f"{release} {row}")
    for release in RELEASES
    for row in ROWS
    if made_by(release, row)
]


@pytest.mark.book("3.9", "3.10")
@pytest.mark.book("3.9", release="2.6")
@pytest.mark.parametrize(("release", "row"), PARAMS)
def test_row(release: str, row: Row) -> None:
    calls = [all_calls()[call] for call in made_by(release, row)]
    stage = CachedStage(row.build, release)
    row.warm(stage)
    row.operate(stage)
    assert not stage.caches.missing
    stage = CachedStage(row.build, release)
    row.warm(stage)
    assert not stage.caches.missing
    with forgotten(*calls) as made:
        row.operate(stage)
    assert set(made) == set(calls), "the kernel did not get there"
    assert bool(stage.caches.missing) != row.needless, stage.caches.missing
    assert all(call.comment for call in calls) >= row.needless, "the source does not say why"


@pytest.mark.parametrize("release", RELEASES)
def test_each_call_has_a_row(release: str) -> None:
    named = {call for row in ROWS for call in made_by(release, row)}
    assert sorted(named) == sorted(flush_calls(release, CACHES_OF[release]))
