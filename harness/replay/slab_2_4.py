# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``slab_*`` of 2.4: layouts, geometry, general caches, and the allocator call by call."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.replay.slab import (
    RAM,
    RECORDED_CPUS,
    RecordedPages,
    SlabRun,
    compare_structs,
    offset,
)
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.config import KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.cache import align_up, kmem_cache_estimate
from kernel_model.mm.slab.flags import SLAB_KERNEL, SLAB_RED_ZONE
from kernel_model.mm.slab.linux_2_4 import Slab24
from kernel_model.mm.slab.linux_2_4.constants import CFLGS_OPTIMIZE, DFLGS_GROWN, LINUX_2_4
from kernel_model.proc.slabinfo import slabinfo
from kernel_model.structs import Abi, Structs
from kernel_model.structs.slab import CACHE_SIZES

NR_CPUS: Final = {"up": 1, "smp2": 2, "smp32": 32}
STATISTICS: Final = ("num_active", "num_allocations", "high_mark", "grown", "reaped", "errors")


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


class SlabMachine:
    """A slab allocator over :class:`RecordedPages`, as the recordings had it."""

    def __init__(self, config: KernelConfig, online: int) -> None:
        self.kernel = Kernel(config)
        self.kernel.start_kernel(until="mem_init")
        self.pages = RecordedPages()
        memmap = self.kernel.allocator.memmap
        self.slab = Slab24(self.kernel.image, memmap, self.pages, online)


# -- structs, geometry, sizes ------------------------------------------------------------------


def replay_structs(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        structs = Structs.of(Abi.of(build(recorded["config"])))
        compare_structs(recorded, structs, frozenset({"struct task_struct"}), comparison)


def columns(slab: Slab24, cache: Cache, requested: int) -> list[Any]:
    """One row of a geometry table, for a cache of which ``requested`` bytes were asked.

    The first estimate of what is left over was made before a descriptor moved onto the slab.
    """
    view, line = cache.view, cache.image.config.l1_cache_bytes
    descriptor, bufctl = cache.image.structs.slab_t.size, LINUX_2_4.bufctl_bytes
    slab_size = align_up(cache.num * bufctl + descriptor, line)
    on_slab = (0, 0) if cache.off_slab else (descriptor, bufctl)
    final = kmem_cache_estimate(cache.gfporder, cache.objsize, line, *on_slab)[1]
    asked = align_up(requested, 4) + (8 if cache.flags & SLAB_RED_ZONE else 0)
    moved = asked >= PAGE_SIZE >> 3 and not cache.off_slab
    estimate = final + slab_size if moved else final
    arrays = slab.cpu_caches
    array = arrays.array(cache) if arrays else 0
    slabp = int(view.slabp_cache)
    return [
        *(cache.objsize, cache.num, cache.gfporder, estimate, final, slab_size),
        *(int(cache.off_slab), int(bool(cache.flags & CFLGS_OPTIMIZE))),
        *(int(view.colour), int(view.colour_off), cache.flags),
        *(arrays.limit(array) if arrays and array else 0,),
        *(arrays.batchcount(cache) if arrays else 0,),
        slab.objects.cache(slabp).name if slabp else None,
        1,
    ]


def replay_geometry(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        config = build(recorded["config"])
        machine = SlabMachine(config, min(config.nr_cpus, RECORDED_CPUS))
        machine.slab.start(recorded["num_physpages"])
        machine.slab.kmem_cpucache_init()
        statics = machine.kernel.statics
        for name in ("offslab_limit", "slab_break_gfp_order"):
            comparison.equal(name, recorded[name], int(getattr(statics, name)))
        for (size, colour, flags), expected in recorded["rows"]:
            where = f"{recorded['config']} size {size} offset {colour} flags {flags:#x}"
            comparison.equal(where, expected, _row(machine.slab, size, colour, flags))


def _row(slab: Slab24, size: int, colour: int, flags: int) -> object:
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
        slab.start(recorded["num_physpages"])
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
    Run24(trace, comparison).replay()


class Run24(SlabRun):
    """One trace of 2.4's allocator."""

    _slab: Slab24

    def __init__(self, trace: Trace, comparison: Comparison) -> None:
        meta = trace.data["meta"]
        machine = SlabMachine(build(meta["config"]), meta["smp_num_cpus"])
        super().__init__(trace, comparison, machine.kernel.image, machine.slab, machine.pages)

    def _further_operations(self) -> Mapping[str, Callable[..., list[Any]]]:
        return {
            "kmem_cache_init": self._init,
            "kmem_cache_sizes_init": self._sizes_init,
            "kmem_cpucache_init": self._cpucache_init,
            "reap": self._reap,
        }

    def _init(self) -> list[Any]:
        self._slab.kmem_cache_init()
        return []

    def _sizes_init(self, physpages: int) -> list[Any]:
        self._slab.kmem_cache_sizes_init(physpages)
        return [physpages]

    def _cpucache_init(self, result: int) -> list[Any]:
        self._slab.kmem_cpucache_init()
        return [0]

    def _reap(self, gfp: int, _: int) -> list[Any]:
        return [gfp, self._slab.kmem_cache_reap(gfp)]

    def _machine_state(self) -> dict[str, Any]:
        hand = int(self._image.statics.clock_searchp)
        return {"clock": self._slab.objects.cache(hand).name}

    def _cache(self, cache: Cache) -> dict[str, Any]:
        view = cache.view
        described: dict[str, Any] = {
            "colour_next": int(view.colour_next),
            "dflags": int(view.dflags) & DFLGS_GROWN,
        }
        if self._slab.objects.debug is not None:
            described["stats"] = [int(getattr(view, name)) for name in STATISTICS]
        arrays = self._slab.cpu_caches
        if arrays is None or not arrays.all_arrays(cache):
            return described
        cpus = [
            {
                "cc": offset(array),
                "avail": len(arrays.entries(array)),
                "limit": arrays.limit(array),
                "e": self._entries(array),
            }
            for array in (arrays.array(cache, cpu) for cpu in range(arrays.online))
        ]
        return described | {"batchcount": arrays.batchcount(cache), "cpus": cpus}
