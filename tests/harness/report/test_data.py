# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pictures show against independent truth: texts of /proc, the guest's own walk, the
sweep, the scalar walk, the trace. Each check is shown to find a planted error."""

import re
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from harness.machine import Machine
from harness.monitors.frames import FrameLedger
from harness.monitors.guest_walk import run_walk
from harness.monitors.slabs import LISTS
from harness.report import address_space, buddy, frames, page_tables, slabs, zones
from kernel_model.arch_i386.highmem import KmType
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.memory.fault import Cause
from kernel_model.proc import PROC_FILES
from tests.harness.report.toured import Toured

PAGE = 4096


def zones_hold_all_frames(toured: Toured, data: Any) -> None:
    zones = [zone for node in data["nodes"] for zone in node["zones"]]
    assert sum(zone["frames"] for zone in zones) == toured.config.ram // PAGE
    for zone in zones:
        assert sum(zone["uses"].values()) == zone["frames"]
        assert sum(map(sum, zone["strip"])) == zone["frames"]
        assert f"mem_map:      {zone['mem_map']:#010x}" in toured.texts["zoneinfo"]


def frames_are_what_their_owners_say(toured: Toured, data: Any) -> None:
    uses = data["uses"]
    assert sum(uses.values()) == data["frames"] == toured.config.ram // PAGE
    assert np.sum(data["cells"], axis=0).tolist() == [uses.get(use, 0) for use in data["names"]]
    kb = re.search(r"MemFree: +(\d+) kB", toured.texts["meminfo"])
    assert kb
    kept = re.findall(r"cpu \d+ (?:hot|cold) +count (\d+)", toured.texts["zoneinfo"])
    assert bool(kept) == (toured.config.release == "2.6")
    assert uses["free"] == int(kb[1]) // 4 + sum(map(int, kept))
    owned = Counter(toured.owners.values())
    assert uses["user pages"] == owned["user page"] + owned["argument page"]
    tables = ("page table", "page middle directory", "page directory")
    assert uses["page tables"] == sum(map(owned.__getitem__, tables))
    assert uses["slab"] == owned["slab"]


def mapped_frames_are_taken(toured: Toured, data: Any) -> None:
    """A frame that user space maps is a user page's or the page cache's."""
    mapped = set(toured.spec.pages.pfn[:0xC0000].tolist()) - {-1, toured.zero_frame}
    assert len(mapped) <= data["uses"]["user pages"] + data["uses"]["page cache"]
    assert data["uses"]["user pages"] <= len(mapped)


def blocks_add_up(toured: Toured, data: Any) -> None:
    lines = toured.texts["buddyinfo"].splitlines()
    free = [int(n) for n in re.findall(r"pages free +(\d+)", toured.texts["zoneinfo"])]
    assert len(data) == len(lines) == len(free)
    for zone, line, total in zip(data, lines, free, strict=True):
        assert zone["free_blocks"] == [int(count) for count in line.split()[4:]]
        assert sum(count << n for n, count in enumerate(zone["free_blocks"])) == total
        assert zone["free"] == total


SLABINFO = {
    "2.4": ("active", "objects", "size", "used", "total", "pages"),
    "2.6": (
        *("active", "objects", "size", "per slab", "pages"),
        *("limit", "batchcount", "shared", "used", "total", "shared objects"),
    ),
}
"""The numbers of a line."""


def slabinfo(toured: Toured) -> dict[str, dict[str, int]]:
    """``/proc/slabinfo``, read back."""
    said = {}
    for line in toured.texts["slabinfo"].splitlines()[1:]:
        name, _, rest = line.partition(" ")
        if name != "#":
            numbers = map(int, re.findall(r"\d+", rest))
            said[name] = dict(zip(SLABINFO[toured.config.release], numbers, strict=True))
    return said


def caches_are_slabinfo(toured: Toured, data: Any) -> None:
    said = slabinfo(toured)
    assert [cache["name"] for cache in data["caches"]] == list(said)
    for cache in data["caches"]:
        names = ("active", "objects", "size", "used", "total", "pages")
        active, objects, size, used, total, pages = map(said[cache["name"]].__getitem__, names)
        assert cache["slabs_full"] + cache["slabs_partial"] == used
        assert cache["slabs_full"] + cache["slabs_partial"] + cache["slabs_free"] == total
        assert (cache["active_objects"], cache["objects"]) == (active, objects)
        assert (cache["objsize"], cache["pages_per_slab"]) == (size, pages)
        assert sum(cache["colours"]["slabs"].values()) == total


def vmas_are_proc_maps(toured: Toured, data: Any) -> None:
    lines = toured.maps.splitlines()
    assert len(lines) == len(data["vmas"]) > 6
    for vma, line in zip(data["vmas"], lines, strict=True):
        span = f"{vma['start']:08x}-{vma['end']:08x} {vma['permissions']} {vma['offset']:08x}"
        assert line.startswith(span)
        assert line.endswith(vma["path"])


def vmas_hold_what_the_walk_finds(toured: Toured, data: Any) -> None:
    """``mapped``, against the scalar walk of each page."""
    for vma in data["vmas"]:
        pages = range(vma["start"], vma["end"], PAGE)
        assert vma["mapped"] == PAGE * len(toured.walked.intersection(pages))


def every_page_is_in_one_range(toured: Toured, data: Any) -> None:
    """The ranges come one behind the other, and what is mapped in them is all there is."""
    ranges = data["ranges"]
    assert all(one["end"] <= next_one["start"] for one, next_one in pairwise(ranges))
    for row in ranges:
        pages = toured.spec.pages.pfn[row["start"] >> 12 : row["end"] >> 12]
        assert row["mapped"] == PAGE * np.count_nonzero(pages >= 0)
    assert sum(row["mapped"] for row in ranges) == PAGE * np.count_nonzero(
        toured.spec.pages.pfn >= 0
    )


def ranges_are_the_sweep(toured: Toured, data: Any) -> None:
    seen = [(row["va"], row["pa"], row["length"], row["rights"]) for row in data["ranges"]]
    assert seen == [tuple(each) for each in toured.ranges]


def lines_map_what_is_mapped(toured: Toured, data: Any) -> None:
    """The text, read back as a person would: each line's pages and frames."""
    meant = np.full(1 << 20, -1)
    pattern = re.compile(r"\[(\w+)(?:-(\w+))?\s*\] .* (\w+)(?:-\w+)?$")
    for line in data["lines"]:
        flags = re.search(r" ([-A-Z]{10})(?: |$)", line)
        assert flags, line
        if "] PTE[" in line or "S" in flags[1]:
            found = pattern.match(line.strip())
            assert found, line
            first, last = int(found[1], 16), int(found[2] or found[1], 16)
            meant[first : last + 1] = int(found[3], 16) + np.arange(last + 1 - first)
    assert np.array_equal(meant, toured.spec.pages.pfn)


