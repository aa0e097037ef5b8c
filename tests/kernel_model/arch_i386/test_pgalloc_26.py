# SPDX-License-Identifier: GPL-2.0-or-later
"""Directories of 2.6: objects of the slab allocator, constructed while they are free."""

import pytest

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel, boot
from kernel_model.proc import slabinfo
from tests.kernel_model.mm.slab_settling import settle

CONFIGS = {
    "two levels": KernelConfig(release="2.6", ram=16 * MIB),
    "PAE": KernelConfig(release="2.6", ram=16 * MIB, highmem=Highmem.GB64),
}
VADDR = 0x08048000
pytestmark = pytest.mark.book("3.3", "3.10", release="2.6")


@pytest.fixture(params=CONFIGS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return boot(CONFIGS[request.param])


def directory(kernel: Kernel, pgd: int) -> list[int]:
    shape = kernel.tables.shape
    width = shape.entry_bytes
    return [kernel.tables.entry(pgd + n * width) for n in range(shape.ptrs_per_pgd)]


def test_the_caches_are_those_of_pgtable_cache_init(kernel: Kernel) -> None:
    """PAE: middle directories first, then directories of four entries."""
    caches = [cache for cache in kernel.slab.chain() if cache.name in ("pgd", "pmd")]
    found = {cache.name: (int(cache.view.objsize), cache.num) for cache in caches}
    if kernel.config.pae:
        assert found == {"pgd": (32, 119), "pmd": (4096, 1)}
    else:
        assert found == {"pgd": (4096, 1)}
    assert all(f"\n{name} " in slabinfo.text(kernel) for name in found)


def test_the_kernels_part_is_that_of_swapper_pg_dir_and_the_users_is_empty(kernel: Kernel) -> None:
    tables, shape = kernel.page_tables, kernel.tables.shape
    pgd = tables.pgd_alloc()
    users = shape.user_ptrs_per_pgd
    assert directory(kernel, pgd)[users:] == directory(kernel, SWAPPER_PG_DIR)[users:]
    below = [entry & ~1 for entry in directory(kernel, pgd)[:users]]
    if kernel.config.pae:
        assert len(set(below)) == 3
        assert not any(word for pmd in below for word in kernel.ram.table(pmd))
    else:
        assert not any(below)


def test_a_free_one_keeps_the_kernels_part_it_was_made_with() -> None:
    """What the kernel has mapped since comes by a fault; a new slab has it at once.

    With PAE all directories have the one middle directory of the kernel's part.
    """
    kernel = boot(CONFIGS["two levels"])
    tables, users = kernel.page_tables, kernel.tables.shape.user_ptrs_per_pgd
    old = tables.pgd_alloc()
    tables.pgd_free(old)
    kernel.vmalloc.vmalloc(4096)
    again, fresh = tables.pgd_alloc(), tables.pgd_alloc()
    now = directory(kernel, SWAPPER_PG_DIR)[users:]
    assert again == old
    assert directory(kernel, again)[users:] != now
    assert directory(kernel, fresh)[users:] == now


def test_all_come_back(kernel: Kernel) -> None:
    settle(kernel.slab)
    free = kernel.allocator.nr_free_pages()
    made = [kernel.page_tables.pgd_alloc() for _ in range(20)]
    assert len(set(made)) == 20
    for pgd in made:
        kernel.page_tables.pgd_free(pgd)
    settle(kernel.slab)
    kernel.allocator.drain_local_pages()
    settle(kernel.slab)
    assert kernel.allocator.nr_free_pages() >= free


@pytest.mark.parametrize("room", range(4))
def test_without_memory_nothing_stays(
    kernel: Kernel, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of PAE that gets only some of its middle directories gives them back."""
    slab, asked, statics = kernel.slab, [], kernel.statics
    directories = {int(statics.pgd_cache), int(statics.pmd_cache)} - {0}
    real = slab.kmem_cache_alloc

    def few(cachep: int, flags: int) -> int:
        if cachep not in directories:
            return real(cachep, flags)
        asked.append(cachep)
        return 0 if len(asked) > room else real(cachep, flags)

    monkeypatch.setattr(slab, "kmem_cache_alloc", few)
    needed = 4 if kernel.config.pae else 1
    pgd = kernel.page_tables.pgd_alloc()
    assert bool(pgd) is (room >= needed)
    monkeypatch.undo()
    settle(slab)
    left = [list(slab.objects.cache(cachep).all_slabs()) for cachep in directories]
    assert any(left) is bool(pgd)


def test_a_page_table_goes_straight_back(kernel: Kernel) -> None:
    tables, entries = kernel.page_tables, kernel.tables
    pgd = tables.pgd_alloc()
    pmdp = entries.pmd_offset(entries.pgd_offset(pgd, VADDR), VADDR)
    paddr = tables.pte_alloc(pmdp, VADDR)
    memmap = kernel.allocator.memmap
    page = memmap.page(paddr >> PAGE_SHIFT)
    assert memmap.count(page) == 1
    tables.pte_free(pmdp)
    assert entries.entry(pmdp) == 0
    assert page in set(kernel.allocator.cpu_free_pages(kernel.allocator.page_zone(page)))
