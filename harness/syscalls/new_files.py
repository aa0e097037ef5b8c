# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for files that a call has just made.

What can fail: ``EMFILE``, and for a pair ``EFAULT`` where its numbers cannot be stored: then
neither end stays open.
"""

from harness.syscalls.requests import Part
from harness.syscalls.task import RLIMIT_NOFILE, Task
from harness.syscalls.user_copy import copy_out, words
from harness.vfs.flags import O_CLOEXEC
from harness.vfs.open_file import OpenFile


def install(task: Task, file: OpenFile, flags: int) -> int:
    """A number for a new file; ``flags`` says whether ``execve()`` closes it."""
    cloexec = bool(flags & O_CLOEXEC)
    return task.files.install(file, task.limits.soft(RLIMIT_NOFILE), close_on_exec=cloexec)


def install_pair(
    task: Task, first: OpenFile, second: OpenFile, flags: int, result: int
) -> Part[None]:
    """Numbers for the two ends of something, stored at ``result``."""
    try:
        numbers = [install(task, first, flags)]
    except OSError:
        second.put()
        raise
    try:
        numbers.append(install(task, second, flags))
        yield from copy_out(result, words(*numbers))
    except OSError:
        for number in numbers:
            task.files.close(number)
        raise
