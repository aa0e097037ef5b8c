# SPDX-License-Identifier: GPL-2.0-or-later
"""Error numbers as the i386 has them; the kernel returns them negated.

Models linux-2.4.22 ``include/asm-i386/errno.h``. Python's own ``errno`` has the numbers of the
machine that the model runs on, which need not be Linux.
"""

from typing import Final

EPERM: Final = 1
ENOENT: Final = 2
EIO: Final = 5
E2BIG: Final = 7
ENOEXEC: Final = 8
EBADF: Final = 9
EAGAIN: Final = 11
ENOMEM: Final = 12
EACCES: Final = 13
EFAULT: Final = 14
EBUSY: Final = 16
EEXIST: Final = 17
ENODEV: Final = 19
EINVAL: Final = 22
ETXTBSY: Final = 26
EFBIG: Final = 27
ENOSPC: Final = 28
ENOSYS: Final = 38
EIDRM: Final = 43
