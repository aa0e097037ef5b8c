# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest walks the kernel's memory and agrees with the model, until something is planted."""

import random

import numpy as np
import pytest

from harness.machine import Limits, Machine
from harness.mm_walk_layout import MAX_FAULTS, ONLY_IN_2_6, WalkFault, header_text
from harness.monitors import guest_walk
from harness.monitors.walk_report import weighted_sum
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import GFP_ATOMIC, GFP_BIT_DMA, GFP_BIT_HIGHMEM
from kernel_model.mm.mmzone import Zone, for_each_zone
from kernel_model.mm.page_flags import PG_RESERVED
from kernel_model.structs import Abi
from tests.harness import walk_plants
from tests.harness.walk_plants import Plant, Spoilable, blocks, last_zone, names, write

GIB = 1 << 30
CONFIGS = {
    "uma": KernelConfig(),
    "highmem": KernelConfig(ram=GIB, highmem=Highmem.GB4),
    "pae": KernelConfig(ram=GIB, highmem=Highmem.GB64),
    "numa": KernelConfig(nodes=2),
}
MASKS = (GFP_ATOMIC, GFP_ATOMIC | GFP_BIT_HIGHMEM, GFP_ATOMIC | GFP_BIT_DMA)


def random_operations(kernel: Kernel, randomness: random.Random, count: int) -> None:
    """``count`` allocations and frees; what is held at the end stays held."""
    allocator = kernel.allocator
    held: list[tuple[int, int]] = []
    for _ in range(count):
        if held and randomness.random() < 0.45:
            index = randomness.randrange(len(held))
            held[index], held[-1] = held[-1], held[index]
            allocator.free_pages(*held.pop())
            continue
        order = min(int(randomness.expovariate(0.8)), 9)
        if page := allocator.alloc_pages(randomness.choice(MASKS), order):
            held.append((page, order))


@pytest.mark.book("2.0")
@pytest.mark.book("6.1")
@pytest.mark.parametrize("name", CONFIGS)
def test_guest_agrees_after_every_thousandth_operation(name: str) -> None:
    machine = Machine(Kernel(CONFIGS[name]))
    assert guest_walk.check(machine) == []
    randomness = random.Random(name)
    free = machine.kernel.allocator.nr_free_pages()
    for _ in range(4):
        random_operations(machine.kernel, randomness, 1000)
        assert machine.kernel.allocator.nr_free_pages() != free
        free = machine.kernel.allocator.nr_free_pages()
        assert guest_walk.check(machine) == []


