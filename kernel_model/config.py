# SPDX-License-Identifier: GPL-2.0-or-later
"""What machine to model and how its kernel was built.

Models the choices of ``arch/i386/config.in`` and of the boot loader: the e820 map, the CPU,
highmem, the number of CPUs compiled in. What can fail: a combination that no machine could
boot with raises :class:`~kernel_model.errors.BadConfig`, naming the field and the remedy.
"""

import enum
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from kernel_model.errors import BadConfig
from kernel_model.ram import MAX_RAM, PAGE_SIZE

E820_RAM: Final = 1
E820_RESERVED: Final = 2
E820_ACPI: Final = 3
E820_NVS: Final = 4
MIB: Final = 1 << 20
LOW_RAM_END: Final = 0x9F000
"""End of conventional memory; from here to 1 MiB lie the BIOS and the adapters."""
MAX_NODES: Final = 4
RELEASES: Final = ("2.4", "2.6")
"""Linux 2.4.22 and 2.6.11."""
REVERSE_MAPS: Final = ("object", "pte_chain")
"""How 2.6 finds the PTEs of a frame: by ``anon_vma`` and file as 2.6.11 does, or by the chains of
2.6.0."""
MAX_LOW_RAM: Final = 896 * MIB
DMA_END: Final = 16 * MIB
NODE_ALIGNMENT: Final = 1024
"""PFNs: 4 MiB, a large page and twice the largest block of the buddy allocator."""
NODE_MINIMUM: Final = 2048
"""PFNs: 8 MiB."""
MINIMUM_RAM: Final = 5 * MIB
"""The kernel image ends at 4 MiB; its boot map and tables need room behind it."""


class Highmem(enum.Enum):
    """``CONFIG_NOHIGHMEM``, ``CONFIG_HIGHMEM4G`` or ``CONFIG_HIGHMEM64G`` (PAE)."""

    NONE = "none"
    GB4 = "4G"
    GB64 = "64G"


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """What CPUID tells the kernel, as far as its memory manager asks (``cpu_has_*``)."""

    pse: bool
    pge: bool
    pae: bool
    nx: bool = False
    fxsr: bool = False
    sep: bool = False


CPU_MODELS: Final[dict[str, CpuFeatures]] = {
    "486": CpuFeatures(pse=False, pge=False, pae=False),
    "pentium": CpuFeatures(pse=True, pge=False, pae=False),
    "pentium2": CpuFeatures(pse=True, pge=True, pae=True, fxsr=True, sep=True),
    "pentium3": CpuFeatures(pse=True, pge=True, pae=True, fxsr=True, sep=True),
    "coreduo": CpuFeatures(pse=True, pge=True, pae=True, nx=True, fxsr=True, sep=True),
}


@dataclass(frozen=True, slots=True)
class E820Entry:
    """One ``struct e820entry``: ``addr`` and ``size`` in bytes, ``type`` 1 for usable RAM."""

    addr: int
    size: int
    type: int = E820_RAM

    @property
    def end(self) -> int:
        return self.addr + self.size


