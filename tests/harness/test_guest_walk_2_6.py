# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest walks the zones of 2.6 and finds what is wrong in them; its builds boot both."""

import random
from functools import cache
from itertools import chain, pairwise

import pytest

from harness.diff import diff
from harness.guests import guest_path
from harness.machine import Machine, guest_variant
from harness.mm_walk_layout import ONLY_IN_2_6, WalkFault
from harness.monitors import guest_walk
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.lists import Lists
from kernel_model.mm.linux_2_6.mmzone import HOT, PerCpuPages, Zone26, for_each_zone
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26
from kernel_model.mm.mmzone import Zone
from tests.harness import walk_plants
from tests.harness.walk_plants import Plant, Spoilable, names, node_of


def with_nodes(*ends: int, nr_cpus: int = 1) -> KernelConfig:
    """A machine whose nodes end at these MiB."""
    spans = tuple((start << 8, end << 8) for start, end in pairwise((0, *ends)))
    return KernelConfig(
        ram=ends[-1] * MIB, release="2.6", nodes=len(ends), node_spans=spans, nr_cpus=nr_cpus
    )


CONFIGS = {
    "uniprocessor": KernelConfig(ram=20 * MIB, release="2.6"),
    "two CPUs": KernelConfig(ram=32 * MIB, release="2.6", nr_cpus=2),
    "highmem": KernelConfig(ram=912 * MIB, release="2.6", highmem=Highmem.GB4),
    "PAE": KernelConfig(ram=912 * MIB, release="2.6", highmem=Highmem.GB64),
    "2 nodes": with_nodes(20, 28),
    "3 nodes": with_nodes(20, 28, 36, nr_cpus=2),
    "4 nodes": with_nodes(16, 24, 32, 40),
}


def use_memory(kernel: Kernel, number: int) -> None:
    """Random blocks come and go, hot and cold ones, on any CPU, which may be of any node."""
    rng, allocator, held = random.Random(number), kernel.allocator, []
    gfp = kernel.image.constants.gfp
    for _ in range(number):
        kernel.image.current_task.processor = rng.randrange(kernel.config.nr_cpus)
        if isinstance(allocator, NodePageAllocator26):
            allocator.node_id = rng.randrange(kernel.config.nodes)
        if rng.random() < 0.6:
            order = rng.choice((0, 0, 0, 1, 3))
            mask = gfp.kernel | rng.choice((0, gfp.cold, gfp.dma))
            if page := allocator.alloc_pages(mask, order):
                held.append((page, order))
        elif held:
            allocator.free_pages(*held.pop(rng.randrange(len(held))))


def leave_holes(kernel: Kernel) -> None:
    """Take blocks of the node of this CPU, the last one, and give back every second."""
    allocator, gfp = kernel.allocator, kernel.image.constants.gfp.kernel
    if isinstance(allocator, NodePageAllocator26):
        allocator.node_id = kernel.config.nodes - 1
    for page in [allocator.alloc_pages(gfp, 1) for _ in range(16)][::2]:
        allocator.free_pages(page, 1)


@pytest.mark.book("2.8", "6.7")
@pytest.mark.parametrize("name", CONFIGS)
def test_guest_and_model_see_the_same_zones(name: str) -> None:
    machine = Machine(Kernel(CONFIGS[name]))
    assert guest_walk.check(machine) == []
    use_memory(machine.kernel, 200)
    assert guest_walk.check(machine) == []
    report = guest_walk.run_walk(machine)
    zones = [zone for zone in for_each_zone(machine.kernel.image) if zone.size]
    found = report.nodes[: report.nr_nodes]
    assert [node.id for node in found] == list(range(machine.kernel.config.nodes))
    seen = [zone for node in found for zone in node.zones if zone.size]
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


@cache
def used(name: str) -> Spoilable:
    """A machine whose CPUs have frames on their lists."""
    machine = Machine(Kernel(CONFIGS[name]))
    use_memory(machine.kernel, 100)
    leave_holes(machine.kernel)
    return Spoilable(machine)


