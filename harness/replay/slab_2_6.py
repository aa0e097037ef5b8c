# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``slab_*`` of 2.6: layouts, geometry, general caches, and the allocator call by call.

The allocator of a recording stands alone: below it there is a ``mem_map`` and nothing else. Time
is what the recording says it is.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from harness.replay.slab import RAM, RECORDED_CPUS, RecordedPages, SlabRun, compare_structs, offset
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, phys_to_virt, virt_to_phys
from kernel_model.config import KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.image import END, KernelImage
from kernel_model.mm.linux_2_6.page_state import PageState
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.cache import kmem_cache_estimate
from kernel_model.mm.slab.create import Limits
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN
from kernel_model.mm.slab.linux_2_6 import Slab26
from kernel_model.mm.slab.linux_2_6.constants import INITIAL_JIFFIES, LINUX_2_6
from kernel_model.mm.slab.linux_2_6.create import Request, debug_flags, request
from kernel_model.mm.slab.objects import PageSource
from kernel_model.proc.slabinfo import slabinfo
from kernel_model.structs import Abi, Structs

NR_CPUS: Final = {"up": 1, "smp8": 8}
STATISTICS: Final = (
    *("num_active", "num_allocations", "high_mark", "grown", "reaped", "errors"),
    *("max_freeable", "allochit", "allocmiss", "freehit", "freemiss"),
)
ARRAY_FIELDS: Final = ("avail", "limit", "batchcount", "touched")
NOT_MODELLED: Final = frozenset({"struct task_struct"})
_LEVEL: Final = re.compile("<[0-7]>")


def build(config: str, ram: int = RAM) -> KernelConfig:
    """The kernel of a configuration's name, such as ``smp8_l128`` or ``up_dbg``."""
    words = config.split("_")
    return KernelConfig(
        ram=ram,
        release="2.6",
        nr_cpus=NR_CPUS[words[0]],
        l1_cache_bytes=128 if "l128" in words else 32,
        debug_slab="dbg" in words,
    )


class Frames:
    """A ``mem_map`` behind the image, of a machine without a page allocator."""

    def __init__(self, image: KernelImage) -> None:
        self._ram = image.ram
        self._page_bytes = image.structs.page.size
        self._mem_map = phys_to_virt(END)
        self._flags = image.structs.page.offset("flags")
        node = image.statics.contig_page_data
        node.node_mem_map, node.node_spanned_pages = self._mem_map, image.ram.frames
        image.statics.pgdat_list = image.symbol("contig_page_data")
        image.statics.mem_map = self._mem_map
        image.statics.high_memory = phys_to_virt(image.ram.size)

    def page(self, pfn: int) -> int:
        return self._mem_map + pfn * self._page_bytes

    def set_bit(self, page: int, bit: int) -> None:
        paddr = virt_to_phys(page) + self._flags
        self._ram.write32(paddr, self._ram.read32(paddr) | 1 << bit)

    def clear_bit(self, page: int, bit: int) -> None:
        paddr = virt_to_phys(page) + self._flags
        self._ram.write32(paddr, self._ram.read32(paddr) & ~(1 << bit))


class SlabMachine:
    """A slab allocator that takes its pages from ``pages``."""

    def __init__(self, config: KernelConfig, pages: PageSource, online: int = 1) -> None:
        self.image = KernelImage(config)
        self.image.statics.jiffies = INITIAL_JIFFIES
        self.image.statics.num_physpages = self.image.ram.size >> PAGE_SHIFT
        self.frames = Frames(self.image)
        self.slab = Slab26(self.image, self.frames, pages, online)


def _started(recorded: dict[str, Any]) -> tuple[SlabMachine, RecordedPages]:
    config = build(recorded["config"])
    pages = RecordedPages()
    machine = SlabMachine(config, pages, min(config.nr_cpus, RECORDED_CPUS))
    machine.slab.reaper.scheduled = lambda cpu, delay: pages.events.append(["sdw", cpu, delay])
    machine.slab.kmem_cache_init(recorded["num_physpages"])
    return machine, pages


