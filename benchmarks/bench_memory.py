# SPDX-License-Identifier: GPL-2.0-or-later
"""What user memory costs: page faults the whole way, fork, exit, swapping, VMAs, a program.

A fault goes ring 3, IDT, the guest's stub, ``do_page_fault()``, buddy allocator, PTE, ``iret``.
Beside each figure stands the *bare fault* of the same moment: the small kernel's, which reaches
Python the same way and stores one PTE. ``extra_info`` has microseconds for one operation
(``us_each``), for one bare fault (``us_bare``), and their ratio, the figure to compare on a
machine that others use too. Time is CPU time of the process.
"""

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.cpu import Stop
from harness.guests import guest_path
from harness.machine import Machine
from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.structs.fs import FMODE_READ
from kernel_model.structs.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from tests.harness.cpu.small_kernel import FREE_FRAME, FREE_VA, USER_PTES, SmallKernel
from tests.kernel_model.mm.user_spaces import UserSpaces

PAGE = 4096
PAGES = 1000
RESIDENT_PAGES = 10_000
VMAS = 500
ROUNDS = 7
MOST_BARE_FAULTS_FOR_DEMAND_ZERO = 5
MOST_SECONDS_FOR_FORK = 0.1

CODE, HEAP = 0x08048000, 0x40000000
STORE, LOAD = bytes.fromhex("8907"), bytes.fromhex("8b07")  # mov %eax,(%edi); mov (%edi),%eax
RW = PROT_READ | PROT_WRITE
ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


def touch(access: bytes, start: int, pages: int) -> bytes:
    """One ``access`` to each page: mov $start,%edi; mov $pages,%ecx; L: access;
    add $4096,%edi; loop L; int3."""
    code = b"\xbf" + struct.pack("<I", start) + b"\xb9" + struct.pack("<I", pages)
    return code + access + bytes.fromhex("81c700100000 e2f6 cc")


class BareFault:
    """The least that a fault can cost on this machine."""

    def __init__(self) -> None:
        kernel = self._kernel = SmallKernel()
        self._first = USER_PTES // 4 + (FREE_VA >> 12 & 0x3FF)
        self._code = touch(STORE, FREE_VA, PAGES)
        cpu, words = kernel.cpu, kernel.ram.words
        table = USER_PTES // 4

        def serve() -> None:
            if cpu.registers.eax == 14:
                words[table + (cpu.read_cr2() >> 12 & 0x3FF)] = FREE_FRAME | 7
            else:
                cpu.stop()

        cpu.on_hypercall = serve

    def seconds(self) -> float:
        """CPU seconds for one."""
        kernel = self._kernel
        for page in range(PAGES):
            kernel.ram.words[self._first + page] = 0
        kernel.cpu.flush_tlb_all()
        start = time.process_time()
        assert kernel.run_user(self._code).kind is Stop.HYPERCALL
        return (time.process_time() - start) / PAGES


@pytest.fixture(scope="module")
def bare() -> BareFault:
    return BareFault()


def measure(
    benchmark: BenchmarkFixture,
    bare: BareFault,
    run: Callable[[], object],
    count: int,
    prepare: Callable[[], object] = lambda: None,
) -> tuple[float, float]:
    """Run in turns with the bare fault; seconds for one of ``count``, and that in bare faults."""
    bares: list[float] = []
    times: list[float] = []

    def setup() -> None:
        bares.append(bare.seconds())
        prepare()

    def timed() -> None:
        start = time.process_time()
        run()
        times.append(time.process_time() - start)

    benchmark.pedantic(timed, setup=setup, rounds=ROUNDS, warmup_rounds=1)
    each, least = min(times) / count, min(bares)
    benchmark.extra_info |= {
        "us_each": round(each * 1e6, 2),
        "us_bare": round(least * 1e6, 2),
        "ratio": round(each / least, 2),
    }
    return each, each / least


