# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is contiguous for the kernel only: frames from anywhere, mapped side by side.

:mod:`.areas` has what the releases share; each release allocates in its own way.
"""

from kernel_model.mm.vmalloc.areas import VmallocRange
from kernel_model.mm.vmalloc.linux_2_4 import Vmalloc

__all__ = ["Vmalloc", "VmallocRange"]
