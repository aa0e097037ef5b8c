# SPDX-License-Identifier: GPL-2.0-or-later
"""User memory of the current process, as the kernel reads and writes it.

System calls of the model are Python, but user memory is touched by the guest's own
``copy_to_user()`` and its kin (``guest/kernel/uaccess.S``), on the CPU and in ring 0: so they
demand-page, break copy on write, and end in a fixup where the program has no such memory. What
is copied lies in a buffer of the kernel in between.

What can fail: nothing; how much was not copied is part of the answer.
"""

from typing import Protocol

from kernel_model.arch_i386.page import PAGE_SIZE, virt_to_phys
from kernel_model.ram import Ram

_U32 = 0xFFFFFFFF
_LONGEST_ARGUMENT = 32 * PAGE_SIZE


class KernelText(Protocol):
    """The machine, as far as its ring-0 code is called."""

    ram: Ram

    def symbol(self, name: str) -> int: ...
    def call(self, function: str | int, *arguments: int) -> int: ...


class UserAccess:
    """``copy_to_user()`` and its kin, by Python; a user address is bytes."""

    def __init__(self, machine: KernelText) -> None:
        self._machine = machine
        self._buffer = machine.symbol("uaccess_buffer")
        self._paddr = virt_to_phys(self._buffer)

    def copy_from_user(self, address: int, length: int) -> bytes:
        """``length`` bytes at ``address``; fewer when the program may not read all of them."""
        data = bytearray()
        while len(data) < length:
            size = min(length - len(data), PAGE_SIZE)
            left = self._machine.call("copy_from_user", self._buffer, address + len(data), size)
            data += self._machine.ram.read(self._paddr, size - left)
            if left:
                break
        return bytes(data)

    def copy_to_user(self, address: int, data: bytes) -> int:
        """Returns how many bytes of ``data`` were left."""
        position = 0
        while position < len(data):
            part = data[position : position + PAGE_SIZE]
            self._machine.ram.write(self._paddr, part)
            left = self._machine.call("copy_to_user", address + position, self._buffer, len(part))
            position += len(part) - left
            if left:
                break
        return len(data) - position

    def clear_user(self, address: int, length: int) -> int:
        """Fill with zeros. Returns how many bytes were left."""
        return self._machine.call("clear_user", address, length)

    def strncpy_from_user(self, address: int, limit: int) -> bytes | None:
        """A C string without its NUL, ``limit`` bytes if it has none by then; ``None``: a fault.

        ``limit`` is at most a page, as long as a path may be.
        """
        size = min(limit, PAGE_SIZE)
        length = self._machine.call("strncpy_from_user", self._buffer, address, size)
        return None if length > size else self._machine.ram.read(self._paddr, length)

    def strnlen_user(self, address: int) -> int:
        """Length of a C string with its NUL; 0: a fault. No longer than an argument may be."""
        return self._machine.call("strnlen_user", address, _LONGEST_ARGUMENT)

    def get_user(self, address: int) -> int | None:
        """The word at ``address``; ``None``: a fault."""
        word = self.copy_from_user(address, 4)
        return int.from_bytes(word, "little") if len(word) == 4 else None

    def put_user(self, address: int, value: int) -> bool:
        """Store a word; False: a fault."""
        return not self._machine.call("put_user_4", value & _U32, address)
