# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening a file that a person named: regular files only.

A device never ends and a FIFO makes its reader wait for a writer; neither may hold the process.
What can fail: :class:`~kernel_model.errors.BadInput` for anything but a regular file;
``OSError`` as ``open()`` has it.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from harness.elf_headers import printable
from kernel_model.errors import BadInput


def open_regular(path: Path, wanted: str) -> BinaryIO:
    """Open ``path`` unbuffered for reading; ``wanted`` is what it should be, for the message."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadInput(f"{printable(str(path))}: not a regular file: give {wanted}")
    return os.fdopen(descriptor, "rb", buffering=0)
