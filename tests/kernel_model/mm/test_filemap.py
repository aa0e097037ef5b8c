# SPDX-License-Identifier: GPL-2.0-or-later
"""The page cache against a dictionary: chains that collide, lists of a space, references.

2.4 has a hash of all frames and lists of those of a file; 2.6 a tree for each file, with tags.
"""

from collections import defaultdict
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kernel_model.config import MIB, RELEASES, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.filemap import PageCache
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.gfp import GFP_ATOMIC
from kernel_model.mm.page_alloc import BadFrame
from kernel_model.mm.page_flags import NAMES, PG_ACTIVE, PG_DIRTY, PG_LOCKED, PG_LRU, PG_RESERVED
from kernel_model.mm.radix_tree import PAGECACHE_TAG_DIRTY, RadixTrees

PAGE_OFFSET = 0xC0000000
SPACES = 3
FRAMES = 6
SPACE_BYTES = 48
HASH_DIVISOR = 16
"""What divides 464, the bytes of an inode, and is a power of two."""
NEXT = SPACE_BYTES // HASH_DIVISOR
INDICES = (0, NEXT, 2 * NEXT)


def new_spaces(kernel: Kernel) -> list[int]:
    """Address spaces side by side: index ``i`` of one collides with ``i + NEXT`` of the one
    before, because the hash divides the address by 16 and adds the index."""
    frame = kernel.allocator.get_zeroed_page(GFP_ATOMIC)
    space_bytes = kernel.image.structs.address_space.size
    assert kernel.config.release == "2.6" or space_bytes == SPACE_BYTES
    spaces = [frame + number * space_bytes for number in range(SPACES)]
    for space in spaces:
        kernel.page_cache.init_address_space(space)
    return spaces


def bucket(kernel: Kernel, space: int, index: int) -> int:
    """The number of the chain, from the definition of ``_page_hashfn()``."""
    bits = int(kernel.statics.page_hash_bits)
    key = space // HASH_DIVISOR + index & 0xFFFFFFFF
    return key + (key >> bits) & (1 << bits) - 1


def chain(kernel: Kernel, number: int) -> list[int]:
    """The frames of a chain in RAM; checks what points back to each."""
    ram, kind = kernel.ram, kernel.image.structs.page
    link = int(kernel.statics.page_hash_table) + 4 * number
    pages: list[int] = []
    while page := ram.read32(link - PAGE_OFFSET):
        assert ram.read32(page + kind.offset("pprev_hash") - PAGE_OFFSET) == link
        pages.append(page)
        assert len(pages) <= FRAMES
        link = page + kind.offset("next_hash")
    return pages


def space_list(kernel: Kernel, space: int, name: str) -> list[int]:
    """The frames of a list of an address space, which are linked through ``page->list``."""
    head = entry = space + kernel.image.structs.address_space.offset(name)
    pages: list[int] = []
    while (entry := kernel.ram.read32(entry - PAGE_OFFSET)) != head:
        pages.append(entry)
        assert len(pages) <= FRAMES
    return pages