def default_e820(ram: int) -> tuple[E820Entry, ...]:
    """The map of a PC with ``ram`` bytes: conventional memory, and all from 1 MiB up."""
    return (E820Entry(0, LOW_RAM_END), E820Entry(MIB, ram - MIB))


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """One machine and one build of its kernel.

    ``ram`` is in bytes. ``e820`` replaces the default map and then decides alone where RAM
    is. ``highmem_pages`` is the boot parameter ``highmem=``, in pages (-1: not given).
    ``node_spans`` gives the [first, end) PFNs of each node; without it low memory is cut into
    ``nodes`` equal parts. ``round_robin`` builds the kernel with CONFIG_DISCONTIGMEM but without
    CONFIG_NUMA: allocations take turns over the nodes instead of preferring the local one.
    ``debug_slab`` builds the kernel with CONFIG_DEBUG_SLAB: red zones, poison, statistics.
    ``swap_pages`` is the size of the swap area, its header included; 0: no swap.
    ``spinlock_bytes`` is ``sizeof(spinlock_t)`` of a uniprocessor build: 0, or 4 as gcc 2.95
    makes it; SMP builds always have 4. ``debug_highmem`` is CONFIG_DEBUG_HIGHMEM: the slots of
    ``kmap_atomic()`` are unmapped after use, and checked. Without ``mmu`` the kernel is built for a
    CPU that never turns paging on (2.6 only). ``rmap`` is the kind of reverse map of 2.6.
    ``nr_hugepages`` is its boot parameter ``hugepages=``: how many to take for the pool.
    ``highpte`` is CONFIG_HIGHPTE: page tables of processes come from high memory.
    """

    ram: int = 64 * MIB
    release: str = "2.4"
    highmem: Highmem = Highmem.NONE
    cpu_model: str = "pentium3"
    e820: tuple[E820Entry, ...] = field(default=())
    highmem_pages: int = -1
    nodes: int = 1
    node_spans: tuple[tuple[int, int], ...] = ()
    round_robin: bool = False
    nr_cpus: int = 1
    apic: bool = False
    f00f_bug: bool = False
    l1_cache_bytes: int = 32
    spinlock_bytes: int = 0
    register_memory: bool = True
    swap_pages: int = 0
    debug_slab: bool = False
    debug_highmem: bool = False
    mmu: bool = True
    rmap: str = "object"
    nr_hugepages: int = 0
    highpte: bool = False

    def __post_init__(self) -> None:
        if not self.e820:
            self._check_ram(self.ram)
            object.__setattr__(self, "e820", default_e820(self.ram))
        else:
            check_e820(self.e820)
            end = max(e.end for e in self.e820 if e.type == E820_RAM)
            object.__setattr__(self, "ram", end // PAGE_SIZE * PAGE_SIZE)
            self._check_ram(self.ram)
            check_image_is_ram(self.e820)
        if self.cpu_model not in CPU_MODELS:
            raise BadConfig(f"unknown CPU model {self.cpu_model!r}: one of {', '.join(CPU_MODELS)}")
        if self.release not in RELEASES:
            raise BadConfig(
                f"unknown kernel release {self.release!r}: one of {', '.join(RELEASES)}"
            )
        if self.pae and not self.features.pae:
            raise BadConfig(
                f"highmem 64G needs PAE, which a {self.cpu_model} lacks: choose pentium2 or later"
            )
        if not 1 <= self.nr_cpus <= 32:
            raise BadConfig(f"nr_cpus {self.nr_cpus}: Linux 2.4 on i386 takes 1 to 32")
        self._check_build()
        self._check_nodes()

    def _check_build(self) -> None:
        if self.highmem_pages < -1:
            raise BadConfig(f"highmem= of {self.highmem_pages} pages: give 0 or more")
        if self.l1_cache_bytes not in (16, 32, 64, 128):
            raise BadConfig(f"l1_cache_bytes {self.l1_cache_bytes}: one of 16, 32, 64, 128")
        if not self.mmu and (self.release == "2.4" or self.highmem is not Highmem.NONE):
            raise BadConfig("a kernel without MMU is a 2.6 without high memory: choose those")
        if self.rmap not in REVERSE_MAPS:
            raise BadConfig(f"rmap {self.rmap!r}: one of {', '.join(REVERSE_MAPS)}")
        if self.rmap != "object" and self.release == "2.4":
            raise BadConfig("2.4 has no reverse map: choose release 2.6 for rmap pte_chain")
        self._check_hugepages()
        self._check_highpte()
        if self.spinlock_bytes not in (0, 4):
            raise BadConfig(f"spinlock_bytes {self.spinlock_bytes}: 0 or 4")

    def _check_hugepages(self) -> None:
        if self.nr_hugepages < 0:
            raise BadConfig(f"{self.nr_hugepages} huge pages: give 0 or more")
        if not self.nr_hugepages:
            return
        if self.release == "2.4" or not self.mmu:
            raise BadConfig("huge pages need a 2.6 kernel with MMU: choose that, or none of them")
        if not self.features.pse:
            raise BadConfig(
                f"huge pages need a CPU with 4 MiB pages, which a {self.cpu_model} lacks: choose "
                f"pentium or later"
            )
        size = 2 if self.pae else 4
        if self.nr_hugepages * size * MIB >= self.ram:
            raise BadConfig(
                f"{self.nr_hugepages} huge pages of {size} MiB leave nothing of "
                f"{self.ram // MIB} MiB: give more RAM"
            )

    def _check_highpte(self) -> None:
        if not self.highpte:
            return
        if self.release == "2.4" or self.highmem is Highmem.NONE:
            raise BadConfig(
                "page tables in high memory need a 2.6 kernel with high memory: choose release "
                "2.6 and highmem 4G or 64G"
            )
        if self.rmap == "pte_chain" and self.ram > 4 << 30:
            raise BadConfig(
                "a chain of PTEs has 32 bits for the address of each: choose rmap object, or up to "
                "4G of RAM"
            )

    def _check_nodes(self) -> None:
        if not 1 <= self.nodes <= MAX_NODES:
            raise BadConfig(f"{self.nodes} nodes: give 1 to {MAX_NODES}")
        if self.nodes == 1:
            if self.node_spans:
                raise BadConfig("one node needs no node_spans: give nodes=2 or more with them")
            return
        if self.round_robin and self.release == "2.6":
            raise BadConfig(
                "2.6 allocates at home, for on i386 it has nodes with CONFIG_NUMA only: choose "
                "release 2.4 for round_robin"
            )
        if self.highmem is not Highmem.NONE:
            raise BadConfig("nodes are modelled without high memory: choose highmem none")
        if not self.node_spans:
            object.__setattr__(self, "node_spans", equal_nodes(self.ram, self.nodes))
        check_nodes(self.nodes, self.node_spans, self.e820)

    @staticmethod
    def _check_ram(ram: int) -> None:
        if not MINIMUM_RAM <= ram <= MAX_RAM or ram % PAGE_SIZE:
            raise BadConfig(
                f"RAM of {ram} bytes: give whole 4 KiB pages, from {MINIMUM_RAM // MIB}M to 64G"
            )

    @property
    def features(self) -> CpuFeatures:
        return CPU_MODELS[self.cpu_model]

    @property
    def pae(self) -> bool:
        """Whether the kernel is built with three-level page tables."""
        return self.highmem is Highmem.GB64

    @property
    def smp(self) -> bool:
        return self.nr_cpus > 1


def equal_nodes(ram: int, nodes: int) -> tuple[tuple[int, int], ...]:
    """``nodes`` spans of PFNs of about the same size, each beginning at a whole 4 MiB."""
    frames = min(ram, MAX_LOW_RAM) // PAGE_SIZE
    part = frames // nodes // NODE_ALIGNMENT * NODE_ALIGNMENT
    edges = [number * part for number in range(nodes)] + [frames]
    return tuple(pairwise(edges))


def check_nodes(
    nodes: int, spans: tuple[tuple[int, int], ...], e820: tuple[E820Entry, ...]
) -> None:
    """Refuse nodes that overlap, are too small, or reach where there is no RAM."""
    if len(spans) != nodes:
        raise BadConfig(f"{len(spans)} node_spans for {nodes} nodes: give one each")
    previous = 0
    for number, (start, end) in enumerate(spans):
        where = f"node {number}, PFN {start} to {end}"
        if start < previous:
            raise BadConfig(f"{where}, overlaps the node before it: give disjoint, sorted nodes")
        if end - start < NODE_MINIMUM or start % NODE_ALIGNMENT:
            raise BadConfig(
                f"{where}: a node has at least {NODE_MINIMUM * PAGE_SIZE // MIB} MiB and begins "
                f"at a whole {NODE_ALIGNMENT * PAGE_SIZE // MIB} MiB: give fewer nodes or more RAM"
            )
        if not any(
            entry.type == E820_RAM
            and entry.addr <= max(start * PAGE_SIZE, MIB)
            and end * PAGE_SIZE <= entry.end
            for entry in e820
        ):
            raise BadConfig(
                f"{where}: the memory map has no RAM for it: a map of uniform memory takes nodes=1"
            )
        previous = end
    if spans[0][0] or spans[0][1] * PAGE_SIZE < DMA_END:
        raise BadConfig("node 0 holds the kernel and the DMA zone: let it cover the first 16 MiB")


def check_e820(entries: tuple[E820Entry, ...]) -> None:
    """Refuse a map that is empty, unsorted, overlapping or without usable memory."""
    if not any(entry.type == E820_RAM for entry in entries):
        raise BadConfig("the e820 map has no usable entry: give at least one of type 1")
    previous = E820Entry(0, 0)
    for entry in entries:
        span = f"{entry.addr:#x}..{entry.end:#x}"
        if entry.size <= 0 or entry.addr < 0:
            raise BadConfig(f"e820 entry {span} is empty or negative: remove it")
        if entry.addr < previous.addr:
            raise BadConfig(f"e820 entry {span} is out of order: sort the map by address")
        if entry.addr < previous.end:
            raise BadConfig(
                f"e820 entry {span} overlaps {previous.addr:#x}..{previous.end:#x}: cut one of them"
            )
        previous = entry


def check_image_is_ram(entries: tuple[E820Entry, ...]) -> None:
    """Refuse a sorted map in which the kernel image, or its boot map behind it, meets a hole."""
    reached = MIB
    for entry in entries:
        if entry.type == E820_RAM and entry.addr <= reached:
            reached = max(reached, entry.end)
    if reached < MINIMUM_RAM:
        raise BadConfig(
            f"the e820 map has no usable memory at {reached:#x}: the kernel needs all of "
            f"{MIB:#x}..{MINIMUM_RAM:#x}"
        )
