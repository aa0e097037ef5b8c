# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables made and freed: contents, quicklists, and no leak at any failure."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_model.arch_i386.pgalloc import PageTables, QuicklistAllocator
from kernel_model.arch_i386.pgtable import KERNPG_TABLE
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.image import EMPTY_ZERO_PAGE, SWAPPER_PG_DIR
from kernel_model.kernel import Kernel, boot
from kernel_model.ram import PAGE_SIZE

PAGE_OFFSET = 0xC0000000
SHAPES = pytest.mark.parametrize("highmem", list(Highmem), ids=lambda kind: kind.name)


class FrameSource:
    """Hands out dirty frames, and knows which are out for what; it has ``left`` more."""

    def __init__(self, kernel: Kernel, left: int = 1 << 20) -> None:
        self.kernel = kernel
        self.left = left
        self.out: dict[int, str] = {}
        self.free = [PAGE_OFFSET + 8 * MIB + index * PAGE_SIZE for index in range(512)]

    def get(self, purpose: str) -> int:
        if not self.left:
            return 0
        self.left -= 1
        vaddr = self.free.pop()
        self.out[vaddr] = purpose
        self.kernel.ram.fill(vaddr - PAGE_OFFSET, PAGE_SIZE, 0xFF)
        return vaddr

    def put(self, vaddr: int) -> None:
        del self.out[vaddr]
        self.free.append(vaddr)


class Tables:
    """A booted kernel whose page tables come from a source of the test's own."""

    def __init__(self, highmem: Highmem, left: int = 1 << 20) -> None:
        self.kernel = boot(KernelConfig(ram=16 * MIB, highmem=highmem))
        self.source = FrameSource(self.kernel, left)
        self.tables: PageTables = self.kernel.tables
        self.cpu = self.kernel.statics.boot_cpu_data
        self.alloc = QuicklistAllocator(
            self.kernel.image, self.tables, SWAPPER_PG_DIR, self.source.get, self.source.put
        )

    @property
    def shape(self):
        return self.tables.shape

    def directory(self, pgd: int) -> list[int]:
        width = self.shape.entry_bytes
        return [self.tables.entry(pgd + i * width) for i in range(self.shape.ptrs_per_pgd)]

    def quicklist(self, name: str) -> Iterator[int]:
        vaddr = getattr(self.cpu, name)
        while vaddr:
            yield vaddr
            vaddr = self.kernel.ram.read32(vaddr - PAGE_OFFSET)

    def kept(self) -> set[int]:
        return {*self.quicklist("pgd_quick"), *self.quicklist("pte_quick")}

    def check(self, in_use: set[int]) -> None:
        """Every frame that is out is in use or kept, and the count says how many are kept."""
        assert set(self.source.out) == in_use | self.kept()
        assert in_use.isdisjoint(self.kept())
        assert self.cpu.pgtable_cache_sz == len(self.kept())


@pytest.mark.book("3.5")
@SHAPES
def test_a_new_directory_has_the_kernels_part_and_nothing_of_a_user(highmem: Highmem) -> None:
    made = Tables(highmem)
    pgd = made.alloc.pgd_alloc()
    mine, kernels = made.directory(pgd), made.directory(SWAPPER_PG_DIR)
    border = made.shape.user_ptrs_per_pgd
    assert mine[border:] == kernels[border:]
    assert any(mine[border:])
    if not made.shape.folded:
        assert len({entry >> 12 for entry in mine[:border]}) == border
        for entry in mine[:border]:
            assert entry & 0xFFF == 1
            assert entry >> 12 != EMPTY_ZERO_PAGE >> 12
            assert not any(made.kernel.ram.read(entry & ~0xFFF, PAGE_SIZE))
        used = {PAGE_OFFSET + (entry & ~0xFFF) for entry in mine[:border]}
    else:
        assert not any(mine[:border])
        used = set()
    made.check({PAGE_OFFSET + pgd} | used)


@pytest.mark.book("3.5")
@pytest.mark.parametrize("highmem", [Highmem.NONE, Highmem.GB64], ids=lambda kind: kind.name)
@pytest.mark.parametrize("left", range(4))
def test_a_failure_at_any_allocation_leaks_nothing(highmem: Highmem, left: int) -> None:
    made = Tables(highmem, left)
    needed = 1 if made.shape.folded else 4
    assert bool(made.alloc.pgd_alloc()) == (left >= needed)
    if left < needed:
        made.check(set())
    made.source.left = 4
    made.source.out.clear()
    assert made.alloc.pgd_alloc()


