# SPDX-License-Identifier: GPL-2.0-or-later
"""What stood around the recorded VMA layer: page tables that stayed empty, and the files.

Files 1 to 7 each differ in what a mapping of them may be; the recording gave each shared
anonymous mapping a file of its own, numbered from 100 on, without asking whether there is
memory for it. All of them are real objects in the model's RAM.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_SHIFT, phys_to_virt
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.fs.file_table import Files
from kernel_model.image import GUEST_TEXT, KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.prio_tree import LEFT, RIGHT, VM_SHARED_NODE, VmaPrioTree
from kernel_model.mm.shmem import ShmemFiles
from kernel_model.structs import CType
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE, S_APPEND
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT
from kernel_model.structs.mm import VM_MAYWRITE, VM_SHARED

FIRST_SHMEM: Final = 100


@dataclass(frozen=True, slots=True)
class RecordedFile:
    """How one of the recorded files was opened, and what it can do."""

    mode: int = FMODE_READ | FMODE_WRITE
    mmap: bool = True
    writepage: bool = True
    vm_ops: bool = False
    append: bool = False
    writecount: int = 0


FILES: Final = {
    1: RecordedFile(FMODE_READ),
    2: RecordedFile(),
    3: RecordedFile(vm_ops=True),
    4: RecordedFile(mmap=False),
    5: RecordedFile(FMODE_WRITE, writecount=1),
    6: RecordedFile(writepage=False),
    7: RecordedFile(append=True),
}


def _nothing(page: int) -> int:
    """``readpage`` and ``writepage``: that they exist is all that counts."""
    return 0


class RecordedPages:
    """The page level of the recordings: empty page tables, and who asked what of them."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self.events: list[list[Any]] = []

    def zap_page_range(self, mm: int, address: int, size: int) -> None:
        self.events.append(["zap", address, size])

    def clear_page_tables(self, mm: int, first: int, count: int) -> None:
        self.events.append(["cpt", first, count])

    def make_pages_present(self, start: int, end: int) -> int:
        self.events.append(["mpp", start, end])
        return 0

    def move_page_tables(self, mm: int, new_addr: int, old_addr: int, length: int) -> int:
        return 0

    def change_protection(self, start: int, end: int, newprot: int, newflags: int) -> None:
        """Nothing is mapped."""

    def copy_page_range(self, dst: int, src: int, vma: int) -> int:
        return 0

    def pgd_alloc(self, mm: int) -> int:
        return self._directory

    def pgd_free(self, pgd: int) -> None:
        """It is nobody's own."""

    def flush_tlb_mm(self, mm: int) -> None:
        """There is no TLB."""

    def flush_tlb_pgtables(self, mm: int, start: int, end: int) -> None:
        """There is no TLB."""

    def flush_cache_mm(self, mm: int) -> None:
        """There is no cache."""


class RecordedFiles:
    """The seven files that the recordings map, and those of shared anonymous mappings."""

    def __init__(self, image: KernelImage, files: Files, events: list[list[Any]]) -> None:
        self._image = image
        self._files = files
        self._events = events
        self.numbers = {0: 0}
        """File -> its recorded number."""
        self.shmem_released: Callable[[int], None] = lambda inode: None
        self._next_shmem = FIRST_SHMEM
        operations = image.statics.shmem_file_operations
        operations.mmap = image.functions.address(self._mapped_shmem)
        operations.release = image.functions.address(self._released_shmem)
        self._tables = iter(range(phys_to_virt(GUEST_TEXT), phys_to_virt(GUEST_TEXT) + 4096, 128))
        self.by_number = {0: 0} | {number: self._open(number) for number in FILES}

    def _operations(self, kind: CType, **functions: Callable[..., int]) -> int:
        """A table of operations, in a part of the image that only guests use."""
        vaddr = next(self._tables)
        view = self._image.at(kind, vaddr)
        for name, function in functions.items():
            setattr(view, name, self._image.functions.address(function))
        return vaddr

    def _open(self, number: int) -> int:
        recorded, structs = FILES[number], self._image.structs
        pages = {"readpage": _nothing} | ({"writepage": _nothing} if recorded.writepage else {})
        inode = self._files.new_inode(
            0, self._operations(structs.address_space_operations, **pages)
        )
        view = self._files.inode(inode)
        view.i_writecount, view.i_flags = recorded.writecount, S_APPEND * recorded.append
        vm_ops = {"open": self._event("open"), "close": self._event("close")}
        vm_operations = self._operations(
            structs.vm_operations_struct, **(vm_ops if recorded.vm_ops else {})
        )

        def mmap(file: int, vma: int) -> int:
            area = self._image.at(structs.vm_area_struct, vma)
            writable = area.vm_flags & (VM_SHARED | VM_MAYWRITE)
            if writable == VM_SHARED | VM_MAYWRITE and not recorded.writepage:
                return -EINVAL
            area.vm_ops = vm_operations
            return 0

        mapping = {"mmap": mmap} if recorded.mmap else {}
        f_op = self._operations(structs.file_operations, **mapping)
        file = self._files.open_inode(inode, f"file{number}", recorded.mode, f_op)
        self.numbers[file] = number
        return file

    def _event(self, name: str) -> Callable[[int], int]:
        def call(vma: int) -> int:
            area = self._image.at(self._image.structs.vm_area_struct, vma)
            self._events.append([name, area.vm_start, area.vm_end])
            return 0

        return call

    def _mapped_shmem(self, file: int, vma: int) -> int:
        """``mmap`` of such a file: that it exists lets the mapping be moved and mapped again."""
        return 0

    def _released_shmem(self, inode: int, file: int) -> int:
        """``release`` of a shared anonymous mapping's file."""
        number = self.numbers.pop(file)
        del self.by_number[number]
        self._events.append(["release", number, 0])
        self.shmem_released(inode)
        return 0

    def number_shmem(self, file: int) -> None:
        """A shared anonymous mapping got its file."""
        self.numbers[file] = self._next_shmem
        self.by_number[self._next_shmem] = file
        self._next_shmem += 1

    def state(self) -> list[list[Any]]:
        """Each file with its references, who may write, and the VMAs of its mapping."""
        rows = []
        for number in sorted(self.by_number.keys() - {0}):
            file = self.by_number[number]
            inode = self._files.inode(self._files.inode_of(file))
            counts = [number, self._files.file(file).f_count, inode.i_writecount]
            rows.append([*counts, *self.mapped(int(inode.i_mapping))])
        return rows

    def mapped(self, mapping: int) -> list[Any]:
        """The VMAs of a file, as 2.4 keeps them."""
        space = self._image.at(self._image.structs.address_space, mapping)
        return [self._shared(space.i_mmap), self._shared(space.i_mmap_shared)]

    def _shared(self, vma: int) -> list[int]:
        starts = []
        while vma:
            area = self._image.at(self._image.structs.vm_area_struct, vma)
            starts.append(area.vm_start)
            vma = area.vm_next_share
        return starts


