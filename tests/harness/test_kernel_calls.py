# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code on the CPU calls the kernel, and the kernel calls the guest's constructors."""

from dataclasses import replace

import pytest

from harness.guests import guest_path
from harness.hypercalls import Hypercall
from harness.kernel_calls import _MODEL, BadCall, KernelCalls
from harness.kernel_functions import KernelFunction, header_text
from harness.machine import GuestDied, GuestStopped, Limits, Machine, guest_variant
from harness.monitors import guest_slab_walk
from kernel_model.config import Highmem, KernelConfig
from kernel_model.kernel import Kernel
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
GFP = 0xD0
"""``GFP_KERNEL`` of 2.6, whose bits 2.4 knows, too."""
SCRATCH = 0xC0340000
"""Room for the tests' strings and arrays, inside the kernel's image and behind the guest."""
NAME = SCRATCH + 0x20000


def machine_of(config: KernelConfig) -> Machine:
    return Machine(Kernel(config), image=guest_path("slab_test", guest_variant(config)))


@pytest.fixture(params=CONFIGS)
def machine(request: pytest.FixtureRequest, either_release: str) -> Machine:
    return machine_of(replace(CONFIGS[request.param], release=either_release))


@pytest.fixture
def plain(either_release: str) -> Machine:
    return machine_of(replace(CONFIGS["uma"], release=either_release))


def gfp_kernel(machine: Machine) -> int:
    return machine.kernel.image.constants.gfp.kernel


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
@pytest.mark.parametrize("gfp", ["kernel", "atomic"])
def test_every_size_of_kmalloc_is_written_and_read_through_the_mmu(
    machine: Machine, gfp: str
) -> None:
    assert machine.call("fill_every_size", getattr(machine.kernel.image.constants.gfp, gfp)) == 0
    counts = machine.kernel_calls.counts
    assert counts[KernelFunction.KMALLOC] == 54
    assert counts[KernelFunction.KFREE] == 53
    assert guest_slab_walk.check(machine) == []
    check_machine(machine.kernel, machine.ledger)


def constructed_now(machine: Machine, cachep: int, given_out: int) -> int:
    """How many objects of a cache are constructed: those of each slab that there is. 2.6 fills free
    objects with poison if it debugs, and constructs each as it gives it out."""
    cache = machine.kernel.slab.objects.cache(cachep)
    in_slabs = sum(cache.num for _ in cache.all_slabs())
    late = {"2.4": False, "2.6": machine.kernel.config.debug_slab}
    return given_out if late[machine.kernel.config.release] else in_slabs


@pytest.mark.book("8.2.8", "8.3.1", "8.3.3")
def test_objects_are_constructed_by_guest_code(machine: Machine) -> None:
    cachep = create(machine, 100, SLAB_HWCACHE_ALIGN)
    cache = machine.kernel.slab.objects.cache(cachep)
    assert (cache.name, int(cache.view.ctor)) == ("things", machine.symbol("construct"))
    assert machine.call("use_cache", cachep, 25, 300, SCRATCH) == 300
    assert calls(machine)["constructed"] == constructed_now(machine, cachep, 300) >= 300
    assert calls(machine)["destroyed"] == 0
    assert calls(machine)["cache"] == cachep
    assert calls(machine)["flags"] == 1
    assert guest_slab_walk.check(machine) == []
    assert machine.call("free_objects", cachep, 300, SCRATCH) == 300
    assert guest_slab_walk.check(machine) == []
    seen = calls(machine)
    left = constructed_now(machine, cachep, 0)
    assert seen["constructed"] - seen["destroyed"] == left
    # 2.4 gives no slab back before it is asked to, 2.6 keeps a few objects free.
    assert left == seen["constructed"] or machine.kernel.config.release == "2.6"
    assert machine.call("kmem_cache_destroy", cachep) == 0
    seen = calls(machine)
    assert seen["destroyed"] == seen["constructed"]
    assert seen["wrong"] == 0
    assert guest_slab_walk.check(machine) == []
    check_machine(machine.kernel, machine.ledger)


@pytest.mark.book("8.1.5")
def test_a_constructor_learns_that_it_must_not_sleep(plain: Machine) -> None:
    cachep = create(plain, 64)
    plain.call("kmem_cache_alloc", cachep, plain.kernel.image.constants.gfp.atomic)
    assert calls(plain)["flags"] == 3


def test_a_constructor_may_allocate(plain: Machine) -> None:
    cachep = create(plain, 100, 0, "construct_by_allocating", "")
    assert plain.call("use_cache", cachep, 1, 40, SCRATCH) == 40
    seen = calls(plain)
    assert plain.kernel_calls.counts[KernelFunction.KMALLOC] == seen["constructed"]
    assert seen["wrong"] == 0


SHRUNK = {"2.4": 1, "2.6": 0}
"""What shrinking a cache of one free slab returns: the frames that came back; are slabs left?"""


