# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux 2.6 does its own way on an i386."""
