# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers that are not the same in each release: GFP bits, bits of ``page->flags``, orders.

Models ``include/linux/mm.h`` and ``include/linux/mmzone.h`` of linux-2.4.22, and of linux-2.6.11
with them ``include/linux/gfp.h`` and ``include/linux/page-flags.h``. Code that both releases share
takes them from ``image.constants``; code of one release imports its own.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Gfp:
    """The bits of a GFP mask, and the masks made of them. 0: this release has no such bit."""

    dma: int = 0x01
    highmem: int = 0x02
    zonemask: int = 0x0F
    wait: int = 0x10
    high: int = 0x20
    io: int = 0x40
    highio: int = 0
    fs: int = 0
    cold: int = 0
    nowarn: int = 0
    repeat: int = 0
    nofail: int = 0
    noretry: int = 0
    no_grow: int = 0
    comp: int = 0
    zero: int = 0
    kernel_is_high: bool = False
    """Whether requests of the kernel itself may go deeper into the reserve (``__GFP_HIGH``)."""

    @property
    def atomic(self) -> int:
        """``GFP_ATOMIC``."""
        return self.high

    @property
    def noio(self) -> int:
        """``GFP_NOIO``."""
        return self.wait | (self.high if self.kernel_is_high else 0)

    @property
    def nofs(self) -> int:
        """``GFP_NOFS``."""
        return self.noio | self.io | self.highio

    @property
    def kernel(self) -> int:
        """``GFP_KERNEL``."""
        return self.nofs | self.fs

    @property
    def user(self) -> int:
        """``GFP_USER``."""
        return self.wait | self.io | self.highio | self.fs

    @property
    def highuser(self) -> int:
        """``GFP_HIGHUSER``."""
        return self.user | self.highmem


@dataclass(frozen=True, slots=True)
class PageFlags:
    """Bit numbers of ``page->flags``. -1: this release has no such bit.

    ``direct`` is of 2.6.0, whose number 16 became the swap cache's: it stands behind the others.
    """

    locked: int = 0
    error: int = 1
    referenced: int = 2
    uptodate: int = 3
    dirty: int = 4
    lru: int = -1
    active: int = -1
    slab: int = -1
    highmem: int = -1
    checked: int = -1
    arch_1: int = -1
    reserved: int = -1
    launder: int = -1
    private: int = -1
    writeback: int = -1
    nosave: int = -1
    compound: int = -1
    swapcache: int = -1
    mappedtodisk: int = -1
    reclaim: int = -1
    direct: int = -1
    zone_shift: int = 24
    """The number of the zone stands above this bit."""

    def names(self) -> dict[int, str]:
        """Bit number -> name, as ``PG_locked``."""
        bits = {name: getattr(self, name) for name in self.__slots__ if name != "zone_shift"}
        return {bit: f"PG_{name}" for name, bit in bits.items() if bit >= 0}

    def mask(self, *names: str) -> int:
        """The bits of these names as one mask; a bit that this release lacks adds nothing."""
        return sum(1 << bit for name in names if (bit := getattr(self, name)) >= 0)


@dataclass(frozen=True, slots=True)
class FieldNames:
    """What the releases call the fields of nodes, zones and frames that both have."""

    node_next: str = "node_next"
    """Links the nodes of ``pgdat_list``."""
    node_size: str = "node_size"
    """Frames of a node, holes included."""
    node_start: str = "node_start_paddr"
    """Where a node begins, and by how many bits that must be shifted to be a PFN."""
    node_start_shift: int = 12
    zone_size: str = "size"
    """Frames of a zone, holes included."""
    zone_present: str = "size"
    """Those that exist. 2.4 counts its holes, too."""
    zone_start: str = "zone_start_paddr"
    """Where a zone begins, and by how many bits that must be shifted to be a PFN."""
    zone_start_shift: int = 12
    page_links: str = "list"
    """Links the free blocks of an order."""
    page_count: str = "count"
    page_private: str = "buffers"
    """What a file system hangs on a page."""


@dataclass(frozen=True, slots=True)
class Constants:
    """All of them, for one release."""

    fields: FieldNames
    unused_count: int
    """What stands in the count of a frame without users."""
    has_bitmaps: bool
    """Whether a bit for each pair of buddies says how they stand."""
    has_reverse_map: bool
    """Whether the kernel can tell who maps a frame."""
    max_order: int
    """Orders of the buddy allocator: blocks of 2**0 to 2**(max_order - 1) frames."""
    gfp: Gfp
    page_flags: PageFlags


LINUX_2_4: Final = Constants(
    fields=FieldNames(),
    unused_count=0,
    has_bitmaps=True,
    has_reverse_map=False,
    max_order=10,
    gfp=Gfp(highio=0x80, fs=0x100, kernel_is_high=True),
    page_flags=PageFlags(
        lru=6, active=7, slab=8, highmem=11, checked=12, arch_1=13, reserved=14, launder=15
    ),
)
LINUX_2_6: Final = Constants(
    fields=FieldNames(
        node_next="pgdat_next",
        node_size="node_spanned_pages",
        node_start="node_start_pfn",
        node_start_shift=0,
        zone_size="spanned_pages",
        zone_present="present_pages",
        zone_start="zone_start_pfn",
        zone_start_shift=0,
        page_links="lru",
        page_count="_count",
        page_private="private",
    ),
    unused_count=0xFFFFFFFF,
    has_bitmaps=False,
    has_reverse_map=True,
    max_order=11,
    gfp=Gfp(
        zonemask=0x03,
        fs=0x80,
        cold=0x100,
        nowarn=0x200,
        repeat=0x400,
        nofail=0x800,
        noretry=0x1000,
        no_grow=0x2000,
        comp=0x4000,
        zero=0x8000,
    ),
    page_flags=PageFlags(
        lru=5,
        active=6,
        slab=7,
        highmem=8,
        checked=9,
        arch_1=10,
        reserved=11,
        private=12,
        writeback=13,
        nosave=14,
        compound=15,
        swapcache=16,
        mappedtodisk=17,
        reclaim=18,
        direct=19,
        zone_shift=29,
    ),
)
CONSTANTS: Final = {"2.4": LINUX_2_4, "2.6": LINUX_2_6}