def faults_are_the_trace(toured: Toured, data: Any) -> None:
    traced = [line.split(" ", 3) for line in toured.trace if " #PF " in line]
    # What the kernel itself touched at the very end came after the report.
    heard = data["faults"]
    assert len(heard) == len(traced) > 250
    for (_, cause, address, pid), (who, _, where, rest) in zip(heard, traced, strict=True):
        assert (f"{pid}", f"{address:#010x}") == (who, where)
        assert rest.endswith(f": {cause}")
    times = [row[0] for row in heard]
    assert times == sorted(times)
    assert 100_000 < times[-1] <= data["instructions"] < 1_000_000
    counts = {cause.value: number for cause, number in toured.causes.items() if number}
    assert {cause: data["by_cause"][cause] for cause in counts} == counts


def no_slab_has_a_colour(data: Any) -> None:
    for cache in data["caches"]:
        cache["colours"]["slabs"].clear()


Check = Callable[[Toured, Any], None]
CHECKS: list[tuple[str, Check, Callable[[Any], object]]] = [
    ("zones", zones_hold_all_frames, lambda d: d["nodes"][0]["zones"].pop()),
    ("zones", zones_hold_all_frames, lambda d: d["nodes"][0]["zones"][1]["strip"].pop()),
    ("frames", frames_are_what_their_owners_say, lambda d: d["uses"].update(slab=1)),
    ("frames", frames_are_what_their_owners_say, lambda d: d["cells"][7].reverse()),
    ("frames", mapped_frames_are_taken, lambda d: d["uses"].update({"page cache": 0})),
    ("buddy", blocks_add_up, lambda d: d[0]["free_blocks"].reverse()),
    ("buddy", blocks_add_up, lambda d: d[1].update(free=1)),
    ("slabs", caches_are_slabinfo, lambda d: d["caches"][0].update(slabs_free=3)),
    ("slabs", caches_are_slabinfo, no_slab_has_a_colour),
    ("address_space", vmas_are_proc_maps, lambda d: d["vmas"][2].update(permissions="r--p")),
    ("address_space", vmas_hold_what_the_walk_finds, lambda d: d["vmas"][2].update(mapped=PAGE)),
    ("address_space", every_page_is_in_one_range, lambda d: d["ranges"][-1].update(start=0)),
    ("address_space", every_page_is_in_one_range, lambda d: d["ranges"].pop(1)),
    ("page_tables", ranges_are_the_sweep, lambda d: d["ranges"][5].update(rights=0)),
    ("page_tables", ranges_are_the_sweep, lambda d: d["ranges"].pop()),
    ("page_tables", lines_map_what_is_mapped, lambda d: d["lines"].pop(1)),
    ("faults", faults_are_the_trace, lambda d: d["faults"].pop()),
    ("faults", faults_are_the_trace, lambda d: d["by_cause"].update(file=1)),
]
IDS = [f"{check.__name__}-{number}" for number, (_, check, _) in enumerate(CHECKS)]


