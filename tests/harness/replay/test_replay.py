# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded answers of the real kernel replay equal, and a wrong one is found where it stands."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import TOPICS, replay
from harness.replay.trace import Comparison, Difference, read_trace
from kernel_model.errors import BadInput, MmucheckError

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.4.22"


def names(topic: str) -> list[str]:
    return sorted(path.name for path in RECORDED.glob(f"{topic}*.json.gz"))


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(gzip.decompress((RECORDED / name).read_bytes()))
    return loaded


def save(trace: object, path: Path) -> Path:
    path.write_text(json.dumps(trace), encoding="ascii")
    return path


def test_the_recorded_files_are_there() -> None:
    counts = {topic: len(names(topic)) for topic in TOPICS}
    assert counts == {
        "layout": 14,
        "setup": 14,
        "bootmem": 4,
        "zones": 14,
        "buddy": 8,
        "buddy_exhaust": 4,
        "numa": 2,
        "slab_structs": 1,
        "slab_geometry": 1,
        "slab_sizes_cache": 1,
        "slab_trace": 10,
        "vmalloc": 4,
        "vma_structs": 1,
        "vma_scenarios": 1,
        "vma_trace": 8,
    }


@pytest.mark.book("2.0", "2.1", "2.5", "6.4")
@pytest.mark.parametrize("name", names("layout"))
def test_layouts_are_those_of_the_real_structures(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("layout", None)
    assert result.compared > 200


@pytest.mark.book("2.2.2", "2.3", "3.6.2", "5.2", "5.3", "5.6")
@pytest.mark.parametrize("name", names("setup"))
def test_each_step_of_booting_leaves_the_state_of_the_real_kernel(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("setup", None)
    assert result.compared > 2000


@pytest.mark.book("5.1", "5.3", "5.4", "5.5", "5.6")
@pytest.mark.parametrize("name", names("bootmem"))
def test_the_boot_allocator_answers_each_call_as_the_real_one(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("bootmem", None)
    assert result.compared > 12000


def test_every_value_of_a_boot_is_compared() -> None:
    """Nothing in a setup trace is skipped: each leaf that can be changed is missed by no one."""
    trace = load("setup_16MB.json.gz")
    compared = replay(RECORDED / "setup_16MB.json.gz").compared

    def leaves(value: object) -> int:
        if isinstance(value, dict):
            return sum(leaves(item) for item in value.values())
        if isinstance(value, list):
            return sum(leaves(item) for item in value)
        return 1

    checked = (key for key in trace if key.startswith("after_"))
    parts = [trace[key] for key in (*checked, "constants", "printk", "boot_log")]
    assert compared >= leaves(parts) - leaves(trace["after_paging_init"]["pgd_runs"])


# -- planted differences -------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], None]


def at(*keys: str | int, by: Callable[[Any], Any]) -> Change:
    """A change of the value that lies under ``keys``."""

    def change(trace: dict[str, Any]) -> None:
        place: Any = trace
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = by(place[keys[-1]])

    return change


def drop(*keys: str | int) -> Change:
    def change(trace: dict[str, Any]) -> None:
        place: Any = trace
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def one_more(value: int) -> int:
    return value + 1


def other_letter(text: str) -> str:
    return text.replace("reserved", "reservec")


PLANTED_IN_BOOTMEM: list[tuple[Change, str]] = [
    (at("traces", 0, "ops", 5, "ret", by=one_more), "traces[0] random.ops[5] __alloc_bootmem"),
    (at("traces", 1, "ops", 40, "last", 0, by=one_more), "traces[1] random.ops[40] "),
    (at("traces", 2, "ops", 9, "last", 1, by=one_more), "traces[2] subpage_merge.ops[9] "),
    (at("traces", 0, "ops", 11, "reserved_twice_msgs", by=one_more), "random.ops[11] reserve"),
    (drop("traces", 0, "ops", 11, "reserved_twice_msgs"), "names in traces[0] random.ops[11]"),
    (drop("traces", 0, "ops", 5), "traces[0] random.ops["),
    (at("traces", 0, "ops", 0, "ret", by=one_more), "traces[0] random.ops[0] init_bootmem"),
    (at("traces", 3, "last", 0, by=one_more), "traces[3] align_zero.last[0]"),
    (at("traces", 0, "free_runs_final", 0, 1, by=one_more), "random.free_runs_final[0][1]"),
    (at("traces", 0, "free_runs_final_total", by=one_more), "random.free_runs_final_total"),
    (at("traces", 7, "free_all_bootmem_ret", by=one_more), "free_all"),
    (at("traces", 7, "bitmap_pfn", by=one_more), "traces[7] free_all.bitmap_pfn"),
    (at("traces", 7, "state", "nr_free_pages", by=one_more), "free_all.state.nr_free_pages"),
    (
        at("traces", 7, "state", "zones", 0, "free_lists", 0, by=lambda pfns: pfns[::-1]),
        "free_all.state.zones[0].free_lists[0][0]",
    ),
    (
        at("traces", 7, "free_area_init_bootmem_calls", 3, 0, by=one_more),
        "traces[7] free_all.free_area_init[3][0]",
    ),
]

PLANTED_IN_SETUP: list[tuple[Change, str]] = [
    (at("after_setup_memory", "max_low_pfn", by=one_more), "after_setup_memory.max_low_pfn"),
    (at("after_setup_memory", "free_runs", 1, 0, by=one_more), "after_setup_memory.free_runs[1]"),
    (at("after_setup_memory", "bootmem_map_bytes", by=one_more), "bootmem_map_bytes"),
    (at("after_paging_init", "last_pos", by=one_more), "after_paging_init.last_pos"),
    (at("after_paging_init", "last_offset", by=one_more), "after_paging_init.last_offset"),
    (at("after_paging_init", "cr3", by=one_more), "after_paging_init.cr3"),
    (at("after_paging_init", "mmu_cr4_features", by=one_more), "mmu_cr4_features"),
    (at("after_paging_init", "kmap_pte_phys", by=one_more), "kmap_pte_phys"),
    (
        at("after_paging_init", "pgd_runs", 1, "value", by=lambda v: v ^ 0x100),
        "after_paging_init.pgd[768]",
    ),
    (at("after_paging_init", "pgd_runs", 1, "count", by=one_more), "after_paging_init.pgd[992]"),
    (drop("after_mem_init", "pgd_runs", 2), "after_mem_init.pgd[1023]"),
    (
        at("after_paging_init", "pgd_runs", 0, "last_pte", by=one_more),
        "after_paging_init.pgd[0].last_pte",
    ),
    (
        at("after_paging_init", "pgd_runs", 2, "pte_nonzero", by=one_more),
        "after_paging_init.pgd[1016].pte_nonzero",
    ),
    (at("after_mem_init", "nr_free_pages", by=one_more), "after_mem_init.nr_free_pages"),
    (at("after_mem_init", "totalhigh_pages", by=one_more), "after_mem_init.totalhigh_pages"),
    (at("after_mem_init", "highmem_start_page_index", by=one_more), "highmem_start_page_index"),
    (at("constants", "VMALLOC_START", by=one_more), "VMALLOC_START"),
    (at("constants", "FIX_BTMAP_BEGIN", by=one_more), "FIX_BTMAP_BEGIN"),
    (at("printk", by=other_letter), "printk"),
    (at("printk", by=lambda text: text + " "), "printk"),
    (at("boot_log", 7, "ret_phys", by=one_more), "boot_log[7].ret_phys"),
    (at("boot_log", 3, "size", by=one_more), "boot_log[3].size"),
    (at("boot_log", 3, "phase", by=lambda _: "mem_init"), "boot_log[3].phase"),
    (drop("boot_log", 2), "boot_log[2]"),
    (drop("boot_log", -1), "len(boot_log)"),
    (drop("boot_log", 5, "ret_phys"), "names in boot_log[5]"),
]

PLANTED_IN_LAYOUT: list[tuple[Change, str]] = [
    (at("struct page", "sizeof", by=one_more), "struct page.sizeof"),
    (at("struct page", "fields", "flags", 0, by=one_more), "struct page.fields.flags[0]"),
    (at("zone_t", "fields", "free_area", 1, by=one_more), "zone_t.fields.free_area[1]"),
    (at("sizeof_other", "pte_t", by=one_more), "sizeof(pte_t)"),
    (at("constants", "PG_reserved", by=one_more), "PG_reserved"),
]


PLANTED_IN_ZONES: list[tuple[Change, str]] = [
    (at("zones", 1, "pages_min", by=one_more), "zones[1].pages_min"),
    (at("zones", 0, "wait_table_shift", by=one_more), "zones[0].wait_table_shift"),
    (at("zones", 0, "free_blocks_per_order", 2, by=one_more), "free_blocks_per_order[2]"),
    (at("zones", 2, "free_area_map_phys", 4, by=one_more), "free_area_map_phys[4]"),
    (at("zonelists", 2, by=lambda names: names[::-1]), "zonelists[2][0]"),
    (at("node", "node_size", by=one_more), "node.node_size"),
    (at("page_runs", 1, 2, by=lambda flags: flags | 1), "page_runs[1][2]"),
    (at("page_runs", 3, 1, by=one_more), "page_runs[3][1]"),
    (at("mem_map_phys", by=one_more), "mem_map_phys"),
]

PLANTED_IN_BUDDY: list[tuple[Change, str]] = [
    (at("traces", 0, "ops", 0, "pfn", by=one_more), "random_light.ops[0] alloc.pfn"),
    (at("traces", 1, "ops", 700, "free", 0, by=one_more), "random_heavy.ops[700]"),
    (at("traces", 0, "ops", 3, "order", by=one_more), "random_light.ops[3] alloc"),
    (drop("traces", 0, "ops", 0), "random_light.ops[0]"),
    (at("watermarks", 0, by=one_more), "watermarks[0]"),
    (at("initial", "zones", 0, "free_lists", 0, by=lambda pfns: pfns[::-1]), "free_lists[0][0]"),
    (
        at("traces", 0, "final", "zones", 0, "bitmaps_hex", 3, by=lambda text: "f" + text[1:]),
        "random_light.final.zones[0].bitmaps_hex[3]",
    ),
    (at("traces", 0, "need_balance", 0, by=lambda flag: 1 - flag), "need_balance[0]"),
]


def planted(cases: list[tuple[Change, str]]) -> Any:
    return pytest.mark.parametrize(("change", "where"), cases, ids=range(len(cases)))


def check_found(name: str, change: Change, where: str, path: Path) -> None:
    trace = load(name)
    change(trace)
    result = replay(save(trace, path / "changed.json"))
    assert not result.ok
    assert result.difference is not None
    assert where in result.difference.where
    assert where in str(result.difference)


@planted(PLANTED_IN_BOOTMEM)
def test_a_planted_difference_in_a_bootmem_trace(
    change: Change, where: str, tmp_path: Path
) -> None:
    check_found("bootmem_16MB.json.gz", change, where, tmp_path)


@planted(PLANTED_IN_SETUP)
def test_a_planted_difference_in_a_setup_trace(change: Change, where: str, tmp_path: Path) -> None:
    check_found("setup_1024MB_highmem.json.gz", change, where, tmp_path)


@planted(PLANTED_IN_LAYOUT)
def test_a_planted_difference_in_a_layout_trace(change: Change, where: str, tmp_path: Path) -> None:
    check_found("layout_hm.json.gz", change, where, tmp_path)


@planted(PLANTED_IN_ZONES)
def test_a_planted_difference_in_a_zones_trace(change: Change, where: str, tmp_path: Path) -> None:
    check_found("zones_1024MB_highmem.json.gz", change, where, tmp_path)


@planted(PLANTED_IN_BUDDY)
def test_a_planted_difference_in_a_buddy_trace(change: Change, where: str, tmp_path: Path) -> None:
    check_found("buddy_16MB.json.gz", change, where, tmp_path)


# -- hostile files -------------------------------------------------------------------------------


def hostile_files(path: Path) -> dict[str, Path]:
    whole = (RECORDED / "setup_16MB.json.gz").read_bytes()
    trace = load("setup_16MB.json.gz")
    bad_sum = whole[:-8] + bytes(4) + whole[-4:]
    contents: dict[str, bytes] = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "only the magic": whole[:2],
        "bad checksum": bad_sum,
        "flipped": whole[:100] + bytes([whole[100] ^ 0xFF]) + whole[101:],
        "no JSON": b"{'topic': 'setup'}",
        "binary": bytes(range(256)),
        "deep": b"[" * 100_000,
        "a list": b"[]",
        "a number": b"7",
        "no topic": json.dumps({k: v for k, v in trace.items() if k != "topic"}).encode(),
        "topic is a list": json.dumps(trace | {"topic": ["setup"]}).encode(),
        "unknown topic": json.dumps(trace | {"topic": "weather"}).encode(),
        "only a topic": b'{"topic": "setup"}',
        "only a bootmem topic": b'{"topic": "bootmem"}',
        "only a layout topic": b'{"topic": "layout"}',
        "boot_log missing": json.dumps(
            {k: v for k, v in trace.items() if k != "boot_log"}
        ).encode(),
        "other topic": json.dumps(trace | {"topic": "bootmem"}).encode(),
        "layout named setup": json.dumps(load("layout_hm.json.gz") | {"topic": "setup"}).encode(),
        "e820 is a number": json.dumps(trace | {"e820": 7}).encode(),
        "e820 overlaps": json.dumps(trace | {"e820": trace["e820"] * 2}).encode(),
        "mem_mb is a text": json.dumps(trace | {"mem_mb": "16", "e820": []}).encode(),
        "mem_mb is huge": json.dumps(trace | {"mem_mb": 1 << 70, "e820": []}).encode(),
        "PGE without PSE": json.dumps(trace | {"pse": 0, "pge": 1}).encode(),
        "pse is a text": json.dumps(trace | {"pse": "yes"}).encode(),
        "constants is a list": json.dumps(trace | {"constants": []}).encode(),
        "state is a number": json.dumps(trace | {"after_mem_init": 3}).encode(),
        "unknown name": json.dumps(trace | {"after_mem_init": {"nonsense": 3}}).encode(),
    }
    runs = [{"first": 5000, "count": 1, "value": 7}]
    contents["pgd run outside"] = json.dumps(
        trace | {"after_mem_init": {"pgd_runs": runs}}
    ).encode()
    contents["unknown function"] = json.dumps(
        load("bootmem_16MB.json.gz") | {"traces": [{"name": "x", "ops": [{"fn": "f", "args": []}]}]}
    ).encode()
    contents["wrong arguments"] = json.dumps(
        load("bootmem_16MB.json.gz")
        | {"traces": [{"name": "x", "ops": [{"fn": "init_bootmem", "args": [1]}]}]}
    ).encode()
    contents["operation before init"] = json.dumps(
        load("bootmem_16MB.json.gz")
        | {"traces": [{"name": "x", "ops": [{"fn": "free_all_bootmem", "args": []}]}]}
    ).encode()
    contents["unknown build"] = json.dumps(load("layout_hm.json.gz") | {"config": "m68k"}).encode()
    files = {}
    for number, (name, content) in enumerate(contents.items()):
        files[name] = path / f"{number}.json"
        files[name].write_bytes(content)
    return files


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return hostile_files(tmp_path_factory.mktemp("hostile"))


HOSTILE = """empty|truncated|only the magic|bad checksum|flipped|no JSON|binary|deep|a list|a number
no topic|topic is a list|unknown topic|only a topic|only a bootmem topic|only a layout topic
boot_log missing|other topic|layout named setup|e820 is a number|e820 overlaps|mem_mb is a text
mem_mb is huge|PGE without PSE|pse is a text|constants is a list|state is a number|unknown name
pgd run outside|unknown function|wrong arguments|operation before init
unknown build"""


@pytest.mark.parametrize("name", HOSTILE.replace("\n", "|").split("|"))
def test_a_file_that_is_no_trace_is_one_clear_line(name: str, hostile: dict[str, Path]) -> None:
    with pytest.raises(BadInput) as caught:
        replay(hostile[name])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400


def test_every_hostile_file_is_tried(hostile: dict[str, Path]) -> None:
    assert sorted(hostile) == sorted(HOSTILE.replace("\n", "|").split("|"))


def test_a_kernel_that_stops_where_the_real_one_went_on_is_a_difference(tmp_path: Path) -> None:
    """Here by a planted double free, which the model refuses."""
    trace = load("buddy_16MB.json.gz")
    operations = trace["traces"][0]["ops"]
    freed = next(operation for operation in operations if operation["op"] == "free")
    operations.insert(operations.index(freed) + 1, freed)
    difference = replay(save(trace, tmp_path / "twice.json")).difference
    assert difference is not None
    assert "freed twice" in str(difference)
    assert f"frame {freed['pfn']:#x}" in str(difference)


def test_arguments_beyond_all_memory_are_an_error_of_ours_too(tmp_path: Path) -> None:
    operation = {"fn": "init_bootmem", "args": [1 << 60, 1 << 62]}
    trace = load("bootmem_16MB.json.gz") | {"traces": [{"name": "x", "ops": [operation]}]}
    with pytest.raises(MmucheckError, match="outside RAM"):
        replay(save(trace, tmp_path / "absurd.json"))


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere.json: cannot read: No such file"):
        read_trace(tmp_path / "nowhere.json")
    with pytest.raises(BadInput, match="not a regular file"):
        read_trace(tmp_path)


def test_a_trace_may_be_plain_json(tmp_path: Path) -> None:
    result = replay(save(load("setup_16MB.json.gz"), tmp_path / "plain.json"))
    assert result.ok


# -- comparing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "actual", "where"),
    [
        (1, 2, "x"),
        ([1, 2], [1, 3], "x[1]"),
        ([1, 2], [1], "len(x)"),
        ([1], [1, 2], "len(x)"),
        ([2, 2], [3], "x[0]"),
        ({"a": 1}, {"a": 2}, "x.a"),
        ({"a": 1}, {}, "names in x"),
        ({}, {"a": 1}, "names in x"),
        ({"a": [{"b": 1}]}, {"a": [{"b": None}]}, "x.a[0].b"),
        ([], {}, "x"),
        (None, 0, "x"),
        ("1", 1, "x"),
        ([[]], [0], "x[0]"),
    ],
)
def test_the_first_difference_is_named(expected: object, actual: object, where: str) -> None:
    with pytest.raises(Difference) as caught:
        Comparison().equal("x", expected, actual)
    assert caught.value.where == where
