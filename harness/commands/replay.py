# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck replay``: a real kernel's recorded answers against the model's."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from harness.commands.options import JsonOption
from harness.commands.output import Output
from harness.replay import Replayed
from harness.replay import replay as replay_trace


def replay(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE.json...", help="Traces, gzip'd or not.")
    ],
    json: JsonOption = None,
) -> int:
    """Replay recorded traces of a real kernel against the model.

    Each trace stops at its first difference and shows it; the others are replayed all the same.

    **Examples**

    - `mmucheck replay tests/data/linux-2.4.22/bootmem_128MB.json.gz`
    - `mmucheck replay --json replay.json traces/*.json`
    """
    output = Output(json)
    results = []
    with output.progress() as progress:
        for trace in progress.track(traces, description="replaying"):
            results.append(replay_trace(trace))
    output.console.print(_table(results))
    for result in results:
        if result.difference is not None:
            output.text(f"{result.path}: {result.difference}")
    output.json({"command": "replay", "traces": [_row(result) for result in results]})
    return 0 if all(result.ok for result in results) else 1


def _table(results: list[Replayed]) -> Table:
    table = Table()
    for column in ("verdict", "topic", "configuration"):
        table.add_column(column, overflow="fold")
    table.add_column("values compared", justify="right")
    for result in results:
        verdict = "[green]equal[/green]" if result.ok else "[red]different[/red]"
        row = (verdict, escape(result.topic), escape(result.config), str(result.compared))
        table.add_row(*row)
    return table


def _row(result: Replayed) -> dict[str, Any]:
    difference = result.difference
    return {
        "path": str(result.path),
        "topic": result.topic,
        "config": result.config,
        "compared": result.compared,
        "ok": result.ok,
        "difference": None
        if difference is None
        else {
            "where": difference.where,
            "expected": difference.expected,
            "actual": difference.actual,
        },
    }
