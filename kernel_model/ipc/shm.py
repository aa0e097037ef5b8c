# SPDX-License-Identifier: GPL-2.0-or-later
"""System V's shared memory: files without names, found by keys, mapped by processes.

Models ``ipc/shm.c`` of linux-2.4.22 and 2.6.11, and of ``ipc/util.c`` what it needs (book 4.4.1,
3.10). A segment is a file of shmem, or with ``SHM_HUGETLB`` one of huge pages. It lives until it is
marked for removal and nobody has it attached. Who has huge pages attached is not counted; their
segment goes at once, and the file lives as long as it is mapped.

In RAM: a ``struct shmid_kernel`` for each segment, their table ``shm_ids``; ``i_ino`` of the file
is the segment's identifier. Not modelled: what a user has locked in all (``user_struct``).

What can fail: a negative error, as of the system call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.errno import (
    EACCES,
    EEXIST,
    EIDRM,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOSPC,
    EPERM,
)
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import Files, NamedObjects
from kernel_model.image import KernelImage
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.mmap.find import Finder
from kernel_model.structs.ipc import SHMMNI
from kernel_model.structs.mman import MAP_FIXED, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE
from kernel_model.structs.sched import RLIMIT_MEMLOCK

IPC_PRIVATE: Final = 0
IPC_CREAT: Final = 0o1000
IPC_EXCL: Final = 0o2000
SHM_DEST: Final = 0o1000
"""In the mode of a segment: it goes with its last attachment."""
SHM_HUGETLB: Final = 0o4000
SHM_RDONLY: Final = 0o10000
SHM_RND: Final = 0o20000
SHM_REMAP: Final = 0o40000
SHM_EXEC: Final = 0o100000

SHMMAX: Final = 0x2000000
SHMALL: Final = SHMMAX // PAGE_SIZE * (SHMMNI // 16)
SEQ_MULTIPLIER: Final = 32768
_SEQ_MAX: Final = 0xFFFF
_ACCESS: Final = 0o777
_GUARD_PAGES: Final = 5


class ShmFiles(Protocol):
    """Where the files of segments come from (``mm/shmem.c``)."""

    def shmem_file_setup(self, name: str, size: int) -> int:
        """An open file of ``size`` zeros without a name; below 0 an error."""


HugeFile = Callable[[int], int]
"""``hugetlb_zero_setup(size)``: the same of huge pages."""


@dataclass(frozen=True, slots=True)
class IpcCaller:
    """Who calls."""

    euid: int = 0
    egid: int = 0
    groups: tuple[int, ...] = ()
    capable: bool = True
    """``CAP_IPC_OWNER``, ``CAP_IPC_LOCK`` and ``CAP_SYS_ADMIN``, which go together here."""


class ShmidDs(NamedTuple):
    """What ``shmctl(IPC_STAT)`` tells."""

    key: int
    uid: int
    gid: int
    cuid: int
    cgid: int
    mode: int
    seq: int
    segsz: int
    atime: int
    dtime: int
    ctime: int
    cpid: int
    lpid: int
    nattch: int


class Shm:
    """All segments of a machine. ``get_seconds`` is the machine's clock."""

    def __init__(
        self,
        image: KernelImage,
        slab: NamedObjects,
        files: Files,
        spaces: AddressSpaces,
        shmem: ShmFiles,
        hugetlb_zero_setup: HugeFile | None,
    ) -> None:
        self.get_seconds: Callable[[], int] = lambda: 0
        self._image = image
        self._slab = slab
        self._files = files
        self._spaces = spaces
        self._areas = spaces.areas
        self._finder: Finder = spaces.parts.finder
        self._shmem = shmem
        self._hugetlb_zero_setup = hugetlb_zero_setup
        self._statics = statics = image.statics
        self._kind = image.structs.shmid_kernel
        self._ids = statics.shm_ids
        self._ids.in_use, self._ids.max_id, self._ids.seq, self._ids.seq_max = 0, -1, 0, _SEQ_MAX
        statics.shm_ctlmax, statics.shm_ctlall, statics.shm_ctlmni = SHMMAX, SHMALL, SHMMNI
        address = image.functions.address
        statics.shm_file_operations.mmap = address(self.shm_mmap)
        statics.shm_vm_ops.open = address(self.shm_open)
        statics.shm_vm_ops.close = address(self.shm_close)
        statics.shm_vm_ops.nopage = statics.shmem_vm_ops.nopage

    # -- the table -----------------------------------------------------------------------------

    def _view(self, shp: int) -> Any:
        return self._image.at(self._kind, shp)

    def _lock(self, shmid: int) -> Any:
        """The segment in the identifier's place of the table; None: there is none."""
        shp = int(self._ids.entries[shmid % SEQ_MULTIPLIER % SHMMNI])
        return self._view(shp) if shp else None

    def _checked(self, shmid: int) -> tuple[Any, int]:
        """The segment of an identifier, or None and an error. Another one may be there by now."""
        view = self._lock(shmid) if shmid >= 0 else None
        if view is None:
            return None, -EINVAL
        return (view, 0) if shmid // SEQ_MULTIPLIER == view.shm_perm.seq else (None, -EIDRM)

    def _add(self, shp: int, caller: IpcCaller) -> int:
        """``ipc_addid()``: a place in the table; -1: there is none."""
        ids = self._ids
        place = next((at for at in range(int(self._statics.shm_ctlmni)) if not ids.entries[at]), -1)
        if place < 0:
            return -1
        ids.in_use += 1
        ids.max_id = max(int(ids.max_id), place)
        perm = self._view(shp).shm_perm
        perm.cuid = perm.uid = caller.euid
        perm.cgid = perm.gid = caller.egid
        perm.seq, perm.deleted = ids.seq, 0
        ids.seq = 0 if ids.seq >= ids.seq_max else ids.seq + 1
        ids.entries[place] = shp
        return place

    def _remove(self, shmid: int) -> int:
        """``ipc_rmid()``."""
        ids, place = self._ids, shmid % SEQ_MULTIPLIER
        shp = int(ids.entries[place])
        ids.entries[place] = 0
        ids.in_use -= 1
        if place == ids.max_id:
            ids.max_id = max((at for at in range(place) if ids.entries[at]), default=-1)
        self._view(shp).shm_perm.deleted = 1
        return shp

    def segments(self) -> list[int]:
        """The identifiers of all segments."""
        places = range(int(self._ids.max_id) + 1)
        return [int(self._view(int(p)).id) for at in places if (p := self._ids.entries[at])]

    def _find_key(self, key: int) -> Any:
        for at in range(int(self._ids.max_id) + 1):
            shp = int(self._ids.entries[at])
            if shp and self._view(shp).shm_perm.key == key:
                return self._view(shp)
        return None

    @staticmethod
    def _ipcperms(perm: Any, flag: int, caller: IpcCaller) -> bool:
        """Whether the segment's mode lets the caller do what ``flag`` asks for."""
        wanted, granted = flag >> 6 | flag >> 3 | flag, int(perm.mode)
        if caller.euid in (perm.cuid, perm.uid):
            granted >>= 6
        elif {int(perm.cgid), int(perm.gid)} & {caller.egid, *caller.groups}:
            granted >>= 3
        return not wanted & ~granted & 7 or caller.capable

    # -- making --------------------------------------------------------------------------------

    def sys_shmget(self, key: int, size: int, shmflg: int, caller: IpcCaller) -> int:
        """The identifier of a segment with this key, or of a new one; or an error."""
        view = self._find_key(key) if key != IPC_PRIVATE else None
        if view is None:
            if key != IPC_PRIVATE and not shmflg & IPC_CREAT:
                return -ENOENT
            return self._newseg(key, shmflg, size, caller)
        if shmflg & IPC_CREAT and shmflg & IPC_EXCL:
            return -EEXIST
        if view.shm_segsz < size:
            return -EINVAL
        return int(view.id) if self._ipcperms(view.shm_perm, shmflg, caller) else -EACCES

    def _newseg(self, key: int, shmflg: int, size: int, caller: IpcCaller) -> int:
        statics, pages = self._statics, size + PAGE_SIZE - 1 >> PAGE_SHIFT
        if not 1 <= size <= statics.shm_ctlmax:
            return -EINVAL
        if statics.shm_tot + pages >= statics.shm_ctlall:
            return -ENOSPC
        shp = self._slab.kmalloc(self._kind.size, self._image.constants.gfp.kernel)
        if not shp:
            return -ENOMEM
        self._image.ram.fill(virt_to_phys(shp), self._kind.size)
        file = self._new_file(key, shmflg, size, caller)
        if file < 0:
            self._slab.kfree(shp)
            return file
        place = self._add(shp, caller)
        if place < 0:
            self._files.fput(file)
            self._slab.kfree(shp)
            return -ENOSPC
        view = self._view(shp)
        view.shm_perm.key, view.shm_perm.mode = key, shmflg & _ACCESS
        view.shm_cprid, view.shm_ctim = self._image.current_task.pid, self.get_seconds()
        view.shm_segsz, view.shm_file = size, file
        view.id = place + SEQ_MULTIPLIER * int(view.shm_perm.seq)
        self._files.inode(self._files.inode_of(file)).i_ino = view.id
        if not self._files.is_file_hugepages(file):
            self._files.file(file).f_op = self._image.symbol("shm_file_operations")
        statics.shm_tot += pages
        return int(view.id)

    def _new_file(self, key: int, shmflg: int, size: int, caller: IpcCaller) -> int:
        if not shmflg & SHM_HUGETLB or self._hugetlb_zero_setup is None:
            return self._shmem.shmem_file_setup(f"SYSV{key & 0xFFFFFFFF:08x}", size)
        return self._refuse_huge_pages(size, caller) or self._hugetlb_zero_setup(size)

    def _refuse_huge_pages(self, size: int, caller: IpcCaller) -> int:
        """``can_do_hugetlb_shm()`` and ``user_shm_lock()``: huge pages count as locked memory. What
        others of the same user have is not added up."""
        limit = int(self._image.current_task.rlim[RLIMIT_MEMLOCK].rlim_cur)
        group = int(self._statics.sysctl_hugetlb_shm_group)
        if caller.capable:
            return 0
        if not limit and group not in (caller.egid, *caller.groups):
            return -EPERM
        return -ENOMEM if size + PAGE_SIZE - 1 >> PAGE_SHIFT > limit >> PAGE_SHIFT else 0

    # -- attaching -----------------------------------------------------------------------------

    def do_shmat(self, shmid: int, addr: int, shmflg: int, caller: IpcCaller) -> int:
        """Map all of a segment. Where, or an error."""
        if addr & ~PAGE_MASK and shmflg & SHM_RND:
            addr &= PAGE_MASK
        if shmid < 0 or addr & ~PAGE_MASK or (not addr and shmflg & SHM_REMAP):
            return -EINVAL
        view, error = self._checked(shmid)
        if error:
            return error
        prot, wanted = PROT_READ | PROT_WRITE, 0o666
        if shmflg & SHM_RDONLY:
            prot, wanted = PROT_READ, 0o444
        if shmflg & SHM_EXEC:
            prot, wanted = prot | PROT_EXEC, wanted | 0o111
        if not self._ipcperms(view.shm_perm, wanted, caller):
            return -EACCES
        file = int(view.shm_file)
        size = int(self._files.inode(self._files.inode_of(file)).i_size)
        view.shm_nattch += 1
        where = self._map(file, addr, size, prot, shmflg)
        self._detached(shmid)
        return where

    def _map(self, file: int, addr: int, size: int, prot: int, shmflg: int) -> int:
        mm, flags = self._areas.current_mm, MAP_SHARED | (MAP_FIXED if addr else 0)
        if addr and not shmflg & SHM_REMAP:
            if self._finder.find_vma_intersection(mm, addr, addr + size):
                return -EINVAL
            # A stack above it shall have some room to grow.
            stack = self._areas.mm(mm).start_stack
            if addr < stack and addr > (stack - size - PAGE_SIZE * _GUARD_PAGES & 0xFFFFFFFF):
                return -EINVAL
        return self._spaces.do_mmap(file, addr, size, prot, flags, 0)

    def shm_mmap(self, file: int, vma: int) -> int:
        """``mmap`` of a segment's file."""
        self._areas.vma(vma).vm_ops = self._image.symbol("shm_vm_ops")
        self.shm_open(vma)
        return 0

    def _shmid_of(self, vma: int) -> int:
        file = self._areas.vma(vma).vm_file
        return int(self._files.inode(self._files.inode_of(file)).i_ino)

    def shm_open(self, vma: int) -> None:
        """One more VMA has the segment."""
        view = self._lock(self._shmid_of(vma))
        if view is None:
            raise KernelBug("shm.c", 93, "a VMA maps a segment that is gone")
        view.shm_atim, view.shm_lprid = self.get_seconds(), self._image.current_task.pid
        view.shm_nattch += 1

    def shm_close(self, vma: int) -> None:
        """One less; a segment that is marked goes with the last."""
        shmid = self._shmid_of(vma)
        view = self._lock(shmid)
        if view is None:
            raise KernelBug("shm.c", 139, "a VMA maps a segment that is gone")
        view.shm_dtim, view.shm_lprid = self.get_seconds(), self._image.current_task.pid
        self._detached(shmid)

    def _detached(self, shmid: int) -> None:
        view = self._lock(shmid)
        view.shm_nattch -= 1
        if not view.shm_nattch and view.shm_perm.mode & SHM_DEST:
            self._destroy(view)

    def sys_shmdt(self, addr: int) -> int:
        """Unmap the segment that was attached at ``addr``, or what is left of it. 0 or
        ``-EINVAL``."""
        mm, size, result = self._areas.current_mm, -1, -EINVAL
        for vma in self._areas.list(mm):
            area = self._areas.vma(vma)
            if area.vm_end <= addr or (size >= 0 and area.vm_end - addr > size):
                continue
            if not self._part_of_segment(vma, addr):
                continue
            if size < 0:
                size = int(self._files.inode(self._files.inode_of(area.vm_file)).i_size)
            self._spaces.do_munmap(mm, area.vm_start, area.vm_end - area.vm_start)
            result = 0
        return result

    def _part_of_segment(self, vma: int, addr: int) -> bool:
        """Whether a VMA maps what of a segment would be there, had it been attached at ``addr``."""
        area = self._areas.vma(vma)
        segment = area.vm_ops == self._image.symbol("shm_vm_ops")
        if not segment and not self._files.is_file_hugepages(area.vm_file):
            return False
        return area.vm_start - addr >> PAGE_SHIFT == area.vm_pgoff

    # -- ending --------------------------------------------------------------------------------

    def shmctl_rmid(self, shmid: int, caller: IpcCaller) -> int:
        """``shmctl(IPC_RMID)``: no key finds it any more; it goes when nobody has it attached."""
        view, error = self._owned(shmid, caller)
        if error:
            return error
        if view.shm_nattch:
            view.shm_perm.mode |= SHM_DEST
            view.shm_perm.key = IPC_PRIVATE
        else:
            self._destroy(view)
        return 0

    def _owned(self, shmid: int, caller: IpcCaller) -> tuple[Any, int]:
        """A segment that the caller may change, or None and an error."""
        view, error = self._checked(shmid)
        if error:
            return None, error
        perm = view.shm_perm
        allowed = caller.euid in (perm.uid, perm.cuid) or caller.capable
        return (view, 0) if allowed else (None, -EPERM)

    def _destroy(self, view: Any) -> None:
        self._statics.shm_tot -= int(view.shm_segsz) + PAGE_SIZE - 1 >> PAGE_SHIFT
        file = int(view.shm_file)
        shp = self._remove(int(view.id))
        self._files.fput(file)
        self._slab.kfree(shp)

    # -- asking and changing -------------------------------------------------------------------

    def shmctl_stat(self, shmid: int, caller: IpcCaller) -> ShmidDs | int:
        """``shmctl(IPC_STAT)``, or an error."""
        view, error = self._checked(shmid)
        if error:
            return error
        perm, file = view.shm_perm, int(view.shm_file)
        if not self._ipcperms(perm, 0o444, caller):
            return -EACCES
        attached = int(view.shm_nattch)
        if self._files.is_file_hugepages(file):
            attached = int(self._files.file(file).f_count) - 1
        who = (getattr(perm, name) for name in ShmidDs._fields[:7])
        what = ("segsz", "atim", "dtim", "ctim", "cprid", "lprid")
        rest = (getattr(view, f"shm_{name}") for name in what)
        return ShmidDs._make([*(int(field) for field in (*who, *rest)), attached])

    def shmctl_set(self, shmid: int, uid: int, gid: int, mode: int, caller: IpcCaller) -> int:
        """``shmctl(IPC_SET)``: another owner and mode."""
        view, error = self._owned(shmid, caller)
        if error:
            return error
        perm = view.shm_perm
        perm.uid, perm.gid = uid, gid
        perm.mode = perm.mode & ~_ACCESS | mode & _ACCESS
        view.shm_ctim = self.get_seconds()
        return 0
