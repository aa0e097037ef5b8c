# SPDX-License-Identifier: GPL-2.0-or-later
"""How processes end, and who is told.

Models linux-2.4.22 ``kernel/exit.c``: ``do_exit()``, ``exit_notify()``, ``release_task()``,
``sys_wait4()`` (book 4.3.3). A process that has ended keeps its number and its two frames until
its parent has asked for its status. Nothing here can fail.
"""

import contextlib
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.processes.process import Ended, Process, State
from harness.processes.robust_list import RobustLists
from harness.syscalls.futex import futex_key
from harness.syscalls.processes import WCONTINUED, WUNTRACED
from kernel_model.arch_i386.signal import SIGKILL
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.oom_kill import Candidate

if TYPE_CHECKING:
    from harness.processes.linux import Linux

_CONTINUED: Final = 0xFFFF


class Deaths:
    """Ends the processes of one machine."""

    def __init__(self, linux: "Linux") -> None:
        self._linux = linux
        self._kernel = linux.kernel
        self._candidates: dict[int, Candidate] = {}
        self._robust_lists = RobustLists(linux.uaccess, linux.futexes)

    # -- lack of memory ------------------------------------------------------------------------

    def watch_memory(self, process: Process) -> None:
        """Let the out-of-memory killer know of a process."""
        name = process.comm.decode("latin-1")

        def total_vm() -> int:
            # One that is only being made holds frames as well, and is worth killing.
            mm = process.mm
            return max(int(self._kernel.spaces.areas.mm(mm).total_vm) if mm else 0, 1)

        candidate = Candidate(process.pid, name, 0, measure=total_vm)
        candidate.kill = lambda: self._kill_for_memory(candidate)
        candidate.children = lambda: [
            self._candidates[child.pid]
            for child in process.children
            if child.alive and child.mm != process.mm
        ]
        self._candidates[process.pid] = candidate
        self._kernel.oom_killer.processes.append(candidate)

    def _kill_for_memory(self, candidate: Candidate) -> None:
        """Everyone in the victim's address space dies: the current process when its call ends.

        The others would run while the allocation yields; here they end at once. So does, instead
        of a second victim, a first one that has not come to die. Until it dies, a victim may use
        the last frames.
        """
        candidate.dying = False
        scheduler, registers = self._linux.scheduler, self._linux.machine.cpu.registers
        current, stack = scheduler.current, registers.esp
        alive = [process for process in self._linux.processes.values() if process.alive]
        mm = self._linux.processes[candidate.pid].mm
        late = [p for p in alive if p.view.flags & PF_MEMDIE and p is not current]
        for process in late or [p for p in alive if p.mm == mm]:
            process.view.flags |= PF_MEMALLOC | PF_MEMDIE
            if process is current:
                process.send_signal(SIGKILL)
            else:
                scheduler.enter(process)
                self.exit(process, Ended(0, SIGKILL))
        scheduler.enter(current)
        registers.esp = stack
        # The dead leave little but page tables, which would wait on the quicklists.
        self._kernel.page_tables.check_pgt_cache(0, 0)

    # -- ending --------------------------------------------------------------------------------

    def exit(self, process: Process, ended: Ended) -> None:
        """``do_exit()`` of the current process."""
        linux, kernel = self._linux, self._kernel
        process.peak_rss = process.usage().max_rss_pages
        self.leave_memory(process)
        process.vfork_done = True
        if not any(other.files is process.files for other in self._others(process)):
            process.files.close_all()
        linux.checker.whole_space(process)
        linux.watching.ending(process)
        kernel.exit.exit_mm()
        process.state, process.ended = State.ZOMBIE, ended
        process.call = process.waiting = process.unfinished = None
        kernel.oom_killer.processes.remove(self._candidates.pop(process.pid))
        linux.scheduler.remove(process)
        process.signals.release()
        for child in process.children:
            child.parent_process = None
            if child.state is State.ZOMBIE:
                self._release(child)
        process.children.clear()
        self._notify_parent(process, ended)

    def _others(self, process: Process) -> list[Process]:
        return [p for p in self._linux.processes.values() if p is not process and p.alive]

    def leave_memory(self, process: Process) -> None:
        """``mm_release()``: what the current process does last in its address space.

        A thread that waits for this one looks at a word in there.
        """
        self._robust_lists.leave(process)
        address, process.clear_child_tid = process.clear_child_tid, 0
        mm = process.mm
        if address and mm and self._kernel.spaces.areas.mm(mm).mm_users > 1:
            self._linux.uaccess.copy_to_user(address, struct.pack("<I", 0))
            with contextlib.suppress(OSError):
                self._linux.futexes.wake(futex_key(process, address), 1)

    def _notify_parent(self, process: Process, ended: Ended) -> None:
        """Tell the parent, or let the process go if nobody will ask."""
        parent = process.parent_process
        thread = process.tgid != process.pid
        if parent is None or thread or not self._linux.signalling.child_ended(process, ended):
            if parent is not None and process in parent.children:
                parent.children.remove(process)
            self._release(process)

    def _release(self, process: Process) -> None:
        """``release_task()``: the number and the frames go; a thread leaves its faults behind."""
        if process.pid != process.tgid:
            (minor, major), group = process.signals.group.ended_faults, process.signals.group
            view = process.view
            group.ended_faults = minor + int(view.min_flt), major + int(view.maj_flt)
        process.state = State.DEAD
        self._linux.processes.pop(process.pid, None)
        self._linux.scheduler.free_later(process.task)
        process.task = 0

    def vanish(self, process: Process) -> None:
        """A process that never ran goes without a word."""
        if not any(other.files is process.files for other in self._others(process)):
            process.files.close_all()
        process.signals.release()
        self._kernel.oom_killer.processes.remove(self._candidates.pop(process.pid))
        self._linux.scheduler.remove(process)
        if process.parent_process is not None:
            process.parent_process.children.remove(process)
        self._kernel.fork.mmput(process.mm)
        process.view.mm = process.view.active_mm = 0
        self._release(process)

    # -- waiting ---------------------------------------------------------------------------------

    def children(self, parent: Process, pid: int) -> list[Process]:
        """Those that ``wait4(pid)`` means, of all threads of the parent."""
        threads = [p for p in self._linux.processes.values() if p.tgid == parent.tgid]
        children = [child for thread in threads for child in thread.children]
        children = [child for child in children if child.pid == child.tgid]
        if pid > 0:
            return [child for child in children if child.pid == pid]
        if pid == -1:
            return children
        group = parent.group if pid == 0 else -pid
        return [child for child in children if child.group == group]

    def waitable(self, children: Sequence[Process], options: int) -> tuple[Process, int] | None:
        """The first that has something to tell, and the status word that tells it."""
        for child in children:
            if child.state is State.ZOMBIE and child.ended is not None:
                return child, child.ended.wait_status
            group = child.signals.group
            if options & WUNTRACED and group.stop_report:
                return child, group.stop_report << 8 | 0x7F
            if options & WCONTINUED and group.continue_report:
                return child, _CONTINUED
        return None

    def waited_for(self, parent: Process, child: Process) -> None:
        """The parent knows now."""
        if child.state is not State.ZOMBIE:
            child.signals.group.stop_report, child.signals.group.continue_report = 0, False
            return
        usage, (minor, major) = child.usage(), parent.children_faults
        deeper = child.children_faults
        parent.children_faults = (
            minor + usage.minor_faults + deeper[0],
            major + usage.major_faults + deeper[1],
        )
        if child.parent_process is not None and child in child.parent_process.children:
            child.parent_process.children.remove(child)
        self._release(child)
