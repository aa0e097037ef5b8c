# SPDX-License-Identifier: GPL-2.0-or-later
"""Files and shared anonymous memory against plain bytes, and faults planted to be found.

A fault of what both releases share is planted once, and looked for on each.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.errors import MmucheckError
from kernel_model.fs.hostfs import HostFs
from kernel_model.fs.inode import Eviction
from kernel_model.mm.filemap import FilePages, PageCache
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.filemap.linux_2_6.mapped_by import SharedTrees
from kernel_model.mm.filemap.linux_2_6.sync import MemorySync26
from kernel_model.mm.filemap.mapped_by import SharedLists
from kernel_model.mm.filemap.nopage import FileFaults
from kernel_model.mm.filemap.sync import MS_ASYNC, MS_SYNC, MemorySync, WriteBack
from kernel_model.mm.filemap.truncate import Truncation
from kernel_model.mm.linux_2_6.shrink import Shrinker
from kernel_model.mm.page_flags import PG_DIRTY
from kernel_model.mm.rmap.interface import SwapResult
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from kernel_model.mm.shmem import Shmem
from kernel_model.mm.shmem.entries import SwapEntries
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.vmscan import Vmscan
from tests.kernel_model.mm.file_machine import FileMachine, FileMachine26

MACHINES = {"2.4": FileMachine, "2.6": FileMachine26}

TestFiles = pytest.mark.book("2.5", "4.4.1", "4.6")(FileMachine.TestCase)
TestFiles26 = pytest.mark.slow(
    pytest.mark.book("2.5", "4.4.1", "4.6", release="2.6")(FileMachine26.TestCase)
)

Patch = Callable[[pytest.MonkeyPatch], None]


def replaced(owner: type, name: str, replacement: Callable[..., Any]) -> Patch:
    return lambda patch: patch.setattr(owner, name, replacement)


def after(owner: type, name: str, more: Callable[..., None]) -> Patch:
    """``owner.name`` does something else, too, when it is done."""
    real = getattr(owner, name)

    def spoiled(self: Any, *arguments: Any, **words: Any) -> Any:
        result = real(self, *arguments, **words)
        more(self, result, *arguments)
        return result

    return replaced(owner, name, spoiled)


def _nothing(self: Any, *arguments: Any) -> int:
    return 0


def _unlocked(self: Any, *arguments: int) -> int:
    """A ``writepage`` that writes nothing."""
    self._pages.unlock_page(arguments[-1])
    return 0


def _one_reference_more(self: Any, page: int, *arguments: int) -> None:
    if page > 0:
        self._pages.allocator.get_page(page)


def _clean_after_swap_in(self: Any, page: int, *arguments: int) -> None:
    if page > 0:
        self._pages.memmap.clear_bit(page, PG_DIRTY)


def _not_dirty(self: Any, result: int, file: int, page: int, *range_: int) -> None:
    self._pages.memmap.clear_bit(page, PG_DIRTY)


def _written_by_none(self: Any, page: int, writepage: int) -> None:
    self._memmap.clear_bit(page, PG_DIRTY)
    self._memmap.clear_bit(page, 0)


def _told_to_be_written(self: Any, page: int, mapping: int) -> SwapResult:
    self._cache.clear_page_dirty(page)
    return SwapResult.SUCCESS


def _whole_pages_only(self: Any, page: int, offset: int = 0) -> None:
    if not offset:
        paddr = self.memmap.pfn(page) << PAGE_SHIFT
        self._ram.fill(paddr, PAGE_SIZE)


def _never_read(self: Any, file: int, page: int, start: int, end: int) -> int:
    if not self._pages.uptodate(page):
        self._pages.clear_frame(page)
    return 0


def _same_size(self: Any, inode: int) -> None:
    """``i_op->truncate`` that tells the store nothing."""


def _no_frames_freed(self: Any, inode: int, first: int) -> None:
    """Index frames stay behind."""


def _bit_only(self: Any, page: int) -> None:
    self._memmap.set_bit(page, PG_DIRTY)


def _bit_cleared_only(self: Any, page: int) -> bool:
    dirty = bool(self._memmap.test(page, PG_DIRTY))
    self._memmap.clear_bit(page, PG_DIRTY)
    return dirty


def _one_reference_more_than_found(self: Any, found: tuple[int, bool], *arguments: int) -> None:
    _one_reference_more(self, found[0])


def _dropped_whatever_it_holds(self: Any, mapping: int) -> None:
    self._truncation.truncate_inode_pages(mapping, 0)
    inode = int(self._pages.space(mapping).host)
    self.clear_inode[int(self._pages.space(mapping).a_ops)](inode)


OF_BOTH: dict[str, Patch] = {
    "msync leaves the dirty bits in the PTEs": replaced(MemorySync, "filemap_sync", _nothing),
    "fsync writes nothing": replaced(WriteBack, "filemap_fdatasync", _nothing),
    "writepage writes nothing": replaced(HostFs, "writepage", _unlocked),
    "a written page is not dirty": after(HostFs, "commit_write", _not_dirty),
    "a page is written to before it is read": replaced(HostFs, "prepare_write", _never_read),
    "the end of a cut page keeps its bytes": replaced(FilePages, "clear_frame", _whole_pages_only),
    "truncate leaves the cache": replaced(Truncation, "truncate_inode_pages", _nothing),
    "truncate is not told to the file system": replaced(HostFs, "truncate", _same_size),
    "close drops dirty pages": replaced(Eviction, "__call__", _dropped_whatever_it_holds),
    "a fault takes two references": after(
        FileFaults, "_find_or_read", _one_reference_more_than_found
    ),
    "a shmem fault takes two references": after(Shmem, "shmem_getpage", _one_reference_more),
    "a page from swap is clean": after(Shmem, "_swap_in", _clean_after_swap_in),
    "shmem keeps its slots when it is cut": replaced(SwapEntries, "_free_entries", _nothing),
    "shmem leaks its index": replaced(SwapEntries, "_free_pointers", _no_frames_freed),
    "blocks of dropped pages are lost": replaced(Shmem, "recalc_inode", _nothing),
    "slots come back empty": replaced(SwapAreas, "read", _nothing),
}
OF_2_4: dict[str, Patch] = {
    "nobody waits for the writing": replaced(WriteBack, "filemap_fdatawait", _nothing),
    "reclaim drops dirty pages": replaced(Vmscan, "_write", _written_by_none),
    "truncate leaves the mappings": replaced(SharedLists, "unmap_from", _nothing),
    "a dirty page is on no list of such": replaced(PageCache, "set_page_dirty", _bit_only),
}
OF_2_6: dict[str, Patch] = {
    "msync writes as in 2.4": replaced(MemorySync26, "_start_writing", MemorySync._start_writing),
    "reclaim drops dirty pages": replaced(Shrinker, "_pageout", _told_to_be_written),
    "truncate leaves the mappings": replaced(SharedTrees, "unmap_from", _nothing),
    "a dirty page is not tagged": replaced(RadixPageCache, "set_page_dirty", _bit_only),
    "a written page stays tagged": replaced(RadixPageCache, "clear_page_dirty", _bit_cleared_only),
    "who mapped a page still counts": replaced(ObjectReverseMap, "remove", _nothing),
}
FAULTS = [(release, name) for release in MACHINES for name in OF_BOTH]
FAULTS += [("2.4", name) for name in OF_2_4] + [("2.6", name) for name in OF_2_6]


PROGRAM: list[tuple[str, dict[str, Any]]] = [
    ("load", {"which": 0, "start": 0, "length": 9000, "private": False}),
    ("load", {"which": 0, "start": 0, "length": 9000, "private": True}),
    ("load", {"which": 0, "start": 90_000, "length": 8192, "private": False}),
    ("write", {"which": 0, "start": 20_000, "length": 50, "press": True}),
    ("read", {"which": 0, "start": 19_000, "length": 2000}),
    ("store", {"which": 0, "start": 5000, "length": 100, "press": False}),
    ("msync", {"which": 0, "flags": MS_SYNC, "start": 0, "count": 24}),
    ("store", {"which": 0, "start": 9000, "length": 100, "press": False}),
    ("msync", {"which": 0, "flags": MS_ASYNC, "start": 0, "count": 24}),
    ("store", {"which": 0, "start": 5000, "length": 100, "press": True}),
    ("load", {"which": 0, "start": 5000, "length": 200, "private": False}),
    ("write", {"which": 1, "start": 100, "length": 10_000, "press": False}),
    ("fsync", {"which": 1}),
    ("truncate", {"which": 1, "size": 4100, "press": False}),
    ("write", {"which": 1, "start": 9000, "length": 10, "press": False}),
    ("read", {"which": 1, "start": 4000, "length": 6000}),
    ("load", {"which": 1, "start": 0, "length": 9000, "private": False}),
    ("truncate", {"which": 1, "size": 100, "press": False}),
    ("load", {"which": 1, "start": 0, "length": 9000, "private": False}),
    ("will_need", {"which": 0, "start": 2, "drop": True}),
    ("do_not_need", {"which": 0, "private": False, "start": 0}),
    ("write", {"which": 1, "start": 0, "length": 10, "press": False}),
    ("close_and_open", {"which": 1}),
    ("load", {"which": 2, "start": 0, "length": 12_288, "private": True}),
    ("reclaim", {"may_write": True, "wanted": 200, "rounds": 3, "unmap": True}),
    ("store", {"which": 2, "start": 60_000, "length": 20_000, "press": True}),
    ("load", {"which": 2, "start": 60_000, "length": 20_000, "private": True}),
    ("reclaim", {"may_write": True, "wanted": 200, "rounds": 3, "unmap": True}),
    ("load", {"which": 2, "start": 60_000, "length": 20_000, "private": False}),
    ("truncate", {"which": 2, "size": 70_000, "press": True}),
    ("truncate", {"which": 2, "size": 90_000, "press": False}),
    ("load", {"which": 2, "start": 60_000, "length": 20_000, "private": False}),
]
"""One run of the machine that passes everywhere once."""


def run(program: list[tuple[str, dict[str, Any]]], kind: type[FileMachine]) -> None:
    """The steps, and behind each what must hold."""
    machine = kind()
    machine.boot(name="plain", room=400, sizes=[98_304, 5000])
    for name, arguments in program:
        getattr(machine, name)(**arguments)
        machine.each_frame_has_one_owner()
        machine.the_cache_holds_what_the_files_do()
    machine.teardown()


@pytest.mark.parametrize("release", MACHINES)
def test_the_program_runs(release: str) -> None:
    run(PROGRAM, MACHINES[release])


@pytest.mark.parametrize(("release", "fault"), FAULTS)
def test_planted_faults_are_found(
    release: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"2.4": OF_2_4, "2.6": OF_2_6}[release]
    (OF_BOTH | own)[fault](monkeypatch)
    with pytest.raises((AssertionError, MmucheckError)):
        run(PROGRAM, MACHINES[release])
