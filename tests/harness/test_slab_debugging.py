# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code that misuses objects is found out, and the report says where and how.

The mistakes are made by code on the CPU: a store beside an object, one after it was freed, a
second free, the free of a stranger. With CONFIG_DEBUG_SLAB the kernel finds each; what it finds
without is said at each test. 2.4 stops at all that it finds; 2.6 says so in its log and goes on,
unless it could not put the object anywhere.
"""

from dataclasses import dataclass
from typing import Any

import pytest

from harness.guests import guest_path
from harness.machine import GuestDied, Machine, guest_variant
from kernel_model.config import KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel
from kernel_model.mm.slab import BadObject, bad_objects
from tests.harness.test_kernel_calls import create, gfp_kernel

pytestmark = pytest.mark.book("8.1.2")
WORD = 4
USED = bytes.fromhex("a5c20f17")
FREE = bytes.fromhex("71f02c5a")
POISON = {"2.4": 0x5A, "2.6": 0x6B}
OUTSIDE = "double free, or memory outside object was overwritten"


def machine_of(release: str, **options: Any) -> Machine:
    config = KernelConfig(release=release, **options)
    return Machine(Kernel(config), image=guest_path("slab_test", guest_variant(config)))


@pytest.fixture
def debug(either_release: str) -> Machine:
    return machine_of(either_release, debug_slab=True)


@pytest.fixture
def plain(either_release: str) -> Machine:
    return machine_of(either_release)


def kmalloc(machine: Machine, size: int) -> int:
    return machine.call("kmalloc", size, gfp_kernel(machine))


@dataclass(frozen=True)
class Told:
    """What the kernel made of a call: the fault at which it stopped, and what it said before."""

    fault: BadObject | None
    said: list[str]


def told(machine: Machine, function: str, *arguments: int) -> Told:
    log = machine.kernel.image.log
    before, end = len(log), None
    try:
        machine.call(function, *arguments)
    except GuestDied as died:
        end = died
    fault = end.__cause__ if end else None
    assert fault is None or isinstance(fault, BadObject)
    assert not end or end.report.reason == str(fault), "the report begins with the same words"
    return Told(fault, "".join(log[before:]).replace("<3>", "").splitlines())


def check_stopped(
    machine: Machine, told: Told, cache: str, objp: int, offset: int, expected: bytes, found: bytes
) -> None:
    """``objp`` is the object as its user knows it, behind the red zone. A word of red zone is told
    as a whole."""
    fault, slab = told.fault, machine.kernel.slab.objects.page_slab_of(objp)
    assert fault is not None
    assert (fault.cache, fault.slab, fault.object) == (cache, slab, objp - WORD)
    assert (fault.offset, fault.expected, fault.found) == (offset, expected, found)


def slab_error(function: str, cache: str, objp: int, before: bytes, behind: bytes) -> list[str]:
    """What 2.6 says of wrong red zones, with the two words as they were."""
    zones = [int.from_bytes(zone, "little") for zone in (before, behind)]
    return [
        f"slab error in {function}(): cache `{cache}': {OUTSIDE}",
        f"{objp - WORD:08x}: redzone 1: {zones[0]:#x}, redzone 2: {zones[1]:#x}.",
    ]


OUTSIDE_WRITES = {
    "behind it": (64, "size-64", 64, 68, USED, b"\x99" + USED[1:]),
    "before it": (100, "size-128", -1, 0, USED[:3] + b"\x99", USED),
}
"""Bytes, cache, which byte is written, where the red zone begins, and the two zones then."""


@pytest.mark.parametrize("side", OUTSIDE_WRITES)
def test_a_store_outside_is_found_when_the_object_is_freed(debug: Machine, side: str) -> None:
    size, cache, at, offset, before, behind = OUTSIDE_WRITES[side]
    objp = kmalloc(debug, size)
    debug.call("write_byte", objp, at, 0x99)
    (seen,) = bad_objects(debug.kernel.slab)
    wrong = before if side == "before it" else behind
    slab = debug.kernel.slab.objects.page_slab_of(objp)
    assert str(seen) == (
        f"kernel BUG at slab.c: written outside while in use ({side}): cache {cache}, "
        f"slab {slab:#x}, object {objp - 4:#x}, "
        f"offset {offset}, expected a5 c2 0f 17, found {wrong.hex(' ')}"
    )
    freed = told(debug, "kfree", objp)
    if debug.kernel.config.release == "2.4":
        assert f"in use ({side})" in str(freed.fault)
        check_stopped(debug, freed, cache, objp, offset, USED, wrong)
    else:
        said = slab_error("cache_free_debugcheck", cache, objp, before, behind)
        assert freed == Told(None, said)
        assert list(bad_objects(debug.kernel.slab)) == [], "it is a free object now"


def test_a_store_after_free_is_found_when_the_object_is_given_out_again(debug: Machine) -> None:
    objp, poison = kmalloc(debug, 200), POISON[debug.kernel.config.release]
    debug.call("kfree", objp)
    assert list(bad_objects(debug.kernel.slab)) == []
    debug.call("write_byte", objp, 40, 0x77)
    (seen,) = bad_objects(debug.kernel.slab)
    good, bad = bytes([poison] * 16), bytes([0x77] + [poison] * 15)
    assert (seen.offset, seen.expected, seen.found) == (44, good, bad)
    again = told(debug, "kmalloc", 200, gfp_kernel(debug))
    if debug.kernel.config.release == "2.4":
        assert "written after it was freed" in str(again.fault)
        check_stopped(debug, again, "size-256", objp, 44, good, bad)
    else:
        assert again.fault is None
        assert again.said[0] == f"Slab corruption: start={objp:08x}, len=256"
        assert again.said[1] == "Redzone: 0x5a2cf071/0x5a2cf071."
        assert again.said[3] == "020: " + (good[:8] + bad[:8]).hex(" ")


def test_a_store_after_free_is_found_when_the_slab_goes(debug: Machine) -> None:
    cachep = create(debug, 80, ctor="", dtor="")
    objp = debug.call("kmem_cache_alloc", cachep, gfp_kernel(debug))
    debug.call("kmem_cache_free", cachep, objp)
    debug.call("write_byte", objp, 79, 0)
    gone = told(debug, "kmem_cache_shrink", cachep)
    if debug.kernel.config.release == "2.4":
        check_stopped(debug, gone, "things", objp, 83, b"\xa5", b"\0")
    else:
        assert gone.fault is None
        assert gone.said[0] == f"Slab corruption: start={objp:08x}, len=80"
        assert gone.said[3] == "040: " + (b"\x6b" * 15 + b"\0").hex(" ")


def test_a_store_beside_a_free_object(debug: Machine) -> None:
    objp = kmalloc(debug, 32)
    debug.call("kfree", objp)
    debug.call("write_byte", objp, 33, 1)
    wrong = FREE[:1] + b"\x01" + FREE[2:]
    again = told(debug, "kmalloc", 32, gfp_kernel(debug))
    if debug.kernel.config.release == "2.4":
        assert "while free (behind it)" in str(again.fault)
        check_stopped(debug, again, "size-32", objp, 36, FREE, wrong)
    else:
        said = slab_error("cache_alloc_debugcheck_after", "size-32", objp, FREE, wrong)
        assert again == Told(None, said)


def test_a_second_free(debug: Machine) -> None:
    """2.6 has the object in its array twice then; the look at all objects finds it there."""
    objp = kmalloc(debug, 64)
    debug.call("kfree", objp)
    second = told(debug, "kfree", objp)
    if debug.kernel.config.release == "2.4":
        assert str(second.fault).startswith("kernel BUG at slab.c: freed twice: cache size-64")
        check_stopped(debug, second, "size-64", objp, 0, b"", b"")
    else:
        said = slab_error("cache_free_debugcheck", "size-64", objp, FREE, FREE)
        assert second == Told(None, said)
        (seen,) = bad_objects(debug.kernel.slab)
        assert "per-CPU arrays twice" in str(seen)


@pytest.mark.parametrize(
    ("size", "zones"), [(64, {"2.4": True, "2.6": True}), (2000, {"2.4": False, "2.6": True})]
)
def test_the_free_of_an_address_inside_an_object(
    debug: Machine, size: int, zones: dict[str, bool]
) -> None:
    """To 2.4 an object of 2,000 bytes is too large for red zones."""
    objp, release = kmalloc(debug, size), debug.kernel.config.release
    freed = told(debug, "kfree", objp + 12)
    assert freed.fault is not None
    assert "no object begins there" in str(freed.fault)
    assert freed.fault.offset == 12
    assert freed.fault.object == objp - (WORD if zones[release] else 0)
    assert len(freed.said) == {"2.4": 0, "2.6": 2}[release], "it looks at the red zones before"


def test_the_free_of_a_stranger(debug: Machine) -> None:
    page = debug.call("__get_free_pages", gfp_kernel(debug), 0)
    with pytest.raises(GuestDied, match=f"{page:#x} lies in no slab"):
        debug.call("kfree", page)


def test_the_free_into_another_cache(debug: Machine) -> None:
    """2.6 would only warn, and have an object of the one cache in an array of the other; the model
    stops there, too."""
    cachep = create(debug, 64)
    objp = kmalloc(debug, 64)
    text = f"{objp:#x} is no object of cache things: it lies in cache size-64"
    with pytest.raises(GuestDied, match=text):
        debug.call("kmem_cache_free", cachep, objp)


def test_a_constructor_that_writes_outside_its_object(debug: Machine) -> None:
    """2.6 constructs what it poisons as it is given out, and looks when it comes back."""
    cachep = create(debug, 64, 0, "construct_beyond", "")
    made = told(debug, "kmem_cache_alloc", cachep, gfp_kernel(debug))
    if debug.kernel.config.release == "2.4":
        assert made.fault is not None
        assert "the constructor wrote outside the object" in str(made.fault)
        assert (made.fault.cache, made.fault.offset) == ("things", 0)
        assert made.fault.expected == FREE
        assert made.fault.slab != 0
        return
    assert made == Told(None, [])
    (seen,) = bad_objects(debug.kernel.slab)
    objp = seen.object + WORD
    assert (seen.offset, seen.expected, seen.found) == (0, USED, bytes(WORD))
    said = slab_error("cache_free_debugcheck", "things", objp, bytes(WORD), USED)
    assert told(debug, "kmem_cache_free", cachep, objp) == Told(None, said)


# -- without CONFIG_DEBUG_SLAB ------------------------------------------------------------------


def test_nobody_sees_an_overrun_without_debugging(plain: Machine) -> None:
    """It changes the next object, which is all that happens in the kernel."""
    first = kmalloc(plain, 64)
    second = kmalloc(plain, 64)
    assert abs(first - second) == 64
    plain.call("write_byte", min(first, second), 64, 0x99)
    plain.call("kfree", first)
    plain.call("kfree", second)
    assert plain.ram.read8(max(first, second) - 0xC0000000) == 0x99
    assert list(bad_objects(plain.kernel.slab)) == []


def test_a_second_free_gives_one_object_to_two_users(plain: Machine) -> None:
    """The kernel goes on; a look at all objects sees the ring that the free list has become, or the
    object in an array twice."""
    keep = kmalloc(plain, 64)
    objp = kmalloc(plain, 64)
    plain.call("kfree", objp)
    plain.call("kfree", objp)
    faults = list(bad_objects(plain.kernel.slab))
    assert {fault.reason.partition(":")[0] for fault in faults} >= {"freed twice"}
    assert (faults[0].object, faults[0].cache) == (objp, "size-64")
    users = [kmalloc(plain, 64) for _ in range(2)]
    assert users == [objp, objp] != [keep, keep]


def test_a_second_free_into_a_per_cpu_array(either_release: str) -> None:
    """The array has the object twice, with debugging or not; freeing the array finds it."""
    machine = machine_of(either_release, nr_cpus=2, debug_slab=True)
    objp = kmalloc(machine, 64)
    machine.call("kfree", objp)
    machine.call("kfree", objp)
    (fault,) = bad_objects(machine.kernel.slab)
    assert "per-CPU arrays twice" in str(fault)
    assert (fault.cache, fault.object) == ("size-64", objp - WORD)
    arrays = machine.kernel.slab.cpu_caches
    assert arrays is not None
    with pytest.raises(BadObject, match="freed twice"):
        arrays.drain_cpu_caches(machine.kernel.slab.find("size-64") or pytest.fail("no size-64"))


def test_the_free_of_a_stranger_without_debugging(plain: Machine) -> None:
    """The kernel would take ``page->list`` for a cache; the model stops there and says so."""
    page = plain.call("__get_free_pages", gfp_kernel(plain), 0)
    with pytest.raises(GuestDied, match=f"{page:#x} lies in no slab") as died:
        plain.call("kfree", page)
    assert isinstance(died.value.__cause__, KernelBug)


def test_all_objects_are_well_after_boot_and_use(debug: Machine, either_release: str) -> None:
    assert debug.call("fill_every_size", gfp_kernel(debug)) == 0
    assert list(bad_objects(debug.kernel.slab)) == []
    plain = machine_of(either_release, nr_cpus=2)
    assert plain.call("fill_every_size", gfp_kernel(plain)) == 0
    assert list(bad_objects(plain.kernel.slab)) == []
