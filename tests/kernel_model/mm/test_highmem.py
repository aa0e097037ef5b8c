# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmap()`` and ``kmap_atomic()``: where addresses lead, who waits, what is refused."""

from collections.abc import Callable

import pytest

from harness.monitors.frames import FrameLedger, FrameStillMapped, PageNotMapped
from kernel_model.arch_i386.fixmap import KM_TYPE_NR, PKMAP_BASE
from kernel_model.arch_i386.highmem import DirectMapping, KmType
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import boot
from kernel_model.mm.gfp import GFP_HIGHUSER, GFP_KERNEL
from kernel_model.mm.highmem import BadKmap, WouldSleep
from tests.kernel_model.mm.highmem_kernel import PAGE, WINDOW, HighmemKernel

FIXADDR_TOP = 0xFFFFE000


@pytest.fixture(params=[Highmem.GB4, Highmem.GB64], ids=["4G", "PAE"])
def machine(request: pytest.FixtureRequest) -> HighmemKernel:
    return HighmemKernel(request.param)


# -- kmap() -----------------------------------------------------------------------------------


@pytest.mark.book("2.7")
def test_kmap_of_low_memory_is_its_direct_address(machine: HighmemKernel) -> None:
    page = machine.kernel.allocator.alloc_page(GFP_KERNEL)
    direct = PAGE_OFFSET + (machine.memmap.pfn(page) << 12)
    assert machine.highmem.page_address(page) == direct
    assert machine.highmem.kmap(page) == machine.highmem.kmap_nonblock(page) == direct
    assert machine.highmem.kmap_atomic(page, KmType.USER0) == direct
    machine.highmem.kunmap(page)
    machine.highmem.kunmap_atomic(direct, KmType.USER0)
    assert not list(machine.highmem.mappings())
    assert not machine.tlb.flushes


@pytest.mark.book("2.7")
def test_kmap_leads_to_the_frame_and_is_shared_by_all_users(machine: HighmemKernel) -> None:
    page = machine.kernel.allocator.alloc_page(GFP_HIGHUSER)
    pfn = machine.memmap.pfn(page)
    assert machine.highmem.page_address(page) == 0
    vaddr = machine.highmem.kmap(page)
    assert vaddr == PKMAP_BASE + PAGE  # the search begins behind last_pkmap_nr, which is 0
    assert machine.highmem.kmap(page) == machine.highmem.page_address(page) == vaddr
    assert machine.walk(vaddr) == pfn
    statics = machine.kernel.statics
    assert statics.pkmap_count[1] == 3
    assert statics.last_pkmap_nr == 1
    assert machine.pkmaps.users(page) == 2
    assert not machine.tlb.flushes  # what was not present is not in a TLB


@pytest.mark.book("2.7")
def test_unused_entry_stays_mapped_until_the_window_wraps(machine: HighmemKernel) -> None:
    first = machine.page(0)
    vaddr = machine.highmem.kmap(first)
    machine.highmem.kunmap(first)
    assert machine.walk(vaddr) == machine.memmap.pfn(first)
    assert [m.purpose for m in machine.highmem.mappings()] == ["kmap, unused until the next flush"]
    for number in range(2, machine.pkmaps.entries):
        machine.highmem.kmap(machine.page(number))
    assert machine.highmem.page_address(first) == vaddr
    assert not machine.tlb.flushes
    last = machine.page(4000)
    assert machine.highmem.kmap(last) == PKMAP_BASE
    assert machine.tlb.flushes == ["global"]
    assert machine.highmem.page_address(first) == 0
    assert machine.walk(vaddr) is None


def test_used_again_before_the_flush_it_keeps_its_entry(machine: HighmemKernel) -> None:
    page = machine.page(3)
    vaddr = machine.highmem.kmap(page)
    machine.highmem.kunmap(page)
    assert machine.highmem.kmap(page) == vaddr
    machine.pkmaps.flush_all_zero_pkmaps()
    assert machine.walk(vaddr) == machine.memmap.pfn(page)
    assert machine.pkmaps.users(page) == 1


def test_kernel_without_global_pages_flushes_by_cr3() -> None:
    machine = HighmemKernel(cpu_model="pentium")
    machine.pkmaps.flush_all_zero_pkmaps()
    assert machine.tlb.flushes == ["all"]


def test_kmaps_are_listed_with_the_kernels_own_mappings(machine: HighmemKernel) -> None:
    pages = [machine.page(number) for number in (7, 5, 6)]
    vaddrs = [machine.highmem.kmap(page) for page in pages]
    machine.highmem.kunmap(pages[0])
    direct, *kmaps = machine.kernel.kernel_mappings()
    assert direct.purpose == "direct map"
    meant = {mapping.vaddr: mapping.paddr for mapping in kmaps}
    frames = [machine.memmap.pfn(page) << 12 for page in pages]
    assert meant == dict(zip(vaddrs, frames, strict=True))
    assert all(m.size == PAGE and m.rights.write and not m.rights.user for m in kmaps)


