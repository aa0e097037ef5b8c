# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6 says in its log when objects are misused, and where it stops."""

import re

import pytest

from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.mm.slab import BadObject, bad_objects
from kernel_model.mm.slab.flags import (
    SLAB_CTOR_ATOMIC,
    SLAB_CTOR_CONSTRUCTOR,
    SLAB_CTOR_VERIFY,
    SLAB_DEBUG_INITIAL,
)
from kernel_model.mm.slab.linux_2_6 import Slab26
from tests.harness.slab_worlds import world_of

pytestmark = pytest.mark.book("8.1.2", "8.8")
PAGE_OFFSET = 0xC0000000
INACTIVE, ACTIVE = 0x5A2CF071, 0x170FC2A5


class Watched:
    """A debugging allocator and its log since a cache of 40 bytes was made."""

    def __init__(self, flags: int = 0) -> None:
        self.world = world_of(KernelConfig(ram=16 * MIB, release="2.6", debug_slab=True))
        assert isinstance(self.world.slab, Slab26)
        self.slab: Slab26 = self.world.slab
        self.ram = self.world.image.ram
        self.gfp = self.world.image.constants.gfp.kernel
        self.constructed: list[int] = []
        self.destructed: list[int] = []
        self.cachep = self.slab.kmem_cache_create("watched", 40, 0, flags, *self._functions(flags))
        self.cache = self.slab.objects.cache(self.cachep)
        self._said = len(self.world.image.log)

    def _functions(self, flags: int) -> tuple[()] | tuple[object, object]:
        if not flags & SLAB_DEBUG_INITIAL:
            return ()
        return (
            lambda objp, cachep, flags: self.constructed.append(flags),
            lambda objp, cachep, flags: self.destructed.append(objp),
        )

    def alloc(self, gfp: int | None = None) -> int:
        return self.slab.kmem_cache_alloc(self.cachep, self.gfp if gfp is None else gfp)

    def free(self, objp: int) -> None:
        self.slab.kmem_cache_free(self.cachep, objp)

    def write(self, vaddr: int, byte: int) -> None:
        self.ram.write8(vaddr - PAGE_OFFSET, byte)

    def words(self, vaddr: int, count: int) -> list[int]:
        at = vaddr - PAGE_OFFSET >> 2
        return self.ram.words[at : at + count].tolist()

    def log(self) -> list[str]:
        text = "".join(self.world.image.log[self._said :])
        return re.sub(r"\bc0[0-9a-f]{6}\b", "ADDR", text).splitlines()


def test_an_object_stands_between_red_zones_and_behind_it_who_used_it() -> None:
    """4 bytes of red zone, 40 of the object, 4 of red zone, 4 of the user."""
    watched = Watched()
    debug = watched.slab.objects.debug
    assert debug is not None
    debug.caller = 0xC0123456
    objp = watched.alloc()
    assert watched.cache.objsize == 52
    assert watched.slab.kmem_cache_size(watched.cachep) == 40
    assert watched.words(objp - 4, 1) == [ACTIVE]
    assert watched.words(objp + 40, 2) == [ACTIVE, 0xC0123456]
    assert watched.ram.read(objp - PAGE_OFFSET, 40) == b"\x5a" * 39 + b"\xa5"
    watched.free(objp)
    assert watched.words(objp - 4, 1) == watched.words(objp + 40, 1) == [INACTIVE]
    assert watched.ram.read(objp - PAGE_OFFSET, 40) == b"\x6b" * 39 + b"\xa5"
    assert watched.log() == []


@pytest.mark.parametrize("at", [-1, 40])
def test_a_store_beside_an_object_is_told_and_survived(at: int) -> None:
    watched = Watched()
    objp = watched.alloc()
    watched.write(objp + at, 0)
    (fault,) = bad_objects(watched.slab)
    assert fault.object == objp - 4
    watched.free(objp)
    first, second = watched.log()
    assert first == (
        "<3>slab error in cache_free_debugcheck(): cache `watched': "
        "double free, or memory outside object was overwritten"
    )
    assert second.startswith("<3>ADDR: redzone 1: 0x")
    assert list(bad_objects(watched.slab)) == []


def test_a_store_after_free_is_shown_with_its_neighbours() -> None:
    watched = Watched()
    below, objp, above = sorted(watched.alloc() for _ in range(16))[3:6]
    watched.free(objp)
    watched.write(objp + 20, 0x77)
    (fault,) = bad_objects(watched.slab)
    assert (fault.object, fault.offset) == (objp - 4, 24)
    assert watched.alloc() == objp
    assert watched.log() == [
        "<3>Slab corruption: start=ADDR, len=40",
        "<3>Redzone: 0x5a2cf071/0x5a2cf071.",
        "<3>Last user: [<00000000>]",
        "<3>010: 6b 6b 6b 6b 77 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b 6b",
        *(
            line
            for name in ("Prev", "Next")
            for line in (
                f"<3>{name} obj: start=ADDR, len=40",
                "<3>Redzone: 0x170fc2a5/0x170fc2a5.",
                "<3>Last user: [<00000000>]",
                "<3>000: " + " ".join(["5a"] * 16),
                "<3>010: " + " ".join(["5a"] * 16),
            )
        ),
    ]
    assert above - objp == objp - below == 52


def test_a_second_free_is_told_and_stops_where_it_reaches_the_slab() -> None:
    watched = Watched()
    objp = watched.alloc()
    watched.free(objp)
    watched.free(objp)
    assert "double free" in watched.log()[0]
    (fault,) = bad_objects(watched.slab)
    assert fault.reason.startswith("freed twice: it waits in per-CPU arrays twice")
    with pytest.raises(BadObject, match="freed twice"):
        watched.slab.cpu_caches.drain_cpu_caches(watched.cache)


def test_an_address_inside_an_object_is_none() -> None:
    watched = Watched()
    objp = watched.alloc()
    with pytest.raises(BadObject, match="no object begins there") as fault:
        watched.free(objp + 8)
    assert (fault.value.object, fault.value.offset) == (objp - 4, 8)


def test_poisoned_objects_are_constructed_for_their_user() -> None:
    """A new slab constructs none of them; each goes back through the destructor."""
    watched = Watched(SLAB_DEBUG_INITIAL)
    objp = watched.alloc()
    assert watched.constructed == [SLAB_CTOR_CONSTRUCTOR]
    watched.free(objp)
    assert watched.constructed[1:] == [SLAB_CTOR_CONSTRUCTOR | SLAB_CTOR_VERIFY]
    assert watched.destructed == [objp]
    watched.alloc(watched.world.image.constants.gfp.atomic)
    assert watched.constructed[2:] == [SLAB_CTOR_CONSTRUCTOR | SLAB_CTOR_ATOMIC]
    watched.free(objp)
    assert watched.slab.kmem_cache_shrink(watched.cachep) == 0
    assert watched.destructed == [objp, objp]


def test_a_store_into_a_free_slab_is_told_when_it_goes() -> None:
    watched = Watched()
    objp = watched.alloc()
    watched.free(objp)
    watched.write(objp - 1, 1)
    watched.slab.kmem_cache_shrink(watched.cachep)
    assert watched.log() == [
        "<3>slab error in slab_destroy(): cache `watched': start of a freed object was overwritten"
    ]


def test_memory_for_dma_is_not_asked_of_another_cache() -> None:
    watched = Watched()
    with pytest.raises(KernelBug, match="do not fit cache watched"):
        watched.alloc(watched.gfp | 1)
