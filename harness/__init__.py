# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that checks: the CPU, the machine, the spec walker, the comparison."""
