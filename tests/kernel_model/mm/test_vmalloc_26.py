# SPDX-License-Identifier: GPL-2.0-or-later
"""vmalloc of 2.6: frames first, then page tables; vmap of frames that somebody has."""

import pytest

from harness.replay.vmalloc import Objects
from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.arch_i386.pgtable import PAGE_KERNEL, PAGE_PCD, pte_pfn
from kernel_model.config import Highmem, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.events import Announcer, Rights
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.mm.vmalloc.linux_2_6 import Vmalloc
from kernel_model.structs.linux_2_6.mmzone import VM_ALLOC, VM_IOREMAP, VM_MAP

pytestmark = pytest.mark.book("7.4", release="2.6")
CONFIGS = {
    "2-level": KernelConfig(ram=16 << 20, release="2.6"),
    "highmem": KernelConfig(
        ram=64 << 20, release="2.6", highmem=Highmem.GB4, highmem_pages=16 << 8
    ),
    "PAE": KernelConfig(ram=64 << 20, release="2.6", highmem=Highmem.GB64, highmem_pages=16 << 8),
}


class Bench:
    def __init__(self, config: KernelConfig) -> None:
        self.kernel = kernel = Kernel(config)
        kernel.start_kernel(until="mem_init")
        kernel.release.do_initcalls(kernel)
        self.objects = Objects()
        self.vmalloc = Vmalloc(
            kernel.image,
            kernel.allocator,
            kernel.page_tables,
            kernel.tlb,
            self.objects.kmalloc,
            self.objects.kfree,
        )

    @property
    def free(self) -> int:
        """Free frames, those that wait on the lists of the CPU included."""
        self.kernel.allocator.drain_local_pages()  # type: ignore[attr-defined]
        return self.kernel.allocator.nr_free_pages()

    def frames(self, addr: int, count: int) -> list[int]:
        """What the page tables map there; -1 for nothing."""
        tables = self.kernel.tables
        found = []
        for vaddr in range(addr, addr + count * PAGE_SIZE, PAGE_SIZE):
            pmdp = tables.pmd_offset(tables.pgd_offset(SWAPPER_PG_DIR, vaddr), vaddr)
            pte = tables.entry(tables.pte_offset(pmdp, vaddr))
            found.append(pte_pfn(pte) if pte else -1)
        return found


@pytest.fixture(params=CONFIGS)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(CONFIGS[request.param])


