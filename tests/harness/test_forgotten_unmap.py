# SPDX-License-Identifier: GPL-2.0-or-later
"""Each pte_unmap() of the kernel model is left out in turn, and the slot that leaks is found."""

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

import kernel_model
from harness.monitors.frames import FrameStillMapped
from harness.monitors.kmap_slots import SlotLeaked, SlotTaken
from harness.monitors.reverse_map import reverse_map_census
from kernel_model.arch_i386.pgtable import PAGE_READONLY
from kernel_model.errors import KernelBug
from kernel_model.exec import BinaryParameters
from kernel_model.mm.memory.linux_2_6.highpte import HighTables
from tests.harness.process_machine import (
    CONFIGS,
    PAGE,
    PRIVATE,
    RW,
    SHARED,
    Content,
    ProcessMachine,
)

ROOT = Path(kernel_model.__file__).parent
UNMAPS = ("pte_unmap", "pte_unmap_nested")
AT, FILE, ELSEWHERE, DEVICE = 0x50000000, 0x51000000, 0x52000000, 0xFE000000
VALUE, NONBLOCK, MAYMOVE_FIXED = 0x1234, 0x10000, 3
Site = tuple[str, int]
"""A file and a line in it."""


@cache
def sites() -> dict[Site, str]:
    """Every call in the model, and the function that makes it."""
    found: dict[Site, str] = {}
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text()
        if "pte_unmap" not in text:
            continue
        for function in ast.walk(ast.parse(text)):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in UNMAPS:
                        found[str(path), node.lineno] = f"{path.stem} {function.name}"
    return found


@contextmanager
def forgotten(site: Site | None = None) -> Iterator[set[Site]]:
    """Nothing comes of the calls at a site. Gives the sites that made a call."""
    made: set[Site] = set()
    with pytest.MonkeyPatch.context() as patch:
        for name in UNMAPS:
            patch.setattr(HighTables, name, _forgetting(getattr(HighTables, name), site, made))
        yield made


def _forgetting(
    real: Callable[[HighTables, int], None], site: Site | None, made: set[Site]
) -> Callable[[HighTables, int], None]:
    def unmap(self: HighTables, ptep: int) -> None:
        caller = sys._getframe(1)
        here = caller.f_code.co_filename, caller.f_lineno
        made.add(here)
        if here != site:
            real(self, ptep)

    return unmap


