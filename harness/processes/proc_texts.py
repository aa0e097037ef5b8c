# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``/proc`` shows of the processes and of the model's memory.

Answers :class:`~harness.vfs.proc.Processes`, and writes the texts from the model's own /proc rooms.
What can fail: ``ENOENT`` for a process that is no more.
"""

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.open_file import OpenFile
from kernel_model.proc import PROC_FILES
from kernel_model.proc.pid import maps_text, status_text

if TYPE_CHECKING:
    from harness.processes.linux import Linux
    from harness.processes.process import Process


class ProcTexts:
    """``/proc`` of one machine."""

    def __init__(self, linux: "Linux") -> None:
        self._linux = linux
        proc = linux.files.proc
        for name, file in PROC_FILES.items():
            proc.texts[name.encode()] = lambda file=file: file.text(linux.kernel).encode()  # type: ignore[misc]
        proc.process_texts |= {
            b"maps": self._maps,
            b"status": self._status,
            b"cmdline": lambda pid: self._process(pid).cmdline,
            b"comm": lambda pid: self._process(pid).comm + b"\n",
        }

    def _process(self, pid: int) -> "Process":
        process = self._linux.processes.get(pid)
        if process is None:
            fail(errno.ENOENT)
        return process

    def _maps(self, pid: int) -> bytes:
        mm = self._process(pid).mm
        return maps_text(self._linux.kernel.spaces.areas, mm).encode("latin-1") if mm else b""

    def _status(self, pid: int) -> bytes:
        process = self._process(pid)
        state = "T (stopped)" if process.signals.stopped else "R (running)"
        if not process.alive:
            state = "Z (zombie)"
        text = (
            f"Name:\t{process.comm.decode('latin-1')}\nState:\t{state}\nTgid:\t{process.tgid}\n"
            f"Pid:\t{pid}\nPPid:\t{process.parent}\n"
        )
        if process.mm:
            text += status_text(self._linux.kernel.spaces.areas, process.mm)
        return text.encode("latin-1")

    # -- what links and directories show ---------------------------------------------------------

    def current(self) -> int:
        current = self._linux.scheduler.current
        return current.tgid if current is not None else 1

    def pids(self) -> Sequence[int]:
        return [pid for pid, process in self._linux.processes.items() if pid == process.tgid]

    def descriptors(self, pid: int) -> Mapping[int, OpenFile]:
        return self._process(pid).files.files

    def root(self, pid: int) -> Directory:
        return self._process(pid).fs.root

    def cwd(self, pid: int) -> Directory:
        return self._process(pid).fs.cwd

    def executable(self, pid: int) -> bytes:
        return self._process(pid).executable
