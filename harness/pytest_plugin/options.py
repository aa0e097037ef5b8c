# SPDX-License-Identifier: GPL-2.0-or-later
"""The options ``--mmu-*`` and the marker ``mmu``, in the words of :mod:`harness.commands.options`.

What can fail: ``pytest.UsageError``, one line that says what to give.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import pytest

from harness.backends import Backends, load_backends
from harness.commands.conform import CpuName, SuiteName
from harness.commands.options import MachineOptions
from kernel_model.config import Highmem, KernelConfig
from kernel_model.errors import BadInput

_MACHINE: Final = ("ram", "kernel", "rmap", "highmem", "cpu_model", "nodes", "cpus")
_FLAGS: Final = ("highpte",)
_WORDS: Final = (*_MACHINE, *_FLAGS, "nr_hugepages", "seed")
"""What options and marker have in common; the option is ``--mmu-cpu-model``."""
_FIELDS: Final = tuple(field.name for field in fields(KernelConfig))
_PREFIX: Final = "--mmu-"
_MARK: Final = "@pytest.mark.mmu: "


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the command line says, checked."""

    words: Mapping[str, str | bool]
    """Those of :data:`_WORDS` that were given."""
    config: KernelConfig
    seed: int
    cpu: str
    suite: str
    backends: Backends

    @property
    def cpu_option(self) -> str:
        """How ``mmucheck conform`` names the CPU that the matrix is about."""
        name = self.backends.cpu_name
        return f"--backend {name}" if name else f"--cpu {self.cpu}"


_KEY: Final = pytest.StashKey[SessionOptions]()


def session_options(config: pytest.Config) -> SessionOptions:
    """The options of this run; read once."""
    known = config.stash.get(_KEY, None)
    if known is None:
        try:
            known = config.stash[_KEY] = _read(config)
        except BadInput as error:
            raise pytest.UsageError(_one_line(error)) from error
    return known


def _read(config: pytest.Config) -> SessionOptions:
    words = {}
    for name in _WORDS:
        value = config.getoption(f"--mmu-{name.replace('_', '-')}", None)
        if value is not None:
            words[name] = value
    machine = _machine_options(words, _PREFIX)
    return SessionOptions(
        words=words,
        config=machine.config(_PREFIX),
        seed=machine.seed_number(_PREFIX),
        cpu=_one_of(config.getoption("--mmu-cpu"), list(CpuName), "--mmu-cpu"),
        suite=_one_of(config.getoption("--mmu-suite"), list(SuiteName), "--mmu-suite"),
        backends=load_backends(config.getoption("--mmu-backend") or (), "--mmu-backend"),
    )


def _one_of(value: str | None, names: list[Any], option: str) -> str:
    """The first of ``names`` if nothing was given."""
    known = [str(name) for name in names]
    if value is not None and value not in known:
        raise BadInput(f"{option} {value}: one of {', '.join(known)}")
    return known[0] if value is None else value


def _machine_options(words: Mapping[str, str | bool], prefix: str) -> MachineOptions:
    chosen: dict[str, Any] = dict(words)
    if (name := chosen.get("highmem")) is not None:
        known = {kind.value.lower(): kind for kind in Highmem}
        if str(name).lower() not in known:
            names = ", ".join(kind.value for kind in Highmem)
            raise BadInput(f"{prefix}highmem {name}: one of {names}")
        chosen["highmem"] = known[str(name).lower()]
    return MachineOptions(**chosen)


def config_of_test(item: pytest.Item) -> KernelConfig:
    """The machine of one test: the options, and over them its markers, the nearest last."""
    session = session_options(item.config)
    marks = [mark.kwargs for mark in item.iter_markers("mmu")]
    if any(mark.args for mark in item.iter_markers("mmu")):
        raise pytest.UsageError(f'{item.nodeid}: {_MARK}give names, as in mmu(ram="16M")')
    if not marks:
        return session.config
    given: dict[str, Any] = {}
    for mark in reversed(marks):
        given |= mark
    try:
        return _config_of(session.words, given)
    except (BadInput, TypeError) as error:
        raise pytest.UsageError(f"{item.nodeid}: {_one_line(error)}") from error


def _config_of(words: Mapping[str, str | bool], given: dict[str, Any]) -> KernelConfig:
    """``highmem`` may be a :class:`Highmem`, ``ram`` a number of bytes: KernelConfig's values."""
    for name in given:
        if name not in _WORDS and name not in _FIELDS:
            names = ", ".join(dict.fromkeys((*_WORDS, *_FIELDS)))
            raise BadInput(f"{_MARK}no {name!r}: one of {names}")
    texts = {name: _as_option(name, value) for name, value in given.items() if name in _WORDS}
    config = _machine_options({**words, **texts}, _MARK).config(_MARK)
    more = {name: value for name, value in given.items() if name not in _WORDS}
    return replace(config, **more) if more else config


def _as_option(name: str, value: Any) -> str | bool:
    """A value of a marker in the words of the command line."""
    if isinstance(value, Highmem):
        return value.value
    if name not in _FLAGS:
        return str(value)
    if not isinstance(value, bool):
        raise BadInput(f"{_MARK}{name} {value!r}: True or False")
    return value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