def test_the_kernel_calls_a_constructor_while_the_guest_rests(plain: Machine) -> None:
    """Python allocates from the guest's cache: nothing runs on the CPU at that time."""
    cachep = create(plain, 100)
    release = plain.kernel.config.release
    objp = plain.kernel.slab.kmem_cache_alloc(cachep, gfp_kernel(plain))
    assert plain.ram.read32(objp - 0xC0000000) == 0xC0C0A000 ^ objp
    plain.kernel.slab.kmem_cache_free(cachep, objp)
    assert plain.kernel.slab.kmem_cache_shrink(cachep) == SHRUNK[release]
    assert calls(plain)["destroyed"] == calls(plain)["constructed"] > 0


# -- what kills the guest ---------------------------------------------------------------------


def test_constructors_that_call_each_other_for_ever(plain: Machine) -> None:
    cachep = create(plain, 3000, 0, "construct_another", "")
    with pytest.raises(GuestDied, match="nest 16 deep"):
        plain.call("kmem_cache_alloc", cachep, gfp_kernel(plain))
    view = plain.kernel.slab.objects.cache(cachep).view
    assert plain.kernel.config.release == "2.6" or view.growing == 0, "2.6 counts nobody"


def test_a_constructor_that_faults_is_reported_where_it_stands(plain: Machine) -> None:
    cachep = create(plain, 100, 0, "construct_and_die", "")
    with pytest.raises(GuestDied, match="#PF at 0x00000010") as died:
        plain.call("kmem_cache_alloc", cachep, gfp_kernel(plain))
    start = plain.symbol("construct_and_die")
    assert start < died.value.report.registers["eip"] < start + 0x100


@pytest.mark.parametrize("limits", [Limits(seconds=0.3), Limits(instructions=300_000)])
def test_a_constructor_without_end_is_stopped(plain: Machine, limits: Limits) -> None:
    cachep = create(plain, 100, 0, "construct_for_ever", "")
    plain.limits = limits
    with pytest.raises(GuestStopped):
        plain.call("kmem_cache_alloc", cachep, gfp_kernel(plain))


def test_a_constructor_that_ends_the_guest(plain: Machine) -> None:
    plain.ram.write(NAME - 0xC0000000, b"things\0")
    plain.ram.write(0x37F000, bytes([0xB8, Hypercall.IDLE, 0, 0, 0, 0xE7, 0x4D, 0xEB, 0xFE]))
    ctor = 0xC037F000
    cachep = plain.call("kmem_cache_create", NAME, 100, 0, 0, ctor, 0)
    with pytest.raises(GuestDied, match=f"the function at {ctor:#x} ended the guest"):
        plain.call("kmem_cache_alloc", cachep, gfp_kernel(plain))


Call = tuple[str, tuple[int, ...]]

EARLY_ERROR = {"2.4": "kernel BUG at slab.c:640", "2.6": "kernel BUG at slab.c:1204"}
"""A request for a cache that cannot be meant."""
HOSTILE: list[tuple[Call, str | dict[str, str]]] = [
    (("kmem_cache_create", (0, 100, 0, 0, 0, 0)), EARLY_ERROR),
    (("kmem_cache_create", (NAME, 2, 0, 0, 0, 0)), EARLY_ERROR),
    (
        ("kmem_cache_create", (NAME, 100, 0, 0, 0, 0xC0106000)),
        {"2.4": "no destructor without", "2.6": EARLY_ERROR["2.6"]},
    ),
    (("kmem_cache_create", (NAME, 100, 0, 1 << 31, 0, 0)), "unknown flags in 0x80000000"),
    (("kmem_cache_create", (0x1000, 100, 0, 0, 0, 0)), "no text lies at 0x1000"),
    (("kmem_cache_create", (0xFFFFFFFF, 100, 0, 0, 0, 0)), "no text lies at 0xffffffff"),
    (("kmem_cache_alloc", (0, GFP)), "0x0 is no cache of the chain"),
    (("kmem_cache_alloc", (0xFFFFFFF0, GFP)), "is no cache of the chain"),
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
def test_hostile_arguments_end_in_one_clear_line(
    plain: Machine, call: Call, text: str | dict[str, str]
) -> None:
    text = text if isinstance(text, str) else text[plain.kernel.config.release]
    plain.ram.write(NAME - 0xC0000000, b"things\0")
    name, words = call
    with pytest.raises(GuestDied) as died:
        plain.call(name, *words)
    assert text in died.value.report.reason
    assert "\n" not in died.value.report.reason


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (("kmalloc", (131073, GFP)), 0),
        (("kmalloc", (0xFFFFFFFF, GFP)), 0),
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


def test_the_third_word_of_a_request_is_an_offset_or_an_alignment(plain: Machine) -> None:
    """In 2.4 the first object may not begin behind its own length; to 2.6 it is a large distance
    of two objects."""
    plain.ram.write(NAME - 0xC0000000, b"things\0")
    request = "kmem_cache_create", NAME, 100, 256, 0, 0, 0
    if plain.kernel.config.release == "2.4":
        with pytest.raises(GuestDied, match=EARLY_ERROR["2.4"]):
            plain.call(*request)
        return
    cachep = plain.call(*request)
    objects = [plain.call("kmem_cache_alloc", cachep, gfp_kernel(plain)) for _ in range(3)]
    assert [objp % 256 for objp in objects] == [0, 0, 0]
    assert plain.kernel.slab.objects.cache(cachep).objsize == 256


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
