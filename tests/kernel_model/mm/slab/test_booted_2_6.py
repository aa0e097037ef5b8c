# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator in a whole kernel of 2.6: its caches, the guest's view of it, its time."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from harness.guests import guest_path
from harness.machine import GuestDied, Machine, guest_variant
from harness.monitors import guest_slab_walk
from harness.monitors.slabs import slab_census
from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.linux_2_6.caches import CACHES
from kernel_model.mm.slab import BadObject
from kernel_model.proc import PROC_FILES
from kernel_model.structs import Abi, Structs

pytestmark = pytest.mark.book("8.8")
RECORDED = Path(__file__).parents[3] / "data/linux-2.6.11/slab_structs.json.gz"
STRUCTS = {
    "anon_vma": "struct anon_vma",
    "sighand_cache": "struct sighand_struct",
    "files_cache": "struct files_struct",
    "fs_cache": "struct fs_struct",
    "vm_area_struct": "struct vm_area_struct",
    "mm_struct": "struct mm_struct",
    "buffer_head": "struct buffer_head",
    "filp": "struct file",
    "dentry_cache": "struct dentry",
    "inode_cache": "struct inode",
}
BUILDS: dict[str, dict[str, Any]] = {
    "up": {},
    "smp": {"nr_cpus": 2},
    "debug": {"debug_slab": True},
    "nodes": {"nodes": 2, "nr_cpus": 2},
}


def config_of(build: str) -> KernelConfig:
    return KernelConfig(ram=32 * MIB, release="2.6", **BUILDS[build])


@pytest.mark.parametrize("index", range(4))
def test_each_structure_has_the_size_of_the_real_one(index: int) -> None:
    recorded = json.loads(gzip.decompress(RECORDED.read_bytes()))["configs"][index]
    sizes = {row[0]: row[3] for row in recorded["fields"] if row[1] == ""}
    config = KernelConfig(
        release="2.6",
        nr_cpus=8 if "smp8" in recorded["config"] else 1,
        debug_slab="dbg" in recorded["config"],
    )
    structs = Structs.of(Abi.of(config))
    known = [cache for cache in CACHES if cache.name in STRUCTS]
    assert len(known) == len(STRUCTS)
    for cache in known:
        assert cache.size(structs) == sizes[STRUCTS[cache.name]], cache.name


@pytest.mark.parametrize("build", BUILDS)
def test_the_kernels_own_caches_come_newest_first(build: str) -> None:
    kernel = boot(config_of(build))
    names, created = (
        [cache.name for cache in kernel.slab.chain()],
        ["pgd", *(c.name for c in CACHES)],
    )
    assert names[: len(created)] == created[::-1]
    assert (names[len(created)], names[-1]) == ("size-131072(DMA)", "kmem_cache")
    assert len(slab_census(kernel)) == len(names)
    header, _, *lines = PROC_FILES["slabinfo"].text(kernel).splitlines()
    assert header == "slabinfo - version: 2.1" + " (statistics)" * (build == "debug")
    assert [line.split()[0] for line in lines] == names


@pytest.mark.parametrize("build", BUILDS)
def test_the_guest_agrees(build: str) -> None:
    config = config_of(build)
    machine = Machine(Kernel(config), image=guest_path("slab_test", guest_variant(config)))
    assert guest_slab_walk.check(machine) == []
    slab, gfp = machine.kernel.slab, machine.kernel.image.constants.gfp.kernel
    held = [slab.kmalloc(40 * number, gfp) for number in range(1, 90)]
    assert guest_slab_walk.check(machine) == []
    for objp in held[::2]:
        slab.kfree(objp)
    slab.pass_time(7000)
    assert guest_slab_walk.check(machine) == []
    slab_census(machine.kernel)


def test_frames_come_back_to_the_page_allocator_as_time_passes() -> None:
    kernel = boot(config_of("up"))
    gfp = kernel.image.constants.gfp.kernel
    assert int(kernel.statics.jiffies) == (1 << 32) - 300_000
    kernel.slab.pass_time(200_000)
    free = kernel.allocator.nr_free_pages()
    for objp in [kernel.slab.kmalloc(2000, gfp) for _ in range(600)]:
        kernel.slab.kfree(objp)
    kept = free - kernel.allocator.nr_free_pages()
    assert kept >= 10
    kernel.slab.pass_time(200_000)
    slab_census(kernel)
    # The lists of the CPU may keep a few frames.
    assert free - kernel.allocator.nr_free_pages() < kept


def test_a_guest_that_writes_beside_its_object_is_told_of_and_lives() -> None:
    """2.4 stops there; 2.6 stops only where an address is no object."""
    machine = Machine(Kernel(config_of("debug")), image=guest_path("slab_test", "debug_2_6"))
    gfp = machine.kernel.image.constants.gfp.kernel
    objp = machine.call("kmalloc", 64, gfp)
    machine.call("write_byte", objp, 64, 0x99)
    machine.call("kfree", objp)
    assert "cache `size-64': double free, or memory outside object was overwritten" in (
        machine.kernel.log
    )
    objp = machine.call("kmalloc", 64, gfp)
    with pytest.raises(GuestDied, match="no object begins there") as died:
        machine.call("kfree", objp + 12)
    assert isinstance(died.value.__cause__, BadObject)
