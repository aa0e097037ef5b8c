# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold for every address space, and a naive book of pages to hold it against.

The book knows no VMAs: it has one entry for each page, what may be done with it and which page
of which file it is. :func:`check` reads list, tree, counters and the lists of the files from RAM
and compares.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from harness.replay import vma_2_6
from harness.replay.vma import VmaMachine
from kernel_model.mm.mmap.find import VM_RB
from kernel_model.mm.rbtree import COLOR, LEFT, PARENT, RIGHT
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT
from kernel_model.structs.mm import (
    RB_BLACK,
    VM_AREA_STRUCT,
    VM_DENYWRITE,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_SHARED,
)

PAGE = 4096
PROTECTIONS = [0x80 | 0x20] + [0x25] * 7 + [0xA0, 0x25, 0x27, 0x27, 0x25, 0x25, 0x27, 0x27]
"""Bits of a PTE by read 1, write 2, execute 4, shared 8, written out from the manual page."""


@dataclass(frozen=True)
class Page:
    """One page of an address space; ``index`` is its number in ``file``."""

    flags: int
    file: int = 0
    index: int = 0

    def with_flags(self, flags: int) -> "Page":
        return replace(self, flags=flags)


Book = dict[int, Page]
"""Page number -> what is there."""


def pages_of(machine: VmaMachine, mm: int) -> Book:
    """The same from the VMAs in RAM. Of an anonymous page the number in no file is not kept."""
    book: Book = {}
    areas = machine.spaces.areas
    for vma in areas.list(mm):
        area = areas.vma(vma)
        for number in range(area.vm_start // PAGE, area.vm_end // PAGE):
            index = area.vm_pgoff + number - area.vm_start // PAGE if area.vm_file else 0
            assert number not in book, "two VMAs have one page"
            book[number] = Page(area.vm_flags & ~VM_ACCOUNT, area.vm_file, index)
    return book


def check(machine: VmaMachine, mm: int, *, locked: bool = True) -> None:
    """All that must hold for one address space by itself."""
    areas = machine.spaces.areas
    space, vmas = areas.mm(mm), areas.list(mm)
    views = [areas.vma(vma) for vma in vmas]
    assert all(view.vm_mm == mm and view.vm_start < view.vm_end for view in views)
    assert all(not edge % PAGE for view in views for edge in (view.vm_start, view.vm_end))
    ends = [edge for view in views for edge in (view.vm_start, view.vm_end)]
    assert ends == sorted(ends), "the list is not in order"
    assert _tree(machine, space.mm_rb.rb_node, 0)[0] == vmas, "list and tree differ"
    assert space.map_count == len(vmas)
    assert space.mmap_cache in (0, *vmas)
    assert [view.vm_page_prot for view in views] == [
        PROTECTIONS[view.vm_flags & 0xF] for view in views
    ]
    sizes = [(view.vm_end - view.vm_start) // PAGE for view in views]
    assert space.total_vm == sum(sizes)
    if locked:
        counted = sum(
            size for size, view in zip(sizes, views, strict=True) if view.vm_flags & VM_LOCKED
        )
        assert space.locked_vm == counted


def _tree(machine: VmaMachine, node: int, parent: int) -> tuple[list[int], int]:
    """(VMAs of a subtree in order, its black height); asserts that it is a red-black tree."""
    if not node:
        return [], 0
    get = machine.spaces.links.tree.get
    assert get(node, PARENT) == parent
    assert get(node, COLOR) == RB_BLACK or (parent and get(parent, COLOR) == RB_BLACK)
    left, left_height = _tree(machine, get(node, LEFT), node)
    right, right_height = _tree(machine, get(node, RIGHT), node)
    assert left_height == right_height
    return [*left, node - VM_RB, *right], left_height + get(node, COLOR)


def check_files(machine: VmaMachine, mms: list[int]) -> None:
    """Each VMA of a file holds it once, and is on the right list of its mapping."""
    areas = machine.spaces.areas
    users = [
        (vma, areas.vma(vma)) for mm in mms for vma in areas.list(mm) if areas.vma(vma).vm_file
    ]
    for number, file in machine.files.by_number.items():
        if not number:
            continue
        mine = [(vma, view) for vma, view in users if view.vm_file == file]
        # Those that were opened before count themselves; those of shmem belong to their VMAs.
        own = 1 if number < 100 else 0
        assert areas.files.file(file).f_count == own + len(mine)
        inode = areas.files.inode(areas.files.inode_of(file))
        denied = sum(1 for _, view in mine if view.vm_flags & VM_DENYWRITE)
        assert inode.i_writecount == (number == 5) - denied
        for listed, expected in _mapped(machine, inode, mine):
            assert len(listed) == len(expected)
            assert set(listed) == expected
    assert {view.vm_file for _, view in users} <= set(machine.files.by_number.values())


def _mapped(
    machine: VmaMachine, inode: Any, mine: list[tuple[int, Any]]
) -> Iterable[tuple[list[int], set[int]]]:
    """What a file has of its VMAs, and which it must have."""
    if isinstance(machine, vma_2_6.VmaMachine):
        mapping = machine.image.structs.address_space
        root = int(inode.i_mapping) + mapping.offset("i_mmap")
        trees = machine.spaces.mappings.trees
        yield list(trees.overlapping(root, 0, 0xFFFFFFFF)), {vma for vma, _ in mine}
        for vma, view in mine:
            last = view.vm_pgoff + (view.vm_end - view.vm_start) // PAGE - 1
            assert vma in trees.overlapping(root, last, last)
        return
    for head, shared in ((inode.i_data.i_mmap, False), (inode.i_data.i_mmap_shared, True)):
        expected = {vma for vma, view in mine if bool(view.vm_flags & VM_SHARED) == shared}
        yield _shared(machine, head), expected


def _shared(machine: VmaMachine, vma: int) -> list[int]:
    listed: list[int] = []
    while vma:
        assert vma not in listed, "the list of a mapping bites its tail"
        listed.append(vma)
        following = machine.spaces.areas.vma(vma).vm_next_share
        if following:
            link = machine.spaces.areas.vma(following).vm_pprev_share
            assert link == vma + VM_AREA_STRUCT.offset("vm_next_share")
        vma = following
    return listed


def vmas_in_use(machine: VmaMachine) -> int:
    """VMAs that somebody has, as the slab allocator counts."""
    if isinstance(machine, vma_2_6.VmaMachine):
        return objects_in_use(machine, "vm_area_struct")
    return int(machine.state(whole=False)["vma_objs"])


def objects_in_use(machine: vma_2_6.VmaMachine, name: str) -> int:
    """Objects of a cache of 2.6 that somebody has: those in its array are free."""
    cache = machine.slab.find(name)
    assert cache is not None
    array = machine.slab.cpu_caches.array(cache)
    waiting = machine.image.at(machine.image.structs.array_cache, array).avail
    return sum(cache.inuse(slab) for slab in cache.all_slabs()) - int(waiting)


def check_kinds(machine: vma_2_6.VmaMachine, mm: int) -> None:
    """What 2.6 counts by kind, and the ``anon_vma`` of each VMA."""
    areas = machine.spaces.areas
    space, views = areas.mm(mm), [areas.vma(vma) for vma in areas.list(mm)]
    pages = [(view, (view.vm_end - view.vm_start) // PAGE) for view in views]
    assert space.shared_vm == sum(size for view, size in pages if view.vm_file)
    code = [size for view, size in pages if view.vm_file and view.vm_flags & 6 == 4]
    assert space.exec_vm == sum(code)
    stacks = [size for view, size in pages if not view.vm_file and view.vm_flags & VM_GROWSDOWN]
    assert space.stack_vm == sum(stacks)


def check_anon_vmas(machine: vma_2_6.VmaMachine, mms: list[int]) -> None:
    """Each list has just the VMAs that point to it, and none is left over."""
    areas, known = machine.spaces.areas, dict[int, list[int]]()
    for mm in mms:
        for vma in areas.list(mm):
            if anon_vma := areas.vma(vma).anon_vma:
                known.setdefault(anon_vma, []).append(vma)
    for anon_vma, vmas in known.items():
        assert sorted(machine.spaces.anon_vmas.vmas(anon_vma)) == sorted(vmas)
    assert objects_in_use(machine, "anon_vma") == len(known)
