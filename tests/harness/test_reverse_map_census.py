# SPDX-License-Identifier: GPL-2.0-or-later
"""The census of the reverse map finds what contradicts itself in RAM, and says which and where."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from harness.monitors.reverse_map import Mapped, ReverseMapWrong, reverse_map_census
from kernel_model.arch_i386.page import virt_to_phys
from tests.kernel_model.mm.rmap.world import World

PAGE = 4096
READ_WRITE = 3
ANONYMOUS = 0x22
VALUE = 77
KINDS = pytest.mark.parametrize("kind", ["object", "pte_chain"])


@dataclass
class Shared:
    """Two processes that share two anonymous pages at ``addr``."""

    world: World
    parent: int
    child: int
    addr: int

    def ptep(self, mm: int, number: int = 0) -> int:
        tables = self.world.memory.tables
        return tables.pte_offset(tables.pgd(mm), self.addr + number * PAGE)

    def page(self, number: int = 0) -> int:
        return self.world.page(self.parent, self.addr + number * PAGE)

    def pfn(self, number: int = 0) -> int:
        return self.world.memmap.pfn(self.page(number))

    def census(self) -> Mapped:
        world = self.world
        return reverse_map_census(world.image, world.memmap, world.walk, world.mms)

    def word(self, page: int, field: str) -> int:
        """Index into ``Ram.words`` of a field of a frame."""
        return self.world.memmap.word(page, self.world.image.structs.page.word(field))


@pytest.fixture
def shared(kind: str) -> Shared:
    world = World(kind, swap_pages=0)
    parent = world.start()
    addr = world.spaces.do_mmap_pgoff(0, 0, 2 * PAGE, READ_WRITE, ANONYMOUS, 0)
    for number in range(2):
        assert world.write(parent, addr + number * PAGE, VALUE)
    return Shared(world, parent, world.fork(parent), addr)


@KINDS
@pytest.mark.book("3.10")
def test_finds_each_pte_with_its_frame_and_owner(shared: Shared) -> None:
    """Against a walk of each page by itself."""
    expected = {
        (shared.ptep(mm, number), shared.pfn(number), mm)
        for mm in (shared.parent, shared.child)
        for number in range(2)
    }
    mapped = shared.census()
    assert set(zip(*(column.tolist() for column in mapped), strict=True)) == expected
    assert len(mapped.pteps) == len(expected)


@KINDS
def test_no_process_at_all(kind: str) -> None:
    world = World(kind, swap_pages=0)
    mapped = reverse_map_census(world.image, world.memmap, world.walk, [])
    assert [len(column) for column in mapped] == [0, 0, 0]
    assert all(column.dtype == np.int64 for column in mapped)


def _a_pte_too_many(shared: Shared) -> str:
    """A PTE that nobody told the reverse map of."""
    tables = shared.world.memory.tables.tables
    other = shared.ptep(shared.child) - 64 * 4
    tables.set_pte(other, tables.entry(shared.ptep(shared.child)))
    return f"frame {shared.pfn():#x}: 3 PTEs name it, the reverse map counts 2"


def _a_pte_lost(shared: Shared) -> str:
    shared.world.memory.tables.tables.set_pte(shared.ptep(shared.child), 0)
    return f"frame {shared.pfn():#x}: 1 PTEs name it, the reverse map counts 2"


def _nr_mapped(shared: Shared) -> str:
    shared.world.image.statics.page_states[0].nr_mapped += 1
    return "nr_mapped is 3, but 2 frames are mapped"


def _counted(field: str, number: int) -> Callable[[Shared], str]:
    def plant(shared: Shared) -> str:
        view = shared.world.spaces.areas.mm(shared.parent)
        right = int(getattr(view, field))
        setattr(view, field, right + number)
        return (
            f"address space {shared.parent:#x}: {field} is {right + number}, its page tables say "
            f"{right}"
        )

    return plant


EITHER: dict[str, Callable[[Shared], str]] = {
    "a PTE too many": _a_pte_too_many,
    "a PTE lost": _a_pte_lost,
    "nr_mapped": _nr_mapped,
    "rss": _counted("rss", 1),
    "anon_rss": _counted("anon_rss", -1),
    "nr_ptes": _counted("nr_ptes", 1),
}


def _mapcount(shared: Shared) -> str:
    shared.world.image.ram.words[shared.word(shared.page(), "_mapcount")] += 1
    return f"frame {shared.pfn():#x}: 2 PTEs name it, the reverse map counts 3"


def _index(shared: Shared) -> str:
    """The page is looked for one page too high, where another lies."""
    shared.world.image.ram.words[shared.word(shared.page(), "index")] += 1
    return f"frame {shared.pfn():#x}: the PTE at {{}} names it, the reverse map does not know"


def _another_anon_vma(shared: Shared) -> str:
    """An ``anon_vma`` on whose list no VMA stands."""
    world = shared.world
    start = world.start()
    addr = world.spaces.do_mmap_pgoff(0, 0, PAGE, READ_WRITE, ANONYMOUS, 0)
    assert world.write(start, addr, VALUE)
    words, other = world.image.ram.words, world.page(start, addr)
    words[shared.word(shared.page(), "mapping")] = words[shared.word(other, "mapping")]
    return f"frame {shared.pfn():#x}: the PTE at {{}} names it, the reverse map does not know"


OBJECTS: dict[str, Callable[[Shared], str]] = {
    "_mapcount": _mapcount,
    "index": _index,
    "anon_vma": _another_anon_vma,
}


def _overwrite_last_slot(shared: Shared, change: Callable[[int, int], int]) -> None:
    """The slot at the end of the first frame's chain; it is told that and the one before."""
    world = shared.world
    words, size = world.image.ram.words, world.image.structs.pte_chain.size
    last = virt_to_phys(words[shared.word(shared.page(), "pte")]) + size - 4 >> 2
    words[last] = change(words[last], words[last - 1])


def _wrong_slot(shared: Shared) -> str:
    _overwrite_last_slot(shared, lambda last, _: last - 4 * 64)
    return f"frame {shared.pfn():#x}: the PTE at {{}} names it, the reverse map does not know"


def _slot_twice(shared: Shared) -> str:
    _overwrite_last_slot(shared, lambda _, before: before)
    return f"frame {shared.pfn():#x}: the reverse map names a PTE twice"


CHAINS: dict[str, Callable[[Shared], str]] = {
    "a slot of another PTE": _wrong_slot,
    "a PTE in two slots": _slot_twice,
}
PLANTS = [
    *(("object", name, plant) for name, plant in {**EITHER, **OBJECTS}.items()),
    *(("pte_chain", name, plant) for name, plant in {**EITHER, **CHAINS}.items()),
]


@pytest.mark.book("3.10")
@pytest.mark.parametrize(
    ("kind", "plant"), [pytest.param(kind, plant, id=f"{kind}-{n}") for kind, n, plant in PLANTS]
)
def test_a_contradiction_is_named(shared: Shared, plant: Callable[[Shared], str]) -> None:
    shared.census()
    expected = plant(shared)
    with pytest.raises(ReverseMapWrong) as wrong:
        shared.census()
    before, _, after = expected.partition("{}")
    assert str(wrong.value).startswith(before)
    assert str(wrong.value).endswith(after)
