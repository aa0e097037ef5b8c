# SPDX-License-Identifier: GPL-2.0-or-later
"""The layouts of 2.6 against what its own compiler answered."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kernel_model.release.constants import LINUX_2_6
from kernel_model.structs import Abi, Structs

GOLDEN = Path(__file__).parents[2] / "data/linux-2.6.11"
NAMES = {
    "struct zone": "zone_t",
    "struct pglist_data": "pg_data_t",
    "struct free_area": "free_area_t",
    "struct zonelist": "zonelist_t",
    "struct slab": "slab_t",
    "struct cache_sizes": "cache_sizes_t",
    "struct rb_node": "rb_node_t",
    "struct rb_root": "rb_root_t",
}
NOT_MODELLED = {
    *("kmem_bufctl_t", "struct raw_prio_tree_node"),
    *("struct signal_struct", "struct sighand_struct", "struct files_struct", "struct fs_struct"),
    *("struct buffer_head", "struct task_struct", "struct thread_info"),
}
"""Whose fields nobody here looks at; caches know the sizes of some of them."""


def golden(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def build(config: str) -> Structs:
    smp = "smp" in config
    return Structs.of(
        Abi(
            release="2.6",
            smp=smp,
            spinlock_bytes=4 if smp else 0,
            nr_cpus=8 if smp else 1,
            debug_slab="dbg" in config,
            highmem="highmem" in config,
        )
    )


def assert_layout(structs: Structs, spelling: str, field: str, offset: int, size: int) -> int:
    """Hold one recorded row against the declaration. Returns how many numbers were compared."""
    if spelling in NOT_MODELLED:
        return 0
    kind = getattr(structs, NAMES.get(spelling, spelling.removeprefix("struct ")))
    assert (kind.offset(field) if field else kind.size) == (offset if field else size), (
        spelling,
        field,
    )
    return 1


@pytest.mark.book("2.8")
@pytest.mark.parametrize("config", ["64MB_up", "64MB_smp8", "1024MB_smp8_highmem"])
def test_zones(config: str) -> None:
    rows = golden(f"zones_{config}")["sizeof"].items()
    structs, compared = build(config), 0
    for name, value in rows:
        spelling, _, field = name.partition(".")
        compared += assert_layout(structs, spelling, field, value, value)
    assert compared == len(rows) == 42


@pytest.mark.book("8.8")
@pytest.mark.parametrize("index", range(4))
def test_slab(index: int) -> None:
    recorded = golden("slab_structs")["configs"][index]
    structs = build(recorded["config"])
    rows = [row for row in recorded["fields"] if row[0] != "const"]
    assert sum(assert_layout(structs, *row) for row in rows) > 50


@pytest.mark.book("4.8")
def test_address_spaces() -> None:
    recorded = golden("vma_structs")
    rows = [row for row in recorded["fields"] if row[0] != "const"]
    assert sum(assert_layout(build(recorded["config"]), *row) for row in rows) > 55


@pytest.mark.book("6.7")
def test_constants() -> None:
    recorded = golden("zones_64MB_smp8")["constants"]
    gfp, flags = LINUX_2_6.gfp, LINUX_2_6.page_flags
    for name in ("atomic", "noio", "nofs", "kernel", "user", "highuser"):
        assert getattr(gfp, name) == recorded[f"GFP_{name.upper()}"]
    bits = ("cold", "nowarn", "repeat", "nofail", "noretry", "no_grow", "comp", "zero")
    for name in bits:
        assert getattr(gfp, name) == recorded[f"__GFP_{name.upper()}"]
    for name in ("reserved", "private", "highmem"):
        assert getattr(flags, name) == recorded[f"PG_{name}"]
    pages = {row[1]: row[2] for row in golden("vma_structs")["fields"] if row[0] == "const"}
    for name in ("locked", "referenced", "uptodate", "dirty", "lru", "active", "swapcache"):
        assert getattr(flags, name) == pages[f"PG_{name}"]
    assert LINUX_2_6.max_order == recorded["MAX_ORDER"]