@pytest.mark.book("3.5")
def test_a_page_table_that_cannot_be_had_leaves_the_entry_none() -> None:
    made = Tables(Highmem.NONE, left=1)
    pgd = made.alloc.pgd_alloc()
    pmdp = made.tables.pmd_offset(made.tables.pgd_offset(pgd, 0x8048000), 0x8048000)
    assert made.alloc.pte_alloc(pmdp, 0x8048000) == 0
    assert made.tables.entry(pmdp) == 0
    made.check({PAGE_OFFSET + pgd})


@pytest.mark.book("3.3", "3.5")
@SHAPES
@pytest.mark.parametrize("vaddr", [0, 0x8048000, 0xBFFFFFFF, 0xC2000000, 0xE0001000])
def test_a_page_table_is_hung_in_with_the_user_bit_wherever_it_is(
    highmem: Highmem, vaddr: int
) -> None:
    """As pmd_populate() has it; the recorded vmalloc tables of 2.4.22 carry 0x67 too."""
    made = Tables(highmem)
    tables = made.tables
    pgd = made.alloc.pgd_alloc()
    made.source.out.clear()
    pgdp = tables.pgd_offset(pgd, vaddr)
    pmdp = made.alloc.pmd_alloc(pgdp, vaddr)
    assert made.alloc.pmd_alloc(pgdp, vaddr) == pmdp
    assert (pmdp == pgdp) == made.shape.folded
    ptep = made.alloc.pte_alloc(pmdp, vaddr)
    (table,) = made.source.out
    assert tables.entry(pmdp) == table - PAGE_OFFSET | 0x67
    assert ptep == table - PAGE_OFFSET + made.shape.pte_index(vaddr) * made.shape.entry_bytes
    assert not any(made.kernel.ram.read(table - PAGE_OFFSET, PAGE_SIZE))
    assert made.alloc.pte_alloc(pmdp, vaddr) == ptep
    made.check({table})


@pytest.mark.book("3.5")
@SHAPES
def test_quicklists_are_last_in_first_out_and_counted(highmem: Highmem) -> None:
    made = Tables(highmem)
    pgd = made.alloc.pgd_alloc()
    pmdps = []
    for slot in range(5):
        vaddr = slot << made.shape.pmd_shift
        pmdps.append(made.tables.pmd_offset(made.tables.pgd_offset(pgd, vaddr), vaddr))
        assert made.alloc.pte_alloc(pmdps[-1], vaddr)
    tables = [made.tables.entry(pmdp) & ~0xFFF for pmdp in pmdps]
    for pmdp in pmdps:
        made.alloc.pte_free(pmdp)
        assert made.tables.entry(pmdp) == 0
    assert [v - PAGE_OFFSET for v in made.quicklist("pte_quick")] == tables[::-1]
    assert made.cpu.pgtable_cache_sz == 5
    before = len(made.source.out)
    for table in tables[::-1]:
        assert made.alloc.pte_alloc(pmdps[0], 0) == table
        assert not any(made.kernel.ram.read(table, PAGE_SIZE))
        made.tables.set_pmd(pmdps[0], 0)
    assert (made.cpu.pgtable_cache_sz, len(made.source.out)) == (0, before)


@pytest.mark.book("3.5")
def test_a_kept_directory_comes_back_with_an_empty_user_part() -> None:
    made = Tables(Highmem.NONE)
    first, second = made.alloc.pgd_alloc(), made.alloc.pgd_alloc()
    for pgd in (first, second):
        made.alloc.pgd_free(pgd)
    assert [v - PAGE_OFFSET for v in made.quicklist("pgd_quick")] == [second, first]
    for pgd in (second, first):
        assert made.alloc.pgd_alloc() == pgd
        assert made.directory(pgd) == made.directory(SWAPPER_PG_DIR)
    assert made.cpu.pgtable_cache_sz == 0


@pytest.mark.book("3.5")
def test_a_three_level_directory_never_goes_to_the_quicklist() -> None:
    """Its chain word would be the first PDPTE, which a CPU may have loaded."""
    made = Tables(Highmem.GB64)
    pgd = made.alloc.pgd_alloc()
    made.alloc.pgd_free(pgd)
    assert made.cpu.pgd_quick == 0
    made.check(set())


@pytest.mark.book("3.5")
@pytest.mark.parametrize("highmem", [Highmem.NONE, Highmem.GB64], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("kept", "left"), [(0, 0), (25, 25), (50, 50), (51, 25), (52, 25), (80, 25)]
)
def test_the_cache_is_trimmed_to_25_when_it_passes_50(
    highmem: Highmem, kept: int, left: int
) -> None:
    made = Tables(highmem)
    pgd = made.alloc.pgd_alloc()
    pmdp = made.tables.pmd_offset(made.tables.pgd_offset(pgd, 0), 0)
    base = set(made.source.out)
    held = []
    for _ in range(kept):
        made.alloc.pte_alloc(pmdp, 0)
        held.append(made.tables.entry(pmdp))
        made.tables.set_pmd(pmdp, 0)
    for entry in held:
        made.tables.set_pmd(pmdp, entry)
        made.alloc.pte_free(pmdp)
    assert made.alloc.check_pgt_cache() == kept - left
    assert made.cpu.pgtable_cache_sz == left
    made.check(base)


