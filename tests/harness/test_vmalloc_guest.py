# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code on the CPU uses vmalloc and ioremap, every byte of them, and walks vmlist.

The guest runs on a page directory older than its areas, so that vmalloc faults are part of all.
The pattern in its areas is computed here a second time.
"""

import numpy as np
import pytest

from harness.diff import diff
from harness.kernel_functions import KernelFunction
from harness.machine import GuestDied
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.events import Rights
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.mm.vmalloc import VmallocRange
from tests.harness.frame_accounting import check_machine
from tests.harness.vmalloc_machine import PAGE, SHAPES, TABLE, VmallocMachine

VMALLOC, VMALLOC_32, VMALLOC_DMA, VMALLOC_PROT = range(4)
THREE_TABLES, TWO_TABLES = TABLE + 2 * PAGE + 77, 20 * PAGE - 1
"""Bytes of an area that reaches into so many tables, when it begins in the last page of one."""
CPU_NOT_CACHED = 0x10
BOTH = pytest.mark.parametrize("shape", ["pentium3", "2.6"])


@pytest.fixture(params=SHAPES)
def vm(request: pytest.FixtureRequest) -> VmallocMachine:
    vm = VmallocMachine(request.param)
    vm.enter(vm.spaces[0])
    return vm


def pattern(count: int, seed: int) -> bytes:
    i = np.arange(count, dtype=np.uint32)
    values = (i ^ i >> 8 ^ i >> 12 ^ i >> 20) * 7 + seed * 31
    return values.astype(np.uint8).tobytes()


def walk_vmlist(vm: VmallocMachine) -> tuple[int, int, list[tuple[int, int, int]]]:
    """The guest's walk: areas out of order, pointers astray, (flags, address, size) of each."""
    vm.machine.call("walk_vmlist")
    words = vm.machine.ram.table(virt_to_phys(vm.machine.symbol("vmlist_walk")), 3 + 3 * 256)
    areas, unordered, astray = words[:3].tolist()
    return unordered, astray, list(map(tuple, words[3 : 3 + 3 * areas].reshape(-1, 3).tolist()))


def listed(vm: VmallocMachine) -> list[tuple[int, int, int]]:
    """The same by the model."""
    return [(int(a.flags), int(a.addr), int(a.size)) for a in vm.vmalloc.areas()]


def frames(vm: VmallocMachine, addr: int, pages: int) -> list[int]:
    """The frames that an area was meant to have."""
    numbers, pfns, _ = vm.ledger.pages(SWAPPER_PG_DIR)
    first = np.searchsorted(numbers, addr >> 12)
    return pfns[first : first + pages].tolist()


# -- every byte -------------------------------------------------------------------------------


@pytest.mark.book("7.2", "4.6")
@pytest.mark.parametrize(
    ("shape", "size", "faults"),
    [
        ("486", TWO_TABLES, 2),
        ("pentium3", THREE_TABLES, 3),
        ("highmem", TWO_TABLES, 2),
        ("PAE", THREE_TABLES, 0),
        ("2.6", THREE_TABLES, 3),
        ("2.6 PAE", TWO_TABLES, 0),
    ],
)
def test_an_area_over_several_tables_is_written_and_read(
    shape: str, size: int, faults: int
) -> None:
    vm = VmallocMachine(shape)
    vm.enter(vm.spaces[0])
    vm.vmalloc.get_vm_area(TABLE - 2 * PAGE, 1)
    addr = vm.machine.call("take_area", VMALLOC, size, 5)
    assert addr % TABLE == TABLE - PAGE
    assert vm.vmalloc_faults == faults
    same = vm.vmalloc.vread(addr, size) == pattern(size, 5)
    assert same, "vread() shows something else than the guest wrote"
    assert vm.vmalloc.vwrite(addr, pattern(size, 6)) == size
    assert vm.machine.call("count_wrong", addr, size, 6) == 0
    assert vm.machine.call("count_wrong", addr, PAGE, 7) > PAGE // 2
    assert vm.machine.kernel_calls.counts[KernelFunction.VMALLOC] == 1


@pytest.mark.book("7.2")
def test_each_kind_takes_its_frames_where_it_must(vm: VmallocMachine) -> None:
    kernel, pages = vm.kernel, 30
    areas = [vm.machine.call("take_area", kind, pages * PAGE, kind) for kind in range(4)]
    assert all(areas)
    high, low = kernel.statics.highstart_pfn, kernel.statics.max_low_pfn
    if kernel.config.highmem.value != "none":
        assert min(frames(vm, areas[VMALLOC], pages)) >= high
        assert min(frames(vm, areas[VMALLOC_PROT], pages)) >= high
    assert max(frames(vm, areas[VMALLOC_32], pages)) < low
    assert max(frames(vm, areas[VMALLOC_DMA], pages)) < 16 << 8
    for kind, addr in enumerate(areas):
        assert vm.machine.call("count_wrong", addr, pages * PAGE, kind) == 0
    check_machine(kernel, vm.ledger)


