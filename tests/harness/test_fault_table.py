# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of each kind of access to each kind of page, by each kind of code.

One table: who accesses (ring 3; ring 0 through ``get_user()`` and its kin; ring 0 bare), how, and
what. Each row is run on the CPU. ``code`` is the error code of the first fault, ``-`` for none;
``outcome`` what ``do_page_fault()`` made of it; ``page`` the PTE afterwards (``zero``: it names the
zero page; P present, W writable, U user, A accessed, D dirty, N kept but for nobody: the CPU sees
it as absent); ``rss`` how many frames more the process has. A page of zeros that is executed runs
on; what becomes of that is not looked at, and ring 0 is stopped soon. The table was written from
the Intel manual (volume 3A, 4.7) and the book (4.6), not from what the model answered.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.binfmt_elf import ElfLoader
from harness.elf import load_elf
from harness.guests import guest_path
from harness.machine import GuestDied, GuestStopped, Limits, Machine, paging_variant
from harness.uaccess import UserAccess
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.arch_i386.signal import SigInfo
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.memory.fault import ZERO_PFN
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from tests.harness.frame_accounting import check_machine
from tests.harness.program_file import ProgramFile
from tests.kernel_model.mm.user_spaces import UserSpaces

TABLE = """
who      access  what           code  outcome       page           rss
user     read    unmapped       4     SEGV_MAPERR   none             0
user     write   unmapped       6     SEGV_MAPERR   none             0
user     exec    unmapped       4     SEGV_MAPERR   none             0
user     read    anonymous      4     minor         zero P U A       0
user     write   anonymous      6     minor         P W U A D        1
user     exec    anonymous      4     minor         zero P U A       0
user     read    zero page      -     -             zero P U A       0
user     write   zero page      7     minor         P W U A D        1
user     exec    zero page      -     -             zero P U A       0
user     read    private file   4     major         P U A            1
user     write   private file   6     major         P W U A D        1
user     exec    private file   4     major         P U A            1
user     read    shared file    4     major         P W U A          1
user     write   shared file    6     major         P W U A D        1
user     exec    shared file    4     major         P W U A          1
user     read    read-only      4     minor         zero P U A       0
user     write   read-only      6     SEGV_ACCERR   none             0
user     exec    read-only      4     minor         zero P U A       0
user     read    read-only file 4     major         P U A            1
user     write   read-only file 6     SEGV_ACCERR   none             0
user     exec    read-only file 4     major         P U A            1
user     read    PROT_NONE      4     SEGV_ACCERR   none             0
user     write   PROT_NONE      6     SEGV_ACCERR   none             0
user     exec    PROT_NONE      4     SEGV_ACCERR   none             0
user     read    was writable   4     SEGV_ACCERR   N A D            0
user     read    stack guard    4     SEGV_MAPERR   none             0
user     write   stack guard    6     SEGV_MAPERR   none             0
user     exec    stack guard    4     SEGV_MAPERR   none             0
user     read    below ESP      4     minor         zero P U A       0
user     write   below ESP      6     minor         P W U A D        1
user     read    behind EOF     4     BUS_ADRERR    none             0
user     write   behind EOF     6     BUS_ADRERR    none             0
user     exec    behind EOF     4     BUS_ADRERR    none             0
user     read    kernel         5     SEGV_MAPERR   -                0
user     write   kernel         7     SEGV_MAPERR   -                0
user     exec    kernel         5     SEGV_MAPERR   -                0
user     read    kernel hole    4     SEGV_MAPERR   -                0
user     write   kernel hole    6     SEGV_MAPERR   -                0
user     exec    kernel hole    4     SEGV_MAPERR   -                0
uaccess  read    unmapped       0     fixup         none             0
uaccess  write   unmapped       2     fixup         none             0
uaccess  read    anonymous      0     minor         zero P U A       0
uaccess  write   anonymous      2     minor         P W U A D        1
uaccess  read    zero page      -     -             zero P U A       0
uaccess  write   zero page      3     minor         P W U A D        1
uaccess  read    private file   0     major         P U A            1
uaccess  write   private file   2     major         P W U A D        1
uaccess  read    shared file    0     major         P W U A          1
uaccess  write   shared file    2     major         P W U A D        1
uaccess  read    read-only      0     minor         zero P U A       0
uaccess  write   read-only      2     fixup         none             0
uaccess  read    read-only file 0     major         P U A            1
uaccess  write   read-only file 2     fixup         none             0
uaccess  read    PROT_NONE      0     fixup         none             0
uaccess  write   PROT_NONE      2     fixup         none             0
uaccess  read    stack guard    0     minor         zero P U A       0
uaccess  write   stack guard    2     minor         P W U A D        1
uaccess  read    behind EOF     0     BUS+fixup     none             0
uaccess  write   behind EOF     2     BUS+fixup     none             0
uaccess  read    kernel         -     EFAULT        -                0
uaccess  write   kernel         -     EFAULT        -                0
uaccess  read    kernel hole    -     EFAULT        -                0
uaccess  write   kernel hole    -     EFAULT        -                0
kernel   read    unmapped       0     oops          none             0
kernel   write   unmapped       2     oops          none             0
kernel   exec    unmapped       0     oops          none             0
kernel   read    anonymous      0     minor         zero P U A       0
kernel   write   anonymous      2     minor         P W U A D        1
kernel   exec    anonymous      0     minor         zero P U A       0
kernel   read    zero page      -     -             zero P U A       0
kernel   write   zero page      3     minor         P W U A D        1
kernel   exec    zero page      -     -             zero P U A       0
kernel   read    private file   0     major         P U A            1
kernel   write   private file   2     major         P W U A D        1
kernel   exec    private file   0     major         P U A            1
kernel   read    shared file    0     major         P W U A          1
kernel   write   shared file    2     major         P W U A D        1
kernel   exec    shared file    0     major         P W U A          1
kernel   read    read-only      0     minor         zero P U A       0
kernel   write   read-only      2     oops          none             0
kernel   exec    read-only      0     minor         zero P U A       0
kernel   read    read-only file 0     major         P U A            1
kernel   write   read-only file 2     oops          none             0
kernel   exec    read-only file 0     major         P U A            1
kernel   read    PROT_NONE      0     oops          none             0
kernel   write   PROT_NONE      2     oops          none             0
kernel   exec    PROT_NONE      0     oops          none             0
kernel   read    stack guard    0     minor         zero P U A       0
kernel   write   stack guard    2     minor         P W U A D        1
kernel   exec    stack guard    0     minor         zero P U A       0
kernel   read    behind EOF     0     BUS+oops      none             0
kernel   write   behind EOF     2     BUS+oops      none             0
kernel   exec    behind EOF     0     BUS+oops      none             0
kernel   read    kernel         -     -             -                0
kernel   write   kernel         -     -             -                0
kernel   exec    kernel         -     -             -                0
kernel   read    kernel hole    0     oops          -                0
kernel   write   kernel hole    2     oops          -                0
kernel   exec    kernel hole    0     oops          -                0
"""
COLUMNS = (0, 9, 17, 32, 38, 52, 65)

