# SPDX-License-Identifier: GPL-2.0-or-later
"""A model of the Linux i386 virtual memory manager that keeps its state in emulated RAM.

Nothing in this package knows an emulator: it imports numpy and the standard library, and
reaches a CPU only through :class:`kernel_model.arch_i386.processor.Processor`.
"""
