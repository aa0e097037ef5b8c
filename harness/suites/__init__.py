# SPDX-License-Identifier: GPL-2.0-or-later
"""Conformance suites for anybody's kernel model or CPU: ``pytest --pyargs harness.suites``.

What is put to the test is named by ``--mmu-backend module:factory``; without it, it is our own.
Every check tells in the field's words what is wrong, and where to look.
"""
