# SPDX-License-Identifier: GPL-2.0-or-later
"""The texts of /proc that speak of memory, read from the kernel's own structures in RAM.

Each is a :class:`ProcFile`: ``text`` as a person reads it from /proc, ``data`` with the same
facts for programs, made of what JSON has. Nothing here changes the machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kernel_model.kernel import Kernel
from kernel_model.mm.mmap.areas import Areas
from kernel_model.proc import (
    buddyinfo,
    iomem,
    linux_2_6,
    meminfo,
    nodes,
    pagetypeinfo,
    pid,
    pid_2_6,
    slabinfo,
    zoneinfo,
)
from kernel_model.proc.task import FORMAT_2_4, FORMAT_2_6, TaskFormat

__all__ = ["ALL_NAMES", "PROC_FILES", "ProcFile", "pid_files", "proc_files"]


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
"""Those of 2.4."""
PROC_FILES_2_6: Final = PROC_FILES | {
    "meminfo": ProcFile(linux_2_6.meminfo_text, linux_2_6.meminfo_data),
    "vmstat": ProcFile(linux_2_6.vmstat_text, linux_2_6.vmstat_data),
}


@dataclass(frozen=True, slots=True)
class PidFiles:
    """How a process's own files are written."""

    maps: Callable[[Areas, int, int], str]
    """Of an address space, and of the page outside all VMAs (0: there is none)."""
    memory: Callable[[Areas, int], str]
    """The lines of ``status`` that tell of an address space."""
    format: TaskFormat
    """All other lines, and ``stat``."""


_PID_FILES: Final = {
    "2.4": PidFiles(pid.maps_text, pid.status_text, FORMAT_2_4),
    "2.6": PidFiles(pid_2_6.maps_text, pid_2_6.status_text, FORMAT_2_6),
}
_RELEASES: Final = {"2.4": PROC_FILES, "2.6": PROC_FILES_2_6}
_NODE_FILES: Final = {
    "numastat": ProcFile(nodes.numastat_text, nodes.numastat_data),
    "node_meminfo": ProcFile(nodes.meminfo_text, nodes.meminfo_data),
}
"""Those of a 2.6 that is built for several nodes."""
ALL_NAMES: Final = (*PROC_FILES_2_6, *_NODE_FILES)
"""Every name that some kernel has."""


def proc_files(kernel: Kernel) -> dict[str, ProcFile]:
    """The files of a kernel's build, by name."""
    files = _RELEASES[kernel.config.release]
    return files | _NODE_FILES if kernel.image.structs.abi.discontig else files


def pid_files(kernel: Kernel) -> PidFiles:
    """The files of a process, as the kernel's release writes them."""
    return _PID_FILES[kernel.config.release]
