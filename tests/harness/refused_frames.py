# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes of each request for frames that is refused, on each release.

A row is one request that is refused: the how manieth, for what, what came of the operation, and
what is different afterwards from before; ``nothing`` is nothing of areas, PTEs, contents, counts,
counters, swap slots and the owner of every frame. What does stay, 2.4.22 leaves just so:

* ``page table``: ``handle_mm_fault()`` makes one first, and the next fault will want it; it goes
  with the range. ``move_page_tables()`` leaves one at the place that it could not move to.
* ``read-only``: ``copy_page_range()`` has taken the right to write from pages of the parent that
  the child was to share; the parent's next write has each for itself and gets it back.
* ``page cache``: the page of the file has been read, and stays cached.
* ``1 changed``: the page has come in, for reading; only the copy was refused.
* ``mlock`` and ``mmap`` do not look at what ``make_pages_present()`` returns: the area is locked,
  with the pages that there was memory for, and the others come by faults.
* ``get_user_pages()`` leaves what it has brought in.
* ``put_user()`` below the stack: ``expand_stack()`` comes before the page.
* ``setup_arg_pages()``: the old program is gone, and the new one is killed on its way.

What 2.6.11 has otherwise:

* Before an area gets its first page of its own, and before a stack grows, it gets an ``anon_vma``,
  which it keeps: ``slab``, asked for behind the page table and before the frame.
* A cached page has its place in a tree, whose node is asked for when the frame is there; so has one
  of the swap cache. (The kernel may have a node kept back on the CPU; these rows are of one that
  has none.) shmem begins anew when it gets none, frame and all: only when that is refused, too, the
  process must go (:data:`FOR_GOOD`).
