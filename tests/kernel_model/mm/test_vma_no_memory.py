# SPDX-License-Identifier: GPL-2.0-or-later
"""Each allocation of each call refused in turn: what is left is what the kernel leaves.

Most calls leave everything as it was. Where a release itself does half of the work, the row says
which half.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from harness.replay import vma_2_4, vma_2_6
from harness.replay.vma import VmaMachine
from kernel_model.caches import CACHES
from kernel_model.errors import KernelBug
from tests.kernel_model.mm.vma_book import (
    PAGE,
    Book,
    check,
    check_anon_vmas,
    check_files,
    pages_of,
    vmas_in_use,
)

BASE = 0x40000
EAGAIN, ENOMEM = 11, 12
READ, READ_WRITE = 1, 3
MACHINES: dict[str, Callable[[], VmaMachine]] = {
    "2.4": vma_2_4.VmaMachine,
    "2.6": vma_2_6.VmaMachine,
}


class Refusing:
    """Everybody's memory for objects, which refuses one request: the one with number ``refuse``."""

    def __init__(self, machine: VmaMachine) -> None:
        self.refuse = -1
        self.asked = 0
        users: list[Any] = [machine.spaces.areas, machine.spaces.files, machine.fork]
        if isinstance(machine, vma_2_6.VmaMachine):
            users.append(machine.spaces.anon_vmas)
        for user in users:
            user._slab = self._before(user._slab)

    def _before(self, memory: Any) -> Any:
        def kmem_cache_alloc(cachep: int, flags: int) -> int:
            self.asked += 1
            return 0 if self.asked == self.refuse else memory.kmem_cache_alloc(cachep, flags)

        return SimpleNamespace(
            kmem_cache_alloc=kmem_cache_alloc, kmem_cache_free=memory.kmem_cache_free
        )


def new_machine(release: str) -> tuple[VmaMachine, Refusing]:
    """Pages 0-3 zeros, 4-7 read-only zeros, 8-11 of file 3, a hole, 16-17 zeros, a stack at 24."""
    machine = MACHINES[release]()
    spaces, file = machine.spaces, machine.files.by_number[3]
    machine.set_exec(0x8048000, 0x8048000)
    for first, count, prot, what, flags in (
        (0, 4, READ_WRITE, 0, 0x32),
        (4, 4, READ, 0, 0x32),
        (8, 4, READ_WRITE, file, 0x11),
        (16, 2, READ_WRITE, 0, 0x32),
        (24, 1, READ_WRITE, 0, 0x132),
    ):
        at = (BASE + first) * PAGE
        assert spaces.do_mmap_pgoff(what, at, count * PAGE, prot, flags, 0) == at
    return machine, Refusing(machine)


def at(page: int) -> int:
    return (BASE + page) * PAGE


Call = Callable[[VmaMachine], int]
CALLS: dict[str, Call] = {
    "mmap": lambda m: m.spaces.do_mmap_pgoff(0, at(20), 2 * PAGE, READ, 0x32, 0),
    "mmap of a file": lambda m: m.spaces.do_mmap_pgoff(
        m.files.by_number[1], at(20), PAGE, READ, 0x812, 0
    ),
    "mmap shared": lambda m: m.spaces.do_mmap_pgoff(0, at(20), PAGE, READ, 0x31, 0),
    "mmap over a hole in a VMA": lambda m: m.spaces.do_mmap_pgoff(0, at(9), PAGE, READ, 0x32, 0),
    "munmap of a hole": lambda m: m.spaces.do_munmap(m.mm, at(1), PAGE),
    "munmap of VMAs": lambda m: m.spaces.do_munmap(m.mm, at(2), 8 * PAGE),
    "mprotect head": lambda m: m.spaces.sys_mprotect(at(8), PAGE, READ),
    "mprotect tail": lambda m: m.spaces.sys_mprotect(at(11), PAGE, READ),
    "mprotect middle": lambda m: m.spaces.sys_mprotect(at(9), PAGE, READ),
    "mprotect of three VMAs": lambda m: m.spaces.sys_mprotect(at(2), 8 * PAGE, 0),
    "mlock of three VMAs": lambda m: m.spaces.sys_mlock(at(2), 8 * PAGE),
    "mlock middle": lambda m: m.spaces.sys_mlock(at(9), PAGE),
    "mremap away": lambda m: m.spaces.do_mremap(at(8), 4 * PAGE, 9 * PAGE, 1, 0),
    "mremap of the middle": lambda m: m.spaces.do_mremap(at(9), PAGE, 2 * PAGE, 1, 0),
    "mremap over a VMA": lambda m: m.spaces.do_mremap(at(4), PAGE, PAGE, 3, at(16)),
    "mremap shorter": lambda m: m.spaces.do_mremap(at(8), 3 * PAGE, PAGE, 1, 0),
    "brk": lambda m: m.spaces.sys_brk(0x8049000),
    "a stack that grows": lambda m: (m.spaces.find_extend_vma(m.mm, at(22)) and 1) or -ENOMEM,
}
"""Every call, on the machine above."""

