# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that cannot be are refused with a line that says what to change."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.config import (
    CPU_MODELS,
    E820_RESERVED,
    MIB,
    E820Entry,
    Highmem,
    KernelConfig,
    check_e820,
    default_e820,
)
from kernel_model.errors import BadConfig, BadInput

LOW = E820Entry(0, 0x9F000)
REST = E820Entry(MIB, 63 * MIB)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ram": 0}, "RAM of 0 bytes"),
        ({"ram": -64 * MIB}, "RAM of -67108864 bytes"),
        ({"ram": 5 * MIB - 4096}, "from 5M to 64G"),
        ({"ram": 64 * MIB + 1}, "whole 4 KiB pages"),
        ({"ram": (64 << 30) + 4096}, "from 5M to 64G"),
        ({"cpu_model": "z80"}, "one of 486, pentium, pentium2, pentium3, coreduo"),
        ({"cpu_model": ""}, "unknown CPU model ''"),
        ({"release": "2.5"}, "unknown kernel release '2.5'"),
        ({"highmem": Highmem.GB64, "cpu_model": "486"}, "choose pentium2 or later"),
        ({"highmem": Highmem.GB64, "cpu_model": "pentium"}, "needs PAE"),
        ({"nr_cpus": 0}, "nr_cpus 0"),
        ({"nr_cpus": 33}, "takes 1 to 32"),
        ({"highmem_pages": -2}, "highmem= of -2 pages"),
        ({"l1_cache_bytes": 33}, "l1_cache_bytes 33"),
        ({"l1_cache_bytes": 0}, "l1_cache_bytes 0"),
        ({"spinlock_bytes": 8}, "spinlock_bytes 8"),
        ({"e820": (E820Entry(0, 64 * MIB, E820_RESERVED),)}, "no usable entry"),
        ({"e820": (LOW, REST, REST)}, "overlaps"),
        ({"e820": (LOW, E820Entry(0x9E000, 64 * MIB))}, "0x9e000.*overlaps 0x0..0x9f000"),
        ({"e820": (LOW, REST, E820Entry(32 * MIB, MIB, E820_RESERVED))}, "overlaps"),
        ({"e820": (REST, LOW)}, "0x0..0x9f000 is out of order: sort"),
        ({"e820": (LOW, E820Entry(MIB, 0), REST)}, "empty"),
        ({"e820": (LOW, E820Entry(MIB, -4096), REST)}, "empty or negative"),
        ({"e820": (E820Entry(-4096, 8192), REST)}, "empty or negative"),
        ({"e820": (LOW,)}, "RAM of 651264 bytes"),
        ({"e820": (LOW, E820Entry(MIB, 2 * MIB))}, "RAM of 3145728 bytes"),
        ({"e820": (LOW, E820Entry(16 * MIB, 16 * MIB))}, "no usable memory at 0x100000"),
        ({"e820": (LOW, E820Entry(MIB, MIB), E820Entry(3 * MIB, 60 * MIB))}, "0x200000"),
        ({"e820": (LOW, E820Entry(MIB, 3 * MIB), E820Entry(5 * MIB, MIB))}, "0x400000"),
        ({"e820": (LOW, REST, E820Entry(64 << 30, MIB))}, "to 64G"),
    ],
)
@pytest.mark.book("2.2.2")
def test_what_no_machine_could_boot_with_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        KernelConfig(**options)
    assert isinstance(caught.value, BadInput)
    assert "\n" not in str(caught.value)


@given(
    st.lists(
        st.builds(
            E820Entry,
            st.integers(-1, 40).map(lambda n: n << 12),
            st.integers(-1, 12).map(lambda n: n << 12),
            st.integers(1, 3),
        ),
        max_size=5,
    )
)
def test_a_map_is_refused_exactly_when_it_is_no_sorted_disjoint_list(
    entries: list[E820Entry],
) -> None:
    """The oracle marks every page that an entry covers and looks for a second mark."""
    pages = [page for e in entries for page in range(e.addr >> 12, e.end >> 12)]
    good = (
        any(e.type == 1 for e in entries)
        and all(e.size > 0 and e.addr >= 0 for e in entries)
        and len(pages) == len(set(pages))
        and pages == sorted(pages)
    )
    if good:
        check_e820(tuple(entries))
    else:
        with pytest.raises(BadConfig):
            check_e820(tuple(entries))


def test_the_map_decides_where_ram_ends_and_only_ram_counts() -> None:
    e820 = (LOW, REST, E820Entry(0xFFFC0000, 0x40000, E820_RESERVED))
    assert KernelConfig(ram=MIB, e820=e820).ram == 64 * MIB


def test_a_map_may_end_inside_a_page_as_the_bios_of_many_machines_has_it() -> None:
    assert KernelConfig(e820=(LOW, E820Entry(MIB, 63 * MIB - 0x400))).ram == 64 * MIB - 4096


def test_entries_that_meet_are_one_piece_of_ram() -> None:
    split = (LOW, E820Entry(MIB, 2 * MIB), E820Entry(3 * MIB, 61 * MIB))
    assert KernelConfig(e820=split).ram == 64 * MIB


def test_the_default_map_leaves_the_adapter_area_out() -> None:
    assert default_e820(64 * MIB) == (LOW, REST)


@pytest.mark.parametrize("model", CPU_MODELS)
def test_a_cpu_model_offers_what_its_generation_had(model: str) -> None:
    generation = list(CPU_MODELS).index(model)
    features = KernelConfig(cpu_model=model).features
    have = [features.pse, features.pge, features.pae, features.nx]
    assert have == [generation >= 1, generation >= 2, generation >= 2, generation >= 4]
