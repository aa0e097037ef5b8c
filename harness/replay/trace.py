# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace files, and comparing answers until the first that differs."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from harness.files import open_regular
from kernel_model.config import E820Entry, Highmem, KernelConfig
from kernel_model.errors import BadInput, MmucheckError

MAX_TRACE_BYTES: Final = 256 << 20
_GZIP_MAGIC: Final = b"\x1f\x8b"

_MODEL_BY_FEATURES: Final = {(1, 1): "pentium3", (1, 0): "pentium", (0, 0): "486"}
"""(PSE, PGE) of the recorded CPU -> a CPU model that offers just that."""


class Difference(MmucheckError):
    """The model answered something else than the real kernel, ``where`` it says."""

    def __init__(self, where: str, expected: object, actual: object) -> None:
        super().__init__(f"{where}: the kernel answered {expected!r}, the model {actual!r}")
        self.where = where
        self.expected = expected
        self.actual = actual


class Comparison:
    """Compares, counts, and raises :class:`Difference` at the first unequal value."""

    def __init__(self) -> None:
        self.count = 0

    def equal(self, where: str, expected: object, actual: object) -> None:
        """Both values as JSON has them; containers are compared whole, named by element."""
        if isinstance(expected, dict) and isinstance(actual, dict):
            self._names(where, expected, actual)
            for name, value in expected.items():
                self.equal(f"{where}.{name}", value, actual[name])
        elif isinstance(expected, list) and isinstance(actual, list):
            for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
                self.equal(f"{where}[{index}]", one, other)
            self.equal(f"len({where})", len(expected), len(actual))
        else:
            self.count += 1
            if expected != actual:
                raise Difference(where, expected, actual)

    def _names(self, where: str, expected: Iterable[str], actual: Iterable[str]) -> None:
        if set(expected) != set(actual):
            raise Difference(f"names in {where}", sorted(expected), sorted(actual))


@dataclass(frozen=True, slots=True)
class Trace:
    """One recorded file: its ``topic``, the name of its configuration, its contents."""

    topic: str
    config: str
    data: dict[str, Any]

    @property
    def release(self) -> str:
        """``2.4`` or ``2.6``: the kernel that was recorded; traces of 2.4 do not say.

        Nor do the layouts of 2.6's address spaces, but 2.4 has no prio trees.
        """
        meta, fields = self.data.get("meta"), self.data.get("fields")
        if isinstance(fields, list) and any(row[:1] == ["struct prio_tree_root"] for row in fields):
            return "2.6"
        said = self.data.get("release", meta.get("release") if isinstance(meta, dict) else None)
        return ".".join(str(said or "2.4").split(".")[:2])

    def kernel_config(self) -> KernelConfig:
        """The machine and the build that the trace was recorded on."""
        data = self.data
        if self.release == "2.6":
            return self._kernel_config_26()
        highmem_mb = _parameter(self.config, "highmem_eq_")
        features = (int(data["pse"]), int(data["pge"]))
        if features not in _MODEL_BY_FEATURES:
            raise BadInput(f"{self.config}: no CPU has PGE without PSE")
        return KernelConfig(
            ram=data["mem_mb"] << 20,
            e820=tuple(E820Entry(e["addr"], e["size"], e["type"]) for e in data.get("e820", ())),
            highmem=Highmem.GB4 if data["highmem"] else Highmem.NONE,
            highmem_pages=-1 if highmem_mb is None else highmem_mb << 8,
            cpu_model=_MODEL_BY_FEATURES[features],
            spinlock_bytes=4 if "4 bytes" in data["abi"] else 0,
            register_memory=bool(data["register_memory_called"]),
        )

    def _kernel_config_26(self) -> KernelConfig:
        """A kernel for ``NR_CPUS``, of which the first runs; with APICs unless it has one CPU."""
        data = self.data
        cpus = int(data["NR_CPUS"])
        return KernelConfig(
            ram=data["mem_mb"] << 20,
            release="2.6",
            highmem=Highmem.GB4 if data["highmem"] else Highmem.NONE,
            cpu_model=_MODEL_BY_FEATURES[int(data["pse"]), int(data["pge"])],
            nr_cpus=cpus,
            apic=cpus > 1,
            register_memory=False,
        )


def _parameter(config: str, prefix: str) -> int | None:
    """The number behind ``prefix`` in the name of a configuration."""
    _, found, rest = config.partition(prefix)
    digits = rest.partition("_")[0].rstrip("MB")
    return int(digits) if found and digits.isdigit() else None


def read_trace(path: Path) -> Trace:
    """Read a trace; refuses what is no gzip'd or plain JSON object with a topic."""
    try:
        with open_regular(path, "a trace, JSON or gzip'd JSON") as file:
            raw = file.read(MAX_TRACE_BYTES + 1)
        if raw[:2] == _GZIP_MAGIC:
            with gzip.open(io.BytesIO(raw)) as unpacked:
                raw = unpacked.read(MAX_TRACE_BYTES + 1)
        if len(raw) > MAX_TRACE_BYTES:
            raise BadInput(f"{path}: a trace of more than {MAX_TRACE_BYTES >> 20} MiB")
        data = json.loads(raw)
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"{path}: cannot read: {error.strerror or error}") from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise BadInput(
            f"{path}: neither JSON nor gzip'd JSON ({error}): give a recorded trace"
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("topic", ""), str):
        raise BadInput(f"{path}: no trace: a trace is a JSON object")
    meta = data.get("meta")
    config = data.get("config", meta.get("config", "") if isinstance(meta, dict) else "")
    return Trace(data.get("topic", ""), str(config), data)
