# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes that Python has, as a file of the model's page cache. Nothing here can fail."""

from kernel_model.arch_i386.page import PAGE_SIZE


class Disk:
    """A :class:`~kernel_model.fs.hostfs.BackingStore` over ``content``."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.size = len(content)

    def read_page(self, index: int) -> bytes:
        return bytes(self.content[index * PAGE_SIZE : (index + 1) * PAGE_SIZE])

    def write_page(self, index: int, data: bytes) -> None:
        self.content[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] = data

    def truncate(self, size: int) -> None:
        self.size = size