class Content:
    """A file of ``pages`` pages."""

    def __init__(self, pages: int) -> None:
        self.size = pages * PAGE

    def read_page(self, index: int) -> bytes:
        return index.to_bytes(4, "little") * (PAGE // 4)

    def write_page(self, index: int, data: bytes) -> None:
        raise AssertionError("nobody writes to it")

    def truncate(self, size: int) -> None:
        raise AssertionError("nobody truncates it")


class Program:
    """A machine whose one process runs code that is given as bytes."""

    def __init__(self, ram: int = 64 * MIB, swap_pages: int = 0) -> None:
        self.machine = Machine(Kernel(KernelConfig(ram=ram, swap_pages=swap_pages)))
        self.kernel = self.machine.kernel
        self.users = UserSpaces(self.kernel)
        self.machine.on_trap = lambda *_: self.machine.cpu.stop()
        self.task = 0
        self.start()

    def start(self) -> None:
        """A new process with a page for its code, current from now on."""
        self.pgd = self.users.start()
        self.users.enter(self.pgd)
        self.mm = self.users.mm(self.pgd)
        self.map(CODE, 1)
        pages, error = self.kernel.memory.get_user_pages(self.mm, CODE, 1, write=True)
        assert not error
        self._code_paddr = self.kernel.allocator.memmap.pfn(pages[0]) << 12
        self.kernel.allocator.put_page(pages[0])

    def exit(self) -> None:
        self.users.exit(self.pgd)

    def map(self, start: int, pages: int, flags: int = ANONYMOUS, file: int = 0) -> None:
        assert self.kernel.spaces.do_mmap_pgoff(file, start, pages * PAGE, RW, flags, 0) == start

    def unmap(self, start: int, pages: int) -> None:
        assert self.kernel.spaces.do_munmap(self.mm, start, pages * PAGE) == 0

    def remap(self, pages: int = PAGES) -> None:
        """Fresh anonymous pages at HEAP, none of them there."""
        self.map(HEAP, pages)

    def run(self, access: bytes, pages: int = PAGES) -> None:
        """Touch ``pages`` pages from HEAP on, in ring 3."""
        code = touch(access, HEAP, pages)
        self.kernel.ram.write(self._code_paddr, code)
        self.machine.cpu.snoop(self._code_paddr, len(code))
        self.machine.call("enter_user", CODE, CODE + PAGE)

    def fork(self) -> int:
        """A child's address space."""
        task: Any = SimpleNamespace(mm=0, active_mm=0)
        assert self.kernel.fork.copy_mm(0, task) == 0
        return int(task.mm)


@pytest.fixture(scope="module")
def program() -> Program:
    return Program()


@pytest.fixture(scope="module")
def large() -> Program:
    """A process with 10,000 pages of its own."""
    program = Program(ram=128 * MIB)
    program.map(HEAP, RESIDENT_PAGES)
    program.run(STORE, RESIDENT_PAGES)
    return program


def faults(program: Program) -> int:
    return sum(program.machine.faults.values())


def test_demand_zero(benchmark: BenchmarkFixture, bare: BareFault, program: Program) -> None:
    """A store to a page that was never touched gets a cleared frame."""
    before = faults(program)
    _, ratio = measure(benchmark, bare, lambda: program.run(STORE), PAGES, program.remap)
    assert faults(program) - before == (ROUNDS + 1) * PAGES
    assert ratio <= MOST_BARE_FAULTS_FOR_DEMAND_ZERO


def test_zero_page(benchmark: BenchmarkFixture, bare: BareFault, program: Program) -> None:
    """A load from such a page maps the zero page."""
    before = faults(program)
    measure(benchmark, bare, lambda: program.run(LOAD), PAGES, program.remap)
    assert faults(program) - before == (ROUNDS + 1) * PAGES


@pytest.mark.parametrize("shared", [True, False], ids=["copy", "reuse"])
def test_copy_on_write(
    benchmark: BenchmarkFixture, bare: BareFault, program: Program, shared: bool
) -> None:
    """A store after a fork: the child still has the page, or it has exited."""
    children: list[int] = []

    def prepare() -> None:
        for child in children:
            program.kernel.fork.mmput(child)
        children.clear()
        program.remap()
        program.run(STORE)
        children.append(program.fork())
        if not shared:
            program.kernel.fork.mmput(children.pop())

    before = faults(program)
    measure(benchmark, bare, lambda: program.run(STORE), PAGES, prepare)
    assert faults(program) - before == (ROUNDS + 1) * 2 * PAGES
    for child in children:
        program.kernel.fork.mmput(child)


def test_page_cache(benchmark: BenchmarkFixture, bare: BareFault, program: Program) -> None:
    """A load from a page of a file that the page cache holds."""
    file = program.kernel.hostfs.open(Content(PAGES), "content", FMODE_READ)

    def prepare() -> None:
        program.map(HEAP, PAGES, MAP_PRIVATE | MAP_FIXED, file)

    measure(benchmark, bare, lambda: program.run(LOAD), PAGES, prepare)
    program.unmap(HEAP, PAGES)


def test_fork(benchmark: BenchmarkFixture, bare: BareFault, large: Program) -> None:
    """A child's address space, for a process with 10,000 pages; ``us_each`` is for a page."""
    children: list[int] = []

    def prepare() -> None:
        for child in children:
            large.kernel.fork.mmput(child)
        children.clear()
        large.run(STORE, RESIDENT_PAGES)

    each, _ = measure(
        benchmark, bare, lambda: children.append(large.fork()), RESIDENT_PAGES, prepare
    )
    large.kernel.fork.mmput(children.pop())
    assert each * RESIDENT_PAGES < MOST_SECONDS_FOR_FORK


def test_exit(benchmark: BenchmarkFixture, bare: BareFault) -> None:
    """The exit of a process with 10,000 pages, all its own."""
    program = Program(ram=128 * MIB)

    def prepare() -> None:
        if not program.users.tasks:
            program.start()
        program.map(HEAP, RESIDENT_PAGES)
        program.run(STORE, RESIDENT_PAGES)

    measure(benchmark, bare, program.exit, RESIDENT_PAGES, prepare)


def test_swap_in_and_out(benchmark: BenchmarkFixture, bare: BareFault) -> None:
    """A page is unmapped, written to its slot, freed, and read back at the next store."""
    program = Program(swap_pages=2 * PAGES)
    kernel = program.kernel
    program.remap()
    program.run(STORE)
    zone = kernel.allocator.page_zone(kernel.allocator.memmap.page(0x2000))

    def out_and_in() -> None:
        while kernel.spaces.areas.mm(program.mm).rss:
            kernel.vmscan.try_to_free_pages_zone(zone.vaddr, 0x1F0)
        program.run(STORE)

    measure(benchmark, bare, out_and_in, PAGES)


@pytest.mark.parametrize("hit", [True, False], ids=["hit", "miss"])
def test_find_vma(benchmark: BenchmarkFixture, bare: BareFault, hit: bool) -> None:
    """Among 500 VMAs, through ``mmap_cache`` or through the tree."""
    program = Program()
    for number in range(VMAS):
        program.map(HEAP + 2 * PAGE * number, 1)
    find, mm = program.kernel.spaces.find_vma, program.mm
    step = 0 if hit else 2 * PAGE
    addresses = [HEAP + step * number for number in range(VMAS)] * 10

    def run() -> None:
        for address in addresses:
            find(mm, address)

    measure(benchmark, bare, run, len(addresses))


def test_mmap_and_munmap(benchmark: BenchmarkFixture, bare: BareFault, program: Program) -> None:
    """A mapping away from all others, and its end."""
    place = HEAP + 0x10000000

    def run() -> None:
        for _ in range(PAGES):
            program.map(place, 1)
            program.unmap(place, 1)

    measure(benchmark, bare, run, PAGES)


def test_start_up(benchmark: BenchmarkFixture) -> None:
    """``mmucheck run hello``, the whole process."""
    command = [sys.executable, "-m", "harness", "run", str(guest_path("hello"))]

    def run() -> None:
        subprocess.run(command, check=True, capture_output=True)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
