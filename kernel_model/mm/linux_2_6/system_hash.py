# SPDX-License-Identifier: GPL-2.0-or-later
"""Large hash tables from boot memory, as large as the machine makes worth while.

Models linux-2.6.11 ``mm/page_alloc.c: alloc_large_system_hash()`` for its early callers, the dentry
and the inode cache (``vfs_caches_init_early()``): a bucket for each 2**scale bytes of low memory,
rounded up to a power of two, at most a sixteenth of all memory.
"""

from dataclasses import dataclass
from typing import Final

from kernel_model.image import KernelImage
from kernel_model.mm.bootmem import Bootmem
from kernel_model.ram import PAGE_SHIFT

_MB_SHIFT: Final = 20 - PAGE_SHIFT


@dataclass(frozen=True, slots=True)
class SystemHash:
    """What one caller asks for."""

    name: str
    scale: int
    """A bucket for each ``2**scale`` bytes of low memory."""
    bucket_bytes: int = 4


@dataclass(frozen=True, slots=True)
class HashTable:
    """What it gets: ``2**shift`` buckets at ``vaddr``."""

    vaddr: int
    shift: int

    @property
    def mask(self) -> int:
        return (1 << self.shift) - 1


SYSTEM_HASHES: Final = (SystemHash("Dentry cache", 13), SystemHash("Inode-cache", 14))


def alloc_large_system_hash(image: KernelImage, bootmem: Bootmem, wanted: SystemHash) -> HashTable:
    """``HASH_EARLY``: from boot memory."""
    statics = image.statics
    entries = (int(statics.nr_kernel_pages) + (1 << _MB_SHIFT) - 1) >> _MB_SHIFT << _MB_SHIFT
    if wanted.scale > PAGE_SHIFT:
        entries >>= wanted.scale - PAGE_SHIFT
    else:
        entries <<= PAGE_SHIFT - wanted.scale
    # long_log2() + 1: a power of two is doubled, too.
    entries = 1 << entries.bit_length()
    most = (int(statics.nr_all_pages) << PAGE_SHIFT >> 4) // wanted.bucket_bytes
    shift = min(entries, most).bit_length() - 1
    size = wanted.bucket_bytes << shift
    vaddr = bootmem.alloc_bootmem(size)
    image.printk(
        f"{wanted.name} hash table entries: {1 << shift} "
        f"(order: {size.bit_length() - 1 - PAGE_SHIFT}, {size} bytes)\n"
    )
    return HashTable(vaddr, shift)