@pytest.mark.book("7.1")
def test_vread_and_vwrite_leave_gaps_and_guard_pages_out(vm: VmallocMachine) -> None:
    one = vm.machine.call("take_area", VMALLOC, 2 * PAGE, 1)
    two = vm.machine.call("take_area", VMALLOC_32, PAGE, 2)
    assert two == one + 3 * PAGE
    shown = vm.vmalloc.vread(one + 100, 4 * PAGE)
    wanted = pattern(2 * PAGE, 1)[100:] + bytes(PAGE) + pattern(PAGE, 2) + bytes(100)
    assert bool(shown == wanted[: 4 * PAGE])
    assert vm.vmalloc.vwrite(one + PAGE, pattern(3 * PAGE, 3)) == 2 * PAGE
    assert vm.machine.call("count_wrong", one, PAGE, 1) == 0
    assert vm.machine.call("load_pages", one + PAGE, 1) == _word(pattern(4, 3))
    assert vm.machine.call("load_pages", two, 1) == _word(pattern(3 * PAGE, 3)[2 * PAGE :])


def _word(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")


@pytest.mark.book("7.2")
@pytest.mark.parametrize("flags", [0, CPU_NOT_CACHED])
def test_ioremap_shows_the_same_bytes_at_another_address(vm: VmallocMachine, flags: int) -> None:
    for offset, size in ((0, PAGE), (0, 4 * PAGE), (123, 2 * PAGE), (PAGE - 1, 2)):
        assert vm.machine.call("remap_device", offset, size, flags, offset) == 0
    assert vm.vmalloc_faults == (1 if vm.lazy else 0)
    assert not listed(vm)
    refused = virt_to_phys(int(vm.kernel.statics.high_memory)) - PAGE
    assert vm.machine.call("ioremap", refused, PAGE) == 0, "RAM that somebody may have"


@pytest.mark.book("7.3")
def test_use_after_vfree_names_the_address(vm: VmallocMachine) -> None:
    addr = vm.vmalloc.start
    with pytest.raises(GuestDied) as died:
        vm.machine.call("use_after_vfree", 3 * PAGE, PAGE + 5)
    report = died.value.report
    assert f"#PF at {addr + PAGE + 5:#010x}, error code 0" in report.reason
    assert (report.ring, report.control["cr2"]) == (0, addr + PAGE + 5)
    assert any("not present" in step for step in report.walk)


# -- vmlist -----------------------------------------------------------------------------------


@pytest.mark.book("7.1")
def test_guest_and_model_see_the_same_vmlist(vm: VmallocMachine) -> None:
    assert walk_vmlist(vm) == (0, 0, [])
    addrs = [vm.machine.call("take_area", n % 4, n * 1000, n) for n in range(1, 20)]
    for addr in addrs[::3]:
        vm.machine.call("vfree", addr)
    vm.machine.call("ioremap", 0xE0000000, 5 * PAGE)
    unordered, astray, areas = walk_vmlist(vm)
    assert (unordered, astray) == (0, 0)
    assert areas == listed(vm)
    assert {addr for _, addr, _ in areas} > set(addrs) - set(addrs[::3])
    assert [flags for flags, _, _ in areas].count(1) == 1


@pytest.mark.book("7.1", "7.3")
def test_guest_takes_and_frees_for_long(vm: VmallocMachine) -> None:
    vm.machine.call("churn", 400, 9)
    first = virt_to_phys(vm.machine.symbol("churned")) >> 2
    taken, freed, refused, wrong = vm.machine.ram.words[first : first + 4]
    assert (refused, wrong) == (0, 0)
    assert taken + freed == 400
    unordered, astray, areas = walk_vmlist(vm)
    assert (unordered, astray, len(areas)) == (0, 0, taken - freed)
    assert areas == listed(vm)
    check_machine(vm.kernel, vm.ledger)


@BOTH
def test_all_readings_agree_after_the_guests_own_work(shape: str) -> None:
    vm = VmallocMachine(shape)
    vm.enter(vm.spaces[0])
    vm.machine.call("churn", 401, 3)
    report = diff(vm.machine)
    assert report.ok, report.findings


# -- it can fail ------------------------------------------------------------------------------


@BOTH
def test_guest_notices_a_broken_vmlist(shape: str) -> None:
    vm = VmallocMachine(shape)
    for _ in range(3):
        vm.machine.call("take_area", VMALLOC, PAGE, 0)
    one, two, three = vm.vmalloc.areas()
    one.addr, two.addr = int(two.addr), int(one.addr)
    assert walk_vmlist(vm)[:2] == (1, 0)
    three.next = 0x10
    assert walk_vmlist(vm)[:2] == (1, 1)
    three.next = int(one.next)
    assert len(walk_vmlist(vm)[2]) == 256, "a circle ends"


@BOTH
def test_guest_notices_frames_that_are_shared(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: all pages of an area get the frame of the first."""
    real = VmallocRange._map
    ptes: list[int] = []

    def share(self: VmallocRange, vaddr: int, ptep: int, pte: int, rights: Rights) -> None:
        ptes.append(pte)
        real(self, vaddr, ptep, ptes[0], rights)

    monkeypatch.setattr(VmallocRange, "_map", share)
    vm = VmallocMachine(shape)
    assert vm.machine.call("take_area", VMALLOC, 3 * PAGE, 0) == 0
    (area,) = vm.vmalloc.areas()
    assert vm.machine.call("count_wrong", area.addr, 3 * PAGE, 0) > PAGE


@BOTH
def test_guest_notices_an_area_too_short(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = VmallocMachine(shape)
    kind = type(vm.vmalloc)
    real = kind.allocate
    monkeypatch.setattr(
        kind, "allocate", lambda self, size, gfp, prot: real(self, size - PAGE, gfp, prot)
    )
    with pytest.raises(GuestDied, match=f"#PF at {vm.vmalloc.start + 2 * PAGE:#010x}"):
        vm.machine.call("take_area", VMALLOC, 3 * PAGE, 0)
