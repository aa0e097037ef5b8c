# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``slab_*``: layouts, geometry, the general caches, and the allocator call by call.

The recorded allocator had no buddy allocator below it: pages came from a bump pointer at 1 MiB
and from a list of freed blocks for each order. :class:`RecordedPages` hands out the same. The
model's own objects live where the recorded pages would, so everything is moved up by
:data:`MOVED`, and moved down again before it is compared.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE
from kernel_model.config import KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel
from kernel_model.mm.slab import Cache, Slab
from kernel_model.mm.slab.cache import kmem_cache_estimate, l1_cache_align
from kernel_model.mm.slab.flags import CFLGS_OPTIMIZE, DFLGS_GROWN, SLAB_KERNEL, SLAB_RED_ZONE
from kernel_model.proc.slabinfo import slabinfo, slabinfo_write
from kernel_model.structs import Abi, Structs
from kernel_model.structs.slab import CACHE_SIZES

MOVED: Final = 64 << 20
"""Bytes between a recorded address and the model's: beyond all that the model uses itself."""
RAM: Final = 512 << 20
FIRST_PAGE: Final = 1 << 20
RECORDED_CPUS: Final = 2
"""``smp_num_cpus`` wherever a recording does not say."""
NR_CPUS: Final = {"up": 1, "smp2": 2, "smp32": 32}


def build(config: str) -> KernelConfig:
    """The kernel of a configuration's name, such as ``smp2_l128`` or ``up_dbg``."""
    words = config.split("_")
    return KernelConfig(
        ram=RAM,
        nr_cpus=NR_CPUS[words[0]],
        l1_cache_bytes=128 if "l128" in words else 32,
        debug_slab="dbg" in words,
        spinlock_bytes=4 if "gcc295" in words else 0,
    )


class RecordedPages:
    """The page source of the recording."""

    def __init__(self) -> None:
        self._next = FIRST_PAGE
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self.events: list[list[Any]] = []
        self.fail_next = 0
        self.pages_out = 0

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str) -> int:
        if self.fail_next:
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


class SlabMachine:
    """A slab allocator over :class:`RecordedPages`, as the recordings had it."""

    def __init__(self, config: KernelConfig, online: int) -> None:
        self.kernel = Kernel(config)
        self.kernel.start_kernel(until="mem_init")
        self.pages = RecordedPages()
        memmap = self.kernel.allocator.memmap
        self.slab = Slab(self.kernel.image, memmap, self.pages, online)

    def start(self, num_physpages: int) -> None:
        self.slab.kmem_cache_init()
        self.slab.kmem_cache_sizes_init(num_physpages)


def offset(vaddr: int) -> int:
    """An address as traces have it: an offset from 0xC0000000, -1 for NULL."""
    return vaddr - PAGE_OFFSET - MOVED if vaddr else -1


# -- structs, geometry, sizes ------------------------------------------------------------------


