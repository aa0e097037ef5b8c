# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls on the address space: the model's own functions, by number.

Models linux-2.4.22 ``arch/i386/kernel/sys_i386.c: sys_mmap2()``, ``old_mmap()`` and the entries of
``mm/`` in ``sys_call_table``. The process that calls is the kernel's current one. A file is mapped
through the model's page cache, whose pages come from the virtual file system.

What can fail: what the model answers, as a negative error; ``EBADF``, ``EACCES``, ``ENODEV`` for
files that cannot be mapped.
"""

import errno
import struct
from collections.abc import Callable
from typing import Any, Final

from harness.syscalls.caller import Caller
from harness.syscalls.requests import Call
from harness.syscalls.user_copy import copy_in, copy_out
from harness.vfs.regular import RegularFile
from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.mman import MAP_ANONYMOUS, MAP_DENYWRITE, MAP_EXECUTABLE

_NOT_FOR_PROGRAMS: Final = MAP_EXECUTABLE | MAP_DENYWRITE
"""Flags of ``mmap()`` that only ``execve()`` may use."""


def sys_brk(task: Caller, brk: int) -> int:
    return task.system.kernel.spaces.sys_brk(brk)


def sys_mmap2(
    task: Caller, addr: int, length: int, prot: int, flags: int, fd: int, pgoff: int
) -> int:
    """``pgoff`` is in pages."""
    flags &= ~_NOT_FOR_PROGRAMS
    file = 0 if flags & MAP_ANONYMOUS else _kernel_file(task, fd)
    if file < 0:
        return file
    try:
        return task.system.kernel.spaces.do_mmap_pgoff(file, addr, length, prot, flags, pgoff)
    finally:
        if file:
            task.system.kernel.files.fput(file)


def sys_mmap(task: Caller, arguments: int) -> Call:
    """``old_mmap()``: six words in memory, the offset in bytes."""
    data = yield from copy_in(arguments, 24)
    addr, length, prot, flags, fd, offset = struct.unpack("<6I", data)
    if offset & ~PAGE_MASK:
        return -errno.EINVAL
    return sys_mmap2(task, addr, length, prot, flags, fd, offset >> PAGE_SHIFT)


def _kernel_file(task: Caller, fd: int) -> int:
    """A ``struct file *`` of the model for an open file, with a reference; or an error."""
    file = task.files.get(fd)
    if not isinstance(file.inode, RegularFile):
        return -errno.ENODEV
    if not file.may_read:
        return -errno.EACCES
    mode = FMODE_READ | (FMODE_WRITE if file.may_write else 0)
    name = file.where[1] if file.where else b"file"
    return task.system.mapped_files.open(file.inode, name.decode("latin-1"), mode) or -errno.ENOMEM


def sys_munmap(task: Caller, addr: int, length: int) -> int:
    kernel = task.system.kernel
    return kernel.spaces.do_munmap(task.mm, addr, length)


def sys_mprotect(task: Caller, start: int, length: int, prot: int) -> int:
    return task.system.kernel.spaces.sys_mprotect(start, length, prot)


def sys_mremap(
    task: Caller, addr: int, old_length: int, new_length: int, flags: int, new_addr: int
) -> int:
    spaces = task.system.kernel.spaces
    return spaces.do_mremap(addr, old_length, new_length, flags, new_addr)


def sys_msync(task: Caller, start: int, length: int, flags: int) -> int:
    return task.system.kernel.file_memory.filemap.sys_msync(start, length, flags)


def sys_mlock(task: Caller, start: int, length: int) -> int:
    return task.system.kernel.spaces.sys_mlock(start, length)


def sys_munlock(task: Caller, start: int, length: int) -> int:
    return task.system.kernel.spaces.sys_munlock(start, length)


def sys_mlockall(task: Caller, flags: int) -> int:
    return task.system.kernel.spaces.sys_mlockall(flags)


def sys_munlockall(task: Caller) -> int:
    return task.system.kernel.spaces.sys_munlockall()


def sys_madvise(task: Caller, start: int, length: int, behavior: int) -> int:
    kernel = task.system.kernel
    return kernel.spaces.advise.sys_madvise(start, length, behavior, kernel.file_memory.filemap)


def sys_mincore(task: Caller, start: int, length: int, vector: int) -> Call:
    kernel = task.system.kernel
    error, found = kernel.spaces.advise.sys_mincore(start, length, kernel.file_memory.filemap)
    if found:
        yield from copy_out(vector, found)
    return error


def sys_remap_file_pages(
    task: Caller, start: int, size: int, prot: int, pgoff: int, flags: int
) -> int:
    return task.system.kernel.spaces.sys_remap_file_pages(start, size, prot, pgoff, flags)


MEMORY_CALLS: Final[dict[int, Callable[..., Any]]] = {
    45: sys_brk,
    90: sys_mmap,
    91: sys_munmap,
    125: sys_mprotect,
    144: sys_msync,
    150: sys_mlock,
    151: sys_munlock,
    152: sys_mlockall,
    153: sys_munlockall,
    163: sys_mremap,
    192: sys_mmap2,
    218: sys_mincore,
    219: sys_madvise,
    257: sys_remap_file_pages,
}
