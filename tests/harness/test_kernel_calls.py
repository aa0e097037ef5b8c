# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code on the CPU calls the kernel, and the kernel calls the guest's constructors."""

import pytest

from harness.guests import guest_path
from harness.hypercalls import Hypercall
from harness.kernel_calls import _MODEL, BadCall, KernelCalls
from harness.kernel_functions import KernelFunction, header_text
from harness.machine import GuestDied, GuestStopped, Limits, Machine, guest_variant
from harness.monitors import guest_slab_walk
from kernel_model.config import Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import GFP_ATOMIC, GFP_KERNEL
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN
from tests.harness.frame_accounting import check_machine

GIB = 1 << 30
CONFIGS = {
    "uma": KernelConfig(),
    "smp": KernelConfig(nr_cpus=2),
    "debug": KernelConfig(debug_slab=True),
    "highmem": KernelConfig(ram=GIB, highmem=Highmem.GB4),
    "pae": KernelConfig(ram=GIB, highmem=Highmem.GB64),
}
SCRATCH = 0xC0340000
"""Room for the tests' strings and arrays, inside the kernel's image and behind the guest."""
NAME = SCRATCH + 0x20000


def machine_of(config: KernelConfig) -> Machine:
    return Machine(Kernel(config), image=guest_path("slab_test", guest_variant(config)))


@pytest.fixture(params=CONFIGS)
def machine(request: pytest.FixtureRequest) -> Machine:
    return machine_of(CONFIGS[request.param])


@pytest.fixture
def plain() -> Machine:
    return machine_of(CONFIGS["uma"])


def create(
    machine: Machine, size: int, flags: int = 0, ctor: str = "construct", dtor: str = "destroy"
) -> int:
    """A cache of the guest's, by the guest's own call."""
    machine.ram.write(NAME - 0xC0000000, b"things\0")
    functions = [machine.symbol(name) if name else 0 for name in (ctor, dtor)]
    return machine.call("kmem_cache_create", NAME, size, 0, flags, *functions)


def calls(machine: Machine) -> dict[str, int]:
    """What the guest's constructor and destructor counted."""
    names = ("constructed", "destroyed", "verified", "wrong", "object", "cache", "flags")
    first = machine.symbol("calls") - 0xC0000000 >> 2
    return dict(zip(names, machine.ram.words[first : first + len(names)], strict=True))


# -- objects ----------------------------------------------------------------------------------


@pytest.mark.book("8.4", "8.4.1", "8.4.2")
@pytest.mark.parametrize("gfp", [GFP_KERNEL, GFP_ATOMIC])
def test_every_size_of_kmalloc_is_written_and_read_through_the_mmu(
    machine: Machine, gfp: int
) -> None:
    assert machine.call("fill_every_size", gfp) == 0
    counts = machine.kernel_calls.counts
    assert counts[KernelFunction.KMALLOC] == 54
    assert counts[KernelFunction.KFREE] == 53
    assert guest_slab_walk.check(machine) == []
    check_machine(machine.kernel, machine.ledger)


@pytest.mark.book("8.2.8", "8.3.1", "8.3.3")
def test_objects_are_constructed_by_guest_code(machine: Machine) -> None:
    cachep = create(machine, 100, SLAB_HWCACHE_ALIGN)
    cache = machine.kernel.slab.objects.cache(cachep)
    assert (cache.name, int(cache.view.ctor)) == ("things", machine.symbol("construct"))
    assert machine.call("use_cache", cachep, 25, 300, SCRATCH) == 300
    slabs = sum(1 for _ in cache.all_slabs())
    assert calls(machine)["constructed"] == slabs * cache.num >= 300
    assert calls(machine)["cache"] == cachep
    assert calls(machine)["flags"] == 1
    assert guest_slab_walk.check(machine) == []
    assert machine.call("free_objects", cachep, 300, SCRATCH) == 300
    assert guest_slab_walk.check(machine) == []
    assert calls(machine)["destroyed"] == 0
    assert machine.call("kmem_cache_destroy", cachep) == 0
    seen = calls(machine)
    assert seen["destroyed"] == seen["constructed"]
    assert seen["wrong"] == 0
    assert guest_slab_walk.check(machine) == []
    check_machine(machine.kernel, machine.ledger)


@pytest.mark.book("8.1.5")
def test_a_constructor_learns_that_it_must_not_sleep(plain: Machine) -> None:
    cachep = create(plain, 64)
    plain.call("kmem_cache_alloc", cachep, GFP_ATOMIC)
    assert calls(plain)["flags"] == 3


