# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of 2.6 that find no place in the tree of their file, or of the swap cache.

The page cache of 2.6 wants a node for a page now and then, when the frame is there already. Read
and write of a file tell of it; a fault makes the process go (:mod:`tests.harness.refused_frames`);
shared memory is asked for anew, and a page of it that should go stays.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kernel_model.errno import ENOMEM
from kernel_model.errors import EndlessLoop, KernelBug, MmucheckError
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.radix_tree import RadixTrees
from kernel_model.mm.swap_state import SwapCache
from tests.harness.process_machine import (
    ANONYMOUS,
    CONFIGS,
    PAGE,
    RW,
    SHARED,
    Content,
    ProcessMachine,
)

SHM, WORD = 0x53000000, 0x11110000
pytestmark = pytest.mark.book("4.8")


class Scene:
    """A process with a page of shared memory that it has written to."""

    def __init__(self) -> None:
        self.world = world = ProcessMachine(CONFIGS["2.6"])
        self.owners = world.owners()
        self.process = world.spaces.fork(world.first)
        world.spaces.enter(self.process)
        world.map(SHM, RW, SHARED | ANONYMOUS)
        assert world.write(self.process, SHM, WORD) == WORD

    def out(self) -> bool:
        """Whether it has a slot of swap, and no frame in the process."""
        counts = self.world.kernel.swap_areas.counts(0)
        return any(counts[1:]) and not self.world.frame(self.process, SHM)

    def end(self) -> None:
        """It is all there, and goes with the process."""
        assert self.world.read(self.process, SHM) == WORD
        self.world.spaces.exit(self.process)
        assert self.world.owners() == self.owners


@contextmanager
def refused(
    scene: Scene, patch: pytest.MonkeyPatch, *, swap: bool, times: int = 1 << 30
) -> Iterator[list[int]]:
    """The tree of the swap cache, or those of files, get no node so many times. Gives the indices
    that were refused."""
    cache = scene.world.kernel.swap_cache
    assert isinstance(cache, SwapCache26)
    swap_tree, real, indices = cache.cache.tree(cache.swapper_space), RadixTrees.insert, list[int]()

    def insert(self: RadixTrees, root: int, index: int, item: int) -> int:
        if (root == swap_tree) is not swap or len(indices) == times:
            return real(self, root, index, item)
        indices.append(index)
        return -ENOMEM

    with patch.context() as patched:
        patched.setattr(RadixTrees, "insert", insert)
        yield indices


@pytest.mark.parametrize("times", [1, 3])
def test_shared_memory_that_is_out_is_asked_for_anew(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swap cache has it by then, and has it again while the file gets no node."""
    scene = Scene()
    scene.world.reclaim()
    assert scene.out()
    with refused(scene, monkeypatch, swap=False, times=times) as indices:
        assert scene.world.read(scene.process, SHM) == WORD
    assert indices == [0] * times
    scene.end()


def test_shared_memory_waits_for_ever_for_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.world.reclaim()
    with refused(scene, monkeypatch, swap=False), pytest.raises(EndlessLoop):
        scene.world.spaces.handle_fault(scene.process, SHM, write=False)
    scene.end()


def test_shared_memory_stays_while_the_swap_cache_has_no_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    with refused(scene, monkeypatch, swap=True) as indices:
        scene.world.reclaim()
    assert indices
    assert not any(scene.world.kernel.swap_areas.counts(0)[1:]), "the slot is given back"
    assert scene.world.read(scene.process, SHM) == WORD
    scene.world.reclaim()
    assert scene.out()
    scene.end()


def test_read_and_write_of_a_file_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    world, filemap = scene.world, scene.world.kernel.file_memory.filemap
    file = world.open(Content(WORD, pages=2))
    with refused(scene, monkeypatch, swap=False):
        with pytest.raises(OSError, match="generic_file_read") as reading:
            filemap.read(file, PAGE, 0)
        assert filemap.write(file, b"new", 0) == -ENOMEM
    assert reading.value.errno == ENOMEM
    assert filemap.read(file, 4, PAGE) == WORD.to_bytes(4, "little")
    assert filemap.write(file, b"new", PAGE) == 3
    world.kernel.files.fput(file)
    scene.end()


# -- planted faults --------------------------------------------------------------------------


def test_a_page_put_back_with_a_user_too_many_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.world.reclaim()
    real = SwapCache.add

    def add(self: SwapCache, page: int, entry: int) -> bool:
        self._allocator.get_page(page)
        return real(self, page, entry)

    monkeypatch.setattr(SwapCache, "add", add)
    with refused(scene, monkeypatch, swap=False, times=1):
        assert scene.world.read(scene.process, SHM) == WORD
    with pytest.raises((AssertionError, MmucheckError)):
        scene.end()


def test_a_page_that_leaves_the_file_for_nowhere_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SwapCache26, "move_to_swap_cache", SwapCache.move_to_swap_cache)
    scene = Scene()
    with refused(scene, monkeypatch, swap=True), pytest.raises(KernelBug):
        scene.world.reclaim()
