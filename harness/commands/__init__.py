# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of ``mmucheck``, one a module. Each returns its exit status."""