PAGE = 4096
PRIVATE, SHARED, ANONYMOUS, FIXED = 0x02, 0x01, 0x20, 0x10
RW, R, NONE = 3, 1, 0
CODE = bytes.fromhex("b8 78563412 c3")  # mov $0x12345678, %eax; ret
HOLE = 0xFB000000
FEW = 500
WAYS = {"read": 0, "write": 1, "exec": 2}


@dataclass(frozen=True)
class Row:
    who: str
    access: str
    what: str
    code: str
    outcome: str
    page: str
    rss: int

    def __str__(self) -> str:
        return f"{self.who} {self.access} {self.what}"


def rows() -> Iterator[Row]:
    for line in TABLE.strip().splitlines()[1:]:
        cells = [line[a:b].strip() for a, b in zip(COLUMNS, (*COLUMNS[1:], None), strict=True)]
        yield Row(*cells[:6], rss=int(cells[6]))


@dataclass
class World:
    """A machine with a process, and what its page faults came to."""

    config: KernelConfig
    faults: list[tuple[int, int, FaultKind]] = field(default_factory=list)
    signals: list[SigInfo] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = Machine(Kernel(self.config), image=self._image())
        self.kernel = kernel = self.machine.kernel
        self.spaces = UserSpaces(kernel)
        self.pgd = self.spaces.start()
        self.spaces.enter(self.pgd)
        self.program = load_elf(guest_path("access"))
        kernel.page_faults.force_sig_info = self.signals.append
        self.machine.on_fault = self._faulted
        loader = ElfLoader(kernel, UserAccess(self.machine))
        file = kernel.hostfs.open(ProgramFile(self.program.file), "access", FMODE_READ)
        _, self.esp = loader.load(self.program, file, [b"access"], [])
        self.pgd = self.spaces.after_exec(self.pgd)
        self.mm = self.spaces.mm(self.pgd)
        self.machine.on_trap = self._end
        self.machine.call("bare_read", self.program.symbols["user_read"])  # its text is there
        self.next = 0x50000000

    def _image(self) -> Path:
        return guest_path("fault_test", paging_variant(self.config))

    def _faulted(self, kind: FaultKind, _regs: int, error_code: int, address: int) -> None:
        self.faults.append((error_code, address, kind))

    def _end(self, *_: object) -> None:
        self.machine.cpu.stop()

    # -- what is accessed ------------------------------------------------------------------------

    def _map(self, prot: int, flags: int, file: int = 0, pages: int = 1) -> int:
        """A mapping away from all others."""
        self.next += 0x10000
        addr = self.kernel.spaces.do_mmap_pgoff(
            file, self.next, pages * PAGE, prot, flags | FIXED, 0
        )
        assert addr == self.next
        return addr

    def _anonymous(self, prot: int) -> int:
        return self._map(prot, PRIVATE | ANONYMOUS)

    def _file(self) -> int:
        return self.kernel.hostfs.open(Content(CODE), "content", FMODE_READ | FMODE_WRITE)

    def _zero_page(self) -> int:
        addr = self._anonymous(RW)
        assert self.machine.call("bare_read", addr) == 0
        return addr

    def _was_writable(self) -> int:
        addr = self._anonymous(RW)
        self.machine.call("bare_write", addr, 1)
        assert self.kernel.spaces.sys_mprotect(addr, PAGE, NONE) == 0
        return addr

    def _guard(self, distance: int) -> int:
        """``distance`` bytes below the stack's VMA, and so below ESP."""
        vma = self.kernel.spaces.find_vma(self.mm, self.esp)
        return int(self.kernel.spaces.areas.vma(vma).vm_start) - distance

    def place(self, what: str) -> int:
        makers: dict[str, Callable[[], int]] = {
            "unmapped": lambda: 0x4FFFF000,
            "anonymous": lambda: self._anonymous(RW),
            "zero page": self._zero_page,
            "private file": lambda: self._map(RW, PRIVATE, self._file()),
            "shared file": lambda: self._map(RW, SHARED, self._file()),
            "read-only": lambda: self._anonymous(R),
            "read-only file": lambda: self._map(R, PRIVATE, self._file()),
            "PROT_NONE": lambda: self._anonymous(NONE),
            "was writable": self._was_writable,
            "stack guard": lambda: self._guard(8 * PAGE),
            "below ESP": lambda: self._guard(4),
            "behind EOF": lambda: self._map(RW, PRIVATE, self._file(), 2) + PAGE,
            "kernel": lambda: self._kernel_page(),
            "kernel hole": lambda: HOLE,
        }
        return makers[what]()

    def _kernel_page(self) -> int:
        addr = self.machine.symbol("uaccess_buffer")
        self.machine.ram.write(addr - 0xC0000000, CODE)
        return addr

    # -- the access ------------------------------------------------------------------------------

    def make(self, row: Row, addr: int) -> int:
        """Returns EAX; what was faulted and signalled on the way is in the lists."""
        self.faults.clear()
        self.signals.clear()
        if row.who == "user":
            # A page below the stack may be touched only near ESP.
            esp = self._guard(0) + 28 if row.what == "below ESP" else self.esp
            entry = self.program.symbols[f"user_{row.access}"]
            return self.machine.call("call_user", entry, esp, addr, 0x5A5A)
        prefix = {"uaccess": "uaccess", "kernel": "bare"}[row.who]
        with self._few_instructions(row.access == "exec"):
            return self.machine.call(f"{prefix}_{row.access}", addr, 0x5A5A)
        return 0

    @contextmanager
    def _few_instructions(self, limited: bool) -> Iterator[None]:
        """Ring 0 that runs on through pages of zeros must not come to what lies behind them."""
        before, machine = self.machine.limits, self.machine
        if limited:
            machine.limits = Limits(instructions=FEW)
        try:
            with suppress(GuestStopped):
                yield
        finally:
            machine.limits = before

    def faults_at(self, addr: int) -> list[tuple[int, int, FaultKind]]:
        """The faults of this page."""
        return [fault for fault in self.faults if fault[1] >> 12 == addr >> 12]

    def page(self, addr: int) -> str:
        """The PTE of a user address, in the table's letters."""
        if addr >= 0xC0000000:
            return "-"
        ptep = self.kernel.memory.tables.pte_offset(self.pgd, addr)
        pte = self.kernel.tables.entry(ptep) if ptep else 0
        if not pte:
            return "none"
        bits = {0x1: "P", 0x2: "W", 0x4: "U", 0x80: "N", 0x20: "A", 0x40: "D"}
        letters = [letter for bit, letter in bits.items() if pte & bit]
        zero = ["zero"] if pte >> 12 == ZERO_PFN else []
        return " ".join([*zero, *letters])

    def rss(self) -> int:
        return int(self.kernel.spaces.areas.mm(self.mm).rss)


