# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``/proc`` shows of the processes and of the model's memory.

Answers :class:`~harness.vfs.proc.Processes`, and writes the texts from the model's own /proc rooms.
What can fail: ``ENOENT`` for a process that is no more.
"""

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.open_file import OpenFile
from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.proc import pid_files, proc_files
from kernel_model.structs.sched import RLIMIT_RSS

if TYPE_CHECKING:
    from harness.processes.linux import Linux
    from harness.processes.process import Process


_STATES: Final = {"R": "running", "S": "sleeping", "T": "stopped", "Z": "zombie"}


def _state(process: "Process") -> str:
    if not process.alive:
        return "Z"
    if process.signals.stopped:
        return "T"
    return "R" if process.waiting is None else "S"


class ProcTexts:
    """``/proc`` of one machine."""

    def __init__(self, linux: "Linux") -> None:
        self._linux = linux
        self._files = pid_files(linux.kernel)
        proc = linux.files.proc
        for name, file in proc_files(linux.kernel).items():
            proc.texts[name.encode()] = lambda file=file: file.text(linux.kernel).encode()  # type: ignore[misc]
        proc.process_texts |= {
            b"maps": self._maps,
            b"stat": self._stat,
            b"status": self._status,
            b"cmdline": self._cmdline,
            b"comm": lambda pid: self._process(pid).comm + b"\n",
        }

    def _process(self, pid: int) -> "Process":
        process = self._linux.processes.get(pid)
        if process is None:
            fail(errno.ENOENT)
        return process

    def _maps(self, pid: int) -> bytes:
        mm, kernel = self._process(pid).mm, self._linux.kernel
        if not mm:
            return b""
        gate = kernel.vsyscall.vaddr if kernel.vsyscall else 0
        return self._files.maps(kernel.spaces.areas, mm, gate).encode("latin-1")

    def _cmdline(self, pid: int) -> bytes:
        """The arguments, wherever they lie and whatever the program made of them since.

        One that wrote over the last NUL has taken the environment's place for a longer title.
        """
        mm, kernel = self._process(pid).mm, self._linux.kernel
        if not mm:
            return b""
        space, read = kernel.spaces.areas.mm(mm), kernel.process_memory.read
        start, length = int(space.arg_start), int(space.arg_end - space.arg_start)
        text = read(mm, start, min(length, PAGE_SIZE))
        if not text or not text[-1]:
            return text
        title, ended, _ = text.partition(b"\0")
        if ended:
            return title
        room = min(int(space.env_end - space.env_start), PAGE_SIZE - len(text))
        return (text + read(mm, int(space.env_start), room)).partition(b"\0")[0]

    def _status(self, pid: int) -> bytes:
        process = self._process(pid)
        name, letter = process.comm.decode("latin-1"), _state(process)
        text = (
            f"Name:\t{name}\nState:\t{letter} ({_STATES[letter]})\nTgid:\t{process.tgid}\n"
            f"Pid:\t{pid}\nPPid:\t{process.parent}\n"
        )
        if process.mm:
            text += self._files.status(self._linux.kernel.spaces.areas, process.mm)
        return text.encode("latin-1")

    def _stat(self, pid: int) -> bytes:
        """The 39 fields of 2.4; times, and what no process here has, are 0."""
        process = self._process(pid)
        view, children, signals = process.view, process.children_faults, process.signals
        fields = [process.parent, process.group, process.session, 0, -1, 0]
        fields += [view.min_flt, children[0], view.maj_flt, children[1], 0, 0, 0, 0]
        fields += [15 - process.nice, process.nice, 0, 0, 0]
        fields += [*self._memory(process), 0, 0, signals.pending, signals.blocked, 0, 0, 0, 0, 0]
        fields += [process.exit_signal, 0]
        words = " ".join(str(int(field)) for field in fields)
        return b"%d (%s) %s %s\n" % (pid, process.comm, _state(process).encode(), words.encode())

    def _memory(self, process: "Process") -> list[int]:
        """Bytes, resident pages and their limit, code and stack of an address space."""
        limit = process.view.rlim[RLIMIT_RSS].rlim_cur
        if not process.mm:
            return [0, 0, limit, 0, 0, 0]
        mm = self._linux.kernel.spaces.areas.mm(process.mm)
        return [mm.total_vm * PAGE_SIZE, mm.rss, limit, mm.start_code, mm.end_code, mm.start_stack]

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
