"""The templates and what all of them can use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rsedge.data.errors import missing_extra
from rsedge.reports import figures
from rsedge.reports.glossary import ANCHORS
from rsedge.reports.tables import mark

TEMPLATES = Path(__file__).parent / "templates"


def environment(*, escape: bool = True) -> Any:
    """Of jinja2; ``escape`` for HTML.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise missing_extra("jinja2", "report", "writing reports") from error
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.globals |= {"fmt": figures, "anchors": ANCHORS, "mark": mark}
    return found
