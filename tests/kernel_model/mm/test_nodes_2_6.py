# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory in nodes, as 2.6 has it: extent, zonelists that go round, a mem_map for each."""

import pytest

from harness.diff import diff
from harness.machine import Machine
from harness.monitors import guest_walk
from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.linux_2_6.mmzone import for_each_zone, nodes
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26
from kernel_model.release.constants import LINUX_2_6

GFP = LINUX_2_6.gfp


def booted(count: int) -> Kernel:
    return boot(KernelConfig(ram=64 * MIB, release="2.6", nodes=count))


def allocator_of(kernel: Kernel) -> NodePageAllocator26:
    assert isinstance(kernel.allocator, NodePageAllocator26)
    return kernel.allocator


@pytest.mark.book("2.8", "5.7")
@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_node_knows_its_frames(count: int) -> None:
    kernel = booted(count)
    spans = [
        (int(node.node_start_pfn), int(node.node_start_pfn) + int(node.node_spanned_pages))
        for node in nodes(kernel.image)
    ]
    assert spans == list(kernel.config.node_spans)
    for node in nodes(kernel.image):
        assert node.node_present_pages == sum(zone.present_pages for zone in node.node_zones)
    assert f"Built {count} zonelists" in kernel.log


@pytest.mark.book("2.8")
def test_a_zonelist_goes_round_the_nodes() -> None:
    kernel = booted(3)
    named = {zone.vaddr: (zone.number >> 2, zone.name) for zone in for_each_zone(kernel.image)}
    for node in nodes(kernel.image):
        home = int(node.node_id)
        listed = [named[int(vaddr)] for vaddr in node.node_zonelists[0].zones if vaddr]
        expected = []
        for other in [(home + step) % 3 for step in range(3)]:
            expected += [(other, "Normal")] + [(other, "DMA")] * (other == 0)
        assert listed == expected
        dma = [named[int(vaddr)] for vaddr in node.node_zonelists[GFP.dma].zones if vaddr]
        assert dma == [(0, "DMA")]


@pytest.mark.book("2.8", "6.7")
@pytest.mark.parametrize("home", range(3))
def test_memory_comes_from_the_own_node_until_it_is_gone(home: int) -> None:
    kernel = booted(3)
    allocator = allocator_of(kernel)
    allocator.node_id = home
    order: list[int] = []
    while page := allocator.alloc_pages(GFP.kernel | GFP.noretry, 4):
        zone = allocator.page_zone(page)
        start, end = kernel.config.node_spans[zone.number >> 2]
        assert start <= allocator.memmap.pfn(page) < end
        assert allocator.memmap.page(allocator.memmap.pfn(page)) == page
        if zone.number >> 2 not in order[-1:]:
            order.append(zone.number >> 2)
    # kswapd's marks first, the deeper ones then: the ring is gone round more than once.
    assert order[:3] == [(home + step) % 3 for step in range(3)]


def test_no_guest_is_built_for_several_nodes() -> None:
    machine = Machine(Kernel(KernelConfig(ram=64 * MIB, release="2.6", nodes=2)))
    with pytest.raises(BadInput, match="its structures lie elsewhere"):
        guest_walk.check(machine)


@pytest.mark.book("2.8")
def test_all_readings_of_a_machine_with_nodes_agree() -> None:
    report = diff(Machine(Kernel(KernelConfig(ram=32 * MIB, release="2.6", nodes=2))))
    assert report.ok, str(report)