HALF_DONE: dict[tuple[str, str, int], str] = {
    ("2.4", "mmap over a hole in a VMA", 2): "the range is unmapped already",
    ("2.4", "mprotect of three VMAs", 2): "the first two VMAs are changed",
    ("2.4", "mlock of three VMAs", 2): "the first two VMAs are locked",
    ("2.4", "mremap away", 2): "the old range stays beside the new one",
    ("2.4", "mremap of the middle", 2): "the old range stays beside the new one",
    ("2.4", "mremap over a VMA", 2): "the target is unmapped already",
    ("2.4", "mremap over a VMA", 3): "the old range stays beside the new one",
    ("2.6", "mmap over a hole in a VMA", 3): "the range is unmapped already",
    ("2.6", "mprotect of three VMAs", 2): "the first two VMAs are changed",
    ("2.6", "mlock of three VMAs", 2): "the first two VMAs are locked",
    ("2.6", "mremap of the middle", 2): "the old range stays beside the new one",
    ("2.6", "mremap of the middle", 3): "the old range stays beside the new one",
    ("2.6", "mremap over a VMA", 2): "the target is unmapped already",
    ("2.6", "mremap over a VMA", 3): "the old range stays beside the new one",
}
"""(release, call, number of the allocation refused) -> what is different afterwards."""
SUCCEEDS: set[tuple[str, str, int]] = {
    ("2.4", "mremap away", 2),
    ("2.4", "mremap of the middle", 2),
    ("2.4", "mremap over a VMA", 3),
    ("2.4", "mremap shorter", 1),
    ("2.6", "mremap of the middle", 2),
    ("2.6", "mremap of the middle", 3),
    ("2.6", "mremap over a VMA", 3),
}
"""Failures that the kernel does not notice: the call answers as if all were done."""
DIES: set[tuple[str, str, int]] = {("2.4", "mremap over a VMA", 1)}
"""The target was not cleared, and then a VMA is put on top of it."""
ASKS_NOTHING = {("2.4", "a stack that grows")}


def allocations(release: str, name: str) -> int:
    """How many allocations the call makes when none is refused."""
    machine, slab = new_machine(release)
    CALLS[name](machine)
    return slab.asked


def outcome(before: Book, after: Book) -> str:
    """What a call that failed left, in the words of :data:`HALF_DONE`."""
    gone, new = before.keys() - after.keys(), after.keys() - before.keys()
    changed = {n for n in before.keys() & after.keys() if before[n] != after[n]}
    if not gone and not new and not changed:
        return "nothing"
    if not gone and (new or changed == {BASE + 16}):
        return "the old range stays beside the new one"
    if changed and not new and not gone:
        locked = all(after[n].flags == before[n].flags | 0x2000 for n in changed)
        assert changed == set(range(BASE + 2, BASE + 8))
        return f"the first two VMAs are {'locked' if locked else 'changed'}"
    if gone in ({BASE + 9}, {BASE + 16}) and not new:
        kind = "range" if gone == {BASE + 9} else "target"
        return f"the {kind} is unmapped already"
    return f"gone {gone}, new {new}, changed {changed}"


ROWS = [
    (release, name, refuse)
    for release in MACHINES
    for name in CALLS
    for refuse in range(1, allocations(release, name) + 1)
]


