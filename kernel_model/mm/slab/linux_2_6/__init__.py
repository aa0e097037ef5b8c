# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator of Linux 2.6.11 (book 8.8)."""

from kernel_model.mm.slab.linux_2_6.allocator import Slab26

__all__ = ["Slab26"]
