# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator: caches of objects of one kind, kept constructed.

Models ``mm/slab.c`` of linux-2.4.22 and 2.6.11 (book chapter 8). :class:`Slab` is the allocator of
a machine; what both releases share stands here: the cache (:mod:`~kernel_model.mm.slab.cache`), its
geometry (:mod:`~kernel_model.mm.slab.create`), objects and slabs
(:mod:`~kernel_model.mm.slab.objects`), arrays of objects (:mod:`~kernel_model.mm.slab.arrays`) and
debugging (:mod:`~kernel_model.mm.slab.debug`, :mod:`~kernel_model.mm.slab.check_objects`). The
allocators that boot are ``linux_2_4.Slab24`` and ``linux_2_6.Slab26``.
"""

from kernel_model.mm.slab.allocator import Slab
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.check_objects import bad_objects
from kernel_model.mm.slab.debug import BadObject

__all__ = ["BadObject", "Cache", "Slab", "bad_objects"]