@pytest.mark.book("4.4", "4.8")
@pytest.mark.parametrize(("release", "name", "refuse"), ROWS)
def test_what_a_refused_allocation_leaves(release: str, name: str, refuse: int) -> None:
    machine, slab = new_machine(release)
    before, brk = pages_of(machine, machine.mm), machine.spaces.areas.mm(machine.mm).brk
    slab.refuse = refuse
    row = (release, name, refuse)
    if row in DIES:
        with pytest.raises(KernelBug, match=r"mmap\.c:1194"):
            CALLS[name](machine)
        return
    result = CALLS[name](machine)
    if name == "brk":
        assert result == brk
    elif row in SUCCEEDS:
        assert result > 0
    else:
        assert result == (-EAGAIN if "mlock" in name else -ENOMEM)
    after = pages_of(machine, machine.mm)
    assert outcome(before, after) == HALF_DONE.get(row, "nothing")
    check_all(machine)
    assert vmas_in_use(machine) == len(machine.spaces.areas.list(machine.mm))
    machine.spaces.exit_mmap(machine.mm)
    check_all(machine)
    assert vmas_in_use(machine) == 0


def check_all(machine: VmaMachine) -> None:
    check(machine, machine.mm)
    check_files(machine, [machine.mm])
    if isinstance(machine, vma_2_6.VmaMachine):
        check_anon_vmas(machine, [machine.mm])
        areas = machine.spaces.areas
        views = [areas.vma(vma) for vma in areas.list(machine.mm)]
        pages = sum(v.vm_end - v.vm_start for v in views if v.vm_flags & 0x100000) // PAGE
        pages += sum({machine.shmem.charge_of(view.vm_file) for view in views})
        assert machine.image.statics.vm_committed_space == pages


def test_every_call_was_refused_something() -> None:
    assert {row[:2] for row in ROWS} | ASKS_NOTHING == {(r, c) for r in MACHINES for c in CALLS}
    assert set(HALF_DONE) | SUCCEEDS | DIES <= set(ROWS)


def machine_2_4() -> tuple[vma_2_4.VmaMachine, Refusing]:
    machine, slab = new_machine("2.4")
    assert isinstance(machine, vma_2_4.VmaMachine)
    return machine, slab


def objects(machine: vma_2_4.VmaMachine) -> list[int]:
    counts = []
    for known in CACHES:
        cache = machine.kernel.slab.find(known.name)
        assert cache is not None
        counts.append(sum(cache.inuse(slab) for slab in cache.all_slabs()))
    return counts


@pytest.mark.book("4.3.2")
def test_a_fork_that_fails_leaves_no_child() -> None:
    """An ``mm_struct`` and a VMA for each of five, the last of which is never the last asked."""
    for refuse in range(1, 7):
        machine, slab = machine_2_4()
        before, pages = objects(machine), pages_of(machine, machine.mm)
        slab.refuse = refuse
        task = SimpleNamespace(mm=1, active_mm=1)
        assert machine.fork.copy_mm(0, task) == -ENOMEM
        assert (task.mm, task.active_mm) == (0, 0)
        assert objects(machine) == before
        assert pages_of(machine, machine.mm) == pages
        check(machine, machine.mm)
        check_files(machine, [machine.mm])
        assert machine.kernel.statics.mmlist_nr == 1


@pytest.mark.parametrize("what", ["pgd_alloc", "copy_page_range"])
def test_a_fork_without_page_tables_leaves_no_child(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, _ = machine_2_4()
    before = objects(machine)
    answer = 0 if what == "pgd_alloc" else -ENOMEM
    monkeypatch.setattr(machine.pages, what, lambda *arguments: answer)
    task = SimpleNamespace(mm=1, active_mm=1)
    assert machine.fork.copy_mm(0, task) == -ENOMEM
    assert objects(machine) == before
    check_files(machine, [machine.mm])


def test_a_move_whose_page_tables_find_no_memory_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, _ = machine_2_4()
    before = pages_of(machine, machine.mm)
    monkeypatch.setattr(machine.pages, "move_page_tables", lambda *arguments: -1)
    assert machine.spaces.do_mremap(at(8), 4 * PAGE, 9 * PAGE, 1, 0) == -ENOMEM
    assert pages_of(machine, machine.mm) == before
    check(machine, machine.mm)
    assert vmas_in_use(machine) == 5
