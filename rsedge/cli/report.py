"""``rsedge report``: a run's report as Markdown, JSON or PDF, and a page of a run under way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from rsedge.cli import complete
from rsedge.cli.common import print_json
from rsedge.cli.options import Json
from rsedge.data.errors import RequestError

NAP_S = 0.2


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
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve a page of the run while it goes on, on this machine alone.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --watch; 0 takes a free one.")] = 0,
    as_json: Json = False,
) -> None:
    """Print the report of a run: the same figures as in report.html, as Markdown, JSON or PDF.

    With --watch it serves a page that follows the run: stages, what it is at, its log, and the report once it is done. Ctrl-C ends
    it; the run goes on.

    The JSON is checked against the record's schema, which "rsedge schema report" prints.

    Examples:

        rsedge report runs/quickstart

        rsedge report runs/quickstart --pdf review.pdf

        rsedge report runs/quickstart --watch --port 8000
    """
    if watch:
        if markdown is not None or pdf is not None or as_json:
            raise RequestError(
                "--watch only serves a page; leave --markdown, --pdf and --json out, or leave --watch out"
            )
        _watch(run, port)
        return
    if port:
        raise RequestError("--port is about --watch; give it too, or leave --port out")
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


def _watch(run: Path, port: int) -> None:
    """Until a signal asks for the end, which is no error."""
    import threading

    from rsedge.recipe.places import recipe_hash
    from rsedge.reports.live import HOST, live_server
    from rsedge.stopping import finishing

    with live_server(run.parent if run.is_file() else run, port, recipe_hash) as server, finishing() as ended:
        thread = threading.Thread(target=server.serve_forever, name="rsedge-watch", daemon=True)
        thread.start()
        typer.echo(f"http://{HOST}:{server.server_address[1]}/ until Ctrl-C", err=True)
        while not ended():
            time.sleep(NAP_S)
        server.shutdown()
