# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading another process's memory: what it wrote, through swap as well, and nothing is kept."""

from collections.abc import Iterator

import pytest

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.arch_i386.pgtable import PAGE_SHARED
from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.structs.mman import PROT_NONE, PROT_READ
from tests.harness.made_to_reclaim import MADE_TO_RECLAIM
from tests.kernel_model.mm.user_spaces import PRIVATE, UserSpaces

BASE = 0x08048000
EDGE = BASE + PAGE_SIZE


@pytest.fixture
def memory(either_release: str) -> Iterator[UserSpaces]:
    kernel = Kernel(KernelConfig(ram=8 * MIB, swap_pages=400))
    kernel.start_kernel()
    reclaiming, memory = MADE_TO_RECLAIM[either_release], UserSpaces(kernel)
    reclaiming.settle(kernel)
    free = memory.free_frames()
    yield memory
    for pgd in list(memory.tasks):
        memory.exit(pgd)
    reclaiming.settle(kernel)
    assert memory.free_frames() == free


def written(memory: UserSpaces, pages: int = 2) -> int:
    """A process with pages that hold their own numbers; another one is current."""
    pgd = memory.start()
    for number in range(pages):
        frame = memory.new_page(pgd, BASE + number * PAGE_SIZE, PAGE_SHARED)
        memory.kernel.image.ram.write(frame * PAGE_SIZE, bytes([number + 1]) * PAGE_SIZE)
    memory.enter(memory.start())
    return pgd


def read(memory: UserSpaces, pgd: int, address: int, length: int) -> bytes:
    return memory.kernel.process_memory.read(memory.mm(pgd), address, length)


def test_across_pages_and_up_to_a_hole(memory: UserSpaces) -> None:
    pgd = written(memory)
    assert read(memory, pgd, EDGE - 2, 4) == b"\1\1\2\2"
    assert read(memory, pgd, EDGE + PAGE_SIZE - 3, 100) == b"\2\2\2"
    assert read(memory, pgd, BASE - 1, 4) == b""
    assert read(memory, pgd, EDGE, 0) == b""


def test_no_page_gains_a_user(memory: UserSpaces) -> None:
    pgd = written(memory)
    memmap = memory.kernel.allocator.memmap
    page = memory.kernel.memory.follow_page(memory.mm(pgd), BASE)
    before = memmap.count(page)
    read(memory, pgd, BASE, 8)
    assert memmap.count(page) == before


def test_what_was_never_touched_is_zeros(memory: UserSpaces) -> None:
    pgd = written(memory)
    with memory.running(pgd):
        memory.kernel.spaces.do_mmap_pgoff(0, EDGE + PAGE_SIZE, PAGE_SIZE, PROT_READ, PRIVATE, 0)
    assert read(memory, pgd, EDGE + PAGE_SIZE - 1, 3) == b"\2\0\0"


def test_what_may_not_be_read_now(memory: UserSpaces) -> None:
    pgd = written(memory)
    with memory.running(pgd):
        assert not memory.kernel.spaces.sys_mprotect(BASE, PAGE_SIZE, PROT_NONE)
    assert read(memory, pgd, EDGE - 1, 2) == b"\1\2"


@pytest.mark.book("11.5")
def test_what_was_swapped_out(memory: UserSpaces, either_release: str) -> None:
    pgd, reclaiming = written(memory, 40), MADE_TO_RECLAIM[either_release]
    reclaiming.unmap_all(memory.kernel)
    reclaiming.free_all(memory.kernel)
    assert not memory.kernel.memory.follow_page(memory.mm(pgd), EDGE)
    assert read(memory, pgd, EDGE - 2, 4) == b"\1\1\2\2"
