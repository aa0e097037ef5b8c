# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/PID/maps``, and the memory lines of ``/proc/PID/status``.

Models linux-2.4.22 ``fs/proc/array.c: proc_pid_maps_get_line()``, ``task_mem()`` (book 4.4): all
of it read from the VMAs of an address space.
"""

from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.mm.mmap.areas import Areas
from kernel_model.structs.mm import (
    VM_EXEC,
    VM_EXECUTABLE,
    VM_GROWSDOWN,
    VM_MAYSHARE,
    VM_READ,
    VM_WRITE,
)

_NAME_COLUMN: Final = 49
"""Where names begin in a line of ``maps``; lines without one are not padded."""
_U32: Final = 0xFFFFFFFF


def maps_data(areas: Areas, mm: int, gate: int = 0) -> list[dict[str, Any]]:
    """A row for each VMA, by the meaning of its columns.

    ``gate`` is the page outside all VMAs that a process may see nevertheless; 0: there is none.
    """
    rows = []
    for vma in areas.list(mm):
        area = areas.vma(vma)
        inode = areas.files.inode(areas.files.inode_of(area.vm_file)) if area.vm_file else None
        rows.append(
            {
                "start": area.vm_start,
                "end": area.vm_end,
                "permissions": _permissions(area.vm_flags),
                "offset": area.vm_pgoff << PAGE_SHIFT & _U32,
                "device": areas.files.device(inode) if inode else 0,
                "inode": int(inode.i_ino) if inode else 0,
                "path": areas.files.d_path(area.vm_file) if area.vm_file else "",
            }
        )
    if gate:
        rows.append(_row(gate, gate + PAGE_SIZE, "---p"))
    return rows


def _row(start: int, end: int, permissions: str) -> dict[str, Any]:
    """A row of what has no file."""
    nothing = {"offset": 0, "device": 0, "inode": 0, "path": ""}
    return {"start": start, "end": end, "permissions": permissions} | nothing


def _permissions(vm_flags: int) -> str:
    bits = zip("rwx", (VM_READ, VM_WRITE, VM_EXEC), strict=True)
    rights = "".join(letter if vm_flags & bit else "-" for letter, bit in bits)
    return rights + ("s" if vm_flags & VM_MAYSHARE else "p")


def maps_text(areas: Areas, mm: int, gate: int = 0, behind_inode: str = "") -> str:
    """``/proc/PID/maps``; ``behind_inode`` ends lines without a name."""
    lines = []
    for row in maps_data(areas, mm, gate):
        major, minor = divmod(row["device"], 256)
        line = (
            f"{row['start']:08x}-{row['end']:08x} {row['permissions']} {row['offset']:08x} "
            f"{major:02x}:{minor:02x} {row['inode']}"
        )
        lines.append(f"{line:<{_NAME_COLUMN}}{row['path']}" if row["path"] else line + behind_inode)
    return "".join(f"{line}\n" for line in lines)


def status_data(areas: Areas, mm: int) -> dict[str, int]:
    """The memory lines of ``status`` in kB, by their names.

    Anonymous memory is data or stack; of files only what can be run and not written counts, as
    part of the program or of a library.
    """
    space, kb = areas.mm(mm), PAGE_SHIFT - 10
    data = stack = program = library = 0
    for vma in areas.list(mm):
        area = areas.vma(vma)
        size = area.vm_end - area.vm_start >> 10
        if not area.vm_file:
            grows = area.vm_flags & VM_GROWSDOWN
            stack, data = stack + size * bool(grows), data + size * (not grows)
        elif area.vm_flags & (VM_WRITE | VM_EXEC) == VM_EXEC:
            own = area.vm_flags & VM_EXECUTABLE
            program, library = program + size * bool(own), library + size * (not own)
    return {
        "VmSize": space.total_vm << kb,
        "VmLck": space.locked_vm << kb,
        "VmRSS": space.rss << kb,
        "VmData": data,
        "VmStk": stack,
        "VmExe": program,
        "VmLib": library,
    }


def status_text(areas: Areas, mm: int) -> str:
    """The memory lines of ``/proc/PID/status``."""
    return memory_lines(status_data(areas, mm))


def memory_lines(data: dict[str, int]) -> str:
    """Lines of ``status`` that tell kB."""
    return "".join(f"{name}:\t{kb:8} kB\n" for name, kb in data.items())
