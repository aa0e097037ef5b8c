# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own guests as programs of Linux, the static-PIE among them; no package is needed.

Truth is Python's hashlib, and the host's kernel where it runs i386 programs.
"""

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from harness.guests import guest_path
from kernel_model.config import KernelConfig
from tests import packages
from tests.harness.processes.releases import on_both
from tests.harness.processes.running import Tree

PROGRAMS = ("hello", "hello_pie", "sha256", "sha256_pie")
LENGTHS = (0, 1, 55, 56, 63, 64, 65, 4096, 16_384, 40_000)
DATA = random.Random(11).randbytes(max(LENGTHS))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    place = tmp_path_factory.mktemp("own")
    programs = {name: Path(shutil.copy(guest_path(name), place)) for name in PROGRAMS}
    for path in programs.values():
        path.chmod(0o755)
    return Tree(place, programs)


@on_both
@pytest.mark.parametrize("name", ["hello", "hello_pie"])
def test_hello(tree: Tree, name: str, release: str) -> None:
    outcome = tree.on_model([f"bin/{name}"], config=KernelConfig(release=release)).outcome
    assert (outcome.status, outcome.output, outcome.error) == (0, b"hello, ring 3\n", b"")


@pytest.mark.parametrize("name", ["sha256", "sha256_pie"])
@pytest.mark.parametrize("length", LENGTHS)
def test_sha256(tree: Tree, name: str, length: int) -> None:
    outcome = tree.on_model([f"bin/{name}"], DATA[:length]).outcome
    digest = hashlib.sha256(DATA[:length]).hexdigest()
    assert (outcome.status, outcome.output) == (0, digest.encode() + b"\n")


@on_both
@pytest.mark.parametrize("cpu_model", ["486", "pentium", "pentium3"])
def test_on_every_cpu(tree: Tree, cpu_model: str, release: str) -> None:
    """They are compiled for an i386, and hold no instruction that came later."""
    config = KernelConfig(release=release, cpu_model=cpu_model)
    run = tree.on_model(["bin/sha256_pie"], DATA, config)
    assert run.outcome.output == hashlib.sha256(DATA).hexdigest().encode() + b"\n"


@on_both
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_host_runs_them_as_well(tree: Tree, name: str, release: str) -> None:
    packages.need_native()
    argv, config = [f"bin/{name}"], KernelConfig(release=release)
    assert tree.on_model(argv, DATA[:777], config).outcome == tree.natively(argv, DATA[:777])