@pytest.mark.book("3.5")
@given(pgds=st.integers(0, 70), ptes=st.integers(0, 70))
def test_trimming_takes_from_both_lists_in_turn(pgds: int, ptes: int) -> None:
    made = Tables(Highmem.NONE)
    directories = [made.alloc.pgd_alloc() for _ in range(pgds + 1)]
    pmdp = made.tables.pmd_offset(directories[-1], 0)
    held = []
    for _ in range(ptes):
        made.alloc.pte_alloc(pmdp, 0)
        held.append(made.tables.entry(pmdp))
        made.tables.set_pmd(pmdp, 0)
    for entry in held:
        made.tables.set_pmd(pmdp, entry)
        made.alloc.pte_free(pmdp)
    for pgd in directories[:-1]:
        made.alloc.pgd_free(pgd)
    made.check({PAGE_OFFSET + directories[-1]})
    freed = made.alloc.check_pgt_cache()
    assert freed == pgds + ptes - made.cpu.pgtable_cache_sz
    if pgds + ptes <= 50:
        assert freed == 0
    else:
        # The kernel frees a directory and a table before it looks at the count again.
        assert made.cpu.pgtable_cache_sz in (24, 25)
    made.check({PAGE_OFFSET + directories[-1]})


@pytest.mark.book("3.3", "3.4")
@SHAPES
def test_an_entry_is_written_where_its_address_says_and_taken_whole(highmem: Highmem) -> None:
    made = Tables(highmem)
    tables, vaddr = made.tables, 0x40123000
    pgd = made.alloc.pgd_alloc()
    pmdp = tables.pmd_offset(tables.pgd_offset(pgd, vaddr), vaddr)
    ptep = made.alloc.pte_alloc(pmdp, vaddr)
    value = 0x00ABC067 if made.shape.folded else 0xF00ABC067
    tables.set_pte(ptep, value)
    assert tables.pte_offset(pmdp, vaddr) == ptep
    assert tables.entry(ptep) == value
    width = made.shape.entry_bytes
    neighbours = tables.entry(ptep - width), tables.entry(ptep + width)
    assert neighbours == (0, 0)
    assert tables.ptep_get_and_clear(ptep) == value
    assert tables.entry(ptep) == 0
    tables.set_pte(ptep, value)
    tables.pte_clear(ptep)
    assert made.kernel.ram.read(ptep, width) == bytes(width)


@pytest.mark.book("3.3")
@SHAPES
@given(vaddrs=st.lists(st.integers(0, 0xBFFFFFFF), min_size=20, max_size=40))
@settings(max_examples=5, deadline=None)
def test_the_three_steps_at_once_end_where_they_do_one_by_one(
    highmem: Highmem, vaddrs: list[int]
) -> None:
    made = Tables(highmem)
    tables, pgd = made.tables, made.alloc.pgd_alloc()
    for vaddr in [0, 0x3FFFFFFF, 0x40000000, 0xBFFFFFFF, *vaddrs]:
        pmdp = tables.pmd_offset(tables.pgd_offset(pgd, vaddr), vaddr)
        if not tables.entry(pmdp):
            assert tables.user_pte_offset(pgd, vaddr) == 0
        ptep = made.alloc.pte_alloc(pmdp, vaddr)
        assert tables.user_pte_offset(pgd, vaddr) == ptep == tables.pte_offset(pmdp, vaddr)


@SHAPES
def test_the_booted_kernel_allocates_tables_from_its_own_frames(highmem: Highmem) -> None:
    kernel = boot(KernelConfig(ram=32 * MIB, highmem=highmem))
    free = kernel.allocator.nr_free_pages()
    pgd = kernel.page_tables.pgd_alloc()
    frames = 4 if highmem is Highmem.GB64 else 1
    assert kernel.allocator.nr_free_pages() == free - frames
    kernel.page_tables.pgd_free(pgd)
    kept = 0 if highmem is Highmem.GB64 else 1
    assert kernel.allocator.nr_free_pages() == free - kept
    assert kernel.page_tables.check_pgt_cache(low=0, high=0) == kept
    assert kernel.allocator.nr_free_pages() == free


def test_kernel_tables_made_at_boot_keep_users_out() -> None:
    """Only those that pte_alloc() makes later carry the user bit."""
    kernel = boot(KernelConfig(ram=16 * MIB, cpu_model="486"))
    directory = kernel.ram.table(SWAPPER_PG_DIR)
    assert {int(entry) & 0xFFF for entry in directory if entry} == {KERNPG_TABLE}
