# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose guest works in the vmalloc range, with page directories to work from."""

from harness.guests import guest_path
from harness.machine import Machine, guest_variant
from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel

PAGE = 4096
TABLE = 4 * MIB
"""Bytes under one entry of a two-level page directory."""

SHAPES: dict[str, dict[str, object]] = {
    "486": {"cpu_model": "486"},
    "pentium3": {},
    "highmem": {"ram": 72 * MIB, "highmem": Highmem.GB4, "highmem_pages": 2048},
    "PAE": {"ram": 72 * MIB, "highmem": Highmem.GB64, "highmem_pages": 2048},
    "2.6": {"release": "2.6"},
    "2.6 highmem": {
        "release": "2.6",
        "ram": 72 * MIB,
        "highmem": Highmem.GB4,
        "highmem_pages": 2048,
    },
    "2.6 PAE": {"release": "2.6", "ram": 72 * MIB, "highmem": Highmem.GB64, "highmem_pages": 2048},
}


class VmallocMachine:
    """``machine`` with ``spaces``: page directories made before anything was vmalloc'ed.

    Little RAM leaves much room above it: the vmalloc range is nearly 1 GiB. A PAE directory
    shares the middle directory of the kernel's part, so that no entry is ever missing.
    """

    def __init__(self, shape: str = "pentium3", spaces: int = 1) -> None:
        choices = {"ram": 32 * MIB} | SHAPES[shape]
        config = KernelConfig(**choices)  # type: ignore[arg-type]
        image = guest_path("vmalloc_test", guest_variant(config))
        self.machine = Machine(Kernel(config), image=image)
        self.kernel = self.machine.kernel
        self.vmalloc = self.kernel.vmalloc
        ledger = FrameLedger.of(self.kernel.image.events)
        assert ledger is not None
        self.ledger = ledger
        self.lazy = not self.kernel.config.pae
        self.spaces = [self.kernel.page_tables.pgd_alloc() for _ in range(spaces)]

    def enter(self, mm: int = SWAPPER_PG_DIR) -> None:
        self.machine.cpu.load_cr3(mm)

    @property
    def vmalloc_faults(self) -> int:
        return self.machine.faults[FaultKind.VMALLOC]

    def store(self, addr: int, pages: int, salt: int = 0) -> None:
        """Guest code of ring 0 stores into each page where it is, plus ``salt``."""
        self.machine.call("store_pages", addr, pages, salt)

    def sum(self, addr: int, pages: int) -> int:
        """Guest code of ring 0 loads a word from each page."""
        return self.machine.call("load_pages", addr, pages)

    def entry(self, mm: int, va: int) -> int:
        """The entry of a two-level directory."""
        return self.machine.ram.read32(mm + (va >> 22) * 4)


def expected_sum(addr: int, pages: int, salt: int = 0) -> int:
    """What :meth:`VmallocMachine.sum` comes to after :meth:`VmallocMachine.store`."""
    return sum(addr + PAGE * page + salt for page in range(pages)) & 0xFFFFFFFF