class CacheMachine(RuleBasedStateMachine):
    """Frames go into the cache and out of it; a dictionary knows where each is."""

    release: ClassVar = "2.4"

    def __init__(self) -> None:
        super().__init__()
        self.kernel = boot(KernelConfig(ram=6 * MIB, release=self.release))
        self.cache, self.memmap = self.kernel.page_cache, self.kernel.allocator.memmap
        self.spaces = new_spaces(self.kernel)
        self.pages = [self.kernel.allocator.alloc_page(GFP_ATOMIC) for _ in range(FRAMES)]
        self.cached: dict[tuple[int, int], int] = {}
        self.chains: defaultdict[int, list[int]] = defaultdict(list)
        self.clean: dict[int, list[int]] = {space: [] for space in self.spaces}
        self.dirty: dict[int, list[int]] = {space: [] for space in self.spaces}
        self.before = self.cache.size

    def _key(self, page: int) -> tuple[int, int] | None:
        return next((key for key, cached in self.cached.items() if cached == page), None)

    @rule(
        which=st.integers(0, FRAMES - 1), s=st.integers(0, SPACES - 1), i=st.sampled_from(INDICES)
    )
    def add(self, which: int, s: int, i: int) -> None:
        page, space = self.pages[which], self.spaces[s]
        if self._key(page):
            with pytest.raises(KernelBug, match="in a page cache already"):
                self.cache.add_to_page_cache(page, space, i)
            return
        if (space, i) in self.cached:
            return
        self.cache.add_to_page_cache(page, space, i)
        assert self.memmap.test(page, PG_LOCKED)
        self.memmap.clear_bit(page, PG_LOCKED)
        self.cached[space, i] = page
        self._entered(page, space, i)
        self.clean[space].insert(0, page)

    def _entered(self, page: int, space: int, index: int) -> None:
        """Where a frame is found from now on."""
        self.chains[bucket(self.kernel, space, index)].insert(0, page)

    def _left(self, page: int, space: int, index: int) -> None:
        self.chains[bucket(self.kernel, space, index)].remove(page)

    @rule(which=st.integers(0, FRAMES - 1))
    def remove(self, which: int) -> None:
        page = self.pages[which]
        key = self._key(page)
        if key is None:
            with pytest.raises(KernelBug, match="in no page cache"):
                self.cache.remove_inode_page(page)
            return
        self.cache.remove_inode_page(page)
        self.memmap.set_count(page, self.memmap.count(page) - 1)
        del self.cached[key]
        self._left(page, *key)
        for pages in (self.clean[key[0]], self.dirty[key[0]]):
            if page in pages:
                pages.remove(page)
        self.memmap.clear_bit(page, PG_DIRTY)

    @rule(which=st.integers(0, FRAMES - 1))
    def write(self, which: int) -> None:
        page = self.pages[which]
        key = self._key(page)
        if key is None:
            return
        self.cache.set_page_dirty(page)
        if page in self.clean[key[0]]:
            self.clean[key[0]].remove(page)
            self.dirty[key[0]].insert(0, page)

    @rule(which=st.integers(0, FRAMES - 1))
    def free_a_cached_frame(self, which: int) -> None:
        """The cache's reference is all that is left; one free too many is caught."""
        page = self.pages[which]
        if self._key(page) is None or self.memmap.test(page, PG_ACTIVE):
            return
        self.kernel.allocator.free_page(page)
        assert self.memmap.count(page) == 1
        with pytest.raises(BadFrame, match="freed while in a page cache"):
            self.kernel.allocator.free_page(page)
        self.memmap.set_count(page, 2)
        self.kernel.allocator.lru.add(page)

    @invariant()
    def ram_says_the_same(self) -> None:
        structs = self.kernel.image.structs
        assert self.cache.size == self.before + len(self.cached)
        for space in self.spaces:
            for index in range(-1, INDICES[-1] + 2):
                found = self.cache.find_page(space, index & 0xFFFFFFFF)
                assert found == self.cached.get((space, index), 0)
            view = self.kernel.image.at(structs.address_space, space)
            assert view.nrpages == sum(key[0] == space for key in self.cached)
            self.space_says_the_same(space)
        self.links_say_the_same()
        for page in self.pages:
            view = self.kernel.image.at(structs.page, page)
            key = self._key(page)
            assert self.memmap.count(page) == (2 if key else 1)
            if key:
                assert (view.mapping, view.index) == key
                assert self.memmap.test(page, self.kernel.image.constants.page_flags.lru)
            else:
                assert view.mapping == 0

    def space_says_the_same(self, space: int) -> None:
        """Which pages of an address space are clean, and which dirty."""
        assert space_list(self.kernel, space, "clean_pages") == self.clean[space]
        assert space_list(self.kernel, space, "dirty_pages") == self.dirty[space]
        assert not space_list(self.kernel, space, "locked_pages")

    def links_say_the_same(self) -> None:
        for number, pages in self.chains.items():
            assert chain(self.kernel, number) == pages
        for page in self.pages:
            view = self.kernel.image.at(self.kernel.image.structs.page, page)
            assert bool(view.pprev_hash) == bool(self._key(page))


