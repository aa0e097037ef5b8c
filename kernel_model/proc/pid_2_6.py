# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/PID/maps`` of 2.6, and the memory lines of ``/proc/PID/status``.

Models linux-2.6.11 ``fs/proc/task_mmu.c: show_map()``, ``task_mem()`` (book 4.8). What 2.4 finds
out by a walk over all VMAs, 2.6 reads from the address space: it counts as VMAs come and go.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from kernel_model.mm.mmap.areas import Areas
from kernel_model.proc import pid

_KB: Final = PAGE_SHIFT - 10


def maps_text(areas: Areas, mm: int, gate: int = 0) -> str:
    """A line for each VMA, and one for the page that every process has."""
    return pid.maps_text(areas, mm, gate, behind_inode=" ")


def status_data(areas: Areas, mm: int) -> dict[str, int]:
    """The memory lines of ``status`` in kB, by their names."""
    space = areas.mm(mm)
    code = (int(space.end_code) + PAGE_SIZE - 1 & PAGE_MASK) - (int(space.start_code) & PAGE_MASK)
    program = code >> 10
    return {
        "VmSize": space.total_vm - space.reserved_vm << _KB,
        "VmLck": space.locked_vm << _KB,
        "VmRSS": space.rss << _KB,
        "VmData": space.total_vm - space.shared_vm - space.stack_vm << _KB,
        "VmStk": space.stack_vm << _KB,
        "VmExe": program,
        # Unsigned: headers in front of the code count as program, and not as what can be run.
        "VmLib": (space.exec_vm << _KB) - program & 0xFFFFFFFF,
        "VmPTE": space.nr_ptes << _KB,
    }


def status_text(areas: Areas, mm: int) -> str:
    """The memory lines of ``/proc/PID/status``."""
    return pid.memory_lines(status_data(areas, mm))