@pytest.mark.book("2.1", "2.2", "2.5", "3.8", "4.4", "4.6", "6.5", "8.1")
@pytest.mark.parametrize(("name", "check", "spoil"), CHECKS, ids=IDS)
def test_a_picture_shows_what_others_say(
    each_toured: Toured, name: str, check: Check, spoil: Callable[[Any], object]
) -> None:
    data = each_toured.data(name)
    check(each_toured, data)
    spoilt = deepcopy(data)
    spoil(spoilt)
    with pytest.raises(AssertionError):
        check(each_toured, spoilt)


def test_all_readings_agree_when_the_tour_ends(each_toured: Toured) -> None:
    assert each_toured.report.ok, each_toured.report.verdicts.rows[0]
    assert each_toured.report.notes == ()
    facts = each_toured.report.machine
    assert facts["release"] == each_toured.config.release
    assert (
        facts.get("reverse map")
        == {"2.4": None, "2.6": each_toured.config.rmap}[each_toured.config.release]
    )


@pytest.mark.book("4.6")
def test_the_tour_comes_by_every_kind_of_fault_but_swap(each_toured: Toured) -> None:
    not_met = {Cause.SWAP, Cause.SPURIOUS, Cause.FILE_PTE}
    kinds = {cause.value for cause in Cause if cause not in not_met}
    assert set(each_toured.data("faults")["by_cause"]) == kinds
    rights = {vma["permissions"] for vma in each_toured.data("address_space")["vmas"]}
    executable = {"2.4": {"rwxp"}, "2.6": set[str]()}[each_toured.config.release]
    assert rights == {"r-xp", "rw-p", "r--p", "rw-s"} | executable, "2.6 asks PT_GNU_STACK"


