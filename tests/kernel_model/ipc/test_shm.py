# SPDX-License-Identifier: GPL-2.0-or-later
"""System V's shared memory: keys, rights, attachments and their ends, on both releases."""

import pytest

from kernel_model.config import MIB, KernelConfig
from kernel_model.ipc.shm import (
    IPC_CREAT,
    IPC_EXCL,
    IPC_PRIVATE,
    SHM_HUGETLB,
    SHM_RDONLY,
    SHM_REMAP,
    SHM_RND,
    SHMMAX,
    IpcCaller,
    Shm,
    ShmidDs,
)
from kernel_model.kernel import Kernel, boot
from tests.kernel_model.mm.user_spaces import UserSpaces

ENOENT, EAGAIN, ENOMEM, EACCES, EEXIST, EINVAL, EIDRM, EPERM = 2, 11, 12, 13, 17, 22, 43, 1
PAGE = 4096
ROOT = IpcCaller()
OWNER = IpcCaller(1000, 100, (), capable=False)
GROUP = IpcCaller(1001, 200, (100,), capable=False)
OTHER = IpcCaller(1002, 300, (), capable=False)


class Segments:
    """A kernel with one process, which is current."""

    def __init__(self, release: str, nr_hugepages: int = 0) -> None:
        config = KernelConfig(release=release, ram=48 * MIB, nr_hugepages=nr_hugepages)
        self.kernel: Kernel = boot(config)
        self.shm: Shm = self.kernel.shm
        self.processes = UserSpaces(self.kernel)
        self.process = self.processes.start()
        self.processes.enter(self.process)

    def get(
        self, key: int, size: int, flags: int = IPC_CREAT | 0o600, who: IpcCaller = ROOT
    ) -> int:
        return self.shm.sys_shmget(key, size, flags, who)

    def attach(self, shmid: int, addr: int = 0, flags: int = 0, who: IpcCaller = ROOT) -> int:
        return self.shm.do_shmat(shmid, addr, flags, who)

    def stat(self, shmid: int, who: IpcCaller = ROOT) -> ShmidDs:
        found = self.shm.shmctl_stat(shmid, who)
        assert isinstance(found, ShmidDs), found
        return found

    def page(self, addr: int) -> int:
        """The frame at an address, after a write."""
        mm = int(self.kernel.image.current_task.mm)
        pages, error = self.kernel.memory.get_user_pages(mm, addr, 1, write=True)
        assert not error
        self.kernel.allocator.put_page(pages[0])
        return self.kernel.allocator.memmap.pfn(pages[0])


@pytest.fixture(params=["2.4", "2.6"])
def segments(request: pytest.FixtureRequest) -> Segments:
    return Segments(request.param)


@pytest.mark.book("4.4.1")
@pytest.mark.book("4.4.1", release="2.6")
def test_keys(segments: Segments) -> None:
    first = segments.get(7, 2 * PAGE + 1)
    assert segments.get(7, PAGE) == first
    assert segments.get(7, 2 * PAGE + 2) == -EINVAL
    assert segments.get(7, PAGE, IPC_CREAT | IPC_EXCL) == -EEXIST
    assert segments.get(8, PAGE, 0o600) == -ENOENT
    assert segments.get(IPC_PRIVATE, PAGE) != segments.get(IPC_PRIVATE, PAGE)
    assert segments.get(9, 0) == segments.get(9, SHMMAX + 1) == -EINVAL
    assert segments.kernel.statics.shm_tot == 5
    assert len(segments.shm.segments()) == 3
    assert segments.shm.shmctl_rmid(first, ROOT) == 0
    assert segments.kernel.statics.shm_tot == 2
    again = segments.get(7, PAGE)
    assert again != first
    assert segments.shm.shmctl_rmid(first, ROOT) == -EIDRM
    assert segments.shm.shmctl_rmid(4000, ROOT) == segments.shm.shmctl_rmid(-1, ROOT) == -EINVAL


@pytest.mark.book("4.4.1")
@pytest.mark.book("4.4.1", release="2.6")
def test_it_lives_as_long_as_somebody_has_it(segments: Segments) -> None:
    kernel = segments.kernel
    shmid = segments.get(7, 3 * PAGE)
    at, again = segments.attach(shmid), segments.attach(shmid)
    frame = segments.page(at + PAGE)
    assert frame == segments.page(again + PAGE)
    child = segments.processes.fork(segments.process)
    assert segments.stat(shmid).nattch == 4
    assert segments.shm.sys_shmdt(again) == 0
    assert segments.shm.sys_shmdt(again) == -EINVAL
    assert segments.shm.shmctl_rmid(shmid, ROOT) == 0
    assert segments.get(7, PAGE, 0o600) == -ENOENT
    found = segments.stat(shmid)
    assert (found.nattch, found.key, found.mode & 0o1000) == (3, 0, 0o1000)
    assert segments.shm.sys_shmdt(at) == 0
    with segments.processes.running(child):
        assert segments.page(at + PAGE) == frame
    assert kernel.statics.shm_ids.in_use == 1
    segments.processes.exit(child)
    assert (kernel.statics.shm_ids.in_use, kernel.statics.shm_ids.max_id) == (0, -1)
    assert kernel.statics.inodes_stat.nr_inodes == 0
    assert segments.shm.segments() == []