def test_highmem_pages() -> None:
    assert HighmemKernel().highmem.highmem_pages == 4096
    assert boot(KernelConfig(ram=32 * MIB)).highmem.highmem_pages == 0


def test_without_highmem_every_frame_keeps_its_address() -> None:
    kernel = boot(KernelConfig(ram=32 * MIB, nodes=2))
    page = kernel.allocator.alloc_page(GFP_HIGHUSER)
    vaddr = kernel.highmem.kmap(page)
    assert type(kernel.highmem) is DirectMapping
    assert vaddr == PAGE_OFFSET + (kernel.allocator.memmap.pfn(page) << 12)
    assert kernel.highmem.kmap_nonblock(page) == vaddr
    assert kernel.highmem.kmap_atomic(page, KmType.USER1) == vaddr
    kernel.highmem.kunmap_atomic(vaddr, KmType.USER1)
    kernel.highmem.kunmap(page)
    assert len(kernel.kernel_mappings()) == 1


# -- what the kernel refuses ------------------------------------------------------------------


def test_kunmap_of_what_is_not_mapped(machine: HighmemKernel) -> None:
    page = machine.page(9)
    with pytest.raises(BadKmap, match=r"kernel BUG at highmem.c:166: .* count 0") as caught:
        machine.highmem.kunmap(page)
    assert caught.value.pfn == machine.memmap.pfn(page)


def test_one_kunmap_too_many(machine: HighmemKernel) -> None:
    page = machine.page(9)
    vaddr = machine.highmem.kmap(page)
    machine.highmem.kunmap(page)
    with pytest.raises(BadKmap, match="more often than mapped") as caught:
        machine.highmem.kunmap(page)
    assert (caught.value.vaddr, caught.value.count) == (vaddr, 1)
    assert machine.highmem.kmap(page) == vaddr


def test_lost_count_and_lost_pte_are_noticed(machine: HighmemKernel) -> None:
    page = machine.page(9)
    machine.highmem.kmap(page)
    machine.kernel.statics.pkmap_count[1] = 0
    with pytest.raises(BadKmap, match=r"highmem.c:151"):
        machine.highmem.kmap(page)
    machine.kernel.statics.pkmap_count[1] = 1
    table = machine.kernel.statics.pkmap_page_table - PAGE_OFFSET
    machine.kernel.ram.fill(table, PAGE)
    with pytest.raises(BadKmap, match=r"highmem.c:63"):
        machine.pkmaps.flush_all_zero_pkmaps()


class OneOther:
    """Another process: it does ``work`` while the first one sleeps."""

    def __init__(self, machine: HighmemKernel, work: Callable[[], object]) -> None:
        self._machine = machine
        self._work = work
        self.slept = 0
        self.woken: list[int] = []

    def sleep_on(self, queue: int) -> None:
        self.slept += 1
        head = queue - PAGE_OFFSET + self._machine.kernel.image.structs.spinlock_t.size
        waiter = 0x200000  # in the image, where nothing is
        words = self._machine.kernel.ram.words
        words[head >> 2] = words[(head >> 2) + 1] = waiter + PAGE_OFFSET
        words[waiter >> 2] = words[(waiter >> 2) + 1] = head + PAGE_OFFSET
        self._work()
        words[head >> 2] = words[(head >> 2) + 1] = head + PAGE_OFFSET

    def wake_up(self, queue: int) -> None:
        self.woken.append(queue)


@pytest.mark.book("2.7")
def test_full_window_makes_kmap_wait(machine: HighmemKernel) -> None:
    pages = machine.fill_window()
    newcomer = machine.page(2000)
    assert machine.highmem.kmap_nonblock(newcomer) == 0
    with pytest.raises(WouldSleep):
        machine.highmem.kmap(newcomer)
    assert machine.highmem.page_address(newcomer) == 0
    assert machine.highmem.kmap_nonblock(pages[0])  # what is mapped can have more users
    machine.highmem.kunmap(pages[0])
    machine.highmem.kunmap(pages[0])
    assert machine.highmem.kmap(newcomer) == PKMAP_BASE + PAGE


@pytest.mark.book("2.7")
def test_last_kunmap_wakes_who_waits(machine: HighmemKernel) -> None:
    pages = machine.fill_window()
    machine.highmem.kmap(pages[8])
    machine.highmem.kmap(pages[9])
    queue = machine.pkmaps.pkmap_map_wait

    def other() -> None:
        machine.highmem.kunmap(pages[8])
        assert not others.woken  # one user is left
        machine.highmem.kunmap(pages[8])

    others = machine.pkmaps.others = OneOther(machine, other)
    machine.highmem.kunmap(pages[9])
    assert machine.highmem.kmap(machine.page(2000)) == PKMAP_BASE + 9 * PAGE
    assert (others.slept, others.woken) == (1, [queue])
    machine.highmem.kunmap(pages[9])
    assert others.woken == [queue]  # nobody sleeps any more