@pytest.mark.book("6.1", "6.2", "6.4")
@pytest.mark.parametrize(("release", "nodes"), [("2.4", 1), ("2.4", 2), ("2.6", 1), ("2.6", 3)])
def test_free_blocks_are_those_that_the_guest_finds(release: str, nodes: int) -> None:
    """Code on the CPU walks the free lists by itself, before and after a change."""
    machine = Machine(Kernel(KernelConfig(release=release, ram=64 * MIB, nodes=nodes)))
    gfp = machine.kernel.image.constants.gfp
    for order, mask in ((0, gfp.kernel), (3, gfp.dma), (5, gfp.kernel)):
        assert machine.kernel.allocator.alloc_pages(mask, order)
    walk = run_walk(machine)
    found = [
        [zone.orders[order].blocks for order in range(len(zone.orders))]
        for node in walk.nodes[: walk.nr_nodes]
        for zone in node.zones
        if zone.size
    ]
    shown = buddy.gather(machine)
    assert [zone["free_blocks"] for zone in shown] == found
    kept = any(zone["cpu_lists"] for zone in shown)
    assert kept == (release == "2.6")
    lists = [zone.cpu_lists for node in walk.nodes for zone in node.zones] if kept else []
    kept_by_cpus = sum(pcp.count for lists_of_zone in lists for pcp in lists_of_zone)
    assert frames.gather(machine)["uses"]["free"] == walk.free_pages + kept_by_cpus


@dataclass
class Booted:
    """A kernel without a CPU, as far as pictures of physical memory look."""

    kernel: Kernel
    ledger: FrameLedger


@pytest.mark.book("2.8", "6.2")
@pytest.mark.parametrize("release", ["2.4", "2.6"])
def test_physical_memory_of_both_releases(release: str) -> None:
    """What CPUs keep on lists of their own is free, and in no block."""
    kernel = Kernel(KernelConfig(ram=64 * MIB, release=release))
    machine: Any = Booted(kernel, FrameLedger().listen(kernel.image.events))
    kernel.start_kernel()
    shown, texts = buddy.gather(machine), PROC_FILES["buddyinfo"].text(kernel).splitlines()
    assert [zone["free_blocks"] for zone in shown] == [
        [int(count) for count in line.split()[4:]] for line in texts
    ]
    for zone in shown:
        assert sum(n << order for order, n in enumerate(zone["free_blocks"])) == zone["free"]
    kept = [zone["cpu_lists"] for zone in shown]
    assert any(kept) if release == "2.6" else kept == [None, None]
    uses = frames.gather(machine)["uses"]
    assert uses["free"] == sum(zone["free"] for zone in shown) + sum(filter(None, kept))
    assert sum(uses.values()) == 64 * MIB // PAGE
    assert zones.gather(machine)["page_bytes"] == {"2.4": 44, "2.6": 32}[release]
    found = slabs.gather(machine)
    assert found["complaint"] == ""
    for cache in found["caches"]:
        assert sum(cache["colours"]["slabs"].values()) == cache["slabs"]
        assert sum(cache[kept_in] for kept_in in LISTS) == cache["slabs"]
    said = PROC_FILES["slabinfo"].text(kernel)
    assert all(f"\n{cache['name']} " in said for cache in found["caches"])


