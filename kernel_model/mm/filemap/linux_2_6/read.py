# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading files in 2.6: as in 2.4, with the reader's history in ``file->f_ra``.

Models linux-2.6.11 ``mm/filemap.c: do_generic_mapping_read()``, ``struct file_ra_state``. Not
modelled: reading ahead.
"""

from typing import Any, Final

from kernel_model.mm.filemap.read import FileReader

_RA_START: Final = 0
"""The word of ``f_ra`` that is set once the file has been read."""


class FileReader26(FileReader):
    """``read()`` of one machine's files."""

    def _in_sequence(self, view: Any) -> bool:
        return bool(view.f_ra[_RA_START])

    def _note_sequence(self, view: Any) -> None:
        view.f_ra[_RA_START] = 1