def hot(kernel: Kernel, zone: Zone) -> PerCpuPages:
    """A list that has frames."""
    lists = chain.from_iterable(Zone26(kernel.image, zone.vaddr).pagesets)
    return next(pcp for pcp in lists if pcp.count > 1)


def block(zone: Zone) -> int:
    """A free block of several frames."""
    order = next(order for order in range(1, 11) if zone.free_counts()[order])
    return next(zone.free_blocks(order))


def one_block_too_many(kernel: Kernel, zone: Zone) -> None:
    zone.view.free_area[2].nr_free += 1


def a_block_without_mark(kernel: Kernel, zone: Zone) -> None:
    private = kernel.image.constants.page_flags.private
    kernel.allocator.memmap.clear_bit(block(zone), private)


def a_block_of_another_order(kernel: Kernel, zone: Zone) -> None:
    memmap = kernel.allocator.memmap
    memmap.words[memmap.word(block(zone), memmap.buffers_word)] += 1


def a_mark_inside_a_block(kernel: Kernel, zone: Zone) -> None:
    memmap = kernel.allocator.memmap
    memmap.set_bit(block(zone) + memmap.page_bytes, kernel.image.constants.page_flags.private)


def a_cpu_counts_too_many(kernel: Kernel, zone: Zone) -> None:
    hot(kernel, zone).count += 1


def a_cpu_counts_too_few(kernel: Kernel, zone: Zone) -> None:
    hot(kernel, zone).count -= 1


def a_list_of_a_cpu_leaves_mem_map(kernel: Kernel, zone: Zone) -> None:
    kernel.ram.write32(hot(kernel, zone).list - 0xC0000000, 0xC0000040)


def a_frame_of_a_cpu_has_a_user(kernel: Kernel, zone: Zone) -> None:
    kernel.allocator.memmap.set_count(next(hot(kernel, zone).pages()), 1)


def a_frame_of_a_cpu_is_a_block(kernel: Kernel, zone: Zone) -> None:
    page = next(hot(kernel, zone).pages())
    kernel.allocator.memmap.set_bit(page, kernel.image.constants.page_flags.private)


def a_list_of_a_cpu_has_a_frame_of_another_zone(kernel: Kernel, zone: Zone) -> None:
    page = kernel.allocator.memmap.page(300)
    Lists(kernel.ram).add(page + kernel.image.structs.page.offset("lru"), hot(kernel, zone).list)
    hot(kernel, zone).count += 1


def node_lacks_a_frame(kernel: Kernel, zone: Zone) -> None:
    node_of(kernel, zone).node_present_pages -= 1


def zone_lacks_a_frame(kernel: Kernel, zone: Zone) -> None:
    zone.view.present_pages -= 1


OWN: list[tuple[Plant, WalkFault]] = [
    (one_block_too_many, WalkFault.NR_FREE),
    (a_block_without_mark, WalkFault.ORDER_MARK),
    (a_block_of_another_order, WalkFault.ORDER_MARK),
    (a_mark_inside_a_block, WalkFault.ORDER_MARK),
    (a_cpu_counts_too_many, WalkFault.CPU_LIST),
    (a_cpu_counts_too_few, WalkFault.CPU_LIST),
    (a_list_of_a_cpu_leaves_mem_map, WalkFault.CPU_LIST),
    (a_list_of_a_cpu_has_a_frame_of_another_zone, WalkFault.CPU_LIST),
    (a_frame_of_a_cpu_has_a_user, WalkFault.CPU_FRAME),
    (a_frame_of_a_cpu_is_a_block, WalkFault.CPU_FRAME),
    (node_lacks_a_frame, WalkFault.NODE_SPAN),
    (zone_lacks_a_frame, WalkFault.NODE_SPAN),
]


PLANTED = [
    pytest.param(name, plant, fault, id=f"{name}-{plant.__name__}")
    for name, planted in (("two CPUs", OWN), ("3 nodes", [*walk_plants.PLANTED, *OWN]))
    for plant, fault in planted
]


