# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``layout``: sizes and offsets of the kernel's structures, and its constants."""

from dataclasses import replace
from typing import Any, Final

from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386 import fixmap, page, pgtable
from kernel_model.config import Highmem, KernelConfig
from kernel_model.mm import bootmem, gfp, page_flags
from kernel_model.structs import Abi, Structs, mmzone

_BUILD_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "nohm": {"highmem": Highmem.NONE},
    "hm": {"highmem": Highmem.GB4},
    "pae": {"highmem": Highmem.GB64},
    "smp": {"nr_cpus": 32},
    "upapic": {"apic": True},
    "m586": {"f00f_bug": True},
    "p4": {"l1_cache_bytes": 128},
    "gcc295": {"spinlock_bytes": 4},
}
"""What each word in the name of a variant means for the build."""


def replay(trace: Trace, comparison: Comparison) -> None:
    config = KernelConfig()
    for word in trace.config.split("_"):
        config = replace(config, **_BUILD_OPTIONS[word])
    structs = Structs.of(Abi.of(config))
    for kind in structs.all():
        if recorded := trace.data.get(kind.spelling):
            fields = {
                name: [kind.offset(name), getattr(kind.ctype, name).size]
                for name in recorded["fields"]
            }
            comparison.equal(kind.spelling, recorded, {"sizeof": kind.size, "fields": fields})
    sizes = _other_sizes(structs, config)
    for name, size in trace.data["sizeof_other"].items():
        comparison.equal(f"sizeof({name})", size, sizes[name])
    constants = build_constants(config)
    for name, value in trace.data["constants"].items():
        comparison.equal(name, value, constants[name])


def _other_sizes(structs: Structs, config: KernelConfig) -> dict[str, int]:
    entry = shape(config).entry_bytes
    return {
        "spinlock_t": structs.spinlock_t.size,
        "rwlock_t": structs.rwlock_t.size,
        "pte_t": entry,
        "pmd_t": entry,
        "pgd_t": entry,
        "struct list_head": structs.list_head.size,
        "atomic_t": 4,
    }


def shape(config: KernelConfig) -> pgtable.PageTableShape:
    return pgtable.THREE_LEVEL if config.pae else pgtable.TWO_LEVEL


def build_constants(config: KernelConfig) -> dict[str, int]:
    """Every constant of the kernel's headers that a trace may ask for, for one build."""
    fixed, levels = fixmap.fixed_addresses(config), shape(config)
    kmap_begin = fixed.slots.get("FIX_KMAP_BEGIN", 0)
    constants = {
        "MAX_ORDER": mmzone.MAX_ORDER,
        "MAX_NR_ZONES": mmzone.MAX_NR_ZONES,
        "NODE_SHIFT": mmzone.MAX_NR_NODES.bit_length() - 1,
        "SMP_CACHE_BYTES": config.l1_cache_bytes,
        "PAGE_OFFSET": page.PAGE_OFFSET,
        "MAXMEM": page.MAXMEM,
        "PTRS_PER_PGD": levels.ptrs_per_pgd,
        "PTRS_PER_PMD": levels.ptrs_per_pmd,
        "PTRS_PER_PTE": levels.ptrs_per_pte,
        "PGDIR_SHIFT": levels.pgdir_shift,
        "PMD_SHIFT": levels.pmd_shift,
        "FIXADDR_TOP": fixed.plan.top,
        "FIXADDR_START": fixed.start,
        "FIXADDR_SIZE": fixed.plan.top - fixed.start,
        "__end_of_permanent_fixed_addresses": fixed.end_of_permanent,
        "__end_of_fixed_addresses": fixed.end,
        "fixrange_vaddr_start": fixed.lowest & -levels.pmd_size,
        "PKMAP_BASE": fixed.pkmap_base,
        "LAST_PKMAP": fixmap.last_pkmap(config.pae),
        "KM_TYPE_NR": fixed.plan.km_type_nr,
        "NR_CPUS": config.nr_cpus,
        "FIX_KMAP_END": kmap_begin + fixed.plan.km_type_nr * config.nr_cpus - 1,
        "FIX_IO_APIC_BASE_END": fixmap.MAX_IO_APICS,
        "VMALLOC_OFFSET": fixmap.VMALLOC_OFFSET,
        "VMALLOC_END": fixmap.vmalloc_end(config),
        "kmap_vstart": fixed.to_virt(kmap_begin),
        "ZONE_SHIFT": page_flags.ZONE_SHIFT,
        "VM_IOREMAP": mmzone.VM_IOREMAP,
        "VM_ALLOC": mmzone.VM_ALLOC,
        "PF_MEMALLOC": gfp.PF_MEMALLOC,
        "PF_MEMDIE": gfp.PF_MEMDIE,
        "PF_FREE_PAGES": gfp.PF_FREE_PAGES,
        "PAGE_KERNEL": pgtable.PAGE_KERNEL,
        "pgprot_val(PAGE_KERNEL)": pgtable.PAGE_KERNEL,
        "KERNPG_TABLE": pgtable.KERNPG_TABLE,
        "PAGE_TABLE": pgtable.PAGE_TABLE,
        "MAX_DMA_ADDRESS": bootmem.MAX_DMA_ADDRESS,
    }
    constants |= fixed.slots
    constants |= {n.replace("GFP_BIT_", "__GFP_"): v for n, v in vars(gfp).items() if "GFP" in n}
    constants |= {f"PG_{name[3:].lower()}": bit for bit, name in page_flags.NAMES.items()}
    return constants
