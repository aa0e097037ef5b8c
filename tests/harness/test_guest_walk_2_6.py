# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest walks the zones of 2.6 and finds what is wrong in them; its builds boot both."""

import random
from collections.abc import Callable
from itertools import chain

import pytest

from harness.diff import diff
from harness.guests import guest_path
from harness.machine import Machine, guest_variant
from harness.mm_walk_layout import ONLY_IN_2_6, WalkFault
from harness.monitors import guest_walk
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.mmzone import HOT, PerCpuPages, Zone26, for_each_zone

CONFIGS = {
    "uniprocessor": KernelConfig(ram=20 * MIB, release="2.6"),
    "two CPUs": KernelConfig(ram=32 * MIB, release="2.6", nr_cpus=2),
    "highmem": KernelConfig(ram=912 * MIB, release="2.6", highmem=Highmem.GB4),
    "PAE": KernelConfig(ram=912 * MIB, release="2.6", highmem=Highmem.GB64),
}


def use_memory(kernel: Kernel, number: int) -> None:
    """Random blocks come and go, hot and cold ones, on any CPU."""
    rng, allocator, held = random.Random(number), kernel.allocator, []
    gfp = kernel.image.constants.gfp
    for _ in range(number):
        kernel.image.current_task.processor = rng.randrange(kernel.config.nr_cpus)
        if rng.random() < 0.6:
            order = rng.choice((0, 0, 0, 1, 3))
            mask = gfp.kernel | rng.choice((0, gfp.cold, gfp.dma))
            if page := allocator.alloc_pages(mask, order):
                held.append((page, order))
        elif held:
            allocator.free_pages(*held.pop(rng.randrange(len(held))))


@pytest.mark.book("2.8", "6.7")
@pytest.mark.parametrize("name", CONFIGS)
def test_guest_and_model_see_the_same_zones(name: str) -> None:
    machine = Machine(Kernel(CONFIGS[name]))
    assert guest_walk.check(machine) == []
    use_memory(machine.kernel, 200)
    assert guest_walk.check(machine) == []
    report = guest_walk.run_walk(machine)
    zones = [zone for zone in for_each_zone(machine.kernel.image) if zone.size]
    seen = [zone for zone in report.nodes[0].zones if zone.size]
    for zone, walked in zip(zones, seen, strict=True):
        lists = [pcp for lists in zone.pagesets for pcp in lists]
        assert [int(entry.count) for entry in walked.cpu_lists[: len(lists)]] == [
            sum(1 for _ in pcp.pages()) for pcp in lists
        ]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_structures_are_those_that_the_compiler_laid_out(name: str) -> None:
    image = guest_path("structs_check", guest_variant(CONFIGS[name]))
    machine = Machine(Kernel(CONFIGS[name]), image=image)
    assert (machine.exit_status, machine.failures) == (0, [])
    assert b"structs_check: " in machine.console


@pytest.mark.book("3.6.2", "4.8")
@pytest.mark.parametrize("cpu_model", ["486", "pentium3"])
def test_all_readings_agree(cpu_model: str) -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB, release="2.6", cpu_model=cpu_model)))
    report = diff(machine)
    assert report.ok, str(report)


# -- planted -------------------------------------------------------------------------------------


@pytest.fixture
def machine() -> Machine:
    machine = Machine(Kernel(CONFIGS["two CPUs"]))
    use_memory(machine.kernel, 150)
    return machine


def normal(kernel: Kernel) -> Zone26:
    return next(zone for zone in for_each_zone(kernel.image) if zone.name == "Normal")


def hot(kernel: Kernel) -> PerCpuPages:
    """A list that has frames."""
    lists = chain.from_iterable(normal(kernel).pagesets)
    return next(pcp for pcp in lists if pcp.count > 1)


def block(kernel: Kernel) -> int:
    """A free block of several frames."""
    zone = normal(kernel)
    order = next(order for order in range(1, 11) if zone.free_counts()[order])
    return next(zone.free_blocks(order))


def one_block_too_many(kernel: Kernel) -> None:
    normal(kernel).view.free_area[2].nr_free += 1


def a_block_without_mark(kernel: Kernel) -> None:
    private = kernel.image.constants.page_flags.private
    kernel.allocator.memmap.clear_bit(block(kernel), private)


def a_block_of_another_order(kernel: Kernel) -> None:
    memmap = kernel.allocator.memmap
    memmap.words[memmap.word(block(kernel), memmap.buffers_word)] += 1


def a_mark_inside_a_block(kernel: Kernel) -> None:
    memmap = kernel.allocator.memmap
    memmap.set_bit(block(kernel) + memmap.page_bytes, kernel.image.constants.page_flags.private)


def a_cpu_counts_too_many(kernel: Kernel) -> None:
    hot(kernel).count += 1


def a_cpu_counts_too_few(kernel: Kernel) -> None:
    hot(kernel).count -= 1


def a_list_of_a_cpu_leaves_mem_map(kernel: Kernel) -> None:
    kernel.ram.write32(hot(kernel).list - 0xC0000000, 0xC0000040)


def a_frame_of_a_cpu_has_a_user(kernel: Kernel) -> None:
    kernel.allocator.memmap.set_count(next(hot(kernel).pages()), 1)


def a_frame_of_a_cpu_is_a_block(kernel: Kernel) -> None:
    page = next(hot(kernel).pages())
    kernel.allocator.memmap.set_bit(page, kernel.image.constants.page_flags.private)


PLANTED: list[tuple[Callable[[Kernel], None], WalkFault]] = [
    (one_block_too_many, WalkFault.NR_FREE),
    (a_block_without_mark, WalkFault.ORDER_MARK),
    (a_block_of_another_order, WalkFault.ORDER_MARK),
    (a_mark_inside_a_block, WalkFault.ORDER_MARK),
    (a_cpu_counts_too_many, WalkFault.CPU_LIST),
    (a_cpu_counts_too_few, WalkFault.CPU_LIST),
    (a_list_of_a_cpu_leaves_mem_map, WalkFault.CPU_LIST),
    (a_frame_of_a_cpu_has_a_user, WalkFault.CPU_FRAME),
    (a_frame_of_a_cpu_is_a_block, WalkFault.CPU_FRAME),
]


@pytest.mark.parametrize(("plant", "fault"), PLANTED)
def test_planted_corruption_is_found(
    machine: Machine, plant: Callable[[Kernel], None], fault: WalkFault
) -> None:
    plant(machine.kernel)
    found = {finding.fault: finding.where for finding in guest_walk.check(machine)}
    assert found.get(fault) == "node 0, zone Normal", found


def test_every_fault_of_2_6_is_planted() -> None:
    assert {fault for _, fault in PLANTED} == ONLY_IN_2_6
    assert HOT == 0