def replay_structs(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        config = recorded["config"]
        structs = Structs.of(Abi.of(build(config)))
        kinds = {kind.spelling: kind for kind in structs.all()}
        for name, field, at, size in recorded["fields"]:
            kind = kinds.get(name)
            if kind is None or name == "struct task_struct":
                continue
            where = f"{config} {name}.{field}"
            if field:
                ours = [kind.offset(field), getattr(kind.ctype, field).size]
                comparison.equal(where, [at, size], ours)
            else:
                comparison.equal(where, size, kind.size)


def columns(slab: Slab, cache: Cache, requested: int) -> list[Any]:
    """One row of a geometry table, for a cache of which ``requested`` bytes were asked.

    The first estimate of what is left over was made before a descriptor moved onto the slab.
    """
    view, structs, line = cache.view, cache.image.structs, cache.image.config.l1_cache_bytes
    descriptor = structs.slab_t.size
    slab_size = l1_cache_align(cache.num * 4 + descriptor, line)
    final = kmem_cache_estimate(cache.gfporder, cache.objsize, cache.flags, line, descriptor)[1]
    asked = -(-requested // 4) * 4 + (8 if cache.flags & SLAB_RED_ZONE else 0)
    moved = asked >= PAGE_SIZE >> 3 and not cache.off_slab
    estimate = final + slab_size if moved else final
    smp = cache.image.config.smp
    array = slab.cpu_caches.array(cache) if slab.cpu_caches else 0
    slabp = int(view.slabp_cache)
    return [
        *(cache.objsize, cache.num, cache.gfporder, estimate, final, slab_size),
        *(int(cache.off_slab), int(bool(cache.flags & CFLGS_OPTIMIZE))),
        *(int(view.colour), int(view.colour_off), cache.flags),
        *(slab.cpu_caches.limit(array) if slab.cpu_caches and array else 0,),
        *(int(view.batchcount) if smp else 0,),
        slab.objects.cache(slabp).name if slabp else None,
        1,
    ]


def replay_geometry(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        config = build(recorded["config"])
        machine = SlabMachine(config, min(config.nr_cpus, RECORDED_CPUS))
        machine.start(recorded["num_physpages"])
        machine.slab.kmem_cpucache_init()
        statics = machine.kernel.statics
        for name in ("offslab_limit", "slab_break_gfp_order"):
            comparison.equal(name, recorded[name], int(getattr(statics, name)))
        for (size, colour, flags), expected in recorded["rows"]:
            where = f"{recorded['config']} size {size} offset {colour} flags {flags:#x}"
            comparison.equal(where, expected, _row(machine.slab, size, colour, flags))


def _row(slab: Slab, size: int, colour: int, flags: int) -> object:
    try:
        cachep = slab.kmem_cache_create("probe", size, colour, flags)
    except KernelBug as bug:
        return {"BUG": f"{bug.file}:{bug.line}"}
    row = columns(slab, slab.objects.cache(cachep), size)
    slab.kmem_cache_destroy(cachep)
    return row


def replay_sizes(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        config = build(recorded["config"])
        machine = SlabMachine(config, min(config.nr_cpus, RECORDED_CPUS))
        slab = machine.slab
        machine.start(recorded["num_physpages"])
        facts = {
            "offslab_limit": int(machine.kernel.statics.offslab_limit),
            "slab_break_gfp_order": int(machine.kernel.statics.slab_break_gfp_order),
            "cache_cache": columns(slab, slab.cache_cache, 0),
            "after_sizes_init": _sizes(machine),
            "slabinfo_after_sizes_init": slabinfo(slab),
        }
        slab.kmem_cpucache_init()
        facts |= {
            "after_kmem_cpucache_init": _sizes(machine),
            "slabinfo_after_kmem_cpucache_init": slabinfo(slab),
            "chain_order": [cache.name for cache in slab.chain()],
            "kmalloc_131073": slab.kmalloc(131073, SLAB_KERNEL),
        }
        for name, value in facts.items():
            if name in recorded:
                comparison.equal(f"{recorded['config']} {name}", recorded[name], value)


def _sizes(machine: SlabMachine) -> list[list[Any]]:
    rows = []
    for size, entry in zip(CACHE_SIZES, machine.kernel.statics.cache_sizes, strict=False):
        for cachep in (int(entry.cs_cachep), int(entry.cs_dmacachep)):
            cache = machine.slab.objects.cache(cachep)
            rows.append([size, cache.name, offset(cachep), columns(machine.slab, cache, size)])
    return rows


# -- traces ---------------------------------------------------------------------------------------


def replay_trace(trace: Trace, comparison: Comparison) -> None:
    _Run(trace, comparison).replay()


class _Run:
    """One trace of the allocator."""

    def __init__(self, trace: Trace, comparison: Comparison) -> None:
        self._data = trace.data
        self._comparison = comparison
        meta = trace.data["meta"]
        self._machine = SlabMachine(build(meta["config"]), meta["smp_num_cpus"])
        self._slab = self._machine.slab
        self._pages = self._machine.pages
        self._caches: dict[int, int] = {}
        self._calls: list[list[Any]] = []
        self._operations: dict[str, Callable[..., list[Any]]] = {
            "kmem_cache_init": self._init,
            "kmem_cache_sizes_init": self._sizes_init,
            "kmem_cpucache_init": self._cpucache_init,
            "create": self._create,
            "alloc": self._alloc,
            "free": self._free,
            "kmalloc": self._kmalloc,
            "kfree": self._kfree,
            "shrink": self._shrink,
            "reap": self._reap,
            "destroy": self._destroy,
            "cpu": self._cpu,
            "slabinfo_write": self._slabinfo_write,
            "failpages": self._failpages,
        }

    def replay(self) -> None:
        states = {state["after"]: state for state in self._data["states"]}
        log = self._machine.kernel.image.log
        said = len(log)
        for operation in self._data["ops"]:
            number, name, *arguments = operation
            if arguments and isinstance(arguments[-1], dict):
                arguments.pop()
            events: list[list[Any]] = []
            self._pages.events = events
            self._calls.clear()
            answer = [number, name, *self._operations[name](*arguments)]
            if events:
                answer.append({"ev": events})
            self._comparison.equal(f"ops[{number}] {name}", operation, answer)
            if number in states:
                self._state(f"state after {number}", states[number], final=False)
        self._state("final", self._data["final"], final=True)
        recorded = self._data["klog"]
        printed = re.sub(r"0xc[0-9a-f]{7}", _moved_down, "".join(log[said:]))
        # The recording kept the end of the log only.
        self._comparison.equal("klog", recorded, printed[-len(recorded) :])

    # -- operations -------------------------------------------------------------------------------

    def _init(self) -> list[Any]:
        self._slab.kmem_cache_init()
        return []

    def _sizes_init(self, physpages: int) -> list[Any]:
        self._slab.kmem_cache_sizes_init(physpages)
        return [physpages]

    def _cpucache_init(self, result: int) -> list[Any]:
        self._slab.kmem_cpucache_init()
        return [0]

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

    def _reap(self, gfp: int, _: int) -> list[Any]:
        return [gfp, self._slab.kmem_cache_reap(gfp)]

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
        slab, statics = self._slab, self._machine.kernel.statics
        state: dict[str, Any] = {
            "after": recorded["after"],
            "clock": slab.objects.cache(int(statics.clock_searchp)).name,
            "cpu": slab.cpu_caches.processor if slab.cpu_caches else 0,
            "pages_out": self._pages.pages_out,
            "caches": {},
        }
        for cache in slab.chain():
            listed = recorded["caches"].get(cache.name, {}).values()
            rows = [row for rows in listed if isinstance(rows, list) for row in rows]
            # A long list of slabs was recorded without their arrays.
            arrays = any(isinstance(row, list) and len(row) > 4 for row in rows)
            described = self._cache(cache, bufctl=arrays)
            if final or self._something_in(described):
                state["caches"][cache.name] = described
        if final:
            state["slabinfo"] = slabinfo(slab)
        self._comparison.equal(where, recorded, state)

    @staticmethod
    def _something_in(described: dict[str, Any]) -> bool:
        slabs = any(described[name] for name in ("full", "partial", "free"))
        return slabs or any(cpu["avail"] for cpu in described.get("cpus", ()))

    def _cache(self, cache: Cache, *, bufctl: bool) -> dict[str, Any]:
        heads = {
            "full": cache.slabs_full,
            "partial": cache.slabs_partial,
            "free": cache.slabs_free,
        }
        view = cache.view
        described: dict[str, Any] = {
            name: [self._describe(cache, slab, bufctl=bufctl) for slab in cache.slabs(head)]
            for name, head in heads.items()
        }
        described |= {
            "colour_next": int(view.colour_next),
            "dflags": int(view.dflags) & DFLGS_GROWN,
        }
        if self._slab.objects.debug is not None:
            names = ("num_active", "num_allocations", "high_mark", "grown", "reaped", "errors")
            described["stats"] = [int(getattr(view, name)) for name in names]
        if self._slab.cpu_caches is not None:
            described |= self._arrays(cache)
        return described

    def _describe(self, cache: Cache, slab: int, *, bufctl: bool) -> list[Any]:
        row: list[Any] = [
            offset(cache.s_mem(slab)),
            offset(slab),
            cache.inuse(slab),
            _signed(cache.free(slab)),
        ]
        if bufctl:
            row.append([_signed(index) for index in cache.bufctl(slab)])
        return row

    def _arrays(self, cache: Cache) -> dict[str, Any]:
        cpu_caches = self._slab.cpu_caches
        assert cpu_caches is not None
        arrays = [cpu_caches.array(cache, cpu) for cpu in range(cpu_caches.online)]
        if not any(arrays):
            return {}
        return {
            "batchcount": int(cache.view.batchcount),
            "cpus": [
                {
                    "cc": offset(array),
                    "avail": len(cpu_caches.entries(array)),
                    "limit": cpu_caches.limit(array),
                    "e": [offset(objp) for objp in cpu_caches.entries(array)],
                }
                for array in arrays
            ],
        }


def _moved_down(found: re.Match[str]) -> str:
    return f"{int(found[0], 16) - MOVED:#010x}"


def _signed(index: int) -> int:
    return index - (1 << 32) if index >> 31 else index
