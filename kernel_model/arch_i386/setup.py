# SPDX-License-Identifier: GPL-2.0-or-later
"""From the e820 map to a boot memory allocator that knows what is free.

Models linux-2.4.22 ``arch/i386/kernel/setup.c``: ``setup_memory()``, ``find_max_pfn()``,
``find_max_low_pfn()``, ``register_bootmem_low_pages()``, ``register_memory()`` (book 2.2.2,
5.2, 5.3). In RAM: the limits (``max_low_pfn`` and kin) and, through the boot allocator, the
boot map behind the kernel image. A ``highmem=`` that makes no sense is ignored with the
kernel's own message.
"""

from typing import Final

from kernel_model.arch_i386.page import (
    MAX_NONPAE_PFN,
    MAXMEM,
    MAXMEM_PFN,
    PAGE_SHIFT,
    PAGE_SIZE,
    pfn_down,
    pfn_up,
)
from kernel_model.config import (
    E820_ACPI,
    E820_NVS,
    E820_RAM,
    E820Entry,
    Highmem,
    KernelConfig,
)
from kernel_model.image import TEXT, KernelImage
from kernel_model.mm.bootmem import Bootmem
from kernel_model.resource import IORESOURCE_BUSY, IORESOURCE_MEM, Resources

HIGH_MEMORY: Final = TEXT
_MIN_LOWMEM_PFN: Final = 64 << 20 >> PAGE_SHIFT
_RESOURCE_LIMIT: Final = 1 << 32
_RESOURCE_NAMES: Final = {
    E820_RAM: "System RAM",
    E820_ACPI: "ACPI Tables",
    E820_NVS: "ACPI Non-volatile Storage",
}


def pages_to_mb(pages: int) -> int:
    return pages >> (20 - PAGE_SHIFT)


def ram_frames(entry: E820Entry) -> range:
    """The whole frames inside an e820 entry; empty unless it is RAM."""
    if entry.type != E820_RAM:
        return range(0)
    return range(pfn_up(entry.addr), pfn_down(entry.end))


def find_max_pfn(config: KernelConfig) -> int:
    """One past the last frame of RAM."""
    return max((frames.stop for frames in map(ram_frames, config.e820) if frames), default=0)


