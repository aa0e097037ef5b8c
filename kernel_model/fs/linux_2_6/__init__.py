# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6 lays out otherwise in files and inodes."""
