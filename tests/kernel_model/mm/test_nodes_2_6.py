# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory in nodes, as 2.6 has it: extent, zonelists that go round, a mem_map for each; who frees
memory of which node, and what is told of each."""

from collections.abc import Callable
from itertools import groupby
from math import isqrt

import pytest

from harness.diff import diff
from harness.machine import Machine
from harness.monitors.slabs import slab_census
from harness.monitors.zonelists import fallback_orders
from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import BadConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.linux_2_6.mmzone import Zone26, for_each_zone, nodes
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26
from kernel_model.mm.linux_2_6.vmscan import Vmscan26
from kernel_model.mm.numa import node_data
from kernel_model.proc import proc_files
from kernel_model.release.constants import LINUX_2_6
from tests.kernel_model.mm.rmap.world import World

GFP = LINUX_2_6.gfp


def booted(count: int, **choices: object) -> Kernel:
    config = {"ram": 64 * MIB, "release": "2.6", "nodes": count} | choices
    return boot(KernelConfig(**config))  # type: ignore[arg-type]


def allocator_of(kernel: Kernel) -> NodePageAllocator26:
    assert isinstance(kernel.allocator, NodePageAllocator26)
    return kernel.allocator


@pytest.mark.book("2.8", "5.7")
@pytest.mark.book("2.1", release="2.6")
@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_node_knows_its_frames(count: int) -> None:
    kernel = booted(count)
    spans = [
        (int(node.node_start_pfn), int(node.node_start_pfn) + int(node.node_spanned_pages))
        for node in nodes(kernel.image)
    ]
    assert spans == list(kernel.config.node_spans)
    memmap = allocator_of(kernel).memmap
    for node, (start, end) in zip(nodes(kernel.image), spans, strict=True):
        assert node.node_present_pages == sum(zone.present_pages for zone in node.node_zones)
        for pfn in (start, (start + end) // 2, end - 1):
            assert memmap.page_to_nid(memmap.page(pfn)) == node.node_id
            assert memmap.pfn(memmap.page(pfn)) == pfn
    assert f"Built {count} zonelists" in kernel.log


@pytest.mark.book("2.8")
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_zonelist_goes_round_the_nodes(count: int) -> None:
    kernel = booted(count)
    named = {zone.vaddr: (zone.number >> 2, zone.name) for zone in for_each_zone(kernel.image)}
    for node in nodes(kernel.image):
        home = int(node.node_id)
        listed = [named[int(vaddr)] for vaddr in node.node_zonelists[0].zones if vaddr]
        expected = []
        for other in [(home + step) % count for step in range(count)]:
            has_normal = kernel.config.node_spans[other][1] > 4096
            expected += [(other, "Normal")] * has_normal + [(other, "DMA")] * (other == 0)
        assert listed == expected
        dma = [named[int(vaddr)] for vaddr in node.node_zonelists[GFP.dma].zones if vaddr]
        assert dma == [(0, "DMA")]


def test_the_load_of_who_follows_first_makes_a_ring_of_equal_nodes() -> None:
    """Two rules: by load, as with CONFIG_NUMA, and one after the other, as without."""
    for count in range(1, 9):
        ring = {home: [(home + step) % count for step in range(count)] for home in range(count)}
        assert fallback_orders(count) == ring


def test_2_6_takes_no_turns() -> None:
    with pytest.raises(BadConfig, match=r"choose release 2\.4 for round_robin"):
        KernelConfig(release="2.6", nodes=2, round_robin=True)


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


@pytest.mark.book("6.7")
def test_a_cpu_allocates_on_its_node_and_anybody_on_any() -> None:
    kernel = booted(2, nr_cpus=2)
    allocator = allocator_of(kernel)
    for cpu in range(2):
        kernel.image.current_task.processor = cpu
        assert allocator.node_id == cpu
        page = allocator.alloc_pages(GFP.kernel, 0)
        assert allocator.memmap.page_to_nid(page) == cpu
        other = allocator.alloc_pages_node(1 - cpu, GFP.kernel, 0)
        assert allocator.memmap.page_to_nid(other) == 1 - cpu
    assert allocator.alloc_pages_node(1, GFP.kernel, 11) == 0


@pytest.mark.book("6.7")
def test_a_booting_kernel_takes_turns_over_the_nodes() -> None:
    kernel = Kernel(KernelConfig(ram=64 * MIB, release="2.6", nodes=3))
    taken: list[int] = []
    for step in kernel.boot_steps():
        if step in ("kmem_cache_init", "do_initcalls"):
            allocator = allocator_of(kernel)
            pages = [allocator.alloc_pages(GFP.kernel, 0) for _ in range(7)]
            taken += [allocator.memmap.page_to_nid(page) for page in pages]
    assert taken == [0, 1, 2, 0, 1, 2, 0] + [0] * 7
    counted = [row["interleave_hit"] for row in proc_files(kernel)["numastat"].data(kernel)]
    assert min(counted) > 2
    # For DMA the best zone of every node is that of node 0.
    allocator.numa_policy_init()
    for _ in range(3):
        assert allocator.memmap.page_to_nid(allocator.alloc_pages(GFP.kernel | GFP.dma, 0)) == 0
    after = [row["interleave_hit"] for row in proc_files(kernel)["numastat"].data(kernel)]
    assert after == [counted[0] + 3, *counted[1:]]


def test_a_kernel_that_takes_no_turns_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NodePageAllocator26, "numa_policy_init", lambda self: None)
    kernel = booted(3)
    counted = proc_files(kernel)["numastat"].data(kernel)
    assert [row["interleave_hit"] for row in counted] == [0, 0, 0]
    assert counted[2]["numa_hit"] == 0


@pytest.mark.book("6.7")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_node_keeps_its_share_of_a_reserve_that_grows_with_the_nodes(count: int) -> None:
    """Its root counts memory once for each node, since each node's zonelist names all zones."""
    kernel = booted(count)
    frames = (64 * MIB >> 12) * count
    assert int(kernel.statics.min_free_kbytes) == isqrt(frames * 4 * 16)
    for node in nodes(kernel.image):
        dma, normal = node.node_zones[0], node.node_zones[1]
        for zone in (dma, normal):
            share = (isqrt(frames * 64) >> 2) * zone.present_pages // (64 * MIB >> 12)
            assert (zone.pages_min, zone.pages_low) == (share, share * 5 // 4)
        assert list(dma.lowmem_reserve)[:2] == [0, normal.present_pages // 256]


@pytest.mark.book("3.10", release="2.6")
def test_a_huge_page_comes_from_the_node_of_the_cpu_if_it_can() -> None:
    kernel = booted(2, nr_hugepages=4)
    assert kernel.hugetlbfs is not None
    allocator, pool = allocator_of(kernel), kernel.hugetlbfs.pool
    allocator.node_id = 1
    taken = [allocator.memmap.page_to_nid(pool.alloc_huge_page()) for _ in range(4)]
    assert taken == [1, 1, 0, 0]


@pytest.mark.book("2.8")
def test_all_readings_of_a_machine_with_nodes_agree() -> None:
    report = diff(Machine(Kernel(KernelConfig(ram=32 * MIB, release="2.6", nodes=2))))
    assert report.ok, str(report)


# -- kswapd --------------------------------------------------------------------------------------


def press(kernel: Kernel, nid: int) -> None:
    """Ask a node for blocks until its kswapd is wanted for order 2."""
    allocator, kind = allocator_of(kernel), kernel.image.structs.pg_data_t
    node = kernel.image.at(kind, node_data(kernel.image, nid))
    while not node.kswapd_max_order:
        assert allocator.alloc_pages_node(nid, GFP.atomic, 2)


def balanced(monkeypatch: pytest.MonkeyPatch, during: Callable[[], None]) -> list[tuple[int, int]]:
    """Note each node that is balanced, and for which order. ``during`` happens in the first."""
    seen: list[tuple[int, int]] = []
    real = Vmscan26.balance_pgdat

    def noting(vmscan: Vmscan26, pgdat: int, order: int) -> int:
        seen.append((pgdat, order))
        if len(seen) == 1:
            during()
        return real(vmscan, pgdat, order)

    monkeypatch.setattr(Vmscan26, "balance_pgdat", noting)
    return seen


@pytest.mark.book("2.8", "6.7")
@pytest.mark.parametrize("nid", range(3))
def test_each_node_has_a_kswapd_of_its_own(nid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are woken, when no node of the zonelist has enough; the node that was asked first."""
    kernel = booted(3)
    seen = balanced(monkeypatch, lambda: None)
    press(kernel, nid)
    kernel.vmscan.kswapd()
    assert seen == [(node_data(kernel.image, (nid + step) % 3), 2) for step in range(3)]
    assert [int(node.kswapd_max_order) for node in nodes(kernel.image)] == [0, 0, 0]


@pytest.mark.parametrize(("more", "again"), [(5, [5]), (2, []), (1, [])])
def test_kswapd_balances_again_for_a_larger_order_only(
    more: int, again: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs is not woken; before it sleeps it looks whether more was wanted."""
    kernel = booted(2)
    pgdat = node_data(kernel.image, 1)
    node = kernel.image.at(kernel.image.structs.pg_data_t, pgdat)

    def wake(order: int) -> None:
        node.kswapd_max_order = max(int(node.kswapd_max_order), order)
        allocator_of(kernel).pressure.wake_kswapd(pgdat)

    seen = balanced(monkeypatch, lambda: wake(more))
    wake(2)
    kernel.vmscan.kswapd()
    assert seen == [(pgdat, order) for order in (2, *again)]
    assert node.kswapd_max_order == 0


def leave_little(world: World) -> None:
    """Only 200 frames above ``pages_high`` are left of each node."""
    allocator = allocator_of(world.kernel)
    for nid, pgdat in enumerate(allocator.pgdats()):
        zones = [zone for zone in for_each_zone(world.image) if zone.number >> 2 == nid]
        for order in (9, 6, 3, 0):
            while sum(zone.free_pages - int(zone.view.pages_high) for zone in zones) > (
                200 + (1 << order)
            ):
                assert allocator.alloc_pages_pgdat(pgdat, GFP.kernel, order)


def own_kswapd_frees(world: World, zone: Zone26, other: Zone26) -> None:
    """Both nodes shall have more; the kswapd of one is woken."""
    for each in (zone, other):
        each.view.pages_high = each.free_pages + 40
    node = world.image.at(world.image.structs.pg_data_t, int(zone.view.zone_pgdat))
    allocator_of(world.kernel).node_id = int(node.node_id)
    free = other.free_pages, other.view.nr_inactive, other.view.nr_active
    world.vmscan.wake_kswapd(int(zone.view.zone_pgdat))
    world.vmscan.kswapd()
    assert zone.free_pages > int(zone.view.pages_high)
    assert (other.free_pages, other.view.nr_inactive, other.view.nr_active) == free


@pytest.mark.book("2.8", "6.7")
def test_a_process_takes_its_node_then_the_other_and_each_kswapd_frees_its_own() -> None:
    world = World(ram=24 * MIB, node_spans=((0, 4096), (4096, 6144)), swap_pages=2000)
    allocator = allocator_of(world.kernel)
    leave_little(world)
    allocator.node_id = 1
    mm = world.start()
    addr = world.spaces.do_mmap_pgoff(0, 0, 900 * 4096, 3, 0x22, 0)
    found = []
    for number in range(900):
        assert world.write(mm, addr + number * 4096, 100 + number)
        found.append(allocator.memmap.page_to_nid(world.page(mm, addr + number * 4096)))
    assert [nid for nid, _ in groupby(found)][:2] == [1, 0]
    assert found.index(0) > 150, "the own node first"
    assert allocator.page_state.total("kswapd_steal") > 100
    world.vmscan.kswapd()
    zones = {zone.number >> 2: zone for zone in for_each_zone(world.image) if zone.size}
    for nid in (0, 1):
        own_kswapd_frees(world, zones[nid], zones[1 - nid])
    contents = [world.read(mm, addr + number * 4096) for number in range(900)]
    assert contents == list(range(100, 1000))
    world.exit(mm)
    slab_census(world.kernel)
    assert {int(node.kswapd_max_order) for node in nodes(world.image)} == {0}


# -- what is told --------------------------------------------------------------------------------


@pytest.mark.book("2.8")
def test_texts_of_the_nodes() -> None:
    kernel = booted(2, nr_cpus=2)
    allocator, files = allocator_of(kernel), proc_files(kernel)
    before = files["numastat"].data(kernel)
    kernel.image.current_task.processor = 1
    held = [allocator.alloc_pages_node(nid, GFP.atomic, 1) for nid in (0, 0, 1)]
    while allocator.memmap.page_to_nid(held[-1]) == 1:
        held.append(allocator.alloc_pages_node(1, GFP.atomic, 8))
    of_1 = sum(allocator.memmap.page_to_nid(page) == 1 for page in held)
    first, second = files["numastat"].data(kernel)
    more = [
        {name: after[name] - then[name] for name in after if name != "node"}
        for after, then in zip((first, second), before, strict=True)
    ]
    none = dict.fromkeys(more[0], 0)
    # The last one was wanted on node 1, where CPU 1 is, and found on node 0.
    assert more[0] == none | {"numa_hit": 2, "numa_miss": 1, "other_node": 3}
    assert more[1] == none | {"numa_hit": of_1, "numa_foreign": 1, "local_node": of_1}
    text = files["numastat"].text(kernel)
    assert f"Node 1\nnuma_hit {second['numa_hit']}\nnuma_miss 0\nnuma_foreign 1\n" in text


@pytest.mark.book("2.8")
def test_the_memory_of_all_nodes_is_that_of_the_machine() -> None:
    kernel = booted(3, nr_hugepages=2)
    files = proc_files(kernel)
    whole, told = files["meminfo"].data(kernel), files["node_meminfo"].data(kernel)
    names = ("MemFree", "Active", "Inactive", "LowFree", "HugePages_Total", "HugePages_Free")
    for name in names:
        assert sum(node[name] for node in told) == whole[name], name
    for node, (start, end) in zip(told, kernel.config.node_spans, strict=True):
        assert (node["MemTotal"], node["HighTotal"]) == ((end - start) * 4, 0)
    lines = files["node_meminfo"].text(kernel).splitlines()
    assert f"Node 2 MemTotal:     {told[2]['MemTotal']:>8} kB" in lines
    assert "Node 0 HugePages_Total:     1" in lines
    titles = [line for line in files["zoneinfo"].text(kernel).splitlines() if ", zone" in line]
    assert titles == [
        *("Node 0, zone      DMA", "Node 0, zone   Normal"),
        *("Node 1, zone   Normal", "Node 2, zone   Normal"),
    ]
    assert "numastat" not in proc_files(boot(KernelConfig(ram=16 * MIB, release="2.6")))


def test_each_cpu_has_lists_in_the_zones_of_each_node() -> None:
    kernel = booted(3, nr_cpus=2)
    for zone in for_each_zone(kernel.image):
        assert len(Zone26(kernel.image, zone.vaddr).pagesets) == 2
        for hot, cold in zone.pagesets:
            batch = max(min(zone.present_pages // 1024, 64) // 4, 1)
            assert (hot.low, hot.high, cold.low, cold.high) == (2 * batch, 6 * batch, 0, 2 * batch)
