# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files: references, who may write, and nothing left after the last close."""

import pytest

from kernel_model.config import MIB, KernelConfig
from kernel_model.errno import ETXTBSY
from kernel_model.fs.file_table import Files
from kernel_model.kernel import Kernel
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.statics import CACHE_POINTERS


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(KernelConfig(ram=16 * MIB))
    kernel.start_kernel()
    return kernel


def in_use(kernel: Kernel) -> dict[str, int]:
    """Objects of each cache that somebody has."""
    counts = {}
    for pointer in CACHE_POINTERS:
        cache = kernel.slab.objects.cache(int(getattr(kernel.statics, pointer)))
        counts[cache.name] = sum(cache.inuse(slab) for slab in cache.all_slabs())
    return counts


def new_file(files: Files, mode: int = FMODE_READ, f_op: int = 0) -> int:
    return files.open_inode(files.new_inode(8192), "a_name_of_20_letters", mode, f_op)


def test_a_file_names_its_inode(kernel: Kernel) -> None:
    files = Files(kernel.image, kernel.slab)
    file = new_file(files)
    inode = files.inode_of(file)
    assert files.inode(inode).i_size == 8192
    assert files.inode(inode).i_data.host == inode
    assert files.inode(inode).i_mapping == inode + kernel.image.structs.inode.offset("i_data")
    assert files.name(file) == "a_name_of_20_letters"
    assert kernel.statics.inodes_stat.nr_inodes == 1
    assert files.operation(file, "mmap") == 0


def test_the_last_user_closes_the_file_and_nothing_is_left(kernel: Kernel) -> None:
    files, before = Files(kernel.image, kernel.slab), in_use(kernel)
    calls: list[tuple[str, int, int]] = []

    def release(inode: int, file: int) -> int:
        calls.append(("release", inode, file))
        return 0

    files.truncate_inode_pages = lambda mapping: calls.append(("truncate", mapping, 0))
    f_op = kernel.image.symbol("shmem_file_operations")
    kernel.statics.shmem_file_operations.release = kernel.image.functions.address(release)
    file = new_file(files, f_op=f_op)
    inode = files.inode_of(file)
    mapping = int(files.inode(inode).i_mapping)
    files.get_file(file)
    files.fput(file)
    assert not calls
    files.fput(file)
    assert calls == [("release", inode, file), ("truncate", mapping, 0)]
    assert in_use(kernel) == before
    assert kernel.statics.inodes_stat.nr_inodes == 0


def test_writers_and_those_who_forbid_it_keep_each_other_out(kernel: Kernel) -> None:
    files = Files(kernel.image, kernel.slab)
    file = new_file(files, FMODE_READ | FMODE_WRITE)
    inode = files.inode_of(file)
    assert files.get_write_access(inode) == 0
    assert files.deny_write_access(file) == -ETXTBSY
    files.inode(inode).i_writecount -= 1
    assert files.deny_write_access(file) == 0
    assert files.deny_write_access(file) == 0
    assert files.inode(inode).i_writecount == -2
    assert files.get_write_access(inode) == -ETXTBSY


@pytest.mark.parametrize("which", ["inode_cachep", "dentry_cache", "filp_cachep"])
def test_no_memory_leaves_nothing_half_open(
    kernel: Kernel, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, before = Files(kernel.image, kernel.slab), in_use(kernel)
    refused = int(getattr(kernel.statics, which))
    alloc = kernel.slab.kmem_cache_alloc
    monkeypatch.setattr(
        kernel.slab,
        "kmem_cache_alloc",
        lambda cachep, flags: 0 if cachep == refused else alloc(cachep, flags),
    )
    inode = files.new_inode(1)
    if which == "inode_cachep":
        assert not inode
    else:
        assert files.open_inode(inode, "x", FMODE_READ, 0) == 0
        files.iput(inode)
    assert in_use(kernel) == before
