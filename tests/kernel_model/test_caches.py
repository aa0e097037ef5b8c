# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own slab caches: sizes of the real structures, order, constructors."""

import gzip
import json
from pathlib import Path

import pytest

from kernel_model.caches import CACHES, proc_caches_init
from kernel_model.config import KernelConfig
from kernel_model.errors import KernelPanic
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.proc import PROC_FILES
from kernel_model.structs import Abi, Structs
from kernel_model.structs.statics import CACHE_POINTERS

MIB = 1 << 20
RECORDED = Path(__file__).parents[1] / "data" / "linux-2.4.22" / "slab_structs.json.gz"
STRUCTS = {
    "signal_act": "struct signal_struct",
    "files_cache": "struct files_struct",
    "fs_cache": "struct fs_struct",
    "vm_area_struct": "struct vm_area_struct",
    "mm_struct": "struct mm_struct",
    "buffer_head": "struct buffer_head",
    "filp": "struct file",
    "dentry_cache": "struct dentry",
    "inode_cache": "struct inode",
}
CONFIGS = {
    "up": KernelConfig(ram=16 * MIB),
    "up_dbg": KernelConfig(ram=16 * MIB, debug_slab=True),
    "up_gcc295": KernelConfig(ram=16 * MIB, spinlock_bytes=4),
    "smp2": KernelConfig(ram=16 * MIB, nr_cpus=2),
    "smp2_dbg": KernelConfig(ram=16 * MIB, nr_cpus=2, debug_slab=True),
    "smp32": KernelConfig(ram=16 * MIB, nr_cpus=32),
}


def recorded_sizes() -> dict[str, dict[str, int]]:
    configs = json.loads(gzip.decompress(RECORDED.read_bytes()))["configs"]
    return {
        entry["config"]: {row[0]: row[3] for row in entry["fields"] if row[1] == ""}
        for entry in configs
    }


def cache_of(kernel: Kernel, name: str) -> Cache:
    cache = kernel.slab.find(name)
    assert cache is not None
    return cache


@pytest.mark.book("4.3.1", "4.4.1", "8.1")
@pytest.mark.parametrize("name", CONFIGS)
def test_each_structure_has_the_size_of_the_real_one(name: str) -> None:
    sizes = recorded_sizes()[name]
    structs = Structs.of(Abi.of(CONFIGS[name]))
    for cache in CACHES:
        if cache.name in STRUCTS:
            assert cache.size(structs) == sizes[STRUCTS[cache.name]], cache.name


@pytest.mark.book("8.1.1")
@pytest.mark.parametrize("name", CONFIGS)
def test_they_are_there_after_boot_newest_first(name: str) -> None:
    kernel = boot(CONFIGS[name])
    chain = [cache.name for cache in kernel.slab.chain()]
    assert chain[1 : 1 + len(CACHES)] == [cache.name for cache in reversed(CACHES)]
    assert chain[1 + len(CACHES)] == "size-131072(DMA)"
    assert [cache.pointer for cache in CACHES] == list(CACHE_POINTERS)
    for cache in CACHES:
        assert int(getattr(kernel.statics, cache.pointer)) == cache_of(kernel, cache.name).vaddr


def test_objects_are_aligned_to_the_cache_line() -> None:
    """The sizes that a 2.4.22 for a Pentium III shows in /proc/slabinfo."""
    kernel = boot(CONFIGS["up"])
    shown = {row["name"]: row["objsize"] for row in PROC_FILES["slabinfo"].data(kernel)}
    assert {name: shown[name] for name in (*STRUCTS, "names_cache", "sigqueue")} == {
        "signal_act": 1312,
        "files_cache": 416,
        "fs_cache": 32,
        "vm_area_struct": 96,
        "mm_struct": 128,
        "buffer_head": 96,
        "filp": 128,
        "dentry_cache": 128,
        "inode_cache": 480,
        "names_cache": 4096,
        "sigqueue": 132,
    }


@pytest.mark.book("8.5")
def test_per_cpu_arrays_come_last_for_the_newest_cache_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enabled: list[str] = []
    original = CpuCaches.enable_cpucache

    def enable(self: CpuCaches, cache: Cache) -> None:
        enabled.append(cache.name)
        original(self, cache)

    monkeypatch.setattr(CpuCaches, "enable_cpucache", enable)
    kernel = boot(CONFIGS["smp2"])
    assert enabled == [cache.name for cache in kernel.slab.chain()]


@pytest.mark.book("8.3.1")
@pytest.mark.parametrize("name", ["up", "smp2", "up_gcc295"])
def test_an_inode_is_kept_constructed(name: str) -> None:
    kernel = boot(CONFIGS[name])
    structs, cachep = kernel.image.structs, int(kernel.statics.inode_cachep)
    vaddr = kernel.slab.kmem_cache_alloc(cachep, GFP_KERNEL)
    inode = kernel.image.at(structs.inode, vaddr)
    for field in ("i_hash", "i_dentry", "i_dirty_buffers", "i_dirty_data_buffers", "i_devices"):
        head = getattr(inode, field)
        assert head.next == head.prev == vaddr + structs.inode.offset(field), field
    assert (inode.i_sem.count, inode.i_zombie.count, inode.i_state) == (1, 1, 0)
    pages = inode.i_data.dirty_pages
    assert pages.next == pages.prev
    waiting = inode.i_wait.task_list
    assert (
        waiting.next
        == waiting.prev
        == vaddr + structs.inode.offset("i_wait") + (structs.spinlock_t.size)
    )


@pytest.mark.parametrize("name", ["up", "smp2"])
def test_a_buffer_head_has_an_empty_wait_queue(name: str) -> None:
    kernel = boot(CONFIGS[name])
    structs, words = kernel.image.structs, kernel.ram.words
    objp = kernel.slab.kmem_cache_alloc(int(kernel.statics.bh_cachep), GFP_KERNEL)
    at, size = objp - 0xC0000000 >> 2, CACHES[5].size(structs) >> 2
    wait = 18 + (structs.spinlock_t.size >> 2)
    head = objp + 4 * wait
    assert words[at : at + size].tolist() == [
        head if index in (wait, wait + 1) else 0 for index in range(size)
    ]


def test_creating_them_again_changes_nothing() -> None:
    kernel = boot(CONFIGS["up"])
    before = [cache.vaddr for cache in kernel.slab.chain()]
    proc_caches_init(kernel.image, kernel.slab)
    assert [cache.vaddr for cache in kernel.slab.chain()] == before


def test_no_memory_for_one_of_them_is_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(CONFIGS["up"])
    kernel.start_kernel(until="vmalloc_init")
    monkeypatch.setattr(kernel.slab, "kmem_cache_create", lambda *_: 0)
    with pytest.raises(KernelPanic, match="cannot create the slab cache signal_act"):
        proc_caches_init(kernel.image, kernel.slab)


@pytest.mark.parametrize("name", CONFIGS)
def test_slabinfo_tells_what_the_build_counts(name: str) -> None:
    kernel = boot(CONFIGS[name])
    header, *lines = PROC_FILES["slabinfo"].text(kernel).splitlines()
    assert header == "slabinfo - version: 1.1" + (
        " (statistics)" * ("dbg" in name) + " (SMP)" * ("smp" in name)
    )
    groups = 1 + ("dbg" in name) + ("smp" in name) + ("dbg" in name and "smp" in name)
    assert {line.count(" : ") for line in lines} == {groups - 1}
    assert [line.split()[0] for line in lines] == [c.name for c in kernel.slab.chain()]