class Content:
    """A file of one page, in Python."""

    def __init__(self, content: bytes) -> None:
        self.content = content.ljust(PAGE, b"\0")
        self.size = PAGE

    def read_page(self, index: int) -> bytes:
        return self.content

    def write_page(self, index: int, data: bytes) -> None:
        self.content = data

    def truncate(self, size: int) -> None:
        raise AssertionError("nobody truncates it")


CONFIGS = {
    "2-level": KernelConfig(ram=32 * MIB),
    "486": KernelConfig(ram=32 * MIB, cpu_model="486"),
    "highmem": KernelConfig(ram=72 * MIB, highmem=Highmem.GB4, highmem_pages=2048),
    "PAE": KernelConfig(ram=72 * MIB, highmem=Highmem.GB64, highmem_pages=2048),
    "2.6": KernelConfig(release="2.6", ram=32 * MIB),
    "2.6 chains": KernelConfig(release="2.6", rmap="pte_chain", ram=32 * MIB),
    "2.6 highpte": KernelConfig(
        release="2.6", ram=72 * MIB, highmem=Highmem.GB64, highmem_pages=2048, highpte=True
    ),
}


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def world(request: pytest.FixtureRequest) -> World:
    return World(CONFIGS[request.param])


def outcome(world: World, row: Row, addr: int, eax: int) -> str:
    """What came of the first fault, in the table's words."""
    if not world.faults_at(addr):
        return "EFAULT" if row.who == "uaccess" and eax == 0xFFFFFFF2 else "-"
    kind = world.faults_at(addr)[0][2]
    names = {(11, 1): "SEGV_MAPERR", (11, 2): "SEGV_ACCERR", (7, 2): "BUS_ADRERR"}
    sent = [names[info.signo, info.code] for info in world.signals[:1]]
    if kind is FaultKind.SIGNAL:
        assert world.signals[0].addr == addr
        return sent[0]
    text = {FaultKind.MINOR: "minor", FaultKind.MAJOR: "major"}.get(kind, kind.value)
    return f"BUS+{text}" if sent == ["BUS_ADRERR"] else text


