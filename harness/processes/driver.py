# SPDX-License-Identifier: GPL-2.0-or-later
"""Carrying out what a system call asks for, on behalf of the current process.

A call is a generator (:mod:`harness.syscalls.requests`). What it asks of user memory is done by the
guest's ``copy_to_user()`` and its kin on the CPU, so a page may come, be copied or be swapped in on
the way. A call that must wait is kept, and goes on when its process is the current one again.

What can fail: nothing; a call that a signal ends leaves a
:class:`~harness.syscalls.requests.RestartSystemCall` for the caller of :meth:`Driver.go_on`.
"""

from collections.abc import Generator
from typing import Any, Final, Protocol

from harness.processes.clock import VirtualClock
from harness.signals import SignalState
from harness.syscalls.requests import (
    CopyFromUser,
    CopyToUser,
    Interrupted,
    Request,
    SignalPending,
    StrncpyFromUser,
    WaitUntil,
)
from harness.uaccess import UserAccess


class Waiter(Protocol):
    """The process as far as its waiting goes."""

    waiting: WaitUntil | None
    signals: SignalState

    @property
    def interrupted(self) -> bool:
        """Whether a signal wants to be handled."""


class _Waits:
    """The answer of a call that cannot go on yet."""


WAITS: Final = _Waits()


class Driver:
    """Answers the requests of one machine's system calls."""

    def __init__(self, uaccess: UserAccess, clock: VirtualClock) -> None:
        self._uaccess = uaccess
        self._clock = clock

    def start(self, process: Waiter, call: Generator[Request, Any, Any]) -> Any:
        """Run a call to its end, or until it waits: :data:`WAITS`."""
        return self._run(process, call, None)

    def go_on(self, process: Waiter, call: Generator[Request, Any, Any]) -> Any:
        """The same for one that has waited, if it may go on by now."""
        waiting = process.waiting
        assert waiting is not None
        answer = self._answer_to_wait(process, waiting)
        if answer is WAITS:
            return WAITS
        process.waiting = None
        return self._run(process, call, answer)

    def may_go_on(self, process: Waiter) -> bool:
        """Whether :meth:`go_on` would get anywhere."""
        return (
            process.waiting is None or self._answer_to_wait(process, process.waiting) is not WAITS
        )

    def _answer_to_wait(self, process: Waiter, waiting: WaitUntil) -> Any:
        if waiting.condition():
            return True
        if process.interrupted:
            return Interrupted()
        if waiting.deadline is not None and self._clock.monotonic() >= waiting.deadline:
            return False
        return WAITS

    def _run(self, process: Waiter, call: Generator[Request, Any, Any], answer: Any) -> Any:
        try:
            while True:
                if isinstance(answer, Interrupted):
                    request = call.throw(answer)
                else:
                    request = call.send(answer)
                answer = self._answer(process, request)
                if answer is WAITS:
                    return WAITS
        except StopIteration as end:
            return end.value

    def _answer(self, process: Waiter, request: Request) -> Any:
        match request:
            case CopyFromUser(address, length):
                return self._uaccess.copy_from_user(address, length)
            case CopyToUser(address, data):
                return self._uaccess.copy_to_user(address, data)
            case StrncpyFromUser(address, limit):
                return self._uaccess.strncpy_from_user(address, limit)
            case SignalPending():
                return process.interrupted
            case WaitUntil():
                answer = self._answer_to_wait(process, request)
                if answer is WAITS:
                    process.waiting = request
                    if request.signal_mask is not None:
                        process.signals.suspend(int.from_bytes(request.signal_mask, "little"))
                return answer
