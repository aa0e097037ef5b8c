# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator of Linux 2.4.22 (book 8.1 to 8.7)."""

from kernel_model.mm.slab.linux_2_4.allocator import Slab24

__all__ = ["Slab24"]
