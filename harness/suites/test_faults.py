# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults: what becomes of an access, by who makes it, how, and to what (book 4.6).

``code`` is the error code of the fault (Intel SDM 3A, 4.7), ``-`` for none; ``outcome`` is what
``do_page_fault()`` makes of it; ``page`` the PTE afterwards: of the ``zero`` page, P present, W
writable, U user, A accessed, D dirty, N kept, but for nobody.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from harness.guests import guest_path
from harness.machine import paging_variant
from harness.pytest_plugin.machines import Machines
from harness.suites.stage import NONE, PAGE, PRIVATE, RW, SHARED, R, Stage

TABLE: Final = """
who      access  what            code  outcome      page
user     read    unmapped        4     SEGV_MAPERR  none
user     write   unmapped        6     SEGV_MAPERR  none
user     exec    unmapped        4     SEGV_MAPERR  none
user     read    anonymous       4     minor        zero P U A
user     write   anonymous       6     minor        P W U A D
user     write   zero page       7     minor        P W U A D
user     read    private file    4     major        P U A
user     write   private file    6     major        P W U A D
user     write   shared file     6     major        P W U A D
user     exec    private file    4     major        P U A
user     write   read-only       6     SEGV_ACCERR  none
user     write   read-only page  7     SEGV_ACCERR  zero P U A
user     read    PROT_NONE       4     SEGV_ACCERR  none
user     read    was writable    4     SEGV_ACCERR  N A D
user     read    unmapped again  4     SEGV_MAPERR  none
user     read    behind EOF      4     BUS_ADRERR   none
user     read    kernel          5     SEGV_MAPERR  -
user     write   kernel          7     SEGV_MAPERR  -
user     exec    kernel          5     SEGV_MAPERR  -
user     read    kernel hole     4     SEGV_MAPERR  -
uaccess  read    unmapped        0     fixup        none
uaccess  write   anonymous       2     minor        P W U A D
uaccess  write   zero page       3     minor        P W U A D
uaccess  write   read-only       2     fixup        none
kernel   read    unmapped        0     oops         none
kernel   write   anonymous       2     minor        P W U A D
kernel   write   zero page       3     minor        P W U A D
kernel   write   read-only page  3     oops         zero P U A
kernel   read    kernel          -     no fault     -
kernel   read    kernel hole     0     oops         -
"""
_COLUMNS: Final = (0, 9, 17, 33, 39, 52)
_AT: Final = 0x50000000
_HOLE: Final = 0xFB000000
_CODE: Final = bytes.fromhex("b8 78563412 c3")
"""``mov $0x12345678, %eax; ret``."""


@dataclass(frozen=True, slots=True)
class Row:
    who: str
    access: str
    what: str
    code: str
    outcome: str
    page: str

    def __str__(self) -> str:
        return f"{self.who} {self.access} {self.what}"


def _rows() -> Iterator[Row]:
    for line in TABLE.strip().splitlines()[1:]:
        ends = (*_COLUMNS[1:], None)
        yield Row(*(line[a:b].strip() for a, b in zip(_COLUMNS, ends, strict=True)))


_GONE: Final = -1


def _used(stage: Stage, prot: int, *, write: bool = True) -> int:
    """An anonymous page that was touched, then with the rights ``prot``, or unmapped."""
    stage.map(_AT)
    stage.access("kernel", "write" if write else "read", _AT, 1)
    spaces = stage.kernel.spaces
    if prot == _GONE:
        spaces.do_munmap(stage.spaces.mm(stage.first), _AT, PAGE)
    elif prot != RW:
        spaces.sys_mprotect(_AT, PAGE, prot)
    return _AT


def _kernel_page(stage: Stage) -> int:
    address = stage.machine.symbol("uaccess_buffer")
    stage.machine.ram.write(address - 0xC0000000, _CODE)
    return address


_PLACES: Final[dict[str, Callable[[Stage], int]]] = {
    "unmapped": lambda stage: _AT,
    "anonymous": lambda stage: stage.map(_AT),
    "zero page": lambda stage: _used(stage, RW, write=False),
    "private file": lambda stage: stage.map_file(_AT, _CODE.ljust(PAGE, b"\0"), PRIVATE),
    "shared file": lambda stage: stage.map_file(_AT, _CODE.ljust(PAGE, b"\0"), SHARED),
    "read-only": lambda stage: stage.map(_AT, R),
    "read-only page": lambda stage: _used(stage, R, write=False),
    "PROT_NONE": lambda stage: stage.map(_AT, NONE),
    "was writable": lambda stage: _used(stage, NONE),
    "unmapped again": lambda stage: _used(stage, _GONE),
    "behind EOF": lambda stage: stage.map_file(_AT, bytes(PAGE), PRIVATE, pages=2) + PAGE,
    "kernel": _kernel_page,
    "kernel hole": lambda stage: _HOLE,
}


@pytest.mark.parametrize("row", list(_rows()), ids=str)
@pytest.mark.mmu(nodes="1", cpus="1")
def test_fault(mmu_machines: Machines, row: Row) -> None:
    image = guest_path("fault_test", paging_variant(mmu_machines.config))
    stage = Stage(mmu_machines.machine(image=image))
    addr = _PLACES[row.what](stage)
    result = stage.access(row.who, row.access, addr, 0x5A5A)
    codes = [code for code, cr2, _ in stage.faults if cr2 == addr]
    near: dict[str, Any] = {"addr": addr, "access": row.access, "who": row.who, "pgd": stage.first}
    stage.expect(f"{row}: error code", str(codes[0]) if codes else "-", row.code, **near)
    stage.expect(f"{row}: outcome", stage.outcome(addr), row.outcome, **near)
    if row.page != "-":
        stage.expect(f"{row}: PTE", stage.page(stage.first, addr), row.page, **near)
    if row.outcome in ("minor", "major") and row.access == "write":
        found = stage.access("kernel", "read", addr)
        near |= {"access": "read", "who": "kernel"}
        stage.expect(f"{row}: what memory holds", f"{found:#x}", "0x5a5a", **near)
    elif row.access == "exec" and row.outcome == "major":
        stage.expect(f"{row}: EAX of the code", f"{result:#x}", "0x12345678", **near)
