# SPDX-License-Identifier: GPL-2.0-or-later
"""Who wrote an entry: by name as the kernel has it, and what was asked for."""

from types import SimpleNamespace

import pytest

from harness.architecture import Access, Ring
from harness.concerned import region_of
from harness.failures import about_address
from harness.machine import Machine
from harness.monitors.entry_writers import EntryWriters, kernel_functions
from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.events import Rights
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import GFP_KERNEL
from tests.kernel_model.mm.user_spaces import UserSpaces

pytestmark = pytest.mark.usefixtures("either_release")

RW, PRESENT = 2, 1
AT = 0x08049000


def watched(**choices: object) -> tuple[Kernel, EntryWriters]:
    kernel = Kernel(KernelConfig(**{"ram": 16 * MIB} | choices))  # type: ignore[arg-type]
    writers = EntryWriters(kernel)
    kernel.start_kernel()
    return kernel, writers


def test_every_present_entry_has_a_writer() -> None:
    """Of a kernel that has booted, and of a process; each holds what was asked for."""
    kernel, writers = watched()
    spaces = UserSpaces(kernel)
    pgd = spaces.start()
    assert spaces.new_page(pgd, AT, RW | PRESENT | 4) >= 0
    entries = [0x101000 + 4 * index for index in range(768, 1024)] + [spaces.ptep(pgd, AT)]
    present = [paddr for paddr in entries if kernel.ram.read32(paddr) & PRESENT]
    assert len(present) > 4
    for paddr in present:
        writer = writers.last(paddr)
        assert writer is not None
        assert not writer.differs(kernel.ram.read32(paddr))
    assert "do_anonymous_page() <- " in str(writers.last(present[-1]))
    assert EntryWriters.of(kernel) is writers


def test_an_entry_that_was_changed_behind_the_macro() -> None:
    kernel, writers = watched()
    writer = writers.last(0x101C00)
    assert writer is not None
    held = kernel.ram.read32(0x101C00)
    assert not writer.differs(held | 0x60)
    assert writer.differs(held ^ RW)
    assert writers.last(None) is None
    assert writers.last(0x12345678) is None


def test_clearing_is_writing() -> None:
    kernel, writers = watched()
    area = kernel.vmalloc.vmalloc(4096)
    tables = kernel.tables
    ptep = tables.pte_offset(tables.pgd_offset(0x101000, area), area)
    before = writers.last(ptep)
    assert before is not None
    assert "mm/vmalloc.c" in str(before)
    assert before.value & PRESENT
    kernel.vmalloc.vfree(area)
    after = writers.last(ptep)
    assert after is not None
    assert after.value == 0
    assert "vfree()" in str(after)
    assert kernel.allocator.alloc_pages(GFP_KERNEL, 0)


def test_a_function_that_means_and_never_writes() -> None:
    """A fork that leaves the parent's entry writable: the last to write it is not to blame."""
    kernel, writers = watched()
    spaces = UserSpaces(kernel)
    pgd = spaces.start()
    assert spaces.new_page(pgd, AT, RW | PRESENT | 4) >= 0
    writer = writers.last(spaces.ptep(pgd, AT))
    assert writer is not None
    assert writers.unwritten(pgd, AT, writer) is None
    frame = kernel.ram.read32(spaces.ptep(pgd, AT)) >> 12

    def my_copy_page_range() -> None:
        kernel.image.events.page_mapped(pgd, AT, frame, Rights(write=False, user=True))

    my_copy_page_range()
    told = about_address(Machine(kernel), AT, Access.WRITE, Ring.USER, mm=pgd)
    (meant,) = (number for number, line in enumerate(told) if line.startswith("  meant "))
    assert told[meant - 1].startswith("  written by do_anonymous_page() <- ")
    assert "otherwise later by my_copy_page_range() in test_entry_writers.py" in told[meant]
    meaning = writers.unwritten(pgd, AT + 5, writer)
    assert meaning is not None
    assert "my_copy_page_range() in test_entry_writers.py" in str(meaning)
    assert writers.unwritten(pgd, AT + 0x1000, writer) is None
    kernel.tables.set_pte(spaces.ptep(pgd, AT), frame << 12 | PRESENT | 4)
    writer = writers.last(spaces.ptep(pgd, AT))
    assert writer is not None
    assert writers.unwritten(pgd, AT, writer) is None


def test_a_caller_that_is_no_kernel() -> None:
    kernel, writers = watched()
    kernel.tables.set_pte(0x300000, 0)
    writer = writers.last(0x300000)
    assert writer is not None
    assert not writer.by_the_model
    assert str(writer) == "test_a_caller_that_is_no_kernel() in test_entry_writers.py"
    assert kernel_functions(()) == "code outside the kernel model"


def test_a_part_of_the_users_own() -> None:
    """Who overrides a function of the kernel stands among the others, by file."""
    kernel, writers = watched()
    spaces = UserSpaces(kernel)
    pgd = spaces.start()
    map_page = kernel.memory.faults._map

    def my_map(*arguments: int, **more: bool) -> None:
        map_page(*arguments, **more)  # type: ignore[arg-type]
        kernel.tables.set_pte(arguments[2], kernel.tables.entry(arguments[2]))

    kernel.memory.faults._map = my_map  # type: ignore[method-assign]
    spaces.new_page(pgd, AT, RW | PRESENT | 4)
    said = str(writers.last(spaces.ptep(pgd, AT)))
    assert said.startswith("my_map() in test_entry_writers.py <- do_anonymous_page() <- ")
    assert said.endswith(", mm/memory.c")


def test_something_without_tables_is_watched_in_vain() -> None:
    class Bare(SimpleNamespace):
        __hash__ = object.__hash__  # type: ignore[assignment]

    assert EntryWriters(Bare()).last(0) is None


def test_regions() -> None:
    kernel, _ = watched(ram=72 * MIB, highmem=Highmem.GB4, highmem_pages=2048)
    fixed = fixed_addresses(kernel.config)
    named = {
        0x00000000: "user space",
        0xBFFFFFFF: "user space",
        0xC0000000: "direct map",
        0xC3FFFFFF: "direct map",
        0xC4000000: "a gap that no kernel maps",
        kernel.vmalloc_range[0]: "vmalloc space",
        fixed.pkmap_base: "kmap window",
        0xFFFFD000: "fixed addresses",
    }
    # Slot 0 of 2.6, which maps nothing.
    is_slot = fixed.plan.top == 0xFFFFF000
    named[0xFFFFF000] = "fixed addresses" if is_slot else "a gap that no kernel maps"
    assert {va: region_of(kernel, va).name for va in named} == named
