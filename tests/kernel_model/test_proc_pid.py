# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/maps and the memory lines of status, against texts as Linux 2.4 prints them."""

import pytest

from harness.replay.vma_2_4 import VmaMachine
from kernel_model.proc.pid import maps_data, maps_text, status_text
from kernel_model.structs.fs import FMODE_READ

PAGE = 4096

MAPS = """\
08048000-0804a000 r-xp 00000000 03:01 4711       /usr/local/bin/a_program
0804a000-0804b000 rw-p 00001000 03:01 4711       /usr/local/bin/a_program
0804b000-0804d000 rwxp 00000000 00:00 0
40000000-40002000 r-xp 00003000 03:01 4711       /usr/local/bin/a_program
40002000-40003000 rw-s 00000000 00:00 0          /dev/zero (deleted)
40003000-40004000 ---p 00000000 00:00 0
bfffe000-c0000000 rwxp fffff000 00:00 0
"""

STATUS = """\
VmSize:\t      44 kB
VmLck:\t       8 kB
VmRSS:\t      12 kB
VmData:\t      12 kB
VmStk:\t       8 kB
VmExe:\t       8 kB
VmLib:\t       8 kB
"""


@pytest.fixture
def machine() -> VmaMachine:
    """A small program: text, data, heap, a library, shared memory, a guard page, a stack."""
    machine = VmaMachine()
    spaces, files = machine.spaces, machine.spaces.files
    recorded = files.file(machine.files.by_number[2])
    inode = files.new_inode(5 * PAGE, 0)
    files.inode(inode).i_dev, files.inode(inode).i_ino = 0x301, 4711
    file = files.open_inode(inode, "/usr/local/bin/a_program", FMODE_READ, int(recorded.f_op))
    # The mmap of a recorded file gives its VMAs the operations of that file, and asks no more.
    for what, addr, pages, prot, flags, pgoff in (
        (file, 0x8048000, 2, 5, 0x1012, 0),
        (file, 0x804A000, 1, 3, 0x1012, 1),
        (file, 0x40000000, 2, 5, 0x12, 3),
        (0, 0x40002000, 1, 3, 0x31, 0),
        (0, 0x40003000, 1, 0, 0x32, 0),
    ):
        assert spaces.do_mmap_pgoff(what, addr, pages * PAGE, prot, flags, pgoff) == addr
    machine.set_exec(0x804A000, 0x804B000)
    assert spaces.sys_brk(0x804C001) == 0x804C001
    total = spaces.areas.mm(machine.mm).total_vm
    machine.setup_stack(0xBFFFF000, 0xC0000000)
    spaces.areas.mm(machine.mm).total_vm = total + 1
    assert spaces.find_extend_vma(machine.mm, 0xBFFFE123)
    assert spaces.sys_mlock(0x8048000, 2 * PAGE) == 0
    spaces.areas.mm(machine.mm).rss = 3
    return machine


@pytest.mark.book("4.4")
def test_maps_has_a_line_for_each_vma(machine: VmaMachine) -> None:
    assert maps_text(machine.spaces.areas, machine.mm) == MAPS
    rows = maps_data(machine.spaces.areas, machine.mm)
    assert rows[4]["permissions"] == "rw-s"
    assert [row["end"] - row["start"] for row in rows[:3]] == [2 * PAGE, PAGE, 2 * PAGE]


def test_status_tells_program_from_library_and_data_from_stack(machine: VmaMachine) -> None:
    assert status_text(machine.spaces.areas, machine.mm) == STATUS


def test_an_empty_address_space_has_an_empty_maps() -> None:
    machine = VmaMachine()
    assert maps_text(machine.spaces.areas, machine.mm) == ""
