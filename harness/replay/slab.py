# SPDX-License-Identifier: GPL-2.0-or-later
"""What the replays of both releases' slab allocators share: topics ``slab_*``.

The recorded allocator had no buddy allocator below it: pages came from a bump pointer at 1 MiB
and from a list of freed blocks for each order. :class:`RecordedPages` hands out the same. The
model's own objects live where the recorded pages would, so everything is moved up by
:data:`MOVED`, and moved down again before it is compared. Machines, geometry and the general
caches are :mod:`.slab_2_4` and :mod:`.slab_2_6`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE
from kernel_model.image import KernelImage
from kernel_model.mm.slab import Cache, Slab
from kernel_model.proc.slabinfo import slabinfo, slabinfo_write
from kernel_model.structs import Structs

MOVED: Final = 5 * 125 << 17
"""Bytes between a recorded address and the model's: beyond all that the model uses itself.

A multiple of the largest slab, and of the 4000 ticks over which 2.6 spreads caches by address.
"""
RAM: Final = 512 << 20
FIRST_PAGE: Final = 1 << 20
RECORDED_CPUS: Final = 2
"""How many CPUs run wherever a recording does not say."""
LISTS: Final = ("full", "partial", "free")


class RecordedPages:
    """The page source of the recording."""

    def __init__(self) -> None:
        self._next = FIRST_PAGE
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self.events: list[list[Any]] = []
        self.spare_next = 0
        """How many requests pass before the next :attr:`fail_next` fail."""
        self.fail_next = 0
        self.pages_out = 0

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str) -> int:
        if self.spare_next:
            self.spare_next -= 1
        elif self.fail_next:
            self.fail_next -= 1
            self.events.append(["gp", gfp_mask, order, -1])
            return 0
        if self._free[order]:
            offset = self._free[order].pop()
        else:
            size = PAGE_SIZE << order
            offset = -(-self._next // size) * size
            self._next = offset + size
        self.events.append(["gp", gfp_mask, order, offset])
        self.pages_out += 1 << order
        return PAGE_OFFSET + MOVED + offset

    def free_pages_at(self, vaddr: int, order: int) -> None:
        offset = vaddr - PAGE_OFFSET - MOVED
        self.events.append(["fp", order, offset])
        self._free[order].append(offset)
        self.pages_out -= 1 << order


def offset(vaddr: int) -> int:
    """An address as traces have it: an offset from 0xC0000000, -1 for NULL."""
    return vaddr - PAGE_OFFSET - MOVED if vaddr else -1


def compare_structs(
    recorded: dict[str, Any], structs: Structs, left_out: frozenset[str], comparison: Comparison
) -> None:
    """Layouts of one build, but for structures that are ``left_out``."""
    kinds = {kind.spelling: kind for kind in structs.all()}
    for name, field, at, size in recorded["fields"]:
        kind = kinds.get(name)
        if kind is None or name in left_out:
            continue
        where = f"{recorded['config']} {name}.{field}"
        if field:
            ours = [kind.offset(field), getattr(kind.ctype, field).size]
            comparison.equal(where, [at, size], ours)
        else:
            comparison.equal(where, size, kind.size)


class SlabRun:
    """One trace of an allocator. What only one release has, its subclass adds."""

    def __init__(
        self,
        trace: Trace,
        comparison: Comparison,
        image: KernelImage,
        slab: Slab,
        pages: RecordedPages,
    ) -> None:
        self._data = trace.data
        self._comparison = comparison
        self._image = image
        self._slab = slab
        self._pages = pages
        self._caches: dict[int, int] = {}
        self._operations: Mapping[str, Callable[..., list[Any]]] = {
            "create": self._create,
            "alloc": self._alloc,
            "free": self._free,
            "kmalloc": self._kmalloc,
            "kfree": self._kfree,
            "shrink": self._shrink,
            "destroy": self._destroy,
            "cpu": self._cpu,
            "slabinfo_write": self._slabinfo_write,
            "failpages": self._failpages,
            **self._further_operations(),
        }

    def _further_operations(self) -> Mapping[str, Callable[..., list[Any]]]:
        """The operations that this release has besides, by name."""
        raise NotImplementedError

    def replay(self) -> None:
        states = {state["after"]: state for state in self._data["states"]}
        log = self._image.log
        said = len(log)
        for operation in self._data["ops"]:
            number, name, *arguments = operation
            if arguments and isinstance(arguments[-1], dict):
                arguments.pop()
            events: list[list[Any]] = []
            self._pages.events = events
            answer = [number, name, *self._operations[name](*arguments)]
            if events:
                answer.append({"ev": events})
            self._comparison.equal(f"ops[{number}] {name}", operation, answer)
            if number in states:
                self._state(f"state after {number}", states[number], final=False)
        self._state("final", self._data["final"], final=True)
        recorded = self._data["klog"]
        printed = self._printed(log[said:])
        # The recording kept the end of the log only.
        self._comparison.equal("klog", recorded, printed[-len(recorded) :])

    def _printed(self, log: list[str]) -> str:
        """The log as the recording has it: its addresses are not the model's."""
        return re.sub(r"0xc[0-9a-f]{7}", _moved_down, "".join(log))

    # -- operations -------------------------------------------------------------------------------

    def _recorder(self, kind: str) -> Callable[[int, int, int], None]:
        """A constructor or destructor; calls in a row are one event."""

        def call(objp: int, cachep: int, flags: int) -> None:
            events, at = self._pages.events, offset(objp)
            if events and events[-1][0] == kind and events[-1][4] == flags:
                events[-1][1] += 1
                events[-1][3] = at
            else:
                events.append([kind, 1, at, at, flags])

        return call

    def _create(
        self, number: int, name: str, size: int, colour: int, flags: int, functions: int, _: int
    ) -> list[Any]:
        ctor = self._recorder("ctor") if functions & 1 else None
        dtor = self._recorder("dtor") if functions & 2 else None
        cachep = self._slab.kmem_cache_create(name, size, colour, flags, ctor, dtor)
        if cachep:
            self._caches[number] = cachep
        return [number, name, size, colour, flags, functions, offset(cachep)]

    def _alloc(self, number: int, gfp: int, _: int) -> list[Any]:
        return [number, gfp, offset(self._slab.kmem_cache_alloc(self._caches[number], gfp))]

    def _free(self, number: int, objp: int) -> list[Any]:
        self._slab.kmem_cache_free(self._caches[number], PAGE_OFFSET + MOVED + objp)
        return [number, objp]

    def _kmalloc(self, size: int, gfp: int, _: int) -> list[Any]:
        return [size, gfp, offset(self._slab.kmalloc(size, gfp))]

    def _kfree(self, objp: int) -> list[Any]:
        self._slab.kfree(PAGE_OFFSET + MOVED + objp)
        return [objp]

    def _shrink(self, number: int, _: int) -> list[Any]:
        return [number, self._slab.kmem_cache_shrink(self._caches[number])]

    def _destroy(self, number: int, _: int) -> list[Any]:
        failed = self._slab.kmem_cache_destroy(self._caches[number])
        if not failed:
            del self._caches[number]
        return [number, failed]

    def _cpu(self, number: int) -> list[Any]:
        assert self._slab.cpu_caches is not None
        self._slab.cpu_caches.processor = number
        return [number]

    def _slabinfo_write(self, text: str, _: int) -> list[Any]:
        return [text, slabinfo_write(self._slab, f"{text}\n")]

    def _failpages(self, count: int) -> list[Any]:
        self._pages.fail_next = count
        return [count]

    # -- states ------------------------------------------------------------------------------------

    def _state(self, where: str, recorded: dict[str, Any], *, final: bool) -> None:
        slab = self._slab
        state: dict[str, Any] = {
            "after": recorded["after"],
            "cpu": slab.cpu_caches.processor if slab.cpu_caches else 0,
            "pages_out": self._pages.pages_out,
            **self._machine_state(),
            "caches": {},
        }
        for cache in slab.chain():
            listed = recorded["caches"].get(cache.name, {})
            rows = [row for name in LISTS for row in listed.get(name, ())]
            # A long list of slabs was recorded without their arrays.
            arrays = any(isinstance(row, list) and len(row) > 4 for row in rows)
            described = self._lists(cache, bufctl=arrays) | self._cache(cache)
            if final or self._something_in(described):
                state["caches"][cache.name] = described
        if final:
            state["slabinfo"] = slabinfo(slab)
        self._comparison.equal(where, recorded, state)

    def _machine_state(self) -> dict[str, Any]:
        """What a state of this release says beside its caches."""
        raise NotImplementedError

    def _cache(self, cache: Cache) -> dict[str, Any]:
        """What it says of a cache beside its slabs."""
        raise NotImplementedError

    def _something_in(self, described: dict[str, Any]) -> bool:
        slabs = any(described[name] for name in LISTS)
        return slabs or any(cpu["avail"] for cpu in described.get("cpus", ()))

    def _lists(self, cache: Cache, *, bufctl: bool) -> dict[str, Any]:
        heads = (cache.slabs_full, cache.slabs_partial, cache.slabs_free)
        return {
            name: [self._describe(cache, slab, bufctl=bufctl) for slab in cache.slabs(head)]
            for name, head in zip(LISTS, heads, strict=True)
        }

    def _describe(self, cache: Cache, slab: int, *, bufctl: bool) -> list[Any]:
        row: list[Any] = [
            offset(cache.s_mem(slab)),
            offset(slab),
            cache.inuse(slab),
            self._signed(cache.free(slab)),
        ]
        if bufctl:
            row.append([self._signed(index) for index in cache.bufctl(slab)])
        return row

    def _signed(self, index: int) -> int:
        """BUFCTL_END is -1, and what stands below it counts on from there."""
        end = self._slab.objects.constants.bufctl_end
        return index - end - 1 if index > end >> 1 else index

    def _entries(self, array: int) -> list[int]:
        assert self._slab.cpu_caches is not None
        return [offset(objp) for objp in self._slab.cpu_caches.entries(array)]


def _moved_down(found: re.Match[str]) -> str:
    return f"{int(found[0], 16) - MOVED:#010x}"
