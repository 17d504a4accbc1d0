"""``report.md``: the texts and tables of the page as Markdown (GitHub's tables), for reviews that are kept as text."""

from __future__ import annotations

import re
from pathlib import Path

from rsedge.data.files import write_bytes
from rsedge.reports.assets import ReportAssets
from rsedge.reports.page import page
from rsedge.reports.schema import Report
from rsedge.reports.tables import plain
from rsedge.reports.templating import environment


def render_markdown(report: Report) -> str:
    """The whole report as Markdown.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    found = environment(escape=False)
    found.filters["plain"] = plain
    text = str(found.get_template("report.md.j2").render({"page": page(report, ReportAssets())}))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def write_markdown(report: Report, path: str | Path) -> None:
    """Writes it atomically."""
    write_bytes(path, render_markdown(report).encode())
