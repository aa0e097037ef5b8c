# SPDX-License-Identifier: GPL-2.0-or-later
"""Chains of PTEs by themselves: what they name, how they lie in RAM, and what they give back."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import BadConfig, KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.rmap.pte_chain import PteChains
from kernel_model.structs.linux_2_6.mmzone import NRPTE, PTE_CHAIN
from tests.kernel_model.mm.object_source import ObjectSource

PAGE_OFFSET = 0xC0000000
CACHE = 0xC0500000
MEM_MAP = 10 * MIB
TABLE = 6 * MIB
MM = 0xC0600000
DIRECT = 19


class Frames(MemMap):
    """``mem_map`` with the names of 2.6."""

    LINKS, COUNT, PRIVATE = "lru", "_count", "private"


class Chained:
    """A ``mem_map``, chains over it, and no allocator."""

    def __init__(self) -> None:
        config = KernelConfig(release="2.6", rmap="pte_chain", ram=16 * MIB)
        self.image = image = KernelImage(config)
        image.statics.mem_map = PAGE_OFFSET + MEM_MAP
        image.statics.pte_chain_cache = CACHE
        self.memmap = Frames(image)
        self.objects = ObjectSource(image, 8 * MIB, {CACHE: PTE_CHAIN.size})
        self.chains = PteChains(image, self.memmap, self.objects, PageTables(image))
        self.chains.table_made(MM, 0x08048000, TABLE + 0x120)
        self.page = self.memmap.page(0x700)

    def words(self, vaddr: int, count: int = NRPTE + 1) -> list[int]:
        at = vaddr - PAGE_OFFSET >> 2
        return self.image.ram.words[at : at + count].tolist()

    def add(self, number: int) -> int:
        """The PTE of this number in the table maps the frame, too."""
        ptep = TABLE + 4 * number
        assert self.chains.reserve()
        self.chains.add_file(self.page, ptep)
        return ptep

    @property
    def pte(self) -> int:
        """``page->pte``."""
        return self.words(self.page + self.image.structs.page.offset("pte"), 1)[0]

    @property
    def nr_mapped(self) -> int:
        return int(self.image.statics.page_states[0].nr_mapped)


@pytest.mark.book("3.10")
def test_one_pte_stands_in_the_frame_itself() -> None:
    chained = Chained()
    assert not chained.chains.mapped(chained.page)
    ptep = chained.add(5)
    assert chained.pte == PAGE_OFFSET + ptep
    assert chained.memmap.test(chained.page, DIRECT)
    assert chained.chains.mapcount(chained.page) == chained.nr_mapped == 1
    chained.chains.remove(MM, chained.page, ptep)
    assert chained.pte == chained.nr_mapped == 0
    assert not chained.memmap.test(chained.page, DIRECT)


@pytest.mark.book("3.10")
def test_more_fill_cache_lines_from_their_last_slot_down() -> None:
    """``NRPTE`` is what is left of a cache line of 32 bytes."""
    chained = Chained()
    assert NRPTE == 7
    pteps = [PAGE_OFFSET + chained.add(number) for number in range(2)]
    first = chained.pte
    assert chained.words(first) == [NRPTE - 2, *[0] * 5, pteps[1], pteps[0]]
    pteps += [PAGE_OFFSET + chained.add(number) for number in range(2, NRPTE)]
    assert chained.words(first) == [0, *reversed(pteps)]
    second_line = PAGE_OFFSET + chained.add(NRPTE)
    assert chained.words(chained.pte) == [first | NRPTE - 1, *[0] * 6, second_line]
    assert first != chained.pte
    assert not chained.memmap.test(chained.page, DIRECT)


@pytest.mark.book("3.10")
def test_the_last_to_come_takes_the_place_of_the_one_that_goes() -> None:
    chained = Chained()
    pteps = [chained.add(number) for number in range(NRPTE + 1)]
    first = chained.words(chained.pte)[0] & ~NRPTE
    chained.chains.remove(MM, chained.page, pteps[3])
    assert chained.pte == first
    filled = [PAGE_OFFSET + p for p in (*pteps[:3], pteps[NRPTE], *pteps[4:NRPTE])]
    assert chained.words(first) == [0, *reversed(filled)]


@pytest.mark.book("3.10")
def test_a_chain_of_one_goes_back_into_the_frame() -> None:
    chained = Chained()
    pteps = [chained.add(number) for number in range(2)]
    chained.chains.remove(MM, chained.page, pteps[0])
    assert not chained.memmap.test(chained.page, DIRECT)
    chained.chains.collapse(chained.page)
    assert chained.memmap.test(chained.page, DIRECT)
    assert chained.pte == PAGE_OFFSET + pteps[1]


@pytest.mark.book("3.10")
def test_whose_a_pte_is_stands_with_its_page_table() -> None:
    chained = Chained()
    assert chained.chains.owner(TABLE + 4 * 72) == (MM, 0x08000000 + 72 * 4096)
    chained.chains.table_freed(TABLE)
    assert chained.chains.owner(TABLE) == (0, 0)


def test_a_pte_that_moves_keeps_its_place() -> None:
    chained = Chained()
    pteps = [chained.add(number) for number in range(3)]
    chained.chains.moved(chained.page, pteps[1], TABLE + 0x800)
    assert sorted(chained.chains.ptes(chained.page)) == [pteps[0], pteps[2], TABLE + 0x800]
    with pytest.raises(KernelBug, match="not among those of frame 0x700"):
        chained.chains.moved(chained.page, pteps[1], TABLE)


@pytest.mark.parametrize("others", [0, 1, NRPTE])
def test_a_pte_that_is_not_there_cannot_be_removed(others: int) -> None:
    chained = Chained()
    for number in range(others + 1):
        chained.add(number)
    with pytest.raises(KernelBug, match="not among those of frame 0x700"):
        chained.chains.remove(MM, chained.page, TABLE + 0xFFC)


def test_without_memory_nothing_is_reserved() -> None:
    chained = Chained()
    chained.objects.left = 1
    assert chained.chains.reserve()
    assert chained.chains.reserve()
    chained.chains.add_file(chained.page, TABLE)
    chained.chains.add_file(chained.page, TABLE + 4)
    assert not chained.chains.reserve()
    for number in range(2, NRPTE):
        chained.chains.add_file(chained.page, TABLE + 4 * number)
    with pytest.raises(KernelBug, match="no line was kept"):
        chained.chains.add_file(chained.page, TABLE + 4 * NRPTE)


def test_a_configuration_of_2_4_has_no_chains() -> None:
    with pytest.raises(BadConfig, match=r"2\.4 has no reverse map"):
        KernelConfig(rmap="pte_chain")
    with pytest.raises(BadConfig, match="one of object, pte_chain"):
        KernelConfig(release="2.6", rmap="chains")


class Frame(RuleBasedStateMachine):
    """One frame, mapped and unmapped at random, against a set of PTEs."""

    def __init__(self) -> None:
        super().__init__()
        self.chained = Chained()
        self.named: set[int] = set()

    @rule(number=st.integers(0, 40))
    def add(self, number: int) -> None:
        if TABLE + 4 * number not in self.named:
            self.named.add(self.chained.add(number))

    @precondition(lambda self: self.named)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        ptep = data.draw(st.sampled_from(sorted(self.named)))
        self.chained.chains.remove(MM, self.chained.page, ptep)
        self.named.remove(ptep)

    @precondition(lambda self: self.named)
    @rule(data=st.data(), number=st.integers(100, 140))
    def move(self, data: st.DataObject, number: int) -> None:
        source, to = data.draw(st.sampled_from(sorted(self.named))), TABLE + 4 * number
        if to not in self.named:
            self.chained.chains.moved(self.chained.page, source, to)
            self.named.remove(source)
            self.named.add(to)

    @rule()
    def collapse(self) -> None:
        self.chained.chains.collapse(self.chained.page)

    @invariant()
    def names_them_all_once(self) -> None:
        chains, page = self.chained.chains, self.chained.page
        assert sorted(chains.ptes(page)) == sorted(self.named)
        assert self.chained.nr_mapped == bool(self.named)

    @invariant()
    def no_line_is_lost(self) -> None:
        """In use, but for one that the CPU keeps: as many as the PTEs need."""
        direct = self.chained.memmap.test(self.chained.page, DIRECT)
        needed = 0 if direct or not self.named else -(-len(self.named) // NRPTE)
        kept = int(self.chained.image.statics.local_pte_chain[0])
        assert len(self.chained.objects.live) == needed + bool(kept)


MACHINE_SETTINGS = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_frame_state_machine() -> None:
    run_state_machine_as_test(Frame, settings=MACHINE_SETTINGS)


def test_a_forgotten_removal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PteChains, "_remove_from_chain", lambda self, page, ptep: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Frame, settings=MACHINE_SETTINGS)
