# SPDX-License-Identifier: GPL-2.0-or-later
"""``signalfd``: see :mod:`harness.signals.signalfd`.

Models linux-6 ``fs/signalfd.c``. What can fail: ``EINVAL``, ``EBADF``, ``EFAULT``, ``EMFILE``.
"""

import errno

from harness.signals.numbers import UNBLOCKABLE
from harness.signals.process import SignalledProcess
from harness.signals.signalfd import SignalFile
from harness.syscalls.new_files import install
from harness.syscalls.poll import SIGSET_SIZE
from harness.syscalls.requests import Call
from harness.syscalls.user_copy import copy_words_in, signed
from harness.vfs.flags import O_CLOEXEC, O_NONBLOCK


def sys_signalfd4(
    process: SignalledProcess, descriptor: int, mask: int, size: int, flags: int
) -> Call:
    """A new file for -1, else another set for one that there is."""
    if size != SIGSET_SIZE:
        return -errno.EINVAL
    (wanted,) = yield from copy_words_in(mask, 1, size=SIGSET_SIZE)
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        return -errno.EINVAL
    wanted &= ~UNBLOCKABLE
    if signed(descriptor) == -1:
        superblock = process.system.files.pipes
        file = SignalFile(superblock, flags & O_NONBLOCK, process.signals, wanted)
        return install(process, file, flags)
    known = process.files.get(descriptor)
    if not isinstance(known, SignalFile):
        return -errno.EINVAL
    known.mask = wanted
    return descriptor


def sys_signalfd(process: SignalledProcess, descriptor: int, mask: int, size: int) -> Call:
    return sys_signalfd4(process, descriptor, mask, size, 0)
