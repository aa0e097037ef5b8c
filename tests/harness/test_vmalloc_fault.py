# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmalloc fault on the CPU: what one address space maps reaches the others by touching it.

Guest code of ring 0 loads and stores; it never sees the fault. Ring 3 gets a signal, and must
not fill anything.
"""

import pytest

from harness.machine import GuestDied
from kernel_model.arch_i386.fault import FaultKind, PageFaults
from kernel_model.image import SWAPPER_PG_DIR
from tests.harness.running import Running
from tests.harness.vmalloc_machine import PAGE, SHAPES, TABLE, VmallocMachine, expected_sum

PAGES = 2 * TABLE // PAGE + 300
"""Of an area that begins and ends inside of tables: four of them, when it begins in the middle."""


@pytest.fixture(params=SHAPES)
def vm(request: pytest.FixtureRequest) -> VmallocMachine:
    return VmallocMachine(request.param, spaces=2)


def new_area(vm: VmallocMachine) -> int:
    """An area of ``PAGES`` over several entries of the page directory, in the middle of one."""
    vm.vmalloc.get_vm_area(TABLE - 150 * PAGE, 1)
    addr = vm.vmalloc.vmalloc(PAGES * PAGE)
    assert (addr + PAGES * PAGE - 1 >> 22) - (addr >> 22) == 3
    return addr


@pytest.mark.book("7.2", "4.6")
def test_a_new_area_reaches_each_address_space_by_its_faults(vm: VmallocMachine) -> None:
    addr = new_area(vm)
    vm.enter()
    vm.store(addr, PAGES, 7)
    assert vm.vmalloc_faults == 0, "swapper_pg_dir has every entry from the start"
    for number, mm in enumerate(vm.spaces, 1):
        vm.enter(mm)
        assert vm.sum(addr, PAGES) == expected_sum(addr, PAGES, 7)
        assert vm.vmalloc_faults == (4 * number if vm.lazy else 0)
        assert vm.sum(addr, PAGES) == expected_sum(addr, PAGES, 7)
        assert vm.vmalloc_faults == (4 * number if vm.lazy else 0), "each entry comes once"


@pytest.mark.book("7.2")
def test_stores_are_run_again_as_well(vm: VmallocMachine) -> None:
    addr = new_area(vm)
    vm.enter(vm.spaces[0])
    vm.store(addr, PAGES, 1)
    assert vm.vmalloc_faults == (4 if vm.lazy else 0)
    vm.enter()
    assert vm.sum(addr, PAGES) == expected_sum(addr, PAGES, 1)


@pytest.mark.parametrize("shape", ["486", "pentium3", "highmem", "2.6"])
def test_only_the_touched_entries_come(shape: str) -> None:
    vm = VmallocMachine(shape)
    addr = new_area(vm)
    mm = vm.spaces[0]
    vm.enter(mm)
    vm.store(addr + TABLE, 1)
    entries = [vm.entry(mm, addr + TABLE * number) for number in range(4)]
    assert entries == [0, vm.entry(SWAPPER_PG_DIR, addr + TABLE), 0, 0]


@pytest.mark.book("3.5", "7.2")
def test_a_directory_from_the_quicklist_is_filled_by_faults_too(vm: VmallocMachine) -> None:
    """It keeps the kernel part it had, while a fresh one gets all that there is."""
    old = vm.spaces[0]
    addr = new_area(vm)
    vm.kernel.page_tables.pgd_free(old)
    again, fresh = vm.kernel.page_tables.pgd_alloc(), vm.kernel.page_tables.pgd_alloc()
    vm.enter(fresh)
    vm.store(addr, PAGES)
    assert vm.vmalloc_faults == 0
    vm.enter(again)
    assert vm.sum(addr, PAGES) == expected_sum(addr, PAGES)
    assert again == old or not vm.lazy, "a PAE directory never goes to the quicklist"
    assert vm.vmalloc_faults == (4 if vm.lazy else 0)


@pytest.mark.book("7.3")
def test_use_after_vfree_is_an_oops(vm: VmallocMachine) -> None:
    addr = new_area(vm)
    for mm in (SWAPPER_PG_DIR, *vm.spaces):
        vm.enter(mm)
        vm.store(addr, PAGES)
    faults = vm.vmalloc_faults
    vm.vmalloc.vfree(addr)
    victim = addr + 5 * PAGE
    for mm in (SWAPPER_PG_DIR, *vm.spaces):
        vm.enter(mm)
        with pytest.raises(GuestDied) as died:
            vm.sum(victim, 1)
        assert f"#PF at {victim:#010x}, error code 0" in died.value.report.reason
        assert died.value.report.ring == 0
        assert died.value.report.control["cr2"] == victim
        with pytest.raises(GuestDied, match=r"error code 2 \(W\)"):
            vm.store(victim, 1)
    assert vm.vmalloc_faults == faults


@pytest.mark.book("7.1")
def test_the_guard_page_is_no_vmalloc_fault(vm: VmallocMachine) -> None:
    addr = new_area(vm)
    vm.enter(vm.spaces[0])
    with pytest.raises(GuestDied, match=f"#PF at {addr + PAGES * PAGE:#010x}"):
        vm.store(addr + (PAGES - 1) * PAGE, 2)


def test_planted_fault_handler_that_serves_nothing(
    vm: VmallocMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PageFaults, "do_page_fault", lambda *_: FaultKind.OOPS)
    addr = new_area(vm)
    vm.enter(vm.spaces[0])
    if vm.lazy:
        with pytest.raises(GuestDied, match=f"#PF at {addr:#010x}"):
            vm.store(addr, 1)
    else:
        vm.store(addr, 1)


# -- while a process runs -----------------------------------------------------------------------


def process(vm: VmallocMachine, va: int) -> Running:
    """A program that loads from ``va``."""
    return Running(vm.machine, "read_at", f"{va:x}".encode())


@pytest.mark.book("4.6", "7.2")
def test_a_system_call_touches_what_the_process_does_not_have(vm: VmallocMachine) -> None:
    """Ring 0 runs on the process's directory, in the middle of its ``write()``."""
    sums: list[int] = []

    def output(*_: object) -> None:
        sums.append(vm.sum(addr, PAGES))

    running = Running(vm.machine, "hello", output=output)
    addr = new_area(vm)
    vm.enter()
    vm.store(addr, PAGES, 3)
    vm.enter(running.pgd)
    ended = running.run()
    assert ended.status == 0
    assert set(sums) == {expected_sum(addr, PAGES, 3)}
    assert vm.vmalloc_faults == (4 if vm.lazy else 0)


