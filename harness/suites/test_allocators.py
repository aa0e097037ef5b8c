# SPDX-License-Identifier: GPL-2.0-or-later
"""Buddy and slab allocator under random traffic, each structure read from RAM after it.

The traffic is chosen by ``--mmu-seed``. The censuses share no code with the allocators: free
lists, bitmaps, ``mem_map``, slabs, objects and the frame ledger are held against each other
(book 6, 8).
"""

import random
from typing import Any, Final

import pytest

from harness.monitors.buddies import check_machine
from harness.monitors.frames import FrameLedger
from harness.monitors.slabs import slab_census
from harness.monitors.vmlist import vmlist_census
from harness.pytest_plugin.options import session_options
from harness.suites.giving_back import give_back
from harness.suites.stage import NotAsExpected
from kernel_model.proc import buddyinfo

_ROUNDS: Final = 600
_SIZES: Final = (8, 100, 200, 1000, 2048, 5000)
_BUDDY: Final = "kernel  __alloc_pages(), rmqueue(), __free_pages_ok(), mm/page_alloc.c (book 6)"
_SLAB: Final = "kernel  kmem_cache_alloc(), kmem_cache_free(), mm/slab.c (book 8.1 to 8.4)"


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(session_options(request.config).seed)


def _ledger(kernel: Any) -> FrameLedger:
    """What the census of frames needs besides RAM."""
    ledger = FrameLedger.of(kernel.image.events)
    assert ledger is not None
    return ledger


@pytest.mark.mmu(ram="16M", highmem="none", nodes="1")
def test_buddy(kernel: Any, chance: random.Random) -> None:
    """Blocks of all orders come and go; at the end every pair is one block again."""
    allocator, ledger, gfp = kernel.allocator, _ledger(kernel), kernel.image.constants.gfp
    masks = gfp.kernel, gfp.atomic, gfp.dma
    before, owned = _free_blocks(kernel), set(ledger.owned_frames())
    held: list[tuple[int, int]] = []
    for turn in range(_ROUNDS):
        if held and chance.random() < 0.5:
            allocator.free_pages(*held.pop(chance.randrange(len(held))))
        else:
            order = min(int(chance.expovariate(0.7)), 9)
            if page := allocator.alloc_pages(chance.choice(masks), order):
                _check_block(allocator, page, order)
                held.append((page, order))
        if turn % 25 == 0:
            check_machine(kernel, ledger)
    chance.shuffle(held)
    for block in held:
        allocator.free_pages(*block)
    check_machine(kernel, ledger)
    if (after := _free_blocks(kernel)) != before:
        lost = sorted(set(ledger.owned_frames()) - owned)
        text = "\n".join(
            [
                "every block was freed, but the free lists are not as before:",
                f"before: {before.strip()}",
                f"after:  {after.strip()}",
                *(
                    [f"frames that were not given back: {', '.join(map(hex, lost[:16]))}"]
                    if lost
                    else []
                ),
                _BUDDY,
            ]
        )
        raise NotAsExpected("free blocks are not merged with their buddies", text)


def _free_blocks(kernel: Any) -> str:
    """``/proc/buddyinfo`` when no frame waits on the list of a CPU."""
    give_back(kernel)
    return buddyinfo.text(kernel)


def _check_block(allocator: Any, page: int, order: int) -> None:
    pfn = allocator.memmap.pfn(page)
    if pfn & (1 << order) - 1:
        raise NotAsExpected(
            f"a block of order {order} begins at frame {pfn:#x}",
            f"a block of order {order} begins at frame {pfn:#x}, which is not aligned to its size\n"
            f"{_BUDDY}",
        )


@pytest.mark.mmu(ram="16M", highmem="none", nodes="1")
@pytest.mark.parametrize(
    "debug",
    [
        pytest.param(False, id="plain"),
        pytest.param(True, id="debug", marks=pytest.mark.mmu(debug_slab=True)),
    ],
)
def test_slab(kernel: Any, chance: random.Random, debug: bool) -> None:
    """Objects of several caches: none is given twice, and the census knows each."""
    slab = kernel.slab
    caches = {size: slab.kmem_cache_create(f"suite-{size}", size, 0, 0) for size in _SIZES}
    live: dict[int, set[int]] = {size: set() for size in _SIZES}
    for turn in range(_ROUNDS):
        size = chance.choice(_SIZES)
        if live[size] and chance.random() < 0.45:
            objp = chance.choice(sorted(live[size]))
            live[size].remove(objp)
            slab.kmem_cache_free(caches[size], objp)
        else:
            _take(kernel, caches[size], size, live[size])
        if turn % 40 == 0:
            _check_slabs(kernel, caches, live)
    _check_slabs(kernel, caches, live)
    for size, cachep in caches.items():
        for objp in sorted(live[size]):
            slab.kmem_cache_free(cachep, objp)
        if slab.kmem_cache_destroy(cachep):
            raise NotAsExpected(
                f"cache suite-{size} cannot be destroyed",
                f"every object of cache suite-{size} was freed, and kmem_cache_destroy() still "
                f"finds some\n{_SLAB}",
            )
    check_machine(kernel, _ledger(kernel))


def _take(kernel: Any, cachep: int, size: int, live: set[int]) -> None:
    objp = kernel.slab.kmem_cache_alloc(cachep, kernel.image.constants.gfp.kernel)
    overlap = [other for other in live if abs(other - objp) < size]
    if overlap:
        raise NotAsExpected(
            f"object {objp:#x} overlaps {overlap[0]:#x}",
            f"kmem_cache_alloc() gave {objp:#x}, {size} bytes, while {overlap[0]:#x} is in use\n"
            f"{_SLAB}",
        )
    live.add(objp)


def _check_slabs(kernel: Any, caches: dict[int, int], live: dict[int, set[int]]) -> None:
    census = slab_census(kernel)
    for size, cachep in caches.items():
        if (seen := census[cachep].live) != live[size]:
            strange = sorted(seen ^ live[size])[0]
            state = "in use" if strange in seen else "free"
            raise NotAsExpected(
                f"object {strange:#x} of cache suite-{size} is {state} in RAM",
                f"object {strange:#x} of cache suite-{size} is {state} in RAM, and the other "
                f"way by the calls that were made\n{_SLAB}",
            )


@pytest.mark.mmu(ram="32M", highmem="none", nodes="1")
def test_vmalloc(kernel: Any, chance: random.Random) -> None:
    """Areas of many sizes; list, page tables, ``mem_map`` and ledger agree (book 7)."""
    ledger = _ledger(kernel)
    held: list[int] = []
    for turn in range(_ROUNDS // 4):
        if held and chance.random() < 0.45:
            kernel.vmalloc.vfree(held.pop(chance.randrange(len(held))))
        elif area := kernel.vmalloc.vmalloc(chance.randrange(1, 40 << 12)):
            held.append(area)
        if turn % 10 == 0:
            vmlist_census(kernel)
            check_machine(kernel, ledger)
    for area in held:
        kernel.vmalloc.vfree(area)
    if left := vmlist_census(kernel):
        raise NotAsExpected(
            f"area {left[0].addr:#x} is left in vmlist",
            f"every area was given to vfree(), and {left[0].addr:#x} is still in vmlist\n"
            f"kernel  vfree(), mm/vmalloc.c (book 7.3)",
        )