def test_a_constructor_may_allocate(plain: Machine) -> None:
    cachep = create(plain, 100, 0, "construct_by_allocating", "")
    assert plain.call("use_cache", cachep, 1, 40, SCRATCH) == 40
    seen = calls(plain)
    assert plain.kernel_calls.counts[KernelFunction.KMALLOC] == seen["constructed"]
    assert seen["wrong"] == 0


def test_the_kernel_calls_a_constructor_while_the_guest_rests(plain: Machine) -> None:
    """Python allocates from the guest's cache: nothing runs on the CPU at that time."""
    cachep = create(plain, 100)
    objp = plain.kernel.slab.kmem_cache_alloc(cachep, GFP_KERNEL)
    assert plain.ram.read32(objp - 0xC0000000) == 0xC0C0A000 ^ objp
    plain.kernel.slab.kmem_cache_free(cachep, objp)
    assert plain.kernel.slab.kmem_cache_shrink(cachep) == 1
    assert calls(plain)["destroyed"] == calls(plain)["constructed"] > 0


# -- what kills the guest ---------------------------------------------------------------------


def test_constructors_that_call_each_other_for_ever(plain: Machine) -> None:
    cachep = create(plain, 3000, 0, "construct_another", "")
    with pytest.raises(GuestDied, match="nest 16 deep"):
        plain.call("kmem_cache_alloc", cachep, GFP_KERNEL)
    assert plain.kernel.slab.objects.cache(cachep).view.growing == 0


def test_a_constructor_that_faults_is_reported_where_it_stands(plain: Machine) -> None:
    cachep = create(plain, 100, 0, "construct_and_die", "")
    with pytest.raises(GuestDied, match="#PF at 0x00000010") as died:
        plain.call("kmem_cache_alloc", cachep, GFP_KERNEL)
    start = plain.symbol("construct_and_die")
    assert start < died.value.report.registers["eip"] < start + 0x100


@pytest.mark.parametrize("limits", [Limits(seconds=0.3), Limits(instructions=300_000)])
def test_a_constructor_without_end_is_stopped(plain: Machine, limits: Limits) -> None:
    cachep = create(plain, 100, 0, "construct_for_ever", "")
    plain.limits = limits
    with pytest.raises(GuestStopped):
        plain.call("kmem_cache_alloc", cachep, GFP_KERNEL)


def test_a_constructor_that_ends_the_guest(plain: Machine) -> None:
    plain.ram.write(NAME - 0xC0000000, b"things\0")
    plain.ram.write(0x37F000, bytes([0xB8, Hypercall.IDLE, 0, 0, 0, 0xE7, 0x4D, 0xEB, 0xFE]))
    ctor = 0xC037F000
    cachep = plain.call("kmem_cache_create", NAME, 100, 0, 0, ctor, 0)
    with pytest.raises(GuestDied, match=f"the function at {ctor:#x} ended the guest"):
        plain.call("kmem_cache_alloc", cachep, GFP_KERNEL)


Call = tuple[str, tuple[int, ...]]

HOSTILE: list[tuple[Call, str]] = [
    (("kmem_cache_create", (0, 100, 0, 0, 0, 0)), "kernel BUG at slab.c:640"),
    (("kmem_cache_create", (NAME, 2, 0, 0, 0, 0)), "kernel BUG at slab.c:640"),
    (("kmem_cache_create", (NAME, 100, 200, 0, 0, 0)), "kernel BUG at slab.c:640"),
    (("kmem_cache_create", (NAME, 100, 0, 0, 0, 0xC0106000)), "no destructor without"),
    (("kmem_cache_create", (NAME, 100, 0, 1 << 31, 0, 0)), "unknown flags in 0x80000000"),
    (("kmem_cache_create", (0x1000, 100, 0, 0, 0, 0)), "no text lies at 0x1000"),
    (("kmem_cache_create", (0xFFFFFFFF, 100, 0, 0, 0, 0)), "no text lies at 0xffffffff"),
    (("kmem_cache_alloc", (0, GFP_KERNEL)), "0x0 is no cache of the chain"),
    (("kmem_cache_alloc", (0xFFFFFFF0, GFP_KERNEL)), "is no cache of the chain"),
    (("kmem_cache_free", (0xC0300000, 0)), "is no cache of the chain"),
    (("kmem_cache_shrink", (1,)), "0x1 is no cache of the chain"),
    (("kmem_cache_destroy", (0x80000000,)), "is no cache of the chain"),
    (("kmalloc", (100, 0xFFFFFFFF)), "kernel BUG at slab.c"),
    (("kfree", (0x10,)), "out of range ptr 0x10"),
    (("kfree", (0xFFFFFFFF,)), "out of range ptr 0xffffffff"),
    (("kfree", (0xC0300000,)), "lies in no slab"),
    (("free_pages", (0x10, 0)), "free_pages(0x10, 0x0): no frame lies at 0x10"),
    (("free_pages", (0xC0800000, 0)), "kernel BUG at page_alloc.c"),
    (("free_pages", (0xC0800000, 99)), "order 99 is too large"),
]