@pytest.mark.parametrize("name", ["uma", "numa"])
def test_what_the_guest_counts(name: str) -> None:
    machine = Machine(Kernel(CONFIGS[name]))
    kernel = machine.kernel
    guest = guest_walk.run_walk(machine)
    assert guest.free_pages == kernel.allocator.nr_free_pages()
    found = {
        (node.id, bytes(zone.name).rstrip(b"\0").decode()): zone
        for node in guest.nodes[: guest.nr_nodes]
        for zone in node.zones
    }
    assert len(found) == 3 * kernel.config.nodes
    memmap = kernel.allocator.memmap
    for zone in for_each_zone(kernel.image):
        counted = found[zone.number // 3, zone.name]
        assert [order.blocks for order in counted.orders] == zone.free_counts()
        assert counted.free_pages == counted.listed_pages == zone.free_pages
        rows = memmap.rows(memmap.page(zone.start_pfn), zone.size)
        assert counted.in_use == np.count_nonzero(rows[:, memmap.count_word])
        assert counted.reserved == np.count_nonzero(rows[:, memmap.flags_word] & 1 << PG_RESERVED)


# -- planted ----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["uma", "numa"])
def used(request: pytest.FixtureRequest) -> Spoilable:
    """A machine with holes in its free lists, which stays as it is."""
    nodes = CONFIGS[request.param].nodes
    machine = Machine(Kernel(KernelConfig(ram=32 * MIB, nodes=nodes)))
    random_operations(machine.kernel, random.Random(1), 300)
    assert guest_walk.check(machine) == []
    return Spoilable(machine)


@pytest.fixture
def machine() -> Machine:
    """One for a single test."""
    return Machine(Kernel(CONFIGS["numa"]))


def flip_pair_bit(kernel: Kernel, zone: Zone) -> None:
    zone.bitmap(3).toggle(5)


def flip_last_pair_bit(kernel: Kernel, zone: Zone) -> None:
    zone.bitmap(0).toggle(zone.size // 2 - 1)


def bitmap_nowhere(kernel: Kernel, zone: Zone) -> None:
    zone.view.free_area[2].map = 0


PLANTED: list[tuple[Plant, WalkFault]] = [
    *walk_plants.PLANTED,
    (flip_pair_bit, WalkFault.PAIR_BIT),
    (flip_last_pair_bit, WalkFault.PAIR_BIT),
    (bitmap_nowhere, WalkFault.BITMAP_POINTER),
]


@pytest.mark.parametrize(("plant", "fault"), PLANTED, ids=names(PLANTED))
def test_planted_corruption_is_found(used: Spoilable, plant: Plant, fault: WalkFault) -> None:
    used.must_find(plant, fault)


def test_pair_bit_behind_the_first_part_that_the_guest_compares() -> None:
    """The guest compares 32 KiB of a bitmap at a time; 3 GiB of high memory have more."""
    machine = Machine(Kernel(KernelConfig(ram=4 * GIB, highmem=Highmem.GB64)))
    zone = list(for_each_zone(machine.kernel.image))[-1]
    pair = 300_000
    zone.bitmap(0).toggle(pair)
    (finding,) = guest_walk.check(machine)
    assert finding.fault is WalkFault.PAIR_BIT
    assert finding.what.endswith(f"order 0, frame {zone.start_pfn + 2 * pair:#x}")


def test_every_fault_is_planted() -> None:
    assert {fault for _, fault in PLANTED} == set(WalkFault) - ONLY_IN_2_6


def test_fault_names_the_frame(machine: Machine) -> None:
    memmap = machine.kernel.allocator.memmap
    page = blocks(last_zone(machine.kernel))[0]
    memmap.set_count(page, 3)
    finding = guest_walk.check(machine)[0]
    assert f"frame {memmap.pfn(page):#x}" in str(finding)
    assert "block in use" in str(finding)


def test_many_faults_are_counted(machine: Machine) -> None:
    memmap = machine.kernel.allocator.memmap
    zone = last_zone(machine.kernel)
    memmap.rows(memmap.page(zone.start_pfn), 1000)[:, memmap.flags_word] ^= 1 << 31
    findings = guest_walk.check(machine)
    assert sum(finding.fault is WalkFault.ZONE_BITS for finding in findings) == MAX_FAULTS
    assert f"{1000 - MAX_FAULTS} more faults" in {finding.what for finding in findings}


def test_guest_that_dies_is_a_finding(machine: Machine) -> None:
    machine.kernel.statics.high_memory = 0xFFFFFFFF
    last_zone(machine.kernel).view.free_area[0].map = 0xF8000000
    (finding,) = guest_walk.check(machine)
    assert finding.where == "guest"
    assert "#PF at 0xf8000000" in finding.what


def test_walk_without_end_is_a_finding(machine: Machine) -> None:
    machine.limits = Limits(instructions=1000)
    (finding,) = guest_walk.check(machine)
    assert finding.what.startswith("came to no end")


# -- model and guest differ ---------------------------------------------------------------------


def test_zone_with_another_name_differs(machine: Machine) -> None:
    write(machine.kernel, machine.kernel.image.symbol("zone_names"), int.from_bytes(b"DMX\0"))
    names = {finding.where for finding in guest_walk.check(machine)}
    assert any(".zones[0].name" in name for name in names)


def test_model_with_a_wrong_view_of_frames_differs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    memmap = machine.kernel.allocator.memmap
    right = memmap.pfn
    monkeypatch.setattr(memmap, "pfn", lambda page: right(page) + 1)
    findings = guest_walk.check(machine)
    assert {finding.fault for finding in findings} == {None}
    assert any(finding.where.endswith(".first_pfn") for finding in findings)
    assert any(finding.where.endswith(".list_sum") for finding in findings)


def test_sums_see_each_bit_and_the_order() -> None:
    values = np.array([5, 6, 7, 0xFFFFFFFF], np.uint32)
    total = weighted_sum(values)
    assert total == (5 + 3 * 6 + 5 * 7 + 7 * 0xFFFFFFFF) % 2**32
    for index in range(4):
        changed = values.copy()
        changed[index] ^= 1 << 31
        assert weighted_sum(changed) != total
    assert weighted_sum(values[::-1]) != total


# -- refused -----------------------------------------------------------------------------------


def test_kernel_of_another_build_is_refused() -> None:
    machine = Machine(Kernel(KernelConfig(spinlock_bytes=4)))
    with pytest.raises(BadInput, match=r"nohm guest .* cannot be walked"):
        guest_walk.check(machine)


def test_guest_built_for_other_static_objects_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "call", lambda *_: 0xC0600000)
    with pytest.raises(BadInput, match=r"python -m guest\.build"):
        guest_walk.check(machine)


def test_header_has_every_fault_and_asserts_the_layout() -> None:
    text = header_text(Abi())
    for fault in WalkFault:
        assert f"#define WALK_{fault.name} {fault.value}\n" in text
    assert "_Static_assert(__builtin_offsetof(struct mm_walk, nodes) == " in text
