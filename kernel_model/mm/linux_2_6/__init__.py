# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of physical memory management that Linux 2.6 has anew."""