class CacheMachine26(CacheMachine):
    """The same with the trees of 2.6, where a page can become clean again."""

    release = "2.6"

    def _entered(self, page: int, space: int, index: int) -> None:
        """The tree says it all."""

    def _left(self, page: int, space: int, index: int) -> None:
        """Here, too."""

    @rule(which=st.integers(0, FRAMES - 1))
    def free_a_cached_frame(self, which: int) -> None:
        """2.6 looks at a frame only when its last reference goes; then it must be in no cache."""

    @rule(which=st.integers(0, FRAMES - 1))
    def clean_again(self, which: int) -> None:
        page = self.pages[which]
        key = self._key(page)
        if key is None:
            return
        was = page in self.dirty[key[0]]
        assert self.cache.clear_page_dirty(page) == was
        if was:
            self.dirty[key[0]].remove(page)
            self.clean[key[0]].append(page)

    def space_says_the_same(self, space: int) -> None:
        assert isinstance(self.cache, RadixPageCache)
        tree, trees = self.cache.tree(space), self.cache.trees
        cached = sorted((index, page) for (s, index), page in self.cached.items() if s == space)
        assert list(trees.items(tree)) == cached
        dirty = [place for place in cached if place[1] in self.dirty[space]]
        assert list(trees.items(tree, 0, PAGECACHE_TAG_DIRTY)) == dirty

    def links_say_the_same(self) -> None:
        """Nothing links frames but the LRU lists."""


TestPageCache = pytest.mark.book("2.5")(CacheMachine.TestCase)
TestPageCache26 = pytest.mark.slow(pytest.mark.book("2.5", release="2.6")(CacheMachine26.TestCase))


def test_neighbours_share_a_chain() -> None:
    """The state machine above forces collisions: here they are."""
    kernel = boot(KernelConfig(ram=6 * MIB))
    first, second, third = new_spaces(kernel)
    places = [(first, 2 * NEXT), (second, NEXT), (third, 0)]
    assert len({bucket(kernel, *place) for place in places}) == 1
    pages = [kernel.allocator.alloc_page(GFP_ATOMIC) for _ in range(3)]
    for page, (space, index) in zip(pages, places, strict=True):
        kernel.page_cache.add_to_page_cache(page, space, index)
    assert chain(kernel, bucket(kernel, *places[0])) == pages[::-1]
    kernel.page_cache.remove_inode_page(pages[1])
    assert chain(kernel, bucket(kernel, *places[0])) == [pages[2], pages[0]]
    kernel.page_cache.remove_inode_page(pages[2])
    kernel.page_cache.remove_inode_page(pages[0])
    assert chain(kernel, bucket(kernel, *places[0])) == []


@pytest.mark.parametrize("fault", ["pprev", "chain", "hash", "list", "reference", "dirty"])
def test_the_state_machine_finds_planted_faults(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_remove, real_add = PageCache._remove_from_hash, PageCache.add_to_page_cache
    real_bucket = PageCache._bucket

    def neighbour_not_told(self: Any, page: int) -> None:
        base = self._memmap.word(page, 0)
        following = self._words[base + self._next_hash]
        old = self._words[self._memmap.word(following, self._pprev_hash)] if following else 0
        real_remove(self, page)
        if following:
            self._words[self._memmap.word(following, self._pprev_hash)] = old

    def rest_of_the_chain_is_lost(self: Any, page: int) -> None:
        self._words[self._memmap.word(page, self._next_hash)] = 0
        real_remove(self, page)

    def without_folding(self: Any, mapping: int, index: int) -> int:
        return real_bucket(self, 0, index)

    def onto_the_dirty_list(self: Any, page: int, mapping: int, index: int) -> None:
        real_add(self, page, mapping, index)
        self._lists.delete(page)
        offset = self._image.structs.address_space.offset("dirty_pages")
        self._lists.add(page, mapping + offset)

    def no_reference(self: Any, page: int, mapping: int, index: int) -> None:
        real_add(self, page, mapping, index)
        self._memmap.set_count(page, self._memmap.count(page) - 1)

    def only_marked(self: Any, page: int) -> None:
        self._memmap.set_bit(page, PG_DIRTY)

    name, replacement = {
        "pprev": ("_remove_from_hash", neighbour_not_told),
        "chain": ("_remove_from_hash", rest_of_the_chain_is_lost),
        "hash": ("_bucket", without_folding),
        "list": ("add_to_page_cache", onto_the_dirty_list),
        "reference": ("add_to_page_cache", no_reference),
        "dirty": ("set_page_dirty", only_marked),
    }[fault]
    monkeypatch.setattr(PageCache, name, replacement)
    found(CacheMachine)


def found(machine: type[CacheMachine]) -> None:
    with pytest.raises((AssertionError, KernelBug)):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=200, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["tree", "tag", "clean", "reference", "count"])