class RecordedTreeFiles(RecordedFiles):
    """The same, with the VMAs of a file as 2.6 keeps them."""

    def __init__(self, image: KernelImage, files: Files, events: list[list[Any]]) -> None:
        super().__init__(image, files, events)
        self._trees = VmaPrioTree(image.ram)
        self._lists = Lists(image.ram)
        self._mapping = image.structs.address_space

    def mapped(self, mapping: int) -> list[Any]:
        root = mapping + self._mapping.offset("i_mmap")
        tree, nodes = self._trees.tree, self._preorder(self._trees.tree.root(root))
        return [
            [self._start(vma) for node in nodes for vma in self._trees.sharing(node)],
            [self._start(vma) for vma in self._nonlinear(mapping)],
            tree.index_bits(root),
            [self._node(node) for node in nodes],
        ]

    def _preorder(self, node: int) -> list[int]:
        if not node:
            return []
        below = [self._preorder(self._trees.tree.child(node, side)) for side in (LEFT, RIGHT)]
        return [node, *below[0], *below[1]]

    def _start(self, vma: int) -> int:
        return int(self._image.at(self._image.structs.vm_area_struct, vma).vm_start)

    def _nonlinear(self, mapping: int) -> list[int]:
        head = mapping + self._mapping.offset("i_mmap_nonlinear")
        return [entry - VM_SHARED_NODE for entry in self._lists.entries(head)]

    def _node(self, node: int) -> list[int]:
        """First VMA, first and last page, and whether there is anything left, right, on a list."""
        tree, vma = self._trees.tree, node - VM_SHARED_NODE
        below = [bool(tree.child(node, side)) for side in (LEFT, RIGHT)]
        shape = below[0] | below[1] << 1 | bool(self._trees.head(vma)) << 2
        return [self._start(vma), *tree.index(node), shape]


class RecordedShmem(ShmemFiles):
    """Numbers the files that it makes."""

    def __init__(self, image: KernelImage, files: Files, recorded: RecordedFiles) -> None:
        super().__init__(image, files, lambda pages: True)
        self._recorded = recorded

    def shmem_file_setup(self, name: str, size: int, vm_flags: int = 0) -> int:
        file = super().shmem_file_setup(name, size, vm_flags)
        if file > 0:
            self._recorded.number_shmem(file)
        return file


class ChargedShmem:
    """The files of shared anonymous mappings of 2.6, which are charged what they may come to be."""

    def __init__(
        self,
        image: KernelImage,
        files: Files,
        recorded: RecordedFiles,
        limits: Callable[[], Limits],
    ) -> None:
        self._image = image
        self._files = files
        self._recorded = recorded
        self._limits = limits
        self._charged: dict[int, int] = {}
        """Inode -> pages."""
        recorded.shmem_released = self._released

    def shmem_zero_setup(self, vma: int) -> int:
        area = self._image.at(self._image.structs.vm_area_struct, vma)
        pages = area.vm_end - area.vm_start >> PAGE_SHIFT if area.vm_flags & VM_ACCOUNT else 0
        if not self._limits().vm_enough_memory(pages):
            return -ENOMEM
        operations = self._image.symbol("shmem_file_operations")
        inode = self._files.new_inode(area.vm_end - area.vm_start)
        mode, file = FMODE_READ | FMODE_WRITE, 0
        if inode and not (file := self._files.open_inode(inode, "dev/zero", mode, operations)):
            self._files.iput(inode)
        if not file:
            self._limits().vm_unacct_memory(pages)
            return -ENOMEM
        self._charged[inode] = pages
        self._recorded.number_shmem(file)
        area.vm_file = file
        return 0

    def charge_of(self, file: int) -> int:
        """Pages that one of these files was charged; 0 for any other."""
        return self._charged.get(self._files.inode_of(file), 0) if file else 0

    def _released(self, inode: int) -> None:
        self._limits().vm_unacct_memory(self._charged.pop(inode))