@pytest.mark.parametrize("count", [1, 5, 1024, 1025])
def test_the_array_holds_every_frame_that_is_mapped(bench: Bench, count: int) -> None:
    """Behind 1,024 pages the array lies in the vmalloc range itself."""
    vmalloc, before = bench.vmalloc, bench.free
    addr = vmalloc.vmalloc(count * PAGE_SIZE)
    _, area, view = vmalloc._find(addr)  # type: ignore[misc]
    pfns = [bench.kernel.allocator.memmap.pfn(page) for page in vmalloc.pages(area)]
    assert pfns == bench.frames(addr, count)
    assert len(set(pfns)) == count
    assert (int(view.pages) >= vmalloc.start) == (count > 1024)
    tables = 2 * (1 + count // 512)
    vmalloc.vfree(addr)
    assert list(vmalloc.areas()) == []
    assert before - tables <= bench.free <= before, "only page tables stay"
    after = bench.free
    vmalloc.vfree(vmalloc.vmalloc(count * PAGE_SIZE))
    assert bench.free == after


def test_frames_are_handed_out_before_any_entry_is_written(bench: Bench) -> None:
    order: list[str] = []

    class Watch:
        def frame_taken(self, pfn: int, frame_order: int, purpose: str) -> None:
            order.append(purpose)

        def page_mapped(self, mm: int, vaddr: int, pfn: int, rights: Rights) -> None:
            order.append("mapped")

        def __getattr__(self, name: str) -> object:
            return lambda *arguments: None

    events: Announcer = bench.kernel.image.events
    events.listeners.append(Watch())  # type: ignore[arg-type]
    assert bench.vmalloc.vmalloc(4 * PAGE_SIZE)
    taken = [step for step in order if step in ("vmalloc", "mapped")]
    assert taken == ["vmalloc"] * 4 + ["mapped"] * 4
    assert order.index("mapped") > max(n for n, step in enumerate(order) if step == "vmalloc")


def test_no_memory_gives_everything_back() -> None:
    bench = Bench(CONFIGS["2-level"])
    vmalloc, before = bench.vmalloc, bench.free
    vmalloc.allocate(PAGE_SIZE, 0x20, PAGE_KERNEL)
    first = bench.free
    assert vmalloc.allocate((before + 10) * PAGE_SIZE, 0x20 | 0x1000 | 0x200, PAGE_KERNEL) == 0
    assert len(list(vmalloc.areas())) == 1
    assert first - 4 <= bench.free <= first


def test_vmap_maps_what_the_caller_has_and_leaves_it_to_him(bench: Bench) -> None:
    allocator = bench.kernel.allocator
    pages = [allocator.alloc_page(0xD0) for _ in range(3)]
    pages.append(pages[0])
    addr = bench.vmalloc.vmap(pages, VM_MAP, PAGE_KERNEL)
    pfns = [allocator.memmap.pfn(page) for page in pages]
    assert bench.frames(addr, 4) == pfns
    bench.vmalloc.vunmap(addr)
    assert bench.frames(addr, 4) == [-1] * 4
    assert [allocator.memmap.count(page) for page in pages] == [1] * 4


def test_vmap_of_a_hole_is_undone(bench: Bench) -> None:
    page = bench.kernel.allocator.alloc_page(0xD0)
    assert bench.vmalloc.vmap([page, 0], VM_MAP, PAGE_KERNEL) == 0
    assert list(bench.vmalloc.areas()) == []


def test_vmap_of_more_than_there_is() -> None:
    bench = Bench(CONFIGS["2-level"])
    assert bench.vmalloc.vmap([0] * 4097, VM_MAP, PAGE_KERNEL) == 0


@pytest.mark.parametrize("size", [1, PAGE_SIZE, 3 * PAGE_SIZE, 1 << 19, 1 << 21])
def test_device_memory_is_aligned_to_its_size(bench: Bench, size: int) -> None:
    bench.vmalloc.vmalloc(PAGE_SIZE)
    area = bench.vmalloc.get_vm_area(size, VM_IOREMAP)
    align = 1 << min(max(size.bit_length(), 12), 19)
    assert int(bench.vmalloc.area(area).addr) % align == 0


def test_ioremap_remembers_where_and_iounmap_forgets(bench: Bench) -> None:
    addr = bench.vmalloc.ioremap(0xFEC00123, 0x2000, PAGE_PCD)
    _, _, view = bench.vmalloc._find(addr & -PAGE_SIZE)  # type: ignore[misc]
    assert int(view.phys_addr) == 0xFEC00000
    assert int(view.flags) == 0x0100_0001, "what __ioremap() was given stands above bit 20"
    assert bench.frames(addr & -PAGE_SIZE, 3) == [0xFEC00, 0xFEC01, 0xFEC02]
    bench.vmalloc.iounmap(addr)
    assert list(bench.vmalloc.areas()) == []
    bench.vmalloc.iounmap(addr)
    assert f"__iounmap: bad address {addr:08x}\n" in bench.kernel.image.log


def test_an_area_that_lacks_a_frame_is_a_bug(bench: Bench) -> None:
    addr = bench.vmalloc.vmalloc(2 * PAGE_SIZE)
    _, area, view = bench.vmalloc._find(addr)  # type: ignore[misc]
    bench.vmalloc._store(int(view.pages), [0, 0], 2)
    with pytest.raises(KernelBug, match="lacks a frame"):
        bench.vmalloc.vfree(addr)
    assert area


def test_no_room(bench: Bench) -> None:
    vmalloc = bench.vmalloc
    assert vmalloc.get_vm_area(vmalloc.end - vmalloc.start, VM_ALLOC)
    assert vmalloc.get_vm_area(PAGE_SIZE, VM_ALLOC) == 0
    assert "out of vmalloc space" in bench.kernel.image.log[-1]