# -- structs, geometry, sizes ------------------------------------------------------------------


def replay_structs(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        structs = Structs.of(Abi.of(build(recorded["config"])))
        compare_structs(recorded, structs, NOT_MODELLED, comparison)


def columns(slab: Slab26, cache: Cache, wanted: Request) -> list[Any]:
    """One row of a geometry table.

    The first estimate of what is left over was made before a descriptor moved onto the slab.
    """
    view, align = cache.view, wanted.align
    descriptor, bufctl = cache.image.structs.slab_t.size, LINUX_2_6.bufctl_bytes
    on_slab = (0, 0) if cache.off_slab else (descriptor, bufctl)
    final = kmem_cache_estimate(cache.gfporder, cache.objsize, align, *on_slab)[1]
    moved = wanted.size >= PAGE_SIZE >> 3 and not cache.off_slab
    estimate = final + int(view.slab_size) if moved else final
    arrays = slab.cpu_caches
    array, shared, slabp = arrays.array(cache), arrays.shared(cache), int(view.slabp_cache)
    return [
        *(cache.objsize, cache.num, cache.gfporder, estimate, final, int(view.slab_size)),
        *(int(cache.off_slab), align, int(view.colour), int(view.colour_off), cache.flags),
        *(arrays.limit(array), int(view.batchcount), arrays.limit(shared)),
        *(int(view.free_limit), slab.objects.cache(slabp).name if slabp else None, 1),
    ]


def _wanted(machine: SlabMachine, size: int, align: int, flags: int) -> Request:
    config = machine.image.config
    if config.debug_slab:
        flags = debug_flags(size, flags)
    descriptor = machine.image.structs.slab_t.size
    limits = Limits(config.l1_cache_bytes, descriptor, 2, 0, 0, 0, config.debug_slab)
    return request(size, align, flags, limits)


def replay_geometry(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        machine, _ = _started(recorded)
        machine.slab.kmem_cpucache_init()
        for name in ("offslab_limit", "slab_break_gfp_order"):
            comparison.equal(name, recorded[name], int(getattr(machine.image.statics, name)))
        for (size, align, flags), expected in recorded["rows"]:
            where = f"{recorded['config']} size {size} align {align} flags {flags:#x}"
            comparison.equal(where, expected, _row(machine, size, align, flags))


def _row(machine: SlabMachine, size: int, align: int, flags: int) -> object:
    slab = machine.slab
    try:
        cachep = slab.kmem_cache_create("probe", size, align, flags)
    except KernelBug as bug:
        return {"BUG": f"{bug.file}:{bug.line}"}
    row = columns(slab, slab.objects.cache(cachep), _wanted(machine, size, align, flags))
    slab.kmem_cache_destroy(cachep)
    return row


def replay_sizes(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        machine, pages = _started(recorded)
        slab = machine.slab
        facts: dict[str, Any] = {
            "offslab_limit": int(machine.image.statics.offslab_limit),
            "slab_break_gfp_order": int(machine.image.statics.slab_break_gfp_order),
            "cache_cache": _cache_cache(machine),
            "after_kmem_cache_init": _sizes(machine),
            "slabinfo_after_kmem_cache_init": slabinfo(slab),
        }
        slab.kmem_cpucache_init()
        facts |= {
            "cache_cache_after_cpu_up": _cache_cache(machine),
            "after_cpu_up": _sizes(machine),
            "slabinfo_after_cpu_up": slabinfo(slab),
            "chain_order": [cache.name for cache in slab.chain()],
            "events": list(pages.events),
            "kmalloc_131073": slab.kmalloc(131073, machine.image.constants.gfp.kernel),
        }
        for name, value in facts.items():
            comparison.equal(f"{recorded['config']} {name}", recorded[name], value)


def _cache_cache(machine: SlabMachine) -> list[Any]:
    cache, line = machine.slab.cache_cache, machine.image.config.l1_cache_bytes
    return columns(machine.slab, cache, Request(cache.objsize, line, cache.flags, 0, 0))


def _sizes(machine: SlabMachine) -> list[list[Any]]:
    slab, rows = machine.slab, []
    for entry in machine.image.statics.malloc_sizes:
        size = int(entry.cs_size)
        for cachep in (int(entry.cs_cachep), int(entry.cs_dmacachep)) if size else ():
            cache = slab.objects.cache(cachep)
            row = columns(slab, cache, _wanted(machine, size, 0, SLAB_HWCACHE_ALIGN))
            rows.append([size, cache.name, offset(cachep), row])
    return rows


# -- traces ---------------------------------------------------------------------------------------


def replay_trace(trace: Trace, comparison: Comparison) -> None:
    Run26(trace, comparison).replay()


class Run26(SlabRun):
    """One trace of 2.6's allocator."""

    _slab: Slab26

    def __init__(self, trace: Trace, comparison: Comparison) -> None:
        pages = RecordedPages()
        self._machine = SlabMachine(build(trace.data["meta"]["config"]), pages)
        super().__init__(trace, comparison, self._machine.image, self._machine.slab, pages)
        self._slab.reaper.scheduled = lambda cpu, delay: pages.events.append(["sdw", cpu, delay])

    def _further_operations(self) -> Mapping[str, Callable[..., list[Any]]]:
        return {
            "kmem_cache_init": self._init,
            "cpu_up": self._cpu_up,
            "cpucache_init": self._cpucache_init,
            "cache_reap": self._cache_reap,
            "jiffies": self._jiffies,
            "failpages2": self._failpages2,
            "rcu": self._rcu,
        }

    def _init(self, physpages: int) -> list[Any]:
        self._slab.kmem_cache_init(physpages)
        return [physpages]

    def _cpu_up(self, cpu: int, _: int) -> list[Any]:
        return [cpu, 0 if self._slab.cpu_up(cpu) else -1]

    def _cpucache_init(self) -> list[Any]:
        self._slab.cpucache_init()
        return []

    def _cache_reap(self) -> list[Any]:
        self._slab.reaper.cache_reap()
        return []

    def _jiffies(self, value: int) -> list[Any]:
        self._image.statics.jiffies = value
        return [value]

    def _failpages2(self, skip: int, count: int) -> list[Any]:
        self._pages.spare_next, self._pages.fail_next = skip, count
        return [skip, count]

    def _rcu(self, _: int) -> list[Any]:
        return [self._slab.objects.rcu.end_grace_period()]

    def _printed(self, log: list[str]) -> str:
        """The recording has no levels."""
        return _LEVEL.sub("", super()._printed(log))

    def _machine_state(self) -> dict[str, Any]:
        statics = self._image.statics
        return {
            "jiffies": int(statics.jiffies),
            "nr_slab": PageState(self._image).total("nr_slab"),
            "slab_reclaim_pages": int(statics.slab_reclaim_pages),
        }

    def _cache(self, cache: Cache) -> dict[str, Any]:
        view, arrays = cache.view, self._slab.cpu_caches
        lists = view.lists
        described: dict[str, Any] = {
            **{name: int(getattr(lists, name)) for name in ("free_objects", "free_touched")},
            "next_reap": int(lists.next_reap),
            "colour_next": int(view.colour_next),
            **{name: int(getattr(view, name)) for name in ("free_limit", "limit", "batchcount")},
            "shared": self._array(arrays.shared(cache)),
            "cpus": [self._array(arrays.array(cache, cpu)) for cpu in range(arrays.online)],
        }
        if self._slab.objects.debug is not None:
            described["stats"] = [int(getattr(view, name)) for name in STATISTICS]
        return described

    def _array(self, array: int) -> dict[str, Any]:
        view = self._image.at(self._image.structs.array_cache, array)
        head = {name: int(getattr(view, name)) for name in ARRAY_FIELDS}
        return {"cc": offset(array), **head, "e": self._entries(array)}