@pytest.mark.parametrize(("name", "plant", "fault"), PLANTED)
def test_planted_corruption_is_found(name: str, plant: Plant, fault: WalkFault) -> None:
    used(name).must_find(plant, fault)


# -- planted in nodes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes() -> Spoilable:
    """A machine with three nodes."""
    return Spoilable(Machine(Kernel(CONFIGS["3 nodes"])))


def two_nodes_of_one_number(kernel: Kernel, zone: Zone) -> None:
    node_of(kernel, zone).node_id = 0


def two_nodes_of_the_same_frames(kernel: Kernel, zone: Zone) -> None:
    zone.view.zone_start_pfn = node_of(kernel, zone).node_start_pfn = 1024


def first_node_knows_no_other(kernel: Kernel, zone: Zone) -> None:
    kernel.image.at(kernel.image.structs.pg_data_t, kernel.statics.pgdat_list).pgdat_next = 0


def zone_of_another_node(kernel: Kernel, zone: Zone) -> None:
    zone.view.zone_pgdat = kernel.statics.pgdat_list


def zonelist_begins_elsewhere(kernel: Kernel, zone: Zone) -> None:
    zones = node_of(kernel, zone).node_zonelists[0].zones
    zones[0], zones[1] = zones[1], zones[0]


def zonelist_lacks_a_node(kernel: Kernel, zone: Zone) -> None:
    zones = node_of(kernel, zone).node_zonelists[2].zones
    place = next(place for place in range(len(zones)) if not zones[place])
    zones[place - 1] = 0


def zonelist_mixes_nodes(kernel: Kernel, zone: Zone) -> None:
    zones = node_of(kernel, zone).node_zonelists[0].zones
    zones[2], zones[3] = zones[3], zones[2]


SEVERAL_NODES: list[tuple[Plant, WalkFault]] = [
    (two_nodes_of_one_number, WalkFault.NODE_SPAN),
    (two_nodes_of_the_same_frames, WalkFault.NODE_SPAN),
    (first_node_knows_no_other, WalkFault.ZONELIST_ORDER),
    (zone_of_another_node, WalkFault.MEM_MAP_POINTER),
    (zonelist_begins_elsewhere, WalkFault.ZONELIST_ORDER),
    (zonelist_lacks_a_node, WalkFault.ZONELIST_ORDER),
    (zonelist_mixes_nodes, WalkFault.ZONELIST_ORDER),
]


@pytest.mark.book("2.1", release="2.6")
@pytest.mark.book("2.8")
@pytest.mark.parametrize(("plant", "fault"), SEVERAL_NODES, ids=names(SEVERAL_NODES))
def test_planted_corruption_of_nodes_is_found(
    nodes: Spoilable, plant: Plant, fault: WalkFault
) -> None:
    nodes.must_find(plant, fault)


def test_nodes_that_stand_in_another_order_are_found(nodes: Spoilable) -> None:
    """A zonelist that goes on with any node contradicts nothing; but it is not the rule's."""

    def others_swapped(kernel: Kernel, zone: Zone) -> None:
        zones = kernel.image.at(kernel.image.structs.pg_data_t, kernel.statics.pgdat_list)
        listed = zones.node_zonelists[0].zones
        listed[2], listed[3] = listed[3], listed[2]

    with nodes.spoilt(others_swapped) as findings:
        assert {finding.fault for finding in findings} == {None}
        assert {finding.where for finding in findings} == {
            "nodes[0].zonelists[2]",
            "nodes[0].zonelists[3]",
        }


def test_every_fault_of_2_6_is_planted() -> None:
    planted = {fault for _, fault in (*walk_plants.PLANTED, *OWN)}
    assert planted == set(WalkFault) - {WalkFault.PAIR_BIT, WalkFault.BITMAP_POINTER}
    assert planted >= ONLY_IN_2_6
    assert HOT == 0
