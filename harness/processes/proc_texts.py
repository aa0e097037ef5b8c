# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``/proc`` shows of the processes and of the model's memory.

Answers :class:`~harness.vfs.proc.Processes`, and writes the texts from the model's own /proc rooms.
What can fail: ``ENOENT`` for a process that is no more.
"""

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.signals.numbers import SIG_DFL, SIG_IGN
from harness.vfs.descriptors import DescriptorTable
from harness.vfs.directory import Directory
from harness.vfs.failure import fail
from harness.vfs.open_file import OpenFile
from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.proc import pid_files, proc_files
from kernel_model.proc.task import TaskFacts
from kernel_model.structs.sched import RLIMIT_RSS

if TYPE_CHECKING:
    from harness.processes.linux import Linux
    from harness.processes.process import Process


def _state(process: "Process") -> str:
    if not process.alive:
        return "Z"
    if process.signals.stopped:
        return "T"
    return "R" if process.waiting is None else "S"


def _max_fds(files: DescriptorTable) -> int:
    """For how many descriptors the kernel's arrays have room: few, many, or twice as many."""
    room = 32
    while room <= max(files, default=0):
        room = max(256, 2 * room)
    return room


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
        process, kernel = self._process(pid), self._linux.kernel
        memory = self._files.memory(kernel.spaces.areas, process.mm) if process.mm else ""
        return self._files.format.status(self._facts(process), memory).encode("latin-1")

    def _stat(self, pid: int) -> bytes:
        return self._files.format.stat(self._facts(self._process(pid))).encode("latin-1")

    def _facts(self, process: "Process") -> TaskFacts:
        view, children, signals = process.view, process.children_faults, process.signals
        ids, all_threads = process.fs.credentials, process.usage()
        return TaskFacts(
            name=process.comm.decode("latin-1"),
            state=_state(process),
            tgid=process.tgid,
            pid=process.pid,
            parent=process.parent,
            group=process.group,
            session=process.session,
            uids=(ids.uid, ids.euid, ids.suid, ids.fsuid),
            gids=(ids.gid, ids.egid, ids.sgid, ids.fsgid),
            groups=ids.groups,
            max_descriptors=_max_fds(process.files) if process.alive else 0,
            threads=max(1, len(signals.group.members)),
            pending=signals.private.signals,
            shared_pending=signals.group.pending.signals,
            blocked=signals.blocked,
            ignored=signals.actions.with_handler(lambda handler: handler == SIG_IGN),
            caught=signals.actions.with_handler(lambda handler: handler not in (SIG_DFL, SIG_IGN)),
            faults=(view.min_flt, children[0], view.maj_flt, children[1]),
            faults_of_all=(
                *(all_threads.minor_faults, children[0]),
                *(all_threads.major_faults, children[1]),
            ),
            nice=process.nice,
            memory=self._memory(process),
            exit_signal=process.exit_signal,
        )

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