@pytest.mark.parametrize(("call", "text"), HOSTILE, ids=[f"{c[0]}-{c[1]}" for c, _ in HOSTILE])
def test_hostile_arguments_end_in_one_clear_line(plain: Machine, call: Call, text: str) -> None:
    plain.ram.write(NAME - 0xC0000000, b"things\0")
    name, words = call
    with pytest.raises(GuestDied) as died:
        plain.call(name, *words)
    assert text in died.value.report.reason
    assert "\n" not in died.value.report.reason


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (("kmalloc", (131073, GFP_KERNEL)), 0),
        (("kmalloc", (0xFFFFFFFF, GFP_KERNEL)), 0),
        (("kfree", (0,)), 0),
        (("vmalloc", (0,)), 0),
        (("vmalloc", (0xFFFFFFFF,)), 0),
        (("ioremap", (0xFFFFF000, 0x2000)), 0),
        (("vfree", (0x12345000,)), 0),
        (("iounmap", (0xFFFFFFFF,)), 0),
        (("kmem_find_general_cachep", (131073, 0)), 0),
    ],
)
def test_what_the_kernel_refuses_by_an_answer(plain: Machine, call: Call, answer: int) -> None:
    name, words = call
    assert plain.call(name, *words) == answer


def raw_call(machine: Machine, number: int, arguments: int) -> None:
    """A CALL that no stub made."""
    code = bytes([0xBB, *number.to_bytes(4, "little"), 0xB9, *arguments.to_bytes(4, "little")])
    code += bytes([0xB8, Hypercall.CALL, 0, 0, 0, 0xE7, 0x4D, 0xEB, 0x00, 0xC3])
    machine.ram.write(0x37F000, code)
    machine.call(0xC037F000)


@pytest.mark.parametrize(
    ("number", "arguments", "text"),
    [
        (0, 0xC0300000, "there is no kernel function 0x0"),
        (0xFFFFFFFF, 0xC0300000, "there is no kernel function 0xffffffff"),
        (1, 0, r"kmalloc\(\): no arguments lie at 0x0"),
        (1, 0xFFFFFFFC, r"kmalloc\(\): no arguments lie at 0xfffffffc"),
        (1, 0xC0000000 + (64 << 20) - 4, r"kmalloc\(\): no arguments lie at"),
    ],
)
def test_a_call_that_no_stub_made(plain: Machine, number: int, arguments: int, text: str) -> None:
    with pytest.raises(GuestDied, match=text):
        raw_call(plain, number, arguments)


def test_a_call_before_the_kernel_is_up() -> None:
    calls = KernelCalls(Kernel(CONFIGS["uma"]), lambda *_: 0)
    with pytest.raises(BadCall, match=r"kmalloc\(\) before start_kernel\(\)"):
        calls.call(KernelFunction.KMALLOC, 0xC0300000)


# -- the declarations ---------------------------------------------------------------------------


def test_every_function_has_a_model_and_a_stub() -> None:
    assert set(_MODEL) == set(KernelFunction)
    symbols = Machine(image=guest_path("slab_test", "nohm")).guest.symbols
    assert {function.symbol for function in KernelFunction} <= set(symbols)
    assert len({function.symbol for function in KernelFunction}) == len(KernelFunction)


def test_the_header_declares_each_function() -> None:
    text = header_text()
    for function in KernelFunction:
        assert f"{function.prototype};\n" in text
        assert f"\tkernel_call {function.symbol}, {function.value}\n" in text
    assert "#define SLAB_HWCACHE_ALIGN 0x2000\n" in text
    assert KernelFunction.KMEM_CACHE_CREATE.parameters[0] == "const char *"
    assert len(KernelFunction.KMEM_CACHE_CREATE.parameters) == 6


# -- structures that the guest has overwritten ------------------------------------------------


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (0, "follows a pointer to where no low memory is"),
        (0xF0000000, "follows a pointer to where no low memory is"),
        (None, "cache_chain never comes back to its head"),
    ],
)
def test_a_chain_of_caches_that_the_guest_has_broken(
    plain: Machine, target: int | None, text: str
) -> None:
    """None: the link of a cache points to itself."""
    cache = next(cache for cache in plain.kernel.slab.chain() if cache.name == "size-512")
    link = cache.vaddr + cache.where.next
    plain.ram.write32(link - 0xC0000000, link if target is None else target)
    plain.ram.write(NAME - 0xC0000000, b"things\0")
    with pytest.raises(GuestDied, match=text):
        plain.call("kmem_cache_create", NAME, 100, 0, 0, 0, 0)
