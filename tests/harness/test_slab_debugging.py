# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code that misuses objects is found out, and the report says where and how.

The mistakes are made by code on the CPU: a store beside an object, one after it was freed, a
second free, the free of a stranger. With CONFIG_DEBUG_SLAB the kernel finds each; what it finds
without is said at each test.
"""

import pytest

from harness.guests import guest_path
from harness.machine import GuestDied, Machine
from kernel_model.config import KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.slab import BadObject, bad_objects
from tests.harness.test_kernel_calls import create

pytestmark = pytest.mark.book("8.1.2")
WORD = 4
USED = bytes.fromhex("a5c20f17")
FREE = bytes.fromhex("71f02c5a")


def machine_of(**options: bool | int) -> Machine:
    return Machine(Kernel(KernelConfig(**options)), image=guest_path("slab_test", "nohm"))


@pytest.fixture
def debug() -> Machine:
    return machine_of(debug_slab=True)


@pytest.fixture
def plain() -> Machine:
    return machine_of()


def reported(died: pytest.ExceptionInfo[GuestDied]) -> BadObject:
    """What killed the guest; the machine's report begins with the same words."""
    fault = died.value.__cause__
    assert isinstance(fault, BadObject)
    assert died.value.report.reason == str(fault)
    return fault


def check_place(machine: Machine, fault: BadObject, cache: str, objp: int) -> None:
    """``objp`` is the object as its user knows it, behind the red zone."""
    slab = machine.kernel.slab.objects.page_slab_of(objp)
    assert (fault.cache, fault.slab, fault.object) == (cache, slab, objp - WORD)


def test_an_overrun_is_found_when_the_object_is_freed(debug: Machine) -> None:
    objp = debug.call("kmalloc", 64, GFP_KERNEL)
    debug.call("write_byte", objp, 64, 0x99)
    assert [str(fault) for fault in bad_objects(debug.kernel.slab)] == [
        "kernel BUG at slab.c: written outside while in use (behind it): cache size-64, slab "
        f"{debug.kernel.slab.objects.page_slab_of(objp):#x}, object {objp - 4:#x}, offset 68, "
        "expected a5 c2 0f 17, found 99 c2 0f 17"
    ]
    with pytest.raises(GuestDied) as died:
        debug.call("kfree", objp)
    fault = reported(died)
    check_place(debug, fault, "size-64", objp)
    assert (fault.offset, fault.expected, fault.found) == (68, USED, b"\x99" + USED[1:])


def test_an_underrun_is_found_when_the_object_is_freed(debug: Machine) -> None:
    objp = debug.call("kmalloc", 100, GFP_KERNEL)
    debug.call("write_byte", objp, -1, 0)
    with pytest.raises(GuestDied, match=r"in use \(before it\)") as died:
        debug.call("kfree", objp)
    fault = reported(died)
    check_place(debug, fault, "size-128", objp)
    assert (fault.offset, fault.expected, fault.found) == (0, USED, USED[:3] + b"\0")


def test_a_store_after_free_is_found_when_the_object_is_given_out_again(debug: Machine) -> None:
    objp = debug.call("kmalloc", 200, GFP_KERNEL)
    debug.call("kfree", objp)
    assert list(bad_objects(debug.kernel.slab)) == []
    debug.call("write_byte", objp, 40, 0x77)
    (fault,) = bad_objects(debug.kernel.slab)
    with pytest.raises(GuestDied, match="written after it was freed") as died:
        debug.call("kmalloc", 200, GFP_KERNEL)
    check_place(debug, reported(died), "size-256", objp)
    for found in (fault, reported(died)):
        assert found.offset == 44
        assert found.expected == b"\x5a" * 16
        assert found.found == b"\x77" + b"\x5a" * 15


def test_a_store_after_free_is_found_when_the_slab_goes(debug: Machine) -> None:
    cachep = create(debug, 80, ctor="", dtor="")
    objp = debug.call("kmem_cache_alloc", cachep, GFP_KERNEL)
    debug.call("kmem_cache_free", cachep, objp)
    debug.call("write_byte", objp, 79, 0)
    with pytest.raises(GuestDied) as died:
        debug.call("kmem_cache_shrink", cachep)
    fault = reported(died)
    check_place(debug, fault, "things", objp)
    assert (fault.offset, fault.expected, fault.found) == (83, b"\xa5", b"\0")


