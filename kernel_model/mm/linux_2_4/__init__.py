# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of physical memory management that only Linux 2.4 has."""
