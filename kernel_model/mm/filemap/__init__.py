# SPDX-License-Identifier: GPL-2.0-or-later
"""The page cache, and the files whose pages it holds.

Models linux-2.4.22 ``mm/filemap.c`` (book 2.5, 4.4, 4.6). :class:`PageCache` finds a frame by
address space and index (:mod:`~kernel_model.mm.filemap.cache`); :class:`Filemap` is what files
do with it: reading and writing (:mod:`~kernel_model.mm.filemap.read`,
:mod:`~kernel_model.mm.filemap.write`), page faults (:mod:`~kernel_model.mm.filemap.nopage`),
writing back (:mod:`~kernel_model.mm.filemap.sync`), cutting off
(:mod:`~kernel_model.mm.filemap.truncate`) and advice (:mod:`~kernel_model.mm.filemap.advice`).
"""

from kernel_model.mm.filemap.cache import PageCache
from kernel_model.mm.filemap.filemap import Filemap
from kernel_model.mm.filemap.pages import FilePages, UserPageTables

__all__ = ["FilePages", "Filemap", "PageCache", "UserPageTables"]
