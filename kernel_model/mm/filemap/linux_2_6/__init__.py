# SPDX-License-Identifier: GPL-2.0-or-later
"""The page cache of 2.6, and what it does to VMAs (book 3.10, 4.8)."""
