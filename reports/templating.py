"""The templates and what all of them can use."""

from __future__ import annotations

import base64
import hashlib
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
        import markupsafe
    except ModuleNotFoundError as error:
        raise missing_extra("jinja2", "report", "writing reports") from error
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    found.globals |= {"fmt": figures, "anchors": ANCHORS, "mark": mark, "script_hash": script_hash(script)}
    found.globals["script"] = markupsafe.Markup(script)
    return found


def script_hash(text: str) -> str:
    """How a page's policy names a script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