class MemoryLimits:
    """``find_max_low_pfn()``: where low memory ends and how much high memory there is."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self._highmem = image.config.highmem
        self.max_pfn = find_max_pfn(image.config)
        self.highmem_pages = image.config.highmem_pages
        if self.max_pfn > MAXMEM_PFN:
            self.max_low_pfn = self._more_than_lowmem()
        else:
            self.max_low_pfn = self._all_lowmem()

    def _more_than_lowmem(self) -> int:
        printk = self._image.printk
        if self.highmem_pages == -1:
            self.highmem_pages = self.max_pfn - MAXMEM_PFN
        if self.highmem_pages + MAXMEM_PFN < self.max_pfn:
            self.max_pfn = MAXMEM_PFN + self.highmem_pages
        if self.highmem_pages + MAXMEM_PFN > self.max_pfn:
            printk(
                f"only {pages_to_mb(self.max_pfn - MAXMEM_PFN)}MB highmem pages available, "
                f"ignoring highmem size of {pages_to_mb(self.highmem_pages)}MB.\n"
            )
            self.highmem_pages = 0
        if self._highmem is Highmem.NONE:
            printk(f"<4>Warning only {MAXMEM >> 20}MB will be used.\n")
            wanted = "PAE" if self.max_pfn > MAX_NONPAE_PFN else "HIGHMEM"
            printk(f"<4>Use a {wanted} enabled kernel.\n")
        elif self._highmem is Highmem.GB4 and self.max_pfn > MAX_NONPAE_PFN:
            self.max_pfn = MAX_NONPAE_PFN
            printk("<4>Warning only 4GB will be used.\n")
            printk("<4>Use a PAE enabled kernel.\n")
        return MAXMEM_PFN

    def _all_lowmem(self) -> int:
        """All RAM is low, unless ``highmem=`` asks to treat its end as high."""
        printk = self._image.printk
        if self.highmem_pages == -1:
            self.highmem_pages = 0
        if self._highmem is Highmem.NONE:
            if self.highmem_pages:
                printk("<3>ignoring highmem size on non-highmem kernel!\n")
            return self.max_pfn
        if self.highmem_pages >= self.max_pfn:
            printk(
                f"<3>highmem size specified ({pages_to_mb(self.highmem_pages)}MB) is bigger than "
                f"pages available ({pages_to_mb(self.max_pfn)}MB)!.\n"
            )
            self.highmem_pages = 0
        if self.highmem_pages and self.max_pfn - self.highmem_pages < _MIN_LOWMEM_PFN:
            printk(
                f"<3>highmem size {pages_to_mb(self.highmem_pages)}MB results in smaller than "
                "64MB lowmem, ignoring it.\n"
            )
            self.highmem_pages = 0
        return self.max_pfn - self.highmem_pages


def register_bootmem_low_pages(config: KernelConfig, bootmem: Bootmem, max_low_pfn: int) -> None:
    """Tell the boot allocator which low frames are RAM (book 5.3)."""
    for frames in map(ram_frames, config.e820):
        last = min(frames.stop, max_low_pfn)
        if frames and frames.start < max_low_pfn and last > frames.start:
            bootmem.free_bootmem(frames.start << PAGE_SHIFT, (last - frames.start) << PAGE_SHIFT)


def set_limits(image: KernelImage) -> int:
    """Find where low and high memory end, and say so. Returns ``max_low_pfn``."""
    statics = image.statics
    limits = MemoryLimits(image)
    statics.max_pfn, max_low_pfn = limits.max_pfn, limits.max_low_pfn
    if image.config.highmem is not Highmem.NONE:
        statics.highstart_pfn = statics.highend_pfn = limits.max_pfn
        if limits.max_pfn > max_low_pfn:
            statics.highstart_pfn = max_low_pfn
        high = statics.highend_pfn - statics.highstart_pfn
        image.printk(f"<5>{pages_to_mb(high)}MB HIGHMEM available.\n")
    image.printk(f"<5>{pages_to_mb(max_low_pfn)}MB LOWMEM available.\n")
    return max_low_pfn


def kernel_end(start_pfn: int, bootmap_size: int) -> int:
    """Bytes from 1 MiB to the end of the kernel image and of the boot map behind it.

    The kernel rounds up before it subtracts, and so reserves a frame more than the map needs.
    """
    return (start_pfn << PAGE_SHIFT) + bootmap_size + PAGE_SIZE - 1 - HIGH_MEMORY


def setup_memory(image: KernelImage, bootmem: Bootmem) -> None:
    """Find the limits, set up the boot allocator, reserve what is in use."""
    start_pfn = pfn_up(image.boot_end)
    max_low_pfn = set_limits(image)
    bootmap_size = bootmem.init_bootmem(start_pfn, max_low_pfn)
    register_bootmem_low_pages(image.config, bootmem, max_low_pfn)
    bootmem.reserve_bootmem(HIGH_MEMORY, kernel_end(start_pfn, bootmap_size))
    bootmem.reserve_bootmem(0, PAGE_SIZE)
    if image.config.smp:
        bootmem.reserve_bootmem(PAGE_SIZE, PAGE_SIZE)


def register_memory(image: KernelImage, bootmem: Bootmem) -> None:
    """A ``struct resource`` for each e820 entry below 4 GiB, from boot memory; the range of RAM
    that holds the kernel gets its code and data below it. A request that fails is ignored."""
    resources = Resources(image)
    resources.init_static()
    iomem = image.symbol("iomem_resource")
    resources.request(iomem, image.symbol("rom_resources"))
    for entry in image.config.e820:
        if entry.end > _RESOURCE_LIMIT:
            continue
        resource = bootmem.alloc_bootmem_low(image.structs.resource.size)
        name = _RESOURCE_NAMES.get(entry.type, "reserved")
        flags = IORESOURCE_MEM | IORESOURCE_BUSY
        resources.init(resource, name, entry.addr, entry.end - 1, flags)
        resources.request(iomem, resource)
        if entry.type == E820_RAM:
            resources.request(resource, image.symbol("code_resource"))
            resources.request(resource, image.symbol("data_resource"))
    resources.request(iomem, image.symbol("vram_resource"))
