# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine in pictures: one page for a browser, the same figures for Python.

::

    from harness.machine import Machine
    from harness.report import Report

    report = Report.of(Machine())
    report.figure("buddy").savefig("buddy.png")
    open("report.html", "w").write(report.html())

In a notebook, ``report`` and each figure show themselves. ``PICTURES`` has the names. matplotlib
and Jinja2 are loaded when something is drawn. One module a picture, each with what it gathers
apart from what it draws (:mod:`harness.report.picture`).
"""

from harness.report.pictures import PICTURES
from harness.report.report import Report

__all__ = ["PICTURES", "Report"]
