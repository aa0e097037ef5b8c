# SPDX-License-Identifier: GPL-2.0-or-later
"""What machine to model and how its kernel was built.

Models the choices of ``arch/i386/config.in`` and of the boot loader: the e820 map, the CPU,
highmem, the number of CPUs compiled in. What can fail: a combination that no machine could
boot with raises :class:`~kernel_model.errors.BadConfig`, naming the field and the remedy.
"""

import enum
from dataclasses import dataclass, field
from typing import Final

from kernel_model.errors import BadConfig
from kernel_model.ram import MAX_RAM, PAGE_SIZE

E820_RAM: Final = 1
E820_RESERVED: Final = 2
MIB: Final = 1 << 20
LOW_RAM_END: Final = 0x9F000
"""End of conventional memory; from here to 1 MiB lie the BIOS and the adapters."""
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


CPU_MODELS: Final[dict[str, CpuFeatures]] = {
    "486": CpuFeatures(pse=False, pge=False, pae=False),
    "pentium": CpuFeatures(pse=True, pge=False, pae=False),
    "pentium2": CpuFeatures(pse=True, pge=True, pae=True),
    "pentium3": CpuFeatures(pse=True, pge=True, pae=True),
    "coreduo": CpuFeatures(pse=True, pge=True, pae=True, nx=True),
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
    ``spinlock_bytes`` is ``sizeof(spinlock_t)`` of a uniprocessor build: 0, or 4 as gcc 2.95
    makes it; SMP builds always have 4.
    """

    ram: int = 64 * MIB
    release: str = "2.4"
    highmem: Highmem = Highmem.NONE
    cpu_model: str = "pentium3"
    e820: tuple[E820Entry, ...] = field(default=())
    highmem_pages: int = -1
    nodes: int = 1
    nr_cpus: int = 1
    apic: bool = False
    f00f_bug: bool = False
    l1_cache_bytes: int = 32
    spinlock_bytes: int = 0
    register_memory: bool = True

    def __post_init__(self) -> None:
        if not self.e820:
            self._check_ram(self.ram)
            object.__setattr__(self, "e820", default_e820(self.ram))
        else:
            check_e820(self.e820)
            object.__setattr__(self, "ram", max(e.end for e in self.e820 if e.type == E820_RAM))
            self._check_ram(self.ram)
        if self.cpu_model not in CPU_MODELS:
            raise BadConfig(f"unknown CPU model {self.cpu_model!r}: one of {', '.join(CPU_MODELS)}")
        if self.release not in ("2.4",):
            raise BadConfig(f"unknown kernel release {self.release!r}: this build models 2.4")
        if self.pae and not self.features.pae:
            raise BadConfig(
                f"highmem 64G needs PAE, which a {self.cpu_model} lacks: choose pentium2 or later"
            )
        if not 1 <= self.nr_cpus <= 32:
            raise BadConfig(f"nr_cpus {self.nr_cpus}: Linux 2.4 on i386 takes 1 to 32")

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
