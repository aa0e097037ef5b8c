# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocation flags: what an allocator may do to find a frame, and where.

Models linux-2.4.22 ``include/linux/mm.h`` (book 6.4, tables 6.3 to 6.5). The kernel's
``__GFP_WAIT`` is ``GFP_BIT_WAIT`` here: Python mangles names that begin with two underscores.
"""

from typing import Final

GFP_BIT_DMA: Final = 0x01
GFP_BIT_HIGHMEM: Final = 0x02
GFP_BIT_WAIT: Final = 0x10
GFP_BIT_HIGH: Final = 0x20
GFP_BIT_IO: Final = 0x40
GFP_BIT_HIGHIO: Final = 0x80
GFP_BIT_FS: Final = 0x100

GFP_ZONEMASK: Final = 0x0F
"""The bits of a mask that choose the zonelist."""

GFP_NOHIGHIO: Final = GFP_BIT_HIGH | GFP_BIT_WAIT | GFP_BIT_IO
GFP_NOIO: Final = GFP_BIT_HIGH | GFP_BIT_WAIT
GFP_NOFS: Final = GFP_BIT_HIGH | GFP_BIT_WAIT | GFP_BIT_IO | GFP_BIT_HIGHIO
GFP_ATOMIC: Final = GFP_BIT_HIGH
GFP_USER: Final = GFP_BIT_WAIT | GFP_BIT_IO | GFP_BIT_HIGHIO | GFP_BIT_FS
GFP_HIGHUSER: Final = GFP_USER | GFP_BIT_HIGHMEM
GFP_KERNEL: Final = GFP_BIT_HIGH | GFP_BIT_WAIT | GFP_BIT_IO | GFP_BIT_HIGHIO | GFP_BIT_FS
GFP_NFS: Final = GFP_KERNEL
GFP_KSWAPD: Final = GFP_USER
GFP_DMA: Final = GFP_BIT_DMA

PF_MEMALLOC: Final = 0x0800
"""The process frees memory: it may take the last frames (book 6.5)."""
PF_MEMDIE: Final = 0x1000
"""The process is being killed for lack of memory."""
PF_FREE_PAGES: Final = 0x2000
"""The first block that the process frees is kept for itself, in ``local_pages``."""