def test_the_state_machine_of_2_6_finds_planted_faults(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_add, real_remove = RadixPageCache.add_off_lru, RadixPageCache.remove_inode_page

    def no_reference(self: Any, page: int, mapping: int, index: int) -> int:
        error = real_add(self, page, mapping, index)
        self._memmap.set_count(page, self._memmap.count(page) - 1)
        return error

    def uncounted(self: Any, page: int) -> None:
        real_remove(self, page)
        self._statics.nr_pagecache += self.index(page) == NEXT

    def only_marked(self: Any, page: int) -> None:
        self._memmap.set_bit(page, PG_DIRTY)

    def only_unmarked(self: Any, page: int) -> bool:
        dirty = bool(self._memmap.test(page, PG_DIRTY))
        self._memmap.clear_bit(page, PG_DIRTY)
        return dirty

    owner, name, replacement = {
        "tree": (RadixTrees, "delete", lambda self, root, index: 0),
        "tag": (RadixPageCache, "set_page_dirty", only_marked),
        "clean": (RadixPageCache, "clear_page_dirty", only_unmarked),
        "reference": (RadixPageCache, "add_off_lru", no_reference),
        "count": (RadixPageCache, "remove_inode_page", uncounted),
    }[fault]
    monkeypatch.setattr(owner, name, replacement)
    found(CacheMachine26)


@pytest.mark.book("2.5")
def test_entering_the_cache_clears_what_the_last_user_left() -> None:
    """The flags that say what the contents are worth go; those that say where it is stay."""
    kernel = boot(KernelConfig(ram=6 * MIB))
    (space, *_), memmap = new_spaces(kernel), kernel.allocator.memmap
    page = kernel.allocator.alloc_page(GFP_ATOMIC)
    zone = memmap.zone_number(page)
    for bit in NAMES:
        if bit not in (PG_LRU, PG_ACTIVE, PG_RESERVED):
            memmap.set_bit(page, bit)
    kernel.page_cache.add_to_page_cache(page, space, 0)
    left = {NAMES[bit].removeprefix("PG_").lower() for bit in NAMES if memmap.test(page, bit)}
    assert left == {"locked", "unused", "lru", "slab", "skip", "highmem", "launder", "fs_1"}
    assert memmap.zone_number(page) == zone


@pytest.mark.parametrize("release", RELEASES)
def test_a_frame_outside_all_caches_is_only_marked_dirty(release: str) -> None:
    kernel = boot(KernelConfig(ram=6 * MIB, release=release))
    page = kernel.allocator.alloc_page(GFP_ATOMIC)
    kernel.page_cache.set_page_dirty(page)
    assert kernel.allocator.memmap.test(page, PG_DIRTY)


@pytest.mark.parametrize(
    ("ram", "order"), [(6, 1), (16, 2), (32, 3), (64, 4), (100, 5), (128, 5), (129, 6)]
)
def test_the_hash_table_has_a_pointer_for_each_frame(ram: int, order: int) -> None:
    kernel = boot(KernelConfig(ram=ram * MIB))
    statics = kernel.statics
    entries = 1 << statics.page_hash_bits
    assert entries == 1024 << order
    assert entries // 2 < statics.num_mappedpages <= entries
    assert statics.page_hash_table % (entries * 4) == 0
    frames = kernel.ram.read(statics.page_hash_table - PAGE_OFFSET, entries * 4)
    assert not any(frames)
