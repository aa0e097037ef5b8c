# SPDX-License-Identifier: GPL-2.0-or-later
"""What a system call asks of the machine that runs it.

A call never touches the program's memory itself. It is a generator that yields one of these
requests; whoever drives it answers with ``send()``: by ``copy_to_user()`` on the emulated CPU, or
by any other memory.

=========================  =======================================================================
``CopyFromUser``           ``bytes``; shorter than asked where a fault cut it
``CopyToUser``             how many bytes were left uncopied
``StrncpyFromUser``        the ``bytes`` before the zero, or ``limit`` of them without one;
                           ``None`` after a fault
``WaitUntil``              ``True`` when the condition holds, ``False`` at the deadline; a signal
                           is thrown in as :class:`Interrupted`
``SignalPending``          ``bool``
=========================  =======================================================================

What a call raises to its driver is :class:`RestartSystemCall`, and nothing else.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from kernel_model.errors import MmucheckError


@dataclass(frozen=True, slots=True)
class CopyFromUser:
    address: int
    length: int


@dataclass(frozen=True, slots=True)
class CopyToUser:
    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StrncpyFromUser:
    address: int
    limit: int


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Sleep until ``condition()``.

    ``deadline`` is in nanoseconds of the monotonic clock. ``host_descriptors`` are those of the
    host whose input can make the condition true: with nothing else to run, the machine may sleep in
    ``select()`` on them. ``signal_mask`` replaces the task's while it waits and until a handler
    starts (``ppoll``, ``pselect``).
    """

    condition: Callable[[], bool]
    deadline: int | None = None
    host_descriptors: tuple[int, ...] = ()
    signal_mask: bytes | None = None


@dataclass(frozen=True, slots=True)
class SignalPending:
    """Asked in between long transfers."""


Request = CopyFromUser | CopyToUser | StrncpyFromUser | WaitUntil | SignalPending

T = TypeVar("T")
Part = Generator[Request, Any, T]
"""A part of a call that gives a ``T``."""
Call = Part[int]
"""A whole one: at least 0, or a negative ``errno``."""


class Interrupted(MmucheckError):
    """A signal came while a call waited; thrown into the call."""


ERESTARTSYS: Final = 512
"""Start again after a handler with ``SA_RESTART``, or without a handler; else ``EINTR``."""
ERESTARTNOINTR: Final = 513
"""Start again always."""
ERESTARTNOHAND: Final = 514
"""Start again unless a handler ran; then ``EINTR``."""
ERESTART_RESTARTBLOCK: Final = 516
"""As :data:`ERESTARTNOHAND`, but go on by ``restart_syscall()`` with what is left."""


class RestartSystemCall(MmucheckError):
    """A signal ended the call: ``code`` says what its handling makes of it (``do_signal``).

    ``restart`` is what ``restart_syscall()`` runs, for :data:`ERESTART_RESTARTBLOCK`.
    """

    def __init__(self, code: int, restart: Callable[[], Call] | None = None) -> None:
        super().__init__(f"restart {code}")
        self.code = code
        self.restart = restart