@pytest.mark.book("4.5", "4.6", "4.7")
@pytest.mark.parametrize("row", list(rows()), ids=str)
def test_row(world: World, row: Row) -> None:
    addr = world.place(row.what)
    rss, free = world.rss(), world.kernel.allocator.nr_free_pages()
    eax = 0
    try:
        eax = world.make(row, addr)
    except GuestDied:
        if "oops" not in row.outcome and "zero" not in row.page:
            raise
    faults = world.faults_at(addr)
    code = str(faults[0][0]) if faults else "-"
    assert not faults or faults[0] == world.faults[0], "another fault came before"
    assert not faults or faults[0][1] == addr, "CR2"
    assert (code, outcome(world, row, addr, eax)) == (row.code, row.outcome)
    assert (world.page(addr), world.rss() - rss) == (row.page, row.rss)
    if row.outcome in ("minor", "major") and row.access == "write":
        assert eax == 0x5A5A or row.who == "uaccess"
        assert world.machine.call("bare_read", addr) == 0x5A5A
    if row.access == "exec" and "file" in row.what:
        assert eax == 0x12345678
    if row.page == "none" and row.outcome != "BUS_ADRERR":
        # At most a page table; a page of a file may have been read ahead.
        assert free - world.kernel.allocator.nr_free_pages() <= 2
    check_machine(world.kernel, world.machine.ledger)
    if addr < 0xC0000000 and "stack" not in row.what and "ESP" not in row.what:
        world.kernel.spaces.do_munmap(world.mm, addr & -0x10000 or addr, 0x10000)


@pytest.mark.book("4.6")
def test_the_oops_text_names_address_and_entries() -> None:
    world = World(CONFIGS["2-level"])
    log = world.kernel.image.log
    del log[:]
    with pytest.raises(GuestDied):
        world.machine.call("bare_write", 0x123, 1)
    text = "".join(log)
    assert text.startswith(
        "<1>Unable to handle kernel NULL pointer dereference at virtual address 00000123\n"
        " printing eip:\n"
    )
    assert "<1>*pde = 00000000\nOops: 0002\nCPU:    0\nEIP:    0010:[<" in text
    assert "Process access (pid: 100, stackpage=" in text or "Process swapper" in text
    assert "\nStack: " in text
    assert "\nCall Trace:   " in text
    assert "\nCode: " in text
