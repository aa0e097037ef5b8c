# SPDX-License-Identifier: GPL-2.0-or-later
"""The pool: how it grows and shrinks, what a huge page is, and that none is lost."""

from dataclasses import replace

import pytest

from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import BadConfig, EndlessLoop, KernelBug
from kernel_model.kernel import boot
from kernel_model.proc import proc_files
from tests.kernel_model.mm.hugetlb.huge_kernel import CONFIGS, HugeKernel

pytestmark = pytest.mark.book("3.10", release="2.6")
PG_COMPOUND = 1 << 15


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_huge_page_is_one_compound_page(kind: str) -> None:
    huge = HugeKernel(kind, 2)
    kernel, memmap = huge.kernel, huge.kernel.allocator.memmap
    assert (huge.total, huge.free) == (2, 2)
    assert huge.size == (2 if kind == "PAE" else 4) * MIB
    page = huge.pool.alloc_huge_page()
    first, frames = memmap.pfn(page), huge.size // 4096
    assert first % frames == 0
    flags = [memmap.flags(memmap.page(first + n)) for n in range(frames)]
    assert all(word & PG_COMPOUND for word in flags)
    word = kernel.image.structs.page.word("private")
    heads = {kernel.ram.words[memmap.word(memmap.page(first + n), word)] for n in range(frames)}
    assert heads == {page}
    assert kernel.ram.read(first << 12, huge.size).count(0) == huge.size
    assert (memmap.count(page), huge.total, huge.free) == (1, 2, 1)


@pytest.mark.parametrize("kind", ["2-level", "PAE"])
def test_the_last_user_gives_it_back_to_the_pool_zeroed_for_the_next(kind: str) -> None:
    huge = HugeKernel(kind, 1)
    allocator, memmap = huge.kernel.allocator, huge.kernel.allocator.memmap
    page = huge.pool.alloc_huge_page()
    assert huge.pool.alloc_huge_page() == 0
    paddr = memmap.pfn(page) << 12
    huge.kernel.ram.fill(paddr, huge.size, 0xA5)
    allocator.get_page(memmap.page(memmap.pfn(page) + 3))
    allocator.put_page(page)
    assert huge.free == 0
    with pytest.raises(KernelBug, match="has users"):
        huge.pool.free_huge_page(page)
    allocator.put_page(memmap.page(memmap.pfn(page) + 7))
    assert huge.free == 1
    assert huge.pool.alloc_huge_page() == page
    assert huge.kernel.ram.read(paddr, huge.size).count(0) == huge.size


def _fill(huge: HugeKernel) -> int:
    """Take all that there is; how many that are."""
    with pytest.raises(EndlessLoop, match="nobody to kill"):
        huge.pool.set_max_huge_pages(1000)
    return huge.total


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_grows_as_far_as_it_can_and_every_frame_comes_back(kind: str) -> None:
    """Before 2.6.11 gives up, it kills processes, of which there are none here."""
    huge = HugeKernel(kind)
    before = huge.kernel.allocator.nr_free_pages()
    got = _fill(huge)
    assert 3 < got == huge.free
    assert before - huge.kernel.allocator.nr_free_pages() == got * huge.size // 4096
    used = huge.pool.alloc_huge_page()
    huge.pool.hugetlb_sysctl_handler(0)
    assert (huge.total, huge.free, huge.kernel.statics.max_huge_pages) == (1, 0, 1)
    huge.kernel.allocator.put_page(used)
    assert (huge.total, huge.free) == (1, 1)
    huge.pool.hugetlb_sysctl_handler(0)
    assert huge.kernel.allocator.nr_free_pages() == before


@pytest.mark.parametrize("kind", ["highmem", "PAE"])
def test_low_memory_goes_back_first(kind: str) -> None:
    huge = HugeKernel(kind)
    _fill(huge)
    highmem = huge.kernel.image.constants.page_flags.highmem
    memmap, statics = huge.kernel.allocator.memmap, huge.kernel.statics
    high = sum(memmap.test(page, highmem) for page in huge.pool.free_pages())
    low = huge.total - high
    assert min(high, low) > 2
    huge.pool.hugetlb_sysctl_handler(high + 1)
    assert sum(memmap.test(page, highmem) for page in huge.pool.free_pages()) == high
    assert (huge.free, list(statics.free_huge_pages_node)) == (high + 1, [high + 1, 0, 0, 0])


def test_at_boot_and_in_proc() -> None:
    kernel = boot(KernelConfig(release="2.6", ram=64 * MIB, nr_hugepages=3))
    assert kernel.log.splitlines()[-1] == "Total HugeTLB memory allocated, 3"
    assert kernel.hugetlbfs is not None
    kernel.hugetlbfs.pool.alloc_huge_page()
    lines = proc_files(kernel)["meminfo"].text(kernel).splitlines()[-3:]
    assert lines == [
        "HugePages_Total:     3",
        "HugePages_Free:      2",
        "Hugepagesize:     4096 kB",
    ]
    pae = boot(KernelConfig(release="2.6", highmem=Highmem.GB64, nr_hugepages=20))
    assert pae.statics.nr_huge_pages == 20
    assert proc_files(pae)["meminfo"].data(pae)["Hugepagesize"] == 2048


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"cpu_model": "486"}, "4 MiB pages, which a 486 lacks"),
        ({"release": "2.4"}, "need a 2.6 kernel"),
        ({"mmu": False}, "need a 2.6 kernel with MMU"),
        ({"nr_hugepages": -1}, "give 0 or more"),
        ({"nr_hugepages": 16}, "16 huge pages of 4 MiB leave nothing of 64 MiB"),
    ],
)
def test_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(BadConfig, match=told):
        replace(KernelConfig(release="2.6", nr_hugepages=1), **wrong)  # type: ignore[arg-type]


def test_a_cpu_without_them_gets_none() -> None:
    kernel = boot(KernelConfig(release="2.6", cpu_model="486"))
    assert kernel.hugetlbfs is not None
    kernel.hugetlbfs.pool.hugetlb_sysctl_handler(4)
    assert (kernel.statics.nr_huge_pages, kernel.statics.max_huge_pages) == (0, 0)
    assert kernel.hugetlbfs.hugetlb_zero_setup(1) == -12
