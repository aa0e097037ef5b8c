# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trap costs, the long way: IDT, ring change, the guest's stub, hypercall, ``iret``.

Each benchmark runs a guest loop of many traps; ``extra_info`` gives microseconds for one. A
figure by itself says little on a shared machine, so the empty trap, which does nothing but
reach Python, is measured beside it.
"""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.architecture import Access, Ring
from harness.cpu import Stop
from tests.harness.cpu.small_kernel import (
    FREE_FRAME,
    FREE_VA,
    HLT,
    OUT,
    USER_PTES,
    SmallKernel,
    interrupt,
    load_eax,
    mov_eax,
)

TRAPS = 20_000
PAGES = 1000


def measure(benchmark: BenchmarkFixture, run: Callable[[], object], count: int) -> None:
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    if benchmark.stats is not None:
        benchmark.extra_info["us_each"] = round(benchmark.stats["min"] / count * 1e6, 2)


def counted_loop(body: bytes) -> bytes:
    """``mov $TRAPS,%ecx; L: body; loop L; int $3``."""
    back = bytes([256 - len(body) - 2])
    return b"\xb9" + struct.pack("<I", TRAPS) + body + b"\xe2" + back + b"\xcc"


def stop_at_breakpoint(kernel: SmallKernel) -> None:
    if kernel.cpu.registers.eax == 3:
        kernel.cpu.stop()


def test_empty_trap(benchmark: BenchmarkFixture) -> None:
    """Reaches Python and goes back: no delivery, no stub, no hypercall."""
    kernel = SmallKernel()

    def trap(vector: int, _error_code: int, _software: bool) -> None:
        if vector == 3:
            kernel.cpu.stop()

    kernel.cpu.on_trap = trap
    code = counted_loop(interrupt(0x80))
    # In ring 0: without a delivery the CPU would stay in ring 3 for the next round.
    measure(benchmark, lambda: kernel.run_kernel(code), TRAPS)


def test_hypercall(benchmark: BenchmarkFixture) -> None:
    kernel = SmallKernel()
    kernel.cpu.on_hypercall = lambda: None
    code = counted_loop(OUT)[:-1] + HLT
    measure(benchmark, lambda: kernel.run_kernel(code), TRAPS)


def test_system_call_of_ring_3(benchmark: BenchmarkFixture) -> None:
    """``int $0x80``: delivered with a change of stack, hypercall, ``iret``."""
    kernel = SmallKernel()
    kernel.cpu.on_hypercall = lambda: stop_at_breakpoint(kernel)
    code = counted_loop(interrupt(0x80))
    measure(benchmark, lambda: kernel.run_user(code), TRAPS)


@pytest.mark.parametrize("pae", [False, True], ids=["2-level", "PAE"])
def test_demand_fault_of_ring_3(benchmark: BenchmarkFixture, pae: bool) -> None:
    """A store to an absent page, served by one PTE store; 1,000 pages, then all absent again."""
    kernel = SmallKernel(pae=pae)
    cpu = kernel.cpu
    pages = PAGES if not pae else 400
    cells = kernel.ram.quads if pae else kernel.ram.words
    table = USER_PTES // cells.itemsize
    first = FREE_VA >> 12 & 0x1FF

    def serve() -> None:
        if cpu.registers.eax == 14:
            cells[table + (cpu.read_cr2() >> 12 & 0x3FF)] = FREE_FRAME | 7
        else:
            cpu.stop()

    cpu.on_hypercall = serve
    # mov $FREE_VA,%edi; mov $pages,%ecx; L: mov %eax,(%edi); add $4096,%edi; loop L; int3
    code = b"\xbf" + struct.pack("<I", FREE_VA) + b"\xb9" + struct.pack("<I", pages)
    code += bytes.fromhex("8907 81c700100000 e2f6 cc")

    def run() -> None:
        for page in range(pages):
            cells[table + first + page] = 0
        cpu.flush_tlb_all()
        assert kernel.run_user(code).kind is Stop.HYPERCALL

    measure(benchmark, run, pages)


def test_flush_of_one_page(benchmark: BenchmarkFixture) -> None:
    cpu = SmallKernel().cpu

    def run() -> None:
        for _ in range(TRAPS):
            cpu.flush_tlb_one(FREE_VA)

    measure(benchmark, run, TRAPS)


@pytest.mark.parametrize("kind", ["present", "absent"])
def test_asking_the_mmu(benchmark: BenchmarkFixture, kind: str) -> None:
    kernel = SmallKernel()
    start = 0xC0000000 if kind == "present" else 0x40000000
    vas = np.tile(np.arange(start, start + (4 << 20), 4096, dtype=np.uint64), 20)

    def run() -> None:
        with kernel.cpu.asking():
            kernel.cpu.translate_many(vas, Access.READ, Ring.KERNEL)

    measure(benchmark, run, len(vas))


def test_asking_about_one_address(benchmark: BenchmarkFixture) -> None:
    kernel = SmallKernel()
    kernel.run_kernel(mov_eax(1) + load_eax(FREE_VA))

    def run() -> None:
        for _ in range(2000):
            kernel.cpu.translate(FREE_VA)

    measure(benchmark, run, 2000)