@pytest.mark.book("4.4.1", release="2.6")
def test_where_it_may_be_attached(segments: Segments) -> None:
    shmid = segments.get(7, 2 * PAGE)
    at = 0x50000000
    assert segments.attach(shmid, at + 5) == -EINVAL
    assert segments.attach(shmid, at + 5, SHM_RND) == at
    assert segments.attach(shmid, at + PAGE) == -EINVAL
    assert segments.attach(shmid, at + PAGE, SHM_REMAP) == at + PAGE
    assert segments.attach(shmid, 0, SHM_REMAP) == -EINVAL
    assert segments.attach(shmid + 1) == segments.attach(-1) == -EINVAL
    assert segments.stat(shmid).nattch == 2
    spaces, mm = segments.kernel.spaces, int(segments.kernel.image.current_task.mm)
    spaces.areas.mm(mm).start_stack = 0x60000000
    assert segments.attach(shmid, 0x60000000 - 6 * PAGE) == -EINVAL
    assert segments.attach(shmid, 0x60000000 - 7 * PAGE) > 0
    # What is left of the first attachment goes, and nothing of the others.
    assert segments.shm.sys_shmdt(at) == 0
    assert segments.stat(shmid).nattch == 2


@pytest.mark.book("4.4.1", release="2.6")
def test_rights(segments: Segments) -> None:
    shmid = segments.get(7, PAGE, IPC_CREAT | 0o640, OWNER)
    assert segments.get(7, PAGE, 0o600, OWNER) == shmid
    assert segments.get(7, PAGE, 0o400, GROUP) == shmid
    assert segments.get(7, PAGE, 0o600, GROUP) == -EACCES
    assert segments.get(7, PAGE, 0o400, OTHER) == -EACCES
    assert segments.attach(shmid, 0, 0, GROUP) == -EACCES
    at = segments.attach(shmid, 0, SHM_RDONLY, GROUP)
    assert at > 0
    mm = int(segments.kernel.image.current_task.mm)
    assert segments.kernel.memory.get_user_pages(mm, at, 1, write=True) == ([], -14)
    assert segments.shm.shmctl_stat(shmid, OTHER) == -EACCES
    found = segments.stat(shmid, GROUP)
    assert (found.uid, found.gid, found.cuid, found.mode) == (1000, 100, 1000, 0o640)
    assert segments.shm.shmctl_rmid(shmid, GROUP) == -EPERM
    assert segments.shm.shmctl_set(shmid, 1002, 300, 0o600, GROUP) == -EPERM
    assert segments.shm.shmctl_set(shmid, 1002, 300, 0o7600, OWNER) == 0
    assert segments.stat(shmid, OTHER).mode == 0o600
    assert segments.shm.shmctl_rmid(shmid, OTHER) == 0


@pytest.mark.book("3.10", release="2.6")
def test_huge_pages() -> None:
    """Who has them attached is not counted; the file lives as long as it is mapped."""
    segments = Segments("2.6", 3)
    statics, size = segments.kernel.statics, 4 * MIB
    shmid = segments.get(7, size + 1, IPC_CREAT | SHM_HUGETLB | 0o600)
    assert statics.free_huge_pages == 3
    assert segments.attach(shmid) == -EINVAL
    assert segments.shm.shmctl_rmid(shmid, ROOT) == 0
    shmid = segments.get(7, 2 * size, IPC_CREAT | SHM_HUGETLB | 0o600)
    at = segments.attach(shmid)
    assert (at % size, statics.free_huge_pages) == (0, 1)
    child = segments.processes.fork(segments.process)
    assert segments.stat(shmid).nattch == 2
    assert segments.shm.shmctl_rmid(shmid, ROOT) == 0
    assert segments.get(7, size, 0o600) == -ENOENT
    assert segments.shm.sys_shmdt(at) == 0
    assert statics.free_huge_pages == 1
    segments.processes.exit(child)
    assert statics.free_huge_pages == 3
    segments.processes.enter(segments.process)
    assert segments.get(7, 4 * size, IPC_CREAT | SHM_HUGETLB) == -ENOMEM
    segments.kernel.image.current_task.rlim[8].rlim_cur = 0
    assert segments.get(7, size, IPC_CREAT | SHM_HUGETLB, OWNER) == -EPERM
    statics.sysctl_hugetlb_shm_group = 100
    assert segments.get(7, size, IPC_CREAT | SHM_HUGETLB, GROUP) == -ENOMEM
    segments.kernel.image.current_task.rlim[8].rlim_cur = size
    assert segments.get(7, size, IPC_CREAT | SHM_HUGETLB, GROUP) > 0


FAULTS = {
    "nobody counts who attaches": ("shm_open", lambda shm, vma: None),
    "a segment outlives its last user": ("_destroy", lambda shm, view: None),
    "every place of the table is the first": ("_checked", lambda shm, n: (shm._lock(n), 0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    name, wrong = FAULTS[fault]
    monkeypatch.setattr(Shm, name, wrong)

    def run() -> None:
        test_keys(Segments("2.4"))
        test_it_lives_as_long_as_somebody_has_it(Segments("2.4"))

    with pytest.raises(AssertionError):
        run()
