"""``rsedge compare``: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import complete
from rsedge.cli.common import print_json
from rsedge.cli.options import Json
from rsedge.cli.tables import add, show, table
from rsedge.data.printable import printable

if TYPE_CHECKING:
    from rsedge.reports.compare import Change, Comparison, Figure
    from rsedge.reports.schema import Report

TWO_RUNS = "Latency, throughput and memory of two runs were not taken in turns: a difference of some percent may be the machine's."


def compare(
    before: Annotated[
        Path,
        typer.Argument(metavar="RUN_A", autocompletion=complete.runs, help="A run folder or its report.json: before."),
    ],
    after: Annotated[
        Path, typer.Argument(metavar="RUN_B", autocompletion=complete.runs, help="Another one, or the same: after.")
    ],
    as_json: Json = False,
) -> None:
    """Set two runs side by side: figures of every target, what became of each gate, and what cannot be compared and why.

    Ratios are RUN_B over RUN_A, with "better" or "worse" as the figure goes. Latency and memory count on the same machine alone,
    accuracy on the same data, agreement with the same teacher; what was predicted is not set against what was measured.

    Examples:

        rsedge run quickstart --run-dir runs/longer --set steps.distill.steps=4000

        rsedge compare runs/quickstart runs/longer

        rsedge compare runs/quickstart/report.json runs/longer/report.json --json
    """
    from rsedge.reports.compare import compare as compared
    from rsedge.reports.schema import report_of

    runs = {"before": (before, report_of(before)), "after": (after, report_of(after))}
    found = compared(runs["before"][1], runs["after"][1])
    if as_json:
        print_json({name: _run(path, report) for name, (path, report) in runs.items()} | _record(found))
    else:
        _print(runs, found)


def _run(path: Path, report: Report) -> dict[str, Any]:
    kept = report.model_dump(mode="json", include={"name", "created", "rsedge_version", "verdict", "headline"})
    return {"path": str(path), **kept}


def _record(found: Comparison) -> dict[str, Any]:
    targets = [
        {
            "name": name,
            "figures": [_figure(change) for change in found.changes if change.target == name],
            "gates": [
                {
                    "name": one.gate.name,
                    "before": one.before.model_dump(mode="json") if one.before else None,
                    "after": one.after.model_dump(mode="json") if one.after else None,
                }
                for one in found.gates
                if one.target == name
            ],
        }
        for name in found.targets
    ]
    return {"differences": list(found.differences), "targets": targets}


def _figure(change: Change) -> dict[str, Any]:
    def side(found: Figure | None) -> dict[str, Any] | None:
        return None if found is None else {**vars(found), "text": found.text(change.figure)}

    return {
        "figure": change.figure, "better": "higher" if change.higher else "lower", "before": side(change.before),
        "after": side(change.after), "ratio": change.ratio, "direction": change.direction, "comparable": change.comparable,
        "reason": change.reason,
    }  # fmt: skip


def _print(runs: dict[str, tuple[Path, Report]], found: Comparison) -> None:
    from rsedge.data.metrics.verdict import statement
    from rsedge.reports.compare import gate_text
    from rsedge.reports.figures import DASH, label

    for name, (path, report) in runs.items():
        made = f"{report.name}, {report.created}, rsedge {report.rsedge_version or 'of unknown version'}"
        typer.echo(printable(f"{name + ':':7} {path} ({made}): {report.headline}"))
    for text in found.differences:
        typer.echo(printable(f"differs: {text}"))
    for target in found.targets:
        typer.echo(printable(f"\n{target}"))
        rows = table("figure", "better", "before", "after", "change")
        for change in found.changes:
            if change.target == target:
                texts = (one.text(change.figure) if one else DASH for one in (change.before, change.after))
                add(rows, label(change.figure), "higher" if change.higher else "lower", *texts, printable(change.text))
        show(rows)
        rows = table("gate", "before", "after")
        gates = [one for one in found.gates if one.target == target]
        for one in gates:
            add(rows, printable(statement(one.gate)), *(printable(gate_text(gate)) for gate in (one.before, one.after)))
        if gates:
            show(rows)
    if any(change.figure == "latency" and change.comparable for change in found.changes):
        typer.echo(f"\n{TWO_RUNS}")
