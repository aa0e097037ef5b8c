# SPDX-License-Identifier: GPL-2.0-or-later
"""What only Linux 2.6 has of ``kernel/`` and ``init/``."""
