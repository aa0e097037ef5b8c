# SPDX-License-Identifier: GPL-2.0-or-later
"""The i386 half of the kernel: ``arch/i386`` and ``include/asm-i386``."""
