# SPDX-License-Identifier: GPL-2.0-or-later
"""VMAs that split and merge, pages that are shared and copied on write (book 4.4, 4.6).

After each step the VMAs of the process must be those of the table, every frame must have one
owner, and every reading of the address spaces must agree.
"""

from typing import Any, Final

import pytest

from harness.guests import guest_path
from harness.machine import paging_variant
from harness.monitors.buddies import check_machine
from harness.monitors.frames import FrameLedger
from harness.processes.checking import compare_changed
from harness.pytest_plugin.machines import Comparing, Machines
from harness.suites.stage import PAGE, RW, NotAsExpected, R, Stage
from kernel_model.proc.pid import maps_data

pytestmark = pytest.mark.mmu(nodes="1", cpus="1")
_AT: Final = 0x50000000
_MREMAP_MAYMOVE: Final = 1

STEPS: Final = """
map 0 4 rw       0-4 rw
map 4 2 rw       0-6 rw
map 8 2 r        0-6 rw, 8-10 r
unmap 2 1        0-2 rw, 3-6 rw, 8-10 r
protect 4 1 r    0-2 rw, 3-4 rw, 4-5 r, 5-6 rw, 8-10 r
protect 4 1 rw   0-2 rw, 3-6 rw, 8-10 r
map 2 1 rw       0-6 rw, 8-10 r
remap 8 2 4      0-6 rw, 8-12 r
remap 0 6 3      0-3 rw, 8-12 r
unmap 1 10       0-1 rw, 11-12 r
unmap 0 12       none
"""
"""An operation on pages from 0x50000000 (first, count, what), and the VMAs after it."""
_RIGHTS: Final = {"r": R, "rw": RW}


@pytest.fixture
def stage(mmu_machines: Machines) -> Stage:
    variant = paging_variant(mmu_machines.config)
    return Stage(mmu_machines.machine(image=guest_path("fault_test", variant)))


def _operate(stage: Stage, words: list[str]) -> None:
    """One line of :data:`STEPS`; each page that can be written to is then touched."""
    name, first, count = words[0], int(words[1]), int(words[2])
    spaces, mm = stage.kernel.spaces, stage.spaces.mm(stage.first)
    addr, size = _AT + first * PAGE, count * PAGE
    if name == "map":
        stage.map(addr, _RIGHTS[words[3]], pages=count)
    elif name == "unmap":
        spaces.do_munmap(mm, addr, size)
    elif name == "protect":
        spaces.sys_mprotect(addr, size, _RIGHTS[words[3]])
    else:
        spaces.do_mremap(addr, size, int(words[3]) * PAGE, _MREMAP_MAYMOVE, 0)
    if words[-1] in _RIGHTS:
        access = "write" if words[-1] == "rw" else "read"
        for page in range(count):
            stage.access("user", access, addr + page * PAGE, page)


def _vmas(stage: Stage) -> str:
    """The VMAs there, in the table's words."""
    rows = maps_data(stage.kernel.spaces.areas, stage.spaces.mm(stage.first))
    found = [
        f"{(row['start'] - _AT) // PAGE}-{(row['end'] - _AT) // PAGE} "
        f"{'rw' if 'w' in row['permissions'] else 'r'}"
        for row in rows
        if _AT <= row["start"] < _AT + 0x100000
    ]
    return ", ".join(found) or "none"


def _ledger(stage: Stage) -> FrameLedger:
    return FrameLedger.of(stage.kernel.image.events) or stage.machine.ledger


def _check_frames(stage: Stage) -> None:
    check_machine(stage.kernel, _ledger(stage))


def test_vmas(stage: Stage, diff: Comparing) -> None:
    """Mappings made, cut, protected, moved and taken away."""
    for step in STEPS.strip().splitlines():
        operation, expected = step[:16].strip(), step[16:].strip()
        _operate(stage, operation.split())
        if (found := _vmas(stage)) != expected:
            raise NotAsExpected(
                f"VMAs after {operation!r}: {found}, expected {expected}",
                f"VMAs after {operation!r}, in pages from {_AT:#x}:\n  found     {found}\n"
                f"  expected  {expected}\n\nkernel  do_mmap_pgoff(), do_munmap(), mm/mmap.c; "
                f"mprotect_fixup(), mm/mprotect.c; do_mremap(), mm/mremap.c (book 4.4)",
            )
        _check_frames(stage)
        compare_changed(stage.machine, stage.first)
    diff(stage.machine)


