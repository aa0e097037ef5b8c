# SPDX-License-Identifier: GPL-2.0-or-later
"""The architecture-independent half of the memory manager: ``mm/`` and ``include/linux``."""
