"""``rsedge report``: a run's report as Markdown, JSON or PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli import complete
from rsedge.cli.common import print_json
from rsedge.cli.options import Json


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", autocompletion=complete.runs, help="A run folder or its report.json.")
    ],
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Markdown to this new file; else it goes to stdout.")
    ] = None,
    pdf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Print the page to this new file; needs Chromium.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the report of a run: the same figures as in report.html, as Markdown, JSON or PDF.

    The JSON is checked against the record's schema, which "rsedge schema report" prints.

    Examples:

        rsedge report runs/quickstart

        rsedge report runs/quickstart --pdf review.pdf
    """
    from rsedge.reports.markdown import render_markdown
    from rsedge.reports.pdf import write_pdf
    from rsedge.reports.schema import page_of, report_of
    from rsedge.runtimes.inference.outputs import check_outputs

    check_outputs([markdown, pdf], replace=False)
    found = report_of(run)
    if pdf is not None:
        write_pdf(page_of(run), pdf)
    if markdown is not None:
        from rsedge.data.files import write_bytes

        write_bytes(markdown, render_markdown(found).encode(), replace=False)
    if as_json:
        print_json(found.model_dump(mode="json"))
    elif markdown is None and pdf is None:
        typer.echo(render_markdown(found), nl=False)
    for path in (markdown, pdf):
        if path is not None:
            typer.echo(f"wrote {path}", err=True)
