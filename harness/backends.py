# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels and CPUs of the user's own in the place of ours: ``module:factory``.

What a factory makes is told by the name of its first parameter: ``config`` makes a kernel
(:class:`~kernel_model.kernel.Kernel` or its like, of a ``KernelConfig``), ``ram`` a CPU
(:class:`~harness.cpu.interface.Cpu`, over a ``Ram``, of a model); a factory that needs nothing
makes a :class:`~harness.conformance.subject.Subject` for the conformance matrix. So a subclass
of ``Kernel`` or of ``UnicornCpu`` is a factory as it stands.

What can fail: :class:`~kernel_model.errors.BadInput`, one line that says what to give.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from harness.conformance.subject import MODEL, Subject, UnicornSubject, conformance_ram
from harness.cpu import Cpu, create
from harness.cpu.unicorn_cpu import UnicornCpu
from kernel_model.config import KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from kernel_model.ram import Ram

__all__ = ["OURS", "Backends", "load_backends"]

_WANTED: Final = "give module:factory, for instance my_kernel:MyKernel"


@dataclass(frozen=True, slots=True)
class Backends:
    """What is put to the test. ``subject`` is None where a CPU of that kind is to be made."""

    kernel: Callable[[KernelConfig], Any] = Kernel
    cpu: Callable[[Ram, str], Cpu] = create
    subject: Callable[[], Subject] | None = None
    cpu_name: str = ""
    """What was given for ``cpu`` or ``subject``."""

    def make_subject(self, cpu: str = "unicorn") -> Subject:
        """The CPU for the matrix: the user's, or ours of the name ``cpu``."""
        if self.subject is not None:
            return self.subject()
        if self.cpu is not create:
            return _subject_of(self.cpu(conformance_ram(), MODEL))
        if cpu == "qemu":
            from harness.conformance.qemu_subject import QemuSubject

            return QemuSubject()
        return UnicornSubject()


OURS: Final = Backends()


def _subject_of(cpu: Any) -> Subject:
    """Known differences from the manual are those of Unicorn, if that is what it is built on."""
    subject = UnicornSubject(cpu)
    if not isinstance(cpu, UnicornCpu):
        subject.name = type(cpu).__name__
    return subject


def load_backends(texts: Iterable[str], option: str) -> Backends:
    """Ours, with the backends named in ``texts`` in the place of theirs.

    :raises BadInput: naming ``option`` and what is wrong with it.
    """
    backends = OURS
    for text in texts:
        factory = _load(text, option)
        kind = _kind(factory, text, option)
        backends = replace(backends, **{kind: factory})
        if kind != "kernel":
            backends = replace(backends, cpu_name=text)
    return backends


def _load(text: str, option: str) -> Any:
    name, colon, attribute = text.partition(":")
    if not name or not colon or not attribute:
        raise BadInput(f"{option} {text}: {_WANTED}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
    try:
        factory: Any = importlib.import_module(name)
    except ImportError as error:
        raise BadInput(f"{option} {text}: {name} cannot be imported: {error}") from error
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise BadInput(f"{option} {text}: {name} has no {attribute}: {_WANTED}")
        factory = getattr(factory, part)
    if not callable(factory):
        raise BadInput(f"{option} {text}: {attribute} cannot be called: {_WANTED}")
    return factory


def _kind(factory: Any, text: str, option: str) -> str:
    """``kernel``, ``cpu`` or ``subject``."""
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    first = parameters[0].name if parameters else ""
    if first in _KINDS:
        return _KINDS[first]
    needed = [p for p in parameters if p.default is p.empty and p.kind not in _OPEN]
    if needed:
        raise BadInput(
            f"{option} {text}: name its first parameter config if it makes a kernel, ram if it "
            f"makes a CPU; {first!r} tells neither"
        )
    return "subject"


_KINDS: Final = {"config": "kernel", "ram": "cpu"}
_OPEN: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