def test_a_store_beside_a_free_object(debug: Machine) -> None:
    objp = debug.call("kmalloc", 32, GFP_KERNEL)
    debug.call("kfree", objp)
    debug.call("write_byte", objp, 33, 1)
    with pytest.raises(GuestDied, match=r"while free \(behind it\)") as died:
        debug.call("kmalloc", 32, GFP_KERNEL)
    fault = reported(died)
    assert (fault.offset, fault.expected) == (36, FREE)
    assert fault.found == FREE[:1] + b"\x01" + FREE[2:]


def test_a_second_free(debug: Machine) -> None:
    objp = debug.call("kmalloc", 64, GFP_KERNEL)
    debug.call("kfree", objp)
    with pytest.raises(GuestDied, match=r"BUG at slab\.c: freed twice: cache size-64") as died:
        debug.call("kfree", objp)
    check_place(debug, reported(died), "size-64", objp)


@pytest.mark.parametrize("size", [64, 2000])
def test_the_free_of_an_address_inside_an_object(debug: Machine, size: int) -> None:
    """With 2,000 bytes there are no red zones: the object is too large for them."""
    objp = debug.call("kmalloc", size, GFP_KERNEL)
    with pytest.raises(GuestDied, match="no object begins there") as died:
        debug.call("kfree", objp + 12)
    fault = reported(died)
    assert fault.offset == 12
    assert fault.object == objp - (WORD if size == 64 else 0)


def test_the_free_of_a_stranger(debug: Machine) -> None:
    page = debug.call("__get_free_pages", GFP_KERNEL, 0)
    with pytest.raises(GuestDied, match=f"{page:#x} lies in no slab"):
        debug.call("kfree", page)


def test_the_free_into_another_cache(debug: Machine) -> None:
    cachep = create(debug, 64)
    objp = debug.call("kmalloc", 64, GFP_KERNEL)
    text = f"{objp:#x} is no object of cache things: it lies in cache size-64"
    with pytest.raises(GuestDied, match=text):
        debug.call("kmem_cache_free", cachep, objp)


def test_a_constructor_that_writes_outside_its_object(debug: Machine) -> None:
    cachep = create(debug, 64, 0, "construct_beyond", "")
    with pytest.raises(GuestDied, match="the constructor wrote outside the object") as died:
        debug.call("kmem_cache_alloc", cachep, GFP_KERNEL)
    fault = reported(died)
    assert (fault.cache, fault.offset, fault.expected) == ("things", 0, FREE)
    assert fault.slab != 0


# -- without CONFIG_DEBUG_SLAB ------------------------------------------------------------------


def test_nobody_sees_an_overrun_without_debugging(plain: Machine) -> None:
    """It changes the next object, which is all that happens in the kernel."""
    first = plain.call("kmalloc", 64, GFP_KERNEL)
    second = plain.call("kmalloc", 64, GFP_KERNEL)
    assert abs(first - second) == 64
    plain.call("write_byte", min(first, second), 64, 0x99)
    plain.call("kfree", first)
    plain.call("kfree", second)
    assert plain.ram.read8(max(first, second) - 0xC0000000) == 0x99
    assert list(bad_objects(plain.kernel.slab)) == []


def test_a_second_free_gives_one_object_to_two_users(plain: Machine) -> None:
    """The kernel goes on; a look at all objects sees the ring that the free list has become."""
    keep = plain.call("kmalloc", 64, GFP_KERNEL)
    objp = plain.call("kmalloc", 64, GFP_KERNEL)
    plain.call("kfree", objp)
    plain.call("kfree", objp)
    faults = list(bad_objects(plain.kernel.slab))
    assert {fault.reason.partition(":")[0] for fault in faults} >= {"freed twice"}
    assert (faults[0].object, faults[0].cache) == (objp, "size-64")
    users = [plain.call("kmalloc", 64, GFP_KERNEL) for _ in range(2)]
    assert users == [objp, objp] != [keep, keep]


def test_a_second_free_into_a_per_cpu_array() -> None:
    """The array has the object twice, with debugging or not; freeing the array finds it."""
    machine = machine_of(nr_cpus=2, debug_slab=True)
    objp = machine.call("kmalloc", 64, GFP_KERNEL)
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
    page = plain.call("__get_free_pages", GFP_KERNEL, 0)
    with pytest.raises(GuestDied, match=f"{page:#x} lies in no slab") as died:
        plain.call("kfree", page)
    assert isinstance(died.value.__cause__, KernelBug)


def test_all_objects_are_well_after_boot_and_use(debug: Machine) -> None:
    assert debug.call("fill_every_size", GFP_KERNEL) == 0
    assert list(bad_objects(debug.kernel.slab)) == []
    plain = machine_of(nr_cpus=2)
    assert plain.call("fill_every_size", GFP_KERNEL) == 0
    assert list(bad_objects(plain.kernel.slab)) == []
