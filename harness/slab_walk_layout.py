# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest's walk through caches, slabs and objects reports: declared once.

``guest/kernel/slab_walk.c`` fills a ``struct slab_walk`` and
:mod:`harness.monitors.guest_slab_walk` reads it; this module gives Python its layout and C the
header ``slab_walk_layout.h``. Sums are weighted as in :mod:`harness.mm_walk_layout`. Nothing here
can fail.
"""

import enum
from typing import Final

from kernel_model.mm.slab.flags import POISON_END, RED_ACTIVE, RED_INACTIVE
from kernel_model.mm.slab.linux_2_4.constants import LINUX_2_4
from kernel_model.mm.slab.linux_2_6.constants import LINUX_2_6, SLAB_STORE_USER
from kernel_model.release.constants import CONSTANTS
from kernel_model.structs.declare import UINT, CType, array, struct
from kernel_model.structs.header import checks, definition
from kernel_model.structs.statics import MAX_MODELLED_NODES

NO_CACHE: Final = 0xFFFFFFFF
"""The cache of a fault that belongs to none."""
MAX_FAULTS: Final = 32
"""How many faults are reported in detail; all are counted."""
MAX_CACHES: Final = 128
MAX_CPUS: Final = 32
SHARED_ARRAY: Final = MAX_CPUS
"""The CPU of a fault in the array that all share."""


class SlabFault(enum.IntEnum):
    """What the guest can find wrong by itself, without knowing what the model believes."""

    CACHE_CHAIN = 1
    """A link of ``cache_chain`` leaves low memory, is not mutual, or the chain never ends."""
    CACHE_FIELDS = 2
    """The objects of a slab cannot have this size and number."""
    SLAB_LIST = 3
    """A link of a list of slabs leaves low memory, is not mutual, or the list never ends."""
    SLAB_MEMORY = 4
    """Descriptor or objects do not lie in the slab's pages, where a slab has them."""
    OFF_SLAB = 5
    """A descriptor off the slab is no object of the cache that such descriptors come from."""
    WRONG_LIST = 6
    """``inuse`` is not what slabs on this list have."""
    PAGE = 7
    """A page of a slab is not marked, or does not name its cache and its slab."""
    BUFCTL = 8
    """The chain of free objects leaves the slab, or has not ``num - inuse`` links."""
    CPU_ARRAY = 9
    """A per-CPU array leaves low memory, or holds more than its limit."""
    CPU_OBJECT = 10
    """What a per-CPU array holds is no object in use of its cache, or there twice."""
    RED_ZONE = 11
    """A word beside an object is not what its state demands."""
    POISON = 12
    """A free object was written to."""
    SLAB_PAGES = 13
    """``mem_map`` marks another number of pages than all caches have."""
    FREE_OBJECTS = 14
    """``free_objects`` of a cache of 2.6 is not the length of all its chains."""


SLAB_WALK_FAULT: Final = struct(
    "struct slab_walk_fault",
    [("kind", UINT), ("cache", UINT), ("slab", UINT), ("object", UINT), ("offset", UINT)],
)
"""``cache`` counts along the chain, ``cache_cache`` being 0; ``slab`` and ``object`` are
addresses, ``offset`` is in bytes from the object."""

SLAB_WALK_LIST: Final = struct(
    "struct slab_walk_list",
    [("slabs", UINT), ("sum", UINT), ("inuse", UINT)],
)

SLAB_WALK_CPU: Final = struct(
    "struct slab_walk_cpu",
    [("array", UINT), ("avail", UINT), ("limit", UINT), ("sum", UINT)],
)

SLAB_WALK_CACHE: Final = struct(
    "struct slab_walk_cache",
    [
        ("address", UINT),
        ("objsize", UINT),
        ("flags", UINT),
        ("num", UINT),
        ("gfporder", UINT),
        ("colour_next", UINT),
        ("lists", array(SLAB_WALK_LIST, 3)),
        ("free_objects", UINT),
        ("free_sum", UINT),
        ("cpus", array(SLAB_WALK_CPU, MAX_CPUS)),
        ("shared", SLAB_WALK_CPU),
    ],
)
"""``lists`` are full, partial, free; ``free_sum`` is over the addresses of the free objects, slab
after slab, each in the order in which its objects will be given out. ``shared`` is 2.6's."""

SLAB_WALK: Final = struct(
    "struct slab_walk",
    [
        ("statics_bytes", UINT),
        ("nr_faults", UINT),
        ("faults", array(SLAB_WALK_FAULT, MAX_FAULTS)),
        ("slab_pages", UINT),
        ("nr_caches", UINT),
        ("caches", array(SLAB_WALK_CACHE, MAX_CACHES)),
    ],
)

_STRUCTS: Final[tuple[CType, ...]] = (
    *(SLAB_WALK_FAULT, SLAB_WALK_LIST, SLAB_WALK_CPU, SLAB_WALK_CACHE, SLAB_WALK),
)


_CONSTANTS: Final = {"2.4": LINUX_2_4, "2.6": LINUX_2_6}


def header_text(release: str) -> str:
    """The C header ``slab_walk_layout.h`` of a release."""
    slab = _CONSTANTS[release]
    constants: dict[str, int | str] = {
        "NO_CACHE": f"{NO_CACHE:#x}u",
        "SHARED_ARRAY": SHARED_ARRAY,
        "MAX_NODES": MAX_MODELLED_NODES,
        "SLAB_PAGE_BIT": CONSTANTS[release].page_flags.slab,
        "CFLGS_OFF_SLAB": f"{slab.off_slab:#x}u",
        "SLAB_STORE_USER": f"{SLAB_STORE_USER:#x}u",
        "BUFCTL_END": f"{slab.bufctl_end:#x}u",
        "RED_ACTIVE": f"{RED_ACTIVE:#x}u",
        "RED_INACTIVE": f"{RED_INACTIVE:#x}u",
        "POISON_BYTE": slab.poison,
        "POISON_END": POISON_END,
    }
    constants |= {f"SLAB_WALK_{fault.name}": fault.value for fault in SlabFault}
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Made from harness/slab_walk_layout.py. */",
        "#pragma once",
        *(f"#define {name} {value}" for name, value in constants.items()),
        *(f"\n{definition(kind)}{checks(kind)}" for kind in _STRUCTS),
    ]
    return "\n".join(lines)
