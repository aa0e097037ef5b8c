# SPDX-License-Identifier: GPL-2.0-or-later
"""Every system call there is: on files and identity, on memory, on processes, on signals."""

import inspect
from typing import Final

from harness.syscalls.memory import MEMORY_CALLS
from harness.syscalls.names import NAMES
from harness.syscalls.processes import PROCESS_CALLS
from harness.syscalls.shm import SHM_CALLS
from harness.syscalls.table import TABLE, SystemCall

ALL_CALLS: Final[dict[int, SystemCall]] = TABLE | {
    number: SystemCall(NAMES[number], function, len(inspect.signature(function).parameters) - 1)
    for number, function in (MEMORY_CALLS | PROCESS_CALLS | SHM_CALLS).items()
}