def test_copy_on_write(stage: Stage, diff: Comparing) -> None:
    """What one process writes after ``fork()``, the other never sees (book 4.6)."""
    parent = stage.first
    stage.map(_AT)
    stage.access("user", "write", _AT, 0x1111)
    child = stage.spaces.fork(parent)
    near: dict[str, Any] = {"addr": _AT, "access": "write"}
    for name, pgd, letters in (("parent", parent, "P U A D"), ("child", child, "P U D")):
        stage.expect(
            f"PTE of the {name} after fork", stage.page(pgd, _AT), letters, pgd=pgd, **near
        )
    shared = stage.frame(parent, _AT)
    stage.expect("frame of the child", stage.frame(child, _AT), shared, pgd=child, **near)
    compare_changed(stage.machine, parent)
    _in(stage, child, "write", 0x2222)
    copied = "kept the parent's" if stage.frame(child, _AT) == shared else "a copy"
    stage.expect("frame of the child after its write", copied, "a copy", pgd=child, **near)
    diff(stage.machine, mm=child)
    _in(stage, parent, "write", 0x3333)
    reused = "reused" if stage.frame(parent, _AT) == shared else "another one"
    stage.expect("frame of the parent, whose it is alone", reused, "reused", pgd=parent, **near)
    for name, pgd, value in (("parent", parent, 0x3333), ("child", child, 0x2222)):
        seen = _in(stage, pgd, "read")
        stage.expect(f"word that the {name} reads", f"{seen:#x}", f"{value:#x}", pgd=pgd, **near)
    diff(stage.machine, mm=parent)
    _check_frames(stage)


def _in(stage: Stage, pgd: int, access: str, value: int = 0) -> int:
    result: int = stage.in_space(pgd, lambda: stage.access("user", access, _AT, value))
    return result


def test_exit_gives_everything_back(stage: Stage) -> None:
    """Pages, page tables and the directory of a process that ends (book 4.3, 3.4)."""
    ledger = _ledger(stage)
    before, owned = stage.spaces.free_frames(), set(ledger.owned_frames())
    child = stage.spaces.fork(stage.first)

    def use_memory() -> None:
        for number in range(8):
            addr = stage.map(_AT + number * 0x400000, pages=2)
            stage.access("user", "write", addr, number)

    stage.in_space(child, use_memory)
    stage.spaces.exit(child)
    lost = before - stage.spaces.free_frames()
    _check_frames(stage)
    if lost:
        kept = sorted(set(ledger.owned_frames()) - owned)
        named = ", ".join(f"{pfn:#x} ({ledger.owner(pfn)})" for pfn in kept[:8])
        raise NotAsExpected(
            f"{lost} frames are lost when a process exits",
            f"a process was forked, used 8 areas, and exited: {lost} frames are not free again\n"
            f"still taken: {named}\n\n"
            f"kernel  exit_mmap(), mm/mmap.c; zap_page_range(), clear_page_tables(), mm/memory.c "
            f"(book 4.3, 4.4)",
        )


@pytest.mark.parametrize("access", ["read", "write"])
def test_no_page_outlives_its_area(stage: Stage, access: str) -> None:
    """After ``munmap()`` the TLB must not answer any more (Intel SDM 3A, 4.10.4)."""
    stage.map(_AT)
    stage.access("user", access, _AT, 1)
    stage.kernel.spaces.do_munmap(stage.spaces.mm(stage.first), _AT, PAGE)
    stage.access("user", access, _AT, 2)
    stage.expect(f"user {access} after munmap", stage.outcome(_AT), "SEGV_MAPERR", _AT, access)
