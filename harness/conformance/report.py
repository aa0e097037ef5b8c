# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of the matrix for a person. Nothing here can fail."""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from harness.conformance.divergences import known_for
from harness.conformance.matrix import CpuResult, MatrixReport, PeerResult


def report_tables(report: MatrixReport) -> Iterator[Any]:
    """What is printed, part by part."""
    yield _modes(report)
    for cpu in report.cpus:
        if cpu.known or cpu.gone:
            yield _known(cpu)
    for peer in report.peers:
        yield _peer(peer)


def _modes(report: MatrixReport) -> Table:
    table = Table(title=f"MMU conformance, {report.suite}", title_justify="left")
    table.add_column("paging mode")
    for cpu in report.cpus:
        table.add_column(f"{cpu.name}: cases", justify="right")
        table.add_column("failing", justify="right")
    modes = list(dict.fromkeys(mode for cpu in report.cpus for mode in cpu.by_mode))
    for mode in modes:
        row = [mode]
        for cpu in report.cpus:
            cases, failing = cpu.by_mode.get(mode, (0, 0))
            row += [f"{cases:,}", _count(failing)]
        table.add_row(*row)
    table.add_section()
    total = ["all"]
    for cpu in report.cpus:
        total += [f"{cpu.cases:,}", _count(cpu.failing)]
    table.add_row(*total)
    return table


def _count(failing: int) -> str:
    return f"[red]{failing:,}[/red]" if failing else "[green]0[/green]"


def _known(cpu: CpuResult) -> Table:
    title = f"{cpu.name}: known differences from the manual"
    table = Table(title=title, title_justify="left")
    table.add_column("divergence", no_wrap=True)
    table.add_column("cases", justify="right")
    table.add_column("reason", overflow="fold")
    table.add_column("upstream", overflow="fold")
    gone = {entry.name for entry in cpu.gone}
    for entry in known_for(cpu.name):
        if entry.name not in cpu.known and entry.name not in gone:
            continue
        count = cpu.known.get(entry.name, 0)
        shown = f"{count:,}" if count else "[yellow]gone[/yellow]"
        table.add_row(entry.name, shown, escape(entry.reason), escape(entry.upstream))
    return table


def _peer(peer: PeerResult) -> Table:
    title = f"{peer.names[0]} and {peer.names[1]}: {peer.common:,} cases that both had"
    table = Table(title=title, title_justify="left")
    table.add_column("they differ because of")
    table.add_column("cases", justify="right")
    for name, count in peer.known.items():
        table.add_row(escape(name), f"{count:,}")
    table.add_row("what is no known difference", _count(peer.unexplained))
    return table


def summary(report: MatrixReport) -> Iterator[str]:
    """The failures, each with the command that repeats it, then one line for each CPU."""
    for cpu in report.cpus:
        for finding in cpu.findings:
            yield f"{cpu.name}: {finding}  ({finding.count:,} alike)"
            yield f"  repeat: {finding.command}"
    for cpu in report.cpus:
        known = sum(cpu.known.values())
        rate = cpu.cases / cpu.seconds if cpu.seconds else 0.0
        verdict = f"{cpu.failing:,} of {cpu.cases:,} cases fail" if cpu.failing else "conforms"
        yield (
            f"{cpu.name}: {verdict}; {cpu.cases:,} cases, {known:,} known differences, "
            f"{cpu.cached:,} of {cpu.either:,} stale touches answered by the TLB, "
            f"{rate:,.0f} cases/s"
        )
        if cpu.gone:
            names = ", ".join(entry.name for entry in cpu.gone)
            yield f"{cpu.name}: no longer seen, take out of the table of divergences: {names}"
