"""``rsedge compare``: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rsedge.cli import complete
from rsedge.cli.common import check_page, print_json
from rsedge.cli.options import Json
from rsedge.cli.tables import add, show, table
from rsedge.data.errors import GateFailed, RequestError
from rsedge.data.printable import printable

if TYPE_CHECKING:
    from rsedge.reports.compare import Change, Comparison, Figure
    from rsedge.reports.compare_page import Runs
    from rsedge.reports.schema import Report


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            autocompletion=complete.runs,
            help="Run folders or their report.json; each is set against the first.",
        ),
    ],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it as one page.")] = None,
    fail_on_regression: Annotated[
        bool, typer.Option("--fail-on-regression", help="Exit code 3 where something got worse beyond its interval.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set runs against the first: figures of every target, what became of each gate, and what cannot be compared and why.

    Ratios are over the first run, with "better" or "worse" as the figure goes; metrics have their 95 % intervals. Latency and
    memory count on the same machine alone, accuracy on the same data, agreement with the same teacher; what was predicted is not
    set against what was measured. Worse beyond its interval is a figure that lies outside the first's interval, and the first
    outside its own; measured figures that have none need a tenth.

    Examples:

        rsedge run quickstart --run-dir runs/longer --set steps.distill.steps=4000

        rsedge compare runs/quickstart runs/longer --html compared.html

        rsedge compare runs/main runs/seed1 runs/seed2 --fail-on-regression --json
    """
    from rsedge.reports.compare import check_tasks
    from rsedge.reports.compare import compare as compared
    from rsedge.reports.html import write_compare_html
    from rsedge.reports.schema import report_of
    from rsedge.runtimes.inference.outputs import check_outputs

    if len(runs) < 2:
        raise RequestError(f"{runs[0]}: one run alone is nothing to compare; name another one")
    check_outputs([html], runs)
    check_page(html, "rsedge compare")
    reports = [(str(path), report_of(path)) for path in runs]
    check_tasks(dict(reports))
    first, *others = reports
    found: Runs = [(path, report, compared(first[1], report)) for path, report in others]
    if html is not None:
        write_compare_html(first, found, html)
    worse = [f"{path}: {text}" for path, _, one in found for text in one.regressions]
    if as_json:
        print_json({"before": _run(*first), "against": [_record(*one) for one in found], "regressions": worse})
    else:
        _print(first, found)
    if fail_on_regression and worse:
        if as_json:
            raise typer.Exit(GateFailed.exit_code)
        lines = "\n  ".join(worse)
        raise GateFailed(f"worse than {first[0]} beyond what is known of it:\n  {lines}")


def _run(path: str, report: Report) -> dict[str, Any]:
    kept = report.model_dump(mode="json", include={"name", "created", "rsedge_version", "verdict", "headline"})
    return {"path": path, **kept}


def _record(path: str, report: Report, found: Comparison) -> dict[str, Any]:
    targets = [
        {
            "name": name,
            "figures": [_figure(change) for change in found.changes if change.target == name],
            "gates": [
                {
                    "name": one.gate.name,
                    "before": one.before.model_dump(mode="json") if one.before else None,
                    "after": one.after.model_dump(mode="json") if one.after else None,
                    "regression": one.regression,
                }
                for one in found.gates
                if one.target == name
            ],
        }
        for name in found.targets
    ]
    return {
        "after": _run(path, report),
        "differences": list(found.differences),
        "targets": targets,
        "regressions": found.regressions,
    }


def _figure(change: Change) -> dict[str, Any]:
    def side(found: Figure | None) -> dict[str, Any] | None:
        return None if found is None else {**vars(found), "text": found.text(change.figure)}

    return {
        "figure": change.figure, "better": "higher" if change.higher else "lower", "before": side(change.before),
        "after": side(change.after), "ratio": change.ratio, "direction": change.direction, "comparable": change.comparable,
        "reason": change.reason, "regression": change.regression,
    }  # fmt: skip


def _print(first: tuple[str, Report], found: Runs) -> None:
    from rsedge.reports.compare_page import TWO_RUNS, latencies_compared, run_line, tables

    for number, (path, report) in enumerate([first, *((path, report) for path, report, _ in found)], start=1):
        typer.echo(printable(f"{number}: {run_line(path, report)}"))
    for number, (_, _, one) in enumerate(found, start=2):
        for text in one.differences:
            typer.echo(printable(f"{number} differs: {text}"))
    for made in tables(found):
        typer.echo(printable(f"\n{made.target}"))
        for head, lines in ((made.head, made.figures), (made.gate_head, made.gates)):
            rows = table(*head)
            for line in lines:
                add(rows, *map(printable, line))
            if lines:
                show(rows)
    if latencies_compared(found):
        typer.echo(f"\n{TWO_RUNS}")
