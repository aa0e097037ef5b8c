# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files and their inodes, as far as mapping them needs: linux-2.4.22 ``fs/``."""
