# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes on the model: unmodified Linux programs, run on the emulated CPU.

:class:`~harness.processes.linux.Linux` is the machine with its files and processes;
:class:`~harness.processes.process.Process` is one of them;
:class:`~harness.processes.scheduler.Scheduler` decides who runs and serves their traps;
:class:`~harness.processes.driver.Driver` carries out what system calls ask of user memory.
"""

from harness.processes.linux import Linux
from harness.processes.process import Ended, Process

__all__ = ["Ended", "Linux", "Process"]