* ``mlock`` tells of the pages that did not come: EAGAIN if none came, EPERM if some did.
* ``mremap`` unmaps the place that it could not move to, tables and all.
* Pages that a file's fault reads ahead are nobody's loss, and the page itself is asked for once
  more: only when that is refused, too, the process must go (:data:`FOR_GOOD`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

TABLE_2_4 = """
operation              no refused        result          left
fork                    1 task_struct    ENOMEM          nothing
fork                    2 slab           ENOMEM          nothing
fork                    3 page directory ENOMEM          nothing
fork                    4 slab           ENOMEM          nothing
fork                    5 page table     ENOMEM          nothing
fork                    6 page table     ENOMEM          nothing
fork                    7 page table     ENOMEM          3 read-only
fork                    8 page table     ENOMEM          3 read-only
fork                    9 page table     ENOMEM          3 read-only
fork                   10 page table     ENOMEM          3 read-only
fork                   11 page table     ENOMEM          3 read-only
write to a copy         1 user page      SIGKILL         nothing
write to the zero page  1 user page      SIGKILL         nothing
first write             1 page table     SIGKILL         nothing
first write             2 user page      SIGKILL         +table
first read              1 page table     SIGKILL         nothing
read what is out        1 user page      SIGKILL         nothing
write what is out       1 user page      SIGKILL         nothing
write what is out       2 user page      SIGKILL         1 changed, +user page
read of a file          1 page table     SIGKILL         nothing
read of a file          2 page cache     SIGKILL         +table
write to a file         1 page table     SIGKILL         nothing
write to a file         2 page cache     SIGKILL         +table
write to a file         3 user page      SIGKILL         +page cache, +table
write to shared memory  1 page table     SIGKILL         nothing
write to shared memory  2 page cache     SIGKILL         +table
put_user() to a copy    1 user page      EFAULT          nothing
put_user() below stack  1 page table     EFAULT          areas
put_user() below stack  2 user page      EFAULT          areas, +table
get_user_pages()        1 page table     0 pages, ENOMEM nothing
get_user_pages()        2 user page      0 pages, ENOMEM +table
get_user_pages()        3 user page      1 pages, ENOMEM 1 new, +table, +user page
get_user_pages()        4 user page      2 pages, ENOMEM 2 new, +table, +2 user page
copy_strings()          1 argument page  ENOMEM          nothing
copy_strings()          2 argument page  ENOMEM          nothing
copy_strings()          3 argument page  ENOMEM          nothing
exec_mmap()             1 slab           ENOMEM          nothing
exec_mmap()             2 page directory ENOMEM          nothing
setup_arg_pages()       1 slab           ENOMEM          -3 argument page
setup_arg_pages()       2 page table     ENOMEM          areas, -3 argument page, +slab
mmap over the middle    1 slab           ENOMEM          nothing
mmap locked             1 slab           ENOMEM          nothing
mmap locked             2 page table     ok              areas, +slab
mmap locked             3 user page      ok              areas, +table, +slab
mmap locked             4 user page      ok              areas, 1 new, +table, +slab, +user page
mmap locked             5 user page      ok              areas, 2 new, +table, +slab, +2 user page
munmap the middle       1 slab           ENOMEM          nothing
mprotect the middle     1 slab           ENOMEM          nothing
mlock                   1 page table     ok              areas
mlock                   2 user page      ok              areas, +table
mlock                   3 user page      ok              areas, 1 new, +table, +user page
mlock                   4 user page      ok              areas, 2 new, +table, +2 user page
mremap                  1 slab           ENOMEM          nothing
mremap                  2 page table     ENOMEM          nothing
mremap the middle       1 slab           ENOMEM          nothing
mremap the middle       2 page table     ENOMEM          nothing
mremap over a border    1 slab           ENOMEM          nothing
mremap over a border    2 page table     ENOMEM          nothing
mremap over a border    3 page table     ENOMEM          +table
"""
TABLE_2_6 = """
operation              no refused        result          left
fork                    1 task_struct    ENOMEM          nothing
fork                    2 slab           ENOMEM          nothing
fork                    3 page directory ENOMEM          nothing
fork                    4 slab           ENOMEM          nothing
fork                    5 slab           ENOMEM          nothing
fork                    6 page table     ENOMEM          nothing
fork                    7 page table     ENOMEM          nothing
fork                    8 page table     ENOMEM          3 read-only
fork                    9 page table     ENOMEM          3 read-only
fork                   10 page table     ENOMEM          3 read-only
fork                   11 page table     ENOMEM          3 read-only
fork                   12 page table     ENOMEM          3 read-only
write to a copy         1 user page      SIGKILL         nothing
write to the zero page  1 slab           SIGKILL         nothing
write to the zero page  2 user page      SIGKILL         +slab
first write             1 page table     SIGKILL         nothing
first write             2 slab           SIGKILL         +table
first write             3 user page      SIGKILL         +table, +slab
first read              1 page table     SIGKILL         nothing
read what is out        1 user page      SIGKILL         nothing
read what is out        2 slab           SIGKILL         nothing
write what is out       1 user page      SIGKILL         nothing
write what is out       2 slab           SIGKILL         nothing
write what is out       3 user page      SIGKILL         1 changed, +slab, +user page
read of a file          1 page table     SIGKILL         nothing
read of a file          2 page cache     ok              1 new, +page cache, +table, +slab
read of a file          3 slab           ok              1 new, +page cache, +table, +slab
write to a file         1 page table     SIGKILL         nothing
write to a file         2 page cache     ok              all that it takes
write to a file         3 slab           ok              all that it takes
write to a file         4 slab           SIGKILL         +page cache, +table, +slab
write to a file         5 user page      SIGKILL         +page cache, +table, +2 slab
write to shared memory  1 page table     SIGKILL         nothing
write to shared memory  2 page cache     SIGKILL         +table
write to shared memory  3 slab           ok              1 new, +page cache, +table, +slab
put_user() to a copy    1 user page      EFAULT          nothing
put_user() below stack  1 slab           EFAULT          nothing
put_user() below stack  2 page table     EFAULT          areas, +slab
put_user() below stack  3 user page      EFAULT          areas, +table, +slab
get_user_pages()        1 page table     0 pages, ENOMEM nothing
get_user_pages()        2 slab           0 pages, ENOMEM +table
get_user_pages()        3 user page      0 pages, ENOMEM +table, +slab
get_user_pages()        4 user page      1 pages, ENOMEM 1 new, +table, +slab, +user page
get_user_pages()        5 user page      2 pages, ENOMEM 2 new, +table, +slab, +2 user page
copy_strings()          1 argument page  ENOMEM          nothing
copy_strings()          2 argument page  ENOMEM          nothing
copy_strings()          3 argument page  ENOMEM          nothing
exec_mmap()             1 slab           ENOMEM          nothing
exec_mmap()             2 page directory ENOMEM          nothing
exec_mmap()             3 slab           ENOMEM          nothing
setup_arg_pages()       1 slab           ENOMEM          -3 argument page
setup_arg_pages()       2 slab           ENOMEM          areas, -3 argument page, +slab
setup_arg_pages()       3 page table     ENOMEM          areas, -3 argument page, +2 slab
mmap over the middle    1 slab           ENOMEM          nothing
mmap locked             1 slab           ENOMEM          nothing
mmap locked             2 page table     ok              areas, +slab
mmap locked             3 slab           ok              areas, +table, +slab
mmap locked             4 user page      ok              areas, +table, +2 slab
mmap locked             5 user page      ok              areas, 1 new, +table, +2 slab, +user page
mmap locked             6 user page      ok              areas, 2 new, +table, +2 slab, +2 user page
munmap the middle       1 slab           ENOMEM          nothing
mprotect the middle     1 slab           ENOMEM          nothing
mlock                   1 page table     EAGAIN          areas
mlock                   2 slab           EAGAIN          areas, +table
mlock                   3 user page      EAGAIN          areas, +table, +slab
mlock                   4 user page      EPERM           areas, 1 new, +table, +slab, +user page
mlock                   5 user page      EPERM           areas, 2 new, +table, +slab, +2 user page
mremap                  1 slab           ENOMEM          nothing
mremap                  2 page table     ENOMEM          nothing
mremap the middle       1 slab           ENOMEM          nothing
mremap the middle       2 page table     ENOMEM          nothing
mremap over a border    1 slab           ENOMEM          nothing
mremap over a border    2 page table     ENOMEM          nothing
mremap over a border    3 page table     ENOMEM          nothing
"""
ALL_THAT_IT_TAKES = "1 new, +page cache, +table, +2 slab, +user page"
"""Of a copy of a page of a file."""
COLUMNS = (0, 23, 26, 41, 57)
FOR_GOOD = {
    ("2.6", "write to shared memory", 3): ("SIGKILL", "+table"),
    ("2.6", "read of a file", 2): ("SIGKILL", "+table"),
    ("2.6", "read of a file", 3): ("SIGKILL", "+table"),
    ("2.6", "write to a file", 2): ("SIGKILL", "+table"),
    ("2.6", "write to a file", 3): ("SIGKILL", "+table"),
}
"""Where it makes a difference that everything after the request is refused, too: the result, and
what is left."""

EXEC = {
    "2.4": [
        ("argument page", "NoMemory", "as it was"),
        ("slab", "NoMemory", "as it was"),
        ("page directory", "NoMemory", "as it was"),
        ("slab", "NoMemory", "dead"),
        ("page table", "NoMemory", "dead"),
        ("page table", "ok", "new"),
        ("page cache", "ok", "new"),
        ("page cache", "ok", "new"),
        ("user page", "ok", "new"),
    ],
    "2.6": [
        ("argument page", "NoMemory", "as it was"),
        ("slab", "NoMemory", "as it was"),
        ("page directory", "NoMemory", "as it was"),
        ("slab", "NoMemory", "as it was"),
        ("slab", "NoMemory", "dead"),
        ("slab", "NoMemory", "dead"),
        ("page table", "NoMemory", "dead"),
        ("page table", "ok", "new"),
        ("page cache", "ok", "new"),
        ("slab", "ok", "new"),
        ("page cache", "ok", "new"),
        ("user page", "ok", "new"),
    ],
}
"""Each request of a whole ``execve()``, and what the process is afterwards. Those behind the page
table of the arguments are for ``padzero()``, and 2.4.22 does not ask it whether it has cleared the
end of the data. 2.6.11 does, and so refuses every program whose last page may not be written; that
the loader does not follow."""


@dataclass(frozen=True)
class Row:
    """One request that is refused, and what comes of it."""

    release: str
    operation: str
    number: int
    refused: str
    result: str
    left: str

    def __str__(self) -> str:
        return f"{self.release}-{self.operation}, {self.number}"

    @property
    def _key(self) -> tuple[str, str, int]:
        return self.release, self.operation, self.number

    @property
    def is_alike(self) -> bool:
        """Whether it makes no difference that all that follow are refused, too."""
        return self._key not in FOR_GOOD

    def outcome(self, for_good: bool) -> tuple[str, str]:
        """The result and what is left, when only this request is refused or all that follow."""
        here = self.result, self.left
        return FOR_GOOD.get(self._key, here) if for_good else here


def rows(release: str) -> Iterator[Row]:
    for line in {"2.4": TABLE_2_4, "2.6": TABLE_2_6}[release].strip().splitlines()[1:]:
        ends = (*COLUMNS[1:], None)
        cells = [line[a:b].strip() for a, b in zip(COLUMNS, ends, strict=True)]
        refused, result, left = cells[2:]
        left = ALL_THAT_IT_TAKES if left == "all that it takes" else left
        yield Row(release, cells[0], int(cells[1]), refused, result, left)
