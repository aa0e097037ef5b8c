# SPDX-License-Identifier: GPL-2.0-or-later
"""The texts of /proc: their format, and every number against a count of its own."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest

from kernel_model.config import E820Entry, Highmem, KernelConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.gfp import GFP_ATOMIC, GFP_BIT_HIGHMEM
from kernel_model.mm.mmzone import Zone, for_each_zone
from kernel_model.mm.page_flags import PG_HIGHMEM, PG_RESERVED, PG_SLAB
from kernel_model.proc import PROC_FILES
from kernel_model.proc.fragmentation import internal_slack, unusable_index

MIB = 1 << 20
CONFIGS = {
    "small": KernelConfig(ram=20 * MIB),
    "uma": KernelConfig(),
    "highmem": KernelConfig(ram=1024 * MIB, highmem=Highmem.GB4),
    "pae": KernelConfig(ram=1024 * MIB, highmem=Highmem.GB64),
    "numa": KernelConfig(nodes=2),
}


@pytest.fixture(params=CONFIGS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """A kernel with a few blocks taken, three frames on the LRU lists, one of them active."""
    kernel = boot(CONFIGS[request.param])
    allocator = kernel.allocator
    for order in (0, 3, 0, 1, 5, 0, 0):
        assert allocator.alloc_pages(GFP_ATOMIC | GFP_BIT_HIGHMEM, order)
    pages = [allocator.alloc_page(GFP_ATOMIC) for _ in range(3)]
    for page in pages:
        allocator.lru.add(page)
    allocator.lru.activate_page(pages[0])
    return kernel


def flags_of(kernel: Kernel, zone: Zone) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """``page->flags`` of each frame of a zone."""
    memmap = kernel.allocator.memmap
    return memmap.rows(memmap.page(zone.start_pfn), zone.size)[:, memmap.flags_word]


def listed(kernel: Kernel, zone: Zone) -> int:
    """Free frames, counted along the lists."""
    return sum(1 << order for order in range(10) for _ in zone.free_blocks(order))


def text(kernel: Kernel, name: str) -> str:
    return PROC_FILES[name].text(kernel)


# -- meminfo ------------------------------------------------------------------------------------

MEMINFO = (
    *("MemTotal", "MemFree", "MemShared", "Buffers", "Cached", "SwapCached", "Active"),
    *("Inactive", "HighTotal", "HighFree", "LowTotal", "LowFree", "SwapTotal", "SwapFree"),
)


def test_meminfo_has_the_lines_of_2_4_22(kernel: Kernel) -> None:
    lines = text(kernel, "meminfo").splitlines()
    assert lines[0] == "        total:    used:    free:  shared: buffers:  cached:"
    assert re.fullmatch(r"Mem: (?: [ \d]{7,}\d){6}", lines[1])
    assert re.fullmatch(r"Swap:(?: [ \d]{7,}\d){3}", lines[2])
    for name, line in zip(MEMINFO, lines[3:], strict=True):
        assert re.fullmatch(rf"{name}: {{{13 - len(name)}}}[ \d]{{7}}\d kB", line)
    assert text(kernel, "meminfo").endswith(" kB\n")


def test_meminfo_counts_what_is_there(kernel: Kernel) -> None:
    info = PROC_FILES["meminfo"].data(kernel)
    zones = list(for_each_zone(kernel.image))
    low = [zone for zone in zones if zone.name != "HighMem"]
    high = [zone for zone in zones if zone.name == "HighMem"]
    usable = {
        id(zone): int(np.count_nonzero(flags_of(kernel, zone) & 1 << PG_RESERVED == 0))
        for zone in zones
    }
    assert info["MemTotal"] == 4 * sum(usable.values())
    assert info["MemFree"] == 4 * sum(listed(kernel, zone) for zone in zones)
    assert info["HighTotal"] == 4 * sum(usable[id(zone)] for zone in high)
    assert info["HighFree"] == 4 * sum(listed(kernel, zone) for zone in high)
    assert info["LowTotal"] == 4 * sum(usable[id(zone)] for zone in low)
    assert info["LowFree"] == 4 * sum(listed(kernel, zone) for zone in low)
    assert (info["Active"], info["Inactive"]) == (4, 8)
    assert (info["MemShared"], info["Buffers"]) == (0, 0)


def test_meminfo_text_is_its_data_in_kb_and_in_bytes(kernel: Kernel) -> None:
    info = PROC_FILES["meminfo"].data(kernel)
    lines = text(kernel, "meminfo").splitlines()
    tagged = {line.split(":")[0]: int(line.split()[1]) for line in lines[3:]}
    assert tagged == info
    memory = [int(word) for word in lines[1].split()[1:]]
    total, free = info["MemTotal"] * 1024, info["MemFree"] * 1024
    cached = (info["Cached"] + info["SwapCached"]) * 1024
    assert memory == [total, total - free, free, 0, 0, cached]
    swap = [int(word) * 1024 for word in (info["SwapTotal"], info["SwapFree"])]
    assert [int(w) for w in lines[2].split()[1:]] == [swap[0], swap[0] - swap[1], swap[1]]


def test_meminfo_counts_swap_and_the_page_cache() -> None:
    kernel = boot(KernelConfig(ram=20 * MIB, swap_pages=1000))
    info = PROC_FILES["meminfo"].data(kernel)
    assert (info["SwapTotal"], info["SwapFree"]) == (999 * 4, 999 * 4)
    for _ in range(5):
        assert kernel.swap_areas.get_swap_page()
    kernel.statics.page_cache_size, kernel.statics.swapper_space.nrpages = 30, 12
    info = PROC_FILES["meminfo"].data(kernel)
    assert (info["SwapTotal"], info["SwapFree"]) == (999 * 4, 994 * 4)
    assert (info["Cached"], info["SwapCached"]) == (18 * 4, 12 * 4)
    # While an area is being switched off, what is still in it counts as total and as free.
    kernel.statics.swap_info[0].flags = 1
    kernel.statics.nr_swap_pages = 0
    info = PROC_FILES["meminfo"].data(kernel)
    assert (info["SwapTotal"], info["SwapFree"]) == (5 * 4, 5 * 4)


# -- zones -----------------------------------------------------------------------------------


def test_buddyinfo_has_the_format_of_2_6(kernel: Kernel) -> None:
    lines = text(kernel, "buddyinfo").splitlines()
    zones = list(for_each_zone(kernel.image))
    for line, zone in zip(lines, zones, strict=True):
        assert re.fullmatch(
            rf"Node {zone.number // 3}, zone {zone.name:>8} (?:[ \d]{{5}}\d ){{10}}", line
        )
        counts = [int(word) for word in line.split()[4:]]
        assert counts == [sum(1 for _ in zone.free_blocks(order)) for order in range(10)]
        assert sum(count << order for order, count in enumerate(counts)) == zone.free_pages


@pytest.mark.book("2.2.1")
@pytest.mark.parametrize("name", ["16MB", "1024MB_highmem"])
def test_zoneinfo_is_what_the_real_kernel_had(data: Path, name: str) -> None:
    with gzip.open(data / "linux-2.4.22" / f"zones_{name}.json.gz") as file:
        golden = json.load(file)
    highmem = Highmem.GB4 if "highmem" in name else Highmem.NONE
    config = KernelConfig(ram=golden["mem_mb"] * MIB, highmem=highmem, register_memory=False)
    kernel = Kernel(config)
    for step in kernel.boot_steps():
        if step == "mem_init":
            break
    zones = [zone for zone in golden["zones"] if zone["size"]]
    for facts, zone in zip(PROC_FILES["zoneinfo"].data(kernel), zones, strict=True):
        assert facts["zone"] == zone["name"]
        for mine, theirs in (
            *(("min", "pages_min"), ("low", "pages_low"), ("high", "pages_high")),
            *(
                ("spanned", "size"),
                ("free", "free_pages"),
                ("free_blocks", "free_blocks_per_order"),
            ),
            *(("wait_table_size", "wait_table_size"), ("wait_table_shift", "wait_table_shift")),
        ):
            assert facts[mine] == zone[theirs]


def test_zoneinfo_reads_well(kernel: Kernel) -> None:
    zones = list(for_each_zone(kernel.image))
    paragraphs = re.split(r"^(?=Node )", text(kernel, "zoneinfo"), flags=re.MULTILINE)[1:]
    for paragraph, zone in zip(paragraphs, zones, strict=True):
        lines = paragraph.splitlines()
        assert lines[0] == f"Node {zone.number // 3}, zone {zone.name:>8}"
        assert lines[1] == f"  pages free     {zone.free_pages}"
        reserved = np.count_nonzero(flags_of(kernel, zone) & 1 << PG_RESERVED)
        assert lines[6] == f"        reserved {reserved}"
        assert re.fullmatch(r"  unusable index(?:  [01]\.\d{3}){10}", lines[-2])
        assert re.match(r"  internal slack \d+ bytes: mem_map ", lines[-1])


def test_pagetypeinfo_counts_each_frame_once(kernel: Kernel) -> None:
    rows = PROC_FILES["pagetypeinfo"].data(kernel)
    zones = list(for_each_zone(kernel.image))
    totals = dict.fromkeys(("active", "inactive", "slab"), 0)
    for row, zone in zip(rows, zones, strict=True):
        flags = flags_of(kernel, zone)
        kinds = ("free", "reserved", "slab", "active", "inactive", "other")
        assert sum(row[kind] for kind in kinds) == zone.size
        assert row["free"] == listed(kernel, zone)
        assert row["reserved"] == np.count_nonzero(flags & 1 << PG_RESERVED)
        assert row["PG_highmem"] == np.count_nonzero(flags & 1 << PG_HIGHMEM)
        assert (row["PG_highmem"] > 0) == (zone.name == "HighMem")
        for kind in totals:
            totals[kind] += row[kind]
    slabs = sum(len(list(cache.all_slabs())) << cache.gfporder for cache in kernel.slab.chain())
    assert totals == {"active": 1, "inactive": 2, "slab": slabs}


def test_pagetypeinfo_tells_slab_from_other() -> None:
    kernel = boot(KernelConfig(ram=20 * MIB))
    before = PROC_FILES["pagetypeinfo"].data(kernel)
    other, slab = (sum(row[kind] for row in before) for kind in ("other", "slab"))
    page = kernel.allocator.alloc_pages(GFP_ATOMIC, 1)
    kernel.allocator.memmap.set_bit(page, PG_SLAB)
    rows = PROC_FILES["pagetypeinfo"].data(kernel)
    assert sum(row["slab"] for row in rows) == slab + 1
    assert sum(row["other"] for row in rows) == other + 1


def test_pagetypeinfo_text_is_its_data(kernel: Kernel) -> None:
    title, *lines = text(kernel, "pagetypeinfo").splitlines()
    names = title.removeprefix("Frames by kind").split()
    for line, row in zip(lines, PROC_FILES["pagetypeinfo"].data(kernel), strict=True):
        assert line.startswith(f"Node {row['node']}, zone {row['zone']:>8} ")
        assert [int(word) for word in line.split()[4:]] == [row[name] for name in names]


# -- fragmentation --------------------------------------------------------------------------------


@pytest.mark.book("6.5")
def test_unusable_index() -> None:
    blocks = [4, 0, 1, 1]  # 4 + 0 + 4 + 8 frames
    assert [unusable_index(blocks, order) for order in range(4)] == [0.0, 0.25, 0.25, 0.5]
    assert unusable_index([0, 0], 0) == 1.0
    assert unusable_index([7, 0], 1) == 1.0
    assert unusable_index([0, 3], 1) == 0.0


@pytest.mark.book("6.5")
def test_slack_after_boot() -> None:
    kernel = boot(KernelConfig())
    slack = {
        zone.name: internal_slack(kernel).get(zone.number) for zone in for_each_zone(kernel.image)
    }
    dma, normal = slack["DMA"], slack["Normal"]
    assert dma is not None
    assert normal is not None
    # Two resources of 28 bytes, the second on the next cache line, in one page.
    assert (dma.mem_map, dma.bitmaps, dma.boot_page) == (0, 0, 4096 - (32 + 28))
    # 4096 frames: 2 and 1 bytes of bits at orders 7 and 8; 12288 frames: 6 and 3 bytes.
    assert normal.bitmaps == (4 - 2) + (4 - 1) + (8 - 6) + (4 - 3)
    assert (normal.mem_map, normal.boot_page) == (44, 0)
    assert normal.total == 44 + 8


def test_slack_of_mem_map_is_what_boot_memory_was_asked_for(kernel: Kernel) -> None:
    asked = [
        call.arguments[0]
        for call in kernel.bootmem.calls
        if call.function == "__alloc_bootmem_node" and call.arguments[0] > 1 << 16
    ]
    size = kernel.image.structs.page.size
    frames = sum(zone.size for zone in for_each_zone(kernel.image))
    lost = sum(slack.mem_map for slack in internal_slack(kernel).values())
    assert lost == sum(asked) - frames * size


# -- iomem --------------------------------------------------------------------------------------


def test_iomem_nests_the_kernel_in_its_ram() -> None:
    assert text(boot(KernelConfig()), "iomem") == (
        "00000000-0009efff : System RAM\n"
        "000a0000-000bffff : Video RAM area\n"
        "000f0000-000fffff : System ROM\n"
        "00100000-03ffffff : System RAM\n"
        "  00100000-002fffff : Kernel code\n"
        "  00300000-0037ffff : Kernel data\n"
    )


def test_iomem_names_what_the_firmware_says_and_drops_what_overlaps() -> None:
    e820 = (
        E820Entry(0, 0x9F000),
        E820Entry(0xE8000, 0x18000, 2),
        E820Entry(MIB, 63 * MIB),
        E820Entry(64 * MIB, 0x8000, 3),
        E820Entry(64 * MIB + 0x8000, 0x8000, 4),
        E820Entry(0xFFFC0000, 0x40000, 2),
        E820Entry(1 << 32, MIB, 2),
    )
    # The system ROM was there first, so 000e8000-000fffff is refused; 4 GiB is out of reach.
    assert text(boot(KernelConfig(e820=e820)), "iomem").splitlines() == [
        "00000000-0009efff : System RAM",
        "000a0000-000bffff : Video RAM area",
        "000f0000-000fffff : System ROM",
        "00100000-03ffffff : System RAM",
        "  00100000-002fffff : Kernel code",
        "  00300000-0037ffff : Kernel data",
        "04000000-04007fff : ACPI Tables",
        "04008000-0400ffff : ACPI Non-volatile Storage",
        "fffc0000-ffffffff : reserved",
    ]


def test_iomem_is_empty_when_memory_was_not_registered() -> None:
    assert text(boot(KernelConfig(register_memory=False)), "iomem") == ""


# -- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROC_FILES)
def test_reading_changes_nothing_and_data_is_json(name: str) -> None:
    kernel = boot(KernelConfig(ram=20 * MIB))
    before = kernel.ram.read(0x100000, 19 * MIB)
    first = PROC_FILES[name].text(kernel)
    assert PROC_FILES[name].text(kernel) == first
    assert first.endswith("\n")
    value = PROC_FILES[name].data(kernel)
    assert json.loads(json.dumps(value)) == value
    assert kernel.ram.read(0x100000, 19 * MIB) == before
