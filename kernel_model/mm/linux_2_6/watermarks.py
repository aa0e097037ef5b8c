# SPDX-License-Identifier: GPL-2.0-or-later
"""How much each zone keeps back, for whom.

Models linux-2.6.11 ``mm/page_alloc.c``: ``init_per_zone_pages_min()``,
``setup_per_zone_pages_min()``, ``setup_per_zone_lowmem_reserve()`` and the two sysctls that change
them (book 6.7). In RAM: ``min_free_kbytes``, ``sysctl_lowmem_reserve_ratio``, and of each zone
``pages_min``, ``pages_low``, ``pages_high`` and ``lowmem_reserve``: frames that a request leaves
alone which could be served from a higher zone.
"""

from collections.abc import Sequence
from math import isqrt
from typing import Final

from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.mmzone import Zone26, for_each_zone
from kernel_model.mm.mmzone import ZONE_HIGHMEM
from kernel_model.ram import PAGE_SHIFT
from kernel_model.structs.mmzone import MAX_NR_ZONES

MIN_FREE_KBYTES: Final = (128, 65536)
"""The least and the most that the kernel chooses by itself."""
HIGHMEM_PAGES_MIN: Final = (32, 128)
"""High memory needs no reserve, but reclaim works in such batches."""
LOWMEM_RESERVE_RATIO: Final = (256, 32)
DEFAULT_MIN_FREE_KBYTES: Final = 1024
DEFAULT_OVERCOMMIT_RATIO: Final = 50
"""Percent of RAM that may be promised besides swap, when promises are kept."""


def init_statics(image: KernelImage) -> None:
    """What the image of the kernel begins with."""
    image.statics.min_free_kbytes = DEFAULT_MIN_FREE_KBYTES
    image.statics.sysctl_overcommit_ratio = DEFAULT_OVERCOMMIT_RATIO
    for index, ratio in enumerate(LOWMEM_RESERVE_RATIO):
        image.statics.sysctl_lowmem_reserve_ratio[index] = ratio


def init_per_zone_pages_min(image: KernelImage, nr_free_buffer_pages: int) -> None:
    """Choose ``min_free_kbytes`` by the size of low memory: its root, for large machines need
    relatively less."""
    lowmem_kbytes = nr_free_buffer_pages << (PAGE_SHIFT - 10)
    least, most = MIN_FREE_KBYTES
    image.statics.min_free_kbytes = min(max(isqrt(lowmem_kbytes * 16), least), most)
    setup_per_zone_pages_min(image)
    setup_per_zone_lowmem_reserve(image)


def setup_per_zone_pages_min(image: KernelImage) -> None:
    """Share ``min_free_kbytes`` out over the zones of low memory."""
    pages_min = int(image.statics.min_free_kbytes) >> (PAGE_SHIFT - 10)
    zones = list(for_each_zone(image))
    lowmem = sum(zone.present_pages for zone in zones if zone.index != ZONE_HIGHMEM)
    least, most = HIGHMEM_PAGES_MIN
    for zone in zones:
        if zone.index == ZONE_HIGHMEM:
            share = min(max(zone.present_pages // 1024, least), most)
        else:
            share = pages_min * zone.present_pages // lowmem
        zone.view.pages_min = share
        zone.view.pages_low, zone.view.pages_high = share * 5 // 4, share * 6 // 4


def setup_per_zone_lowmem_reserve(image: KernelImage) -> None:
    """What a zone keeps from requests for a higher one grows with all that lies between them."""
    ratios = [int(ratio) for ratio in image.statics.sysctl_lowmem_reserve_ratio]
    zones = list(for_each_zone(image))
    for first in range(0, len(zones), MAX_NR_ZONES):
        node: Sequence[Zone26] = zones[first : first + MAX_NR_ZONES]
        for wanted, zone in enumerate(node):
            zone.view.lowmem_reserve[wanted] = 0
            above = zone.present_pages
            for lower in reversed(range(wanted)):
                node[lower].view.lowmem_reserve[wanted] = above // ratios[lower]
                above += node[lower].present_pages


def set_min_free_kbytes(image: KernelImage, kbytes: int) -> None:
    """``/proc/sys/vm/min_free_kbytes``."""
    image.statics.min_free_kbytes = kbytes
    setup_per_zone_pages_min(image)


def set_lowmem_reserve_ratio(image: KernelImage, ratios: Sequence[int]) -> None:
    """``/proc/sys/vm/lowmem_reserve_ratio``; no ratio may be less than 1."""
    for index, ratio in enumerate(ratios):
        image.statics.sysctl_lowmem_reserve_ratio[index] = ratio
    setup_per_zone_lowmem_reserve(image)
