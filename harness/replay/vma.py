# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``vma_*``: layouts and constants of address spaces, and their operations call by call."""

from typing import Any

from harness.replay.layout import shape
from harness.replay.slab import SlabMachine, build
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386 import page
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.config import KernelConfig
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN
from kernel_model.structs import Abi, Structs, mm, mman, sched


def replay_structs(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        name, config = recorded["config"], build(recorded["config"])
        _layouts(name, recorded["fields"], config, comparison)
        protections = [f"{bits:x}" for bits in PROTECTION_MAP]
        comparison.equal(f"{name} protection_map", recorded["protection_map"], protections)
        cachep = recorded["vm_area_cachep"]
        comparison.equal(f"{name} vm_area_cachep", cachep, _vm_area_cachep(config))


def _layouts(
    config_name: str, rows: list[list[Any]], config: KernelConfig, comparison: Comparison
) -> None:
    structs = Structs.of(Abi.of(config))
    kinds = {kind.spelling: kind for kind in structs.all()}
    constants = _constants(config)
    for kind_name, field, at, size in rows:
        where = f"{config_name} {kind_name}.{field}"
        if kind_name == "const":
            comparison.equal(where, [at, size], [constants[field], 0])
        elif field:
            kind = kinds[kind_name]
            ours = [kind.offset(field), getattr(kind.ctype, field).size]
            comparison.equal(where, [at, size], ours)
        else:
            comparison.equal(where, [at, size], [0, kinds[kind_name].size])


def _constants(config: KernelConfig) -> dict[str, int]:
    levels = shape(config)
    return {
        **{name: value for module in (mm, mman, sched) for name, value in vars(module).items()},
        "TASK_SIZE": page.TASK_SIZE,
        "TASK_UNMAPPED_BASE": page.TASK_UNMAPPED_BASE,
        "PGDIR_SIZE": levels.pgdir_size,
        "PTRS_PER_PGD": levels.ptrs_per_pgd,
    }


def _vm_area_cachep(config: KernelConfig) -> dict[str, int]:
    """What the slab allocator makes of the cache that VMAs come from."""
    machine = SlabMachine(config, 1)
    machine.start(config.ram >> page.PAGE_SHIFT)
    slab, size = machine.slab, machine.kernel.image.structs.vm_area_struct.size
    cache = slab.objects.cache(
        slab.kmem_cache_create("vm_area_struct", size, 0, SLAB_HWCACHE_ALIGN)
    )
    return {"objsize": cache.objsize, "num": cache.num, "colour": int(cache.view.colour)}
