# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of memory against a small oracle of the rules; what stays free after setup_memory()."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.config import MIB, E820Entry, Highmem, KernelConfig
from kernel_model.kernel import Kernel, boot

PAGES_PER_MIB = 256
KERNEL_END = 4 * MIB


def limits(ram: int, highmem: Highmem, asked: int | None) -> tuple[int, int, int]:
    """(low end, high start, high end) in MiB for ``ram`` MiB and the parameter ``highmem=``.

    The book's rules: the kernel maps 896 MiB at most. ``highmem=`` turns the end of memory into
    high memory if 64 MiB stay low, and cuts memory above 896 MiB down to what was asked.
    """
    low = min(ram, 896)
    if highmem is Highmem.NONE:
        return low, 0, 0
    if ram <= 896:
        high = asked if asked and asked < ram and ram - asked >= 64 else 0
        low = ram - high
    else:
        high = ram - 896 if asked is None else min(asked, ram - 896)
        if highmem is Highmem.GB4:
            high = min(high, 4096 - 896)
    return low, low, low + high


def after_setup_memory(**options: Any) -> Kernel:
    kernel = Kernel(KernelConfig(**options))
    next(kernel.boot_steps())
    return kernel


SIZES = st.one_of(
    st.integers(5, 1100),
    st.integers(15, 4096),
    st.sampled_from([15, 16, 63, 64, 65, 127, 128, 895, 896, 897, 959, 960, 961, 4095, 4096]),
    st.integers(4097, 65536),
)
ASKED = st.one_of(
    st.none(), st.integers(0, 1200), st.sampled_from([64, 128, 896, 960, 4096, 70000])
)


@pytest.mark.book("2.2.2", "5.2")
@given(ram=SIZES, highmem=st.sampled_from(list(Highmem)), asked=ASKED)
def test_limits_follow_the_rules(ram: int, highmem: Highmem, asked: int | None) -> None:
    pages = -1 if asked is None else asked * PAGES_PER_MIB
    kernel = after_setup_memory(ram=ram * MIB, highmem=highmem, highmem_pages=pages)
    statics = kernel.statics
    low, start, end = limits(ram, highmem, asked)
    found = (statics.max_low_pfn, statics.highstart_pfn, statics.highend_pfn)
    assert found == (low * PAGES_PER_MIB, start * PAGES_PER_MIB, end * PAGES_PER_MIB)
    assert statics.min_low_pfn == KERNEL_END >> 12
    available = f"<5>{low}MB LOWMEM available.\n"
    if highmem is not Highmem.NONE:
        available = f"<5>{end - start}MB HIGHMEM available.\n" + available
    assert kernel.log.endswith(available)


@pytest.mark.parametrize(
    ("ram", "highmem", "asked", "said"),
    [
        (64, Highmem.GB4, None, ""),
        (1024, Highmem.NONE, None, "<4>Warning only 896MB will be used.\n"),
        (1024, Highmem.NONE, None, "<4>Use a HIGHMEM enabled kernel.\n"),
        (5120, Highmem.NONE, None, "<4>Use a PAE enabled kernel.\n"),
        (5120, Highmem.GB4, None, "<4>Warning only 4GB will be used.\n"),
        (5120, Highmem.GB64, None, ""),
        (128, Highmem.NONE, 16, "<3>ignoring highmem size on non-highmem kernel!\n"),
        (
            100,
            Highmem.GB4,
            50,
            "<3>highmem size 50MB results in smaller than 64MB lowmem, ignoring it.\n",
        ),
        (
            100,
            Highmem.GB4,
            100,
            "<3>highmem size specified (100MB) is bigger than pages available (100MB)!.\n",
        ),
        (
            1024,
            Highmem.GB4,
            200,
            "only 128MB highmem pages available, ignoring highmem size of 200MB.\n",
        ),
    ],
)
@pytest.mark.book("5.2")
def test_a_parameter_that_makes_no_sense_is_ignored_aloud(
    ram: int, highmem: Highmem, asked: int | None, said: str
) -> None:
    pages = -1 if asked is None else asked * PAGES_PER_MIB
    log = after_setup_memory(ram=ram * MIB, highmem=highmem, highmem_pages=pages).log
    if said:
        assert said in log
    else:
        assert log.count("\n") == 2