class Traffic:
    """All that a kernel does with page tables, step by step; after each, nothing is held."""

    def __init__(self, build: str) -> None:
        self.world = world = ProcessMachine(CONFIGS[build])
        self.kernel = kernel = world.kernel
        self.memory, self.spaces = kernel.memory, kernel.spaces
        self.parent = world.first
        self.content = Content(VALUE, 8)
        self.child = 0

    def run(self) -> None:
        slots = self.world.machine.kmap_slots
        assert slots is not None
        for step in (
            self.faults,
            self.files,
            self.arguments,
            self.devices,
            self.protection_and_moves,
            self.forks,
            self.order_of_pages,
            self.reclaim,
            self.ends,
        ):
            for _ in step():
                slots.check()

    @property
    def mm(self) -> int:
        return self.world.spaces.mm(self.parent)

    def fault(self, addr: int, *, write: bool) -> None:
        """``handle_mm_fault()`` as the CPU's fault would have it called."""
        vma = self.spaces.find_vma(self.mm, addr)
        self.memory.handle_mm_fault(self.mm, vma, addr, write)

    def faults(self) -> Iterator[None]:
        self.world.map(AT, pages=8)
        for page, write in ((0, True), (1, False), (0, True), (1, True), (2, True)):
            yield self.fault(AT + page * PAGE, write=write)
        yield self.look(AT)
        yield self.look(ELSEWHERE)

    def look(self, addr: int) -> None:
        self.memory.follow_page(self.mm, addr)

    def files(self) -> Iterator[None]:
        self.world.map_file(FILE, self.content, PRIVATE)
        for page, write in ((0, False), (1, True), (0, True)):
            yield self.fault(FILE + page * PAGE, write=write)
        # No program brings such an entry into a private mapping.
        pgd, addr = self.parent, FILE + 2 * PAGE
        ptep = self.memory.tables.pte_offset_map(pgd, addr)
        self.kernel.tables.set_pte(ptep, self.kernel.swap_areas.ptes.pgoff_to_pte(3))
        self.memory.tables.pte_unmap(ptep)
        yield self.fault(addr, write=True)
        yield self.unmap(FILE, 8)

    def unmap(self, addr: int, pages: int) -> None:
        assert self.spaces.do_munmap(self.mm, addr, pages * PAGE) == 0

    def arguments(self) -> Iterator[None]:
        vma = self.spaces.find_vma(self.mm, AT)
        for addr in (AT + 3 * PAGE, AT + 3 * PAGE):
            parameters = BinaryParameters()
            assert self.kernel.exec.copy_strings(parameters, [b"argument"]) == 0
            page = next(page for page in parameters.page if page)
            yield self.put(vma, page, addr)

    def put(self, vma: int, page: int, addr: int) -> None:
        assert self.memory.faults.put_dirty_page(self.mm, vma, page, addr) == 0

    def devices(self) -> Iterator[None]:
        self.world.map(DEVICE - 0x40000000)
        addr = DEVICE - 0x40000000
        yield self.remap_device(addr)
        yield self.fault(addr, write=True)
        yield self.unmap(addr, 1)

    def remap_device(self, addr: int) -> None:
        assert self.memory.remap_page_range(self.mm, addr, DEVICE, PAGE, PAGE_READONLY) == 0

    def protection_and_moves(self) -> Iterator[None]:
        yield self.protect(1)
        yield self.protect(RW)
        yield self.move(AT, ELSEWHERE)
        yield self.move(ELSEWHERE, AT)

    def protect(self, prot: int) -> None:
        assert self.spaces.sys_mprotect(AT, 8 * PAGE, prot) == 0

    def move(self, source: int, to: int) -> None:
        size = 8 * PAGE
        assert self.spaces.do_mremap(source, size, size, MAYMOVE_FIXED, to) == to

    def forks(self) -> Iterator[None]:
        yield self.fork()
        yield self.fault(AT, write=True)
        self.enter(self.child)
        yield self.fault(AT, write=True)
        yield self.fault(AT + 2 * PAGE, write=True)

    def fork(self) -> None:
        self.child = self.world.spaces.fork(self.parent)

    def enter(self, pgd: int) -> None:
        self.parent = pgd
        self.world.spaces.enter(pgd)

    def order_of_pages(self) -> Iterator[None]:
        self.enter(self.world.first)
        self.world.map_file(FILE, Content(VALUE, 40), SHARED)
        for page in range(4):
            yield self.fault(FILE + page * PAGE, write=False)
        yield self.remap(0, 3, 0)
        yield self.remap(1, 39, NONBLOCK)
        yield self.fault(FILE + PAGE, write=False)

    def remap(self, page: int, pgoff: int, flags: int) -> None:
        assert self.spaces.sys_remap_file_pages(FILE + page * PAGE, PAGE, 0, pgoff, flags) == 0

    def reclaim(self) -> Iterator[None]:
        yield self.census()
        for addr in (AT + PAGE, AT, FILE, AT + 2 * PAGE):
            yield self.world.reclaiming.unmap_one(self.kernel, self.mm, addr)
            yield self.census()
        self.enter(self.child)
        yield self.world.swap_out()
        yield self.census()
        for page in (0, 1, 2):
            yield self.fault(AT + page * PAGE, write=page != 1)
        yield self.world.reclaim()
        for page in (0, 1, 2):
            yield self.fault(AT + page * PAGE, write=page != 1)

    def census(self) -> None:
        kernel = self.kernel
        mms = [self.world.spaces.mm(pgd) for pgd in self.world.spaces.tasks]
        reverse_map_census(kernel.image, kernel.allocator.memmap, kernel.reverse_walk, mms)

    def ends(self) -> Iterator[None]:
        self.enter(self.world.first)
        yield self.world.spaces.exit(self.child)
        yield self.unmap(FILE, 40)
        yield self.unmap(AT, 8)


@cache
def reached(build: str) -> set[Site]:
    """The sites that the traffic makes calls at."""
    with forgotten() as made:
        Traffic(build).run()
    return made


BUILDS = ("2.6 highpte", "2.6 chains, highpte")


@pytest.mark.book("3.10", release="2.6")
def test_traffic_reaches_every_call() -> None:
    assert sites().keys() == set.union(*map(reached, BUILDS)) & sites().keys()


@pytest.mark.book("3.10", release="2.6")
@pytest.mark.parametrize("build", BUILDS)
def test_each_one_that_is_forgotten_is_found(build: str) -> None:
    calls = sites().keys() & reached(build)
    lost = []
    for site in sorted(calls):
        with forgotten(site):
            try:
                Traffic(build).run()
            except (SlotLeaked, SlotTaken, KernelBug, FrameStillMapped):
                continue
        lost.append(sites()[site])
    assert lost == []
