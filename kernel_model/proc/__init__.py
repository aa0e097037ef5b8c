# SPDX-License-Identifier: GPL-2.0-or-later
"""The texts of /proc that speak of memory, read from the kernel's own structures in RAM.

Each is a :class:`ProcFile`: ``text`` as a person reads it from /proc, ``data`` with the same
facts for programs, made of what JSON has. Nothing here changes the machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kernel_model.kernel import Kernel
from kernel_model.proc import buddyinfo, iomem, meminfo, pagetypeinfo, slabinfo, zoneinfo

__all__ = ["PROC_FILES", "ProcFile"]


@dataclass(frozen=True, slots=True)
class ProcFile:
    """One file of /proc, for a kernel that has booted."""

    text: Callable[[Kernel], str]
    data: Callable[[Kernel], Any]


PROC_FILES: Final[dict[str, ProcFile]] = {
    "meminfo": ProcFile(meminfo.text, meminfo.data),
    "zoneinfo": ProcFile(zoneinfo.text, zoneinfo.data),
    "buddyinfo": ProcFile(buddyinfo.text, buddyinfo.data),
    "pagetypeinfo": ProcFile(pagetypeinfo.text, pagetypeinfo.data),
    "slabinfo": ProcFile(slabinfo.text, slabinfo.data),
    "iomem": ProcFile(iomem.text, iomem.data),
}