@pytest.mark.book("4.6")
def test_an_oops_in_a_system_call_is_no_signal(vm: VmallocMachine) -> None:
    def output(*_: object) -> None:
        vm.sum(vm.vmalloc.start, 1)

    running = Running(vm.machine, "hello", output=output)
    with pytest.raises(GuestDied, match=f"#PF at {vm.vmalloc.start:#010x}, error code 0") as died:
        running.run()
    assert died.value.report.ring == 0


@pytest.mark.book("4.6", "7.2")
def test_ring_3_gets_a_signal_and_fills_nothing(vm: VmallocMachine) -> None:
    running = process(vm, addr := vm.vmalloc.start + 123 * PAGE)
    assert vm.vmalloc.vmalloc(PAGES * PAGE) <= addr
    pgd = running.pgd
    ended = running.run()
    assert ended.signal_name == "SIGSEGV"
    assert ended.report is not None
    assert ended.report.control["cr2"] == addr
    if vm.lazy:
        # pgd_free() kept the directory as it was.
        assert "error code 4 (U)" in ended.report.reason
        assert vm.entry(pgd, addr) == 0
        assert vm.entry(SWAPPER_PG_DIR, addr) != 0
    else:
        assert "error code 5 (P|U)" in ended.report.reason
    assert vm.vmalloc_faults == 0


@pytest.mark.book("4.6", "7.2")
def test_ring_3_may_not_read_what_ring_0_filled(vm: VmallocMachine) -> None:
    running = process(vm, addr := vm.vmalloc.start + 123 * PAGE)
    vm.vmalloc.vmalloc(PAGES * PAGE)
    vm.enter(running.pgd)
    vm.store(addr, 1)
    assert vm.vmalloc_faults == (1 if vm.lazy else 0)
    ended = running.run()
    assert ended.signal_name == "SIGSEGV"
    assert ended.report is not None
    assert "error code 5 (P|U)" in ended.report.reason
