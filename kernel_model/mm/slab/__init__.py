# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator: caches of objects of one kind, kept constructed.

Models linux-2.4.22 ``mm/slab.c`` (book chapter 8). :class:`Slab` is the allocator of a machine;
its parts are the cache (:mod:`~kernel_model.mm.slab.cache`), creating one
(:mod:`~kernel_model.mm.slab.create`), objects and slabs (:mod:`~kernel_model.mm.slab.objects`),
per-CPU arrays (:mod:`~kernel_model.mm.slab.cpucache`), giving memory back
(:mod:`~kernel_model.mm.slab.reap`) and debugging (:mod:`~kernel_model.mm.slab.debug`,
:mod:`~kernel_model.mm.slab.check_objects`).
"""

from kernel_model.mm.slab.allocator import Slab
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.check_objects import bad_objects
from kernel_model.mm.slab.debug import BadObject

__all__ = ["BadObject", "Cache", "Slab", "bad_objects"]
