# SPDX-License-Identifier: GPL-2.0-or-later
"""C and assembly that runs on the emulated CPU, and the program that builds it."""