@pytest.mark.book("4.1", "7.1", "9.1", "9.4")
@pytest.mark.parametrize("highmem", [Highmem.GB4, Highmem.GB64])
@pytest.mark.parametrize("release", ["2.4", "2.6"])
def test_each_range_has_what_was_mapped_in_it(release: str, highmem: Highmem) -> None:
    config = KernelConfig(release=release, ram=72 * MIB, highmem=highmem, highmem_pages=2048)
    kernel = (machine := Machine(Kernel(config))).kernel

    def mapped() -> dict[str, int]:
        rows = address_space.gather(machine)["ranges"]
        return {row["range"]: row["mapped"] // PAGE for row in rows}

    before = mapped()
    assert before["direct map"] == 64 * MIB // PAGE
    kernel.vmalloc.vmalloc(5 * PAGE)
    pages = [kernel.allocator.alloc_page(kernel.image.constants.gfp.highuser) for _ in range(3)]
    for page in pages:
        kernel.highmem.kmap(page)
    kernel.highmem.kmap_atomic(pages[0], KmType.USER0)
    more = {name: count - before[name] for name, count in mapped().items()}
    assert more == {"user space": 0, "direct map": 0, "vmalloc": 5, "kmap": 3, "fixmap": 1}


CONFIGS = {
    "no large pages": {"cpu_model": "486", "ram": 16 * MIB},
    "PAE": {"highmem": "64G", "ram": 64 * MIB},
    "PAE, NX": {"highmem": "64G", "ram": 64 * MIB, "cpu_model": "coreduo"},
    "high memory": {"highmem": "4G", "ram": 72 * MIB, "highmem_pages": 2048},
    "2.6": {"release": "2.6", "ram": 16 * MIB},
    "2.6 PAE": {"release": "2.6", "highmem": "64G", "ram": 64 * MIB},
}


@pytest.mark.book("3.1", "3.8")
@pytest.mark.parametrize("name", CONFIGS)
def test_the_tree_is_the_sweep_in_every_paging_mode(name: str) -> None:
    from harness.readings.spec import SpecView, mmu_features

    options: dict[str, Any] = dict(CONFIGS[name])
    if "highmem" in options:
        options["highmem"] = Highmem(options["highmem"])
    machine = Machine(Kernel(KernelConfig(**options)))
    machine.kernel.vmalloc.vmalloc(5 * PAGE)
    spec = SpecView(machine.ram, machine.cpu.control, mmu_features(machine.cpu))
    data = page_tables.gather(machine)
    seen = [(row["va"], row["pa"], row["length"], row["rights"]) for row in data["ranges"]]
    assert seen == [tuple(each) for each in spec.mappings.ranges()]
    assert len(seen) >= 2
    (*_, last) = spec.walk(0xC0000000).steps
    machine.ram.write32(last.paddr, last.entry & 0xFFFFFFFF ^ 2)
    assert page_tables.gather(machine)["ranges"] != data["ranges"]


def test_a_table_outside_ram_is_shown_as_such(toured: Toured) -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    machine.ram.write32(machine.cpu.read_cr3() + 4 * 5, 0xFFFFF067)
    data = page_tables.gather(machine)
    broken = [group for group in data["groups"] if group["kind"] == "broken"]
    assert [(group["index"], group["va"]) for group in broken] == [("PDE[5]", 5 << 22)]
    assert any("no table there" in line for line in data["lines"])


@pytest.mark.book("2.1")
@pytest.mark.book("2.1", release="2.6")
@pytest.mark.parametrize("release", ["2.4", "2.6"])
def test_each_node_has_its_zones(release: str) -> None:
    machine = Machine(Kernel(KernelConfig(ram=64 * MIB, nodes=2, release=release)))
    data = zones.gather(machine)
    shown = {(n["node"], z["zone"]): z["frames"] for n in data["nodes"] for z in n["zones"]}
    assert shown == {(0, "DMA"): 4096, (0, "Normal"): 4096, (1, "Normal"): 8192}


@pytest.mark.book("8.2")
def test_what_the_census_finds_is_shown() -> None:
    """RAM that contradicts itself costs the colours, not the picture."""
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    cache = next(iter(machine.kernel.slab.chain()))
    slab = cache.slabs(cache.slabs_partial)[0]
    place = machine.kernel.image.structs.slab_t.offset("colouroff")
    machine.ram.write32(slab - 0xC0000000 + place, 64)
    data = slabs.gather(machine)
    assert "its pages begin at" in data["complaint"]
    assert data["complaint"] in slabs.caption(data)
    assert data["caches"][0]["colours"] is None
    assert data["caches"][0]["slabs_partial"] == 1