def free_frames(kernel: Kernel) -> set[int]:
    bdata = kernel.statics.contig_bootmem_data
    bits = kernel.bootmem.bitmap(bdata)
    return {pfn for pfn in range(bits.length) if not bits.test(pfn)}


@st.composite
def maps(draw: st.DrawFn) -> tuple[E820Entry, ...]:
    """Conventional memory, the image, and then anything: holes, odd ends, reserved pieces."""
    at = 6 * MIB
    entries = [E820Entry(0, draw(st.integers(0x8000, 0xA0000))), E820Entry(MIB, at - MIB)]
    for _ in range(draw(st.integers(0, 6))):
        at += draw(st.sampled_from([0, 0, 1, 0x400, 0x1000, MIB]) | st.integers(0, MIB))
        size = draw(st.integers(1, 3 * MIB) | st.sampled_from([1, 0x400, 0x1000, 0x1FFF]))
        entries.append(E820Entry(at, size, draw(st.sampled_from([1, 1, 1, 2, 3, 4]))))
        at += size
    return tuple(entries)


@pytest.mark.book("5.3", "5.4")
@given(e820=maps(), cpus=st.sampled_from([1, 2]))
def test_what_is_free_is_whole_frames_of_ram_less_the_reservations(
    e820: tuple[E820Entry, ...], cpus: int
) -> None:
    kernel = after_setup_memory(e820=e820, nr_cpus=cpus)
    frames = kernel.statics.max_low_pfn
    ram = {
        pfn
        for entry in e820
        if entry.type == 1
        for pfn in range(-(-entry.addr // 4096), entry.end // 4096)
    }
    assert frames == max(ram) + 1
    map_bytes = (-(-frames // 8) + 3) & ~3
    image = range(MIB >> 12, (KERNEL_END + map_bytes + 2 * 4095) >> 12)
    assert free_frames(kernel) == ram - {0} - set(image) - ({1} if cpus > 1 else set())
    assert "reserved twice" not in kernel.log


@given(e820=maps(), highmem=st.sampled_from(list(Highmem)))
def test_any_sound_map_boots(e820: tuple[E820Entry, ...], highmem: Highmem) -> None:
    kernel = boot(KernelConfig(e820=e820, highmem=highmem))
    assert kernel.started
    assert kernel.log.endswith("k highmem)\n")


@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.book("2.2.2")
def test_holes_above_low_memory_are_never_free(holes: bool) -> None:
    """With a PCI hole below 4 GiB and the rest of RAM above it, as chipsets remap it."""
    middle = () if holes else (E820Entry(1024 * MIB, 1024 * MIB),)
    e820 = (
        E820Entry(0, 0x9F000),
        E820Entry(MIB, 1023 * MIB),
        *middle,
        E820Entry(2048 * MIB, 128 * MIB),
    )
    kernel = boot(KernelConfig(e820=e820, highmem=Highmem.GB4))
    expected = 128 + 128 + (0 if holes else 1024)
    assert kernel.statics.totalhigh_pages == expected * PAGES_PER_MIB
    assert kernel.statics.num_physpages == 2176 * PAGES_PER_MIB


@pytest.mark.book("5.2")
def test_register_memory_makes_a_resource_for_each_entry_below_4_gib() -> None:
    e820 = (
        E820Entry(0, 0x9F000),
        E820Entry(0xF0000, 0x10000, 2),
        E820Entry(MIB, 63 * MIB),
        E820Entry(0xFFFF0000, 0x10000, 2),
        E820Entry(1 << 32, 64 * MIB),
    )
    kernel = boot(KernelConfig(e820=e820, highmem=Highmem.GB64))
    made = [call.result for call in kernel.bootmem.calls if call.phase == "register_memory"]
    resource = kernel.image.structs.resource
    views: list[Any] = [resource.at(kernel.ram, paddr) for paddr in made]
    assert [(view.start, view.end, view.flags) for view in views] == [
        (entry.addr, entry.end - 1, 0x80000200) for entry in e820[:4]
    ]

    def text(pointer: int) -> bytes:
        return kernel.ram.read(pointer - 0xC0000000, 16).partition(b"\0")[0]

    assert [text(view.name) for view in views] == [
        b"System RAM",
        b"reserved",
        b"System RAM",
        b"reserved",
    ]