def test_waiter_takes_the_address_that_another_process_made(machine: HighmemKernel) -> None:
    pages = machine.fill_window()
    newcomer = machine.page(2000)

    def other() -> None:
        machine.highmem.kunmap(pages[4])
        machine.highmem.kmap(newcomer)

    machine.pkmaps.others = OneOther(machine, other)
    vaddr = machine.highmem.kmap(newcomer)
    assert vaddr == machine.highmem.page_address(newcomer)
    assert machine.pkmaps.users(newcomer) == 2


# -- kmap_atomic() ----------------------------------------------------------------------------


@pytest.mark.book("2.7")
def test_atomic_slots_lie_at_the_top_and_do_not_meet(machine: HighmemKernel) -> None:
    vaddrs = {kind: machine.highmem.kmap_atomic(machine.page(kind), kind) for kind in KmType}
    assert len(KmType) == KM_TYPE_NR
    assert vaddrs == {kind: FIXADDR_TOP - kind * PAGE for kind in KmType}
    for kind, vaddr in vaddrs.items():
        assert machine.walk(vaddr) == machine.memmap.pfn(machine.page(kind))
    assert machine.tlb.flushes == [f"one {vaddr:#x}" for vaddr in vaddrs.values()]


@pytest.mark.parametrize("highmem", WINDOW)
@pytest.mark.parametrize("cpus", [2, 32])
def test_every_cpu_has_slots_of_its_own(highmem: Highmem, cpus: int) -> None:
    machine = HighmemKernel(highmem, nr_cpus=cpus)
    seen: dict[int, int] = {}
    for cpu in range(cpus):
        machine.kernel.image.current_task.processor = cpu
        for kind in KmType:
            page = machine.page(cpu * KM_TYPE_NR + kind)
            seen[machine.highmem.kmap_atomic(page, kind)] = machine.memmap.pfn(page)
    assert len(seen) == cpus * KM_TYPE_NR
    # Nine slots of the APICs lie above.
    assert max(seen) == FIXADDR_TOP - 9 * PAGE
    assert min(seen) == max(seen) - (len(seen) - 1) * PAGE
    assert {vaddr: machine.walk(vaddr) for vaddr in seen} == seen


@pytest.mark.book("2.7")
def test_atomic_slot_stays_mapped_after_use_and_is_flushed_at_the_next(
    machine: HighmemKernel,
) -> None:
    first, second = machine.page(1), machine.page(2)
    vaddr = machine.highmem.kmap_atomic(first, KmType.USER0)
    assert machine.access(vaddr) == machine.memmap.pfn(first)
    machine.highmem.kunmap_atomic(vaddr, KmType.USER0)
    assert machine.access(vaddr) == machine.memmap.pfn(first)
    machine.highmem.kmap_atomic(second, KmType.USER0)
    assert machine.access(vaddr) == machine.memmap.pfn(second)


def test_debug_kernel_unmaps_and_checks_its_slots() -> None:
    machine = HighmemKernel(debug_highmem=True)
    kmap, kunmap = machine.highmem.kmap_atomic, machine.highmem.kunmap_atomic
    vaddr = kmap(machine.page(1), KmType.USER0)
    assert machine.access(vaddr) is not None
    with pytest.raises(KernelBug, match=r"highmem.h:101: slot KM_USER0 .* in use"):
        kmap(machine.page(2), KmType.USER0)
    with pytest.raises(KernelBug, match=r"highmem.h:119: .* is not slot KM_USER1"):
        kunmap(vaddr, KmType.USER1)
    kunmap(vaddr + 12, KmType.USER0)
    assert machine.access(vaddr) is None
    kmap(machine.page(2), KmType.USER0)
    assert machine.access(vaddr) == machine.memmap.pfn(machine.page(2))


@pytest.mark.parametrize("debug", [False, True], ids=["production", "debug"])
def test_ledger_hears_of_atomic_slots(debug: bool) -> None:
    machine = HighmemKernel(debug_highmem=debug)
    events = machine.kernel.image.events
    ledger = FrameLedger.of(events) or FrameLedger().listen(events)
    page = machine.kernel.allocator.alloc_page(GFP_HIGHUSER)
    vaddr = machine.highmem.kmap_atomic(page, KmType.USER0)
    numbers, frames, _ = ledger.pages(SWAPPER_PG_DIR)
    assert (numbers.tolist(), frames.tolist()) == ([vaddr >> 12], [machine.memmap.pfn(page)])
    with pytest.raises(FrameStillMapped):
        machine.kernel.allocator.free_page(page)
    machine.memmap.set_count(page, 1)
    machine.highmem.kunmap_atomic(vaddr, KmType.USER0)
    machine.kernel.allocator.free_page(page)
    numbers, _, _ = ledger.pages(SWAPPER_PG_DIR)
    assert len(numbers) == (0 if debug else 1)
    if not debug:
        with pytest.raises(PageNotMapped):
            machine.highmem.kunmap_atomic(vaddr - PAGE, KmType.USER1)
