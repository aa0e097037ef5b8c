# SPDX-License-Identifier: GPL-2.0-or-later
"""What the releases of the kernel do differently, chosen once, when a machine boots."""
