"""The page of a run under way: its stages, what it is at and its log, asked for again every few seconds; at the end its report."""

from __future__ import annotations

import contextlib
import html
import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rsedge.data.errors import RequestError
from rsedge.reports.runs import RecipeHash, run_row
from rsedge.reports.templating import environment

EVERY_S = 3
LINES, MOST_BYTES = 60, 1 << 20
"""Of a log's end: lines that are shown, and how much of it is read."""
LOG, PAGE, HOST = "run.log", "report.html", "127.0.0.1"
LOOPBACK = (HOST, "localhost", "::1")
"""By what names a browser on this machine asks."""
_STAGE = re.compile(r"^\[(\d+)/(\d+)\] ([^\s:]+)(?:: (reused))?")


@dataclass(frozen=True)
class Stage:
    """A stage that the log tells of: when it began (UTC), and what became of it, empty while it is under way."""

    number: int
    of: int
    name: str
    began: str
    words: str


def stages_of(log: str) -> list[Stage]:
    """The stages of the last run that a log tells of."""
    found: list[Stage] = []
    for line in log.splitlines():
        time, _, text = line.partition(" ")
        if " -> " in text and not text.startswith(" "):
            found = []  # another run began
        elif (begun := _STAGE.match(text)) is not None:
            number, of, name, reused = begun.groups()
            found.append(Stage(int(number), int(of), name, time, reused or ""))
        elif text.startswith("  done in ") and found:
            last = found.pop()
            found.append(Stage(last.number, last.of, last.name, last.began, text.strip()))
    return found


def live_page(folder: Path, recipe_hash: RecipeHash) -> str:
    """The page as text; the report itself where the run is done.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    row = run_row(folder, recipe_hash, sized=False)
    if row.state == "done" and (folder / PAGE).is_file():
        return (folder / PAGE).read_text(encoding="utf-8")
    log = _end_of(folder / LOG)
    found = stages_of(log)
    context = {
        "row": row,
        "stages": found,
        "share": _share(found),
        "lines": log.splitlines()[-LINES:],
        "every": EVERY_S if row.state == "running" else 0,
    }
    return str(environment().get_template("live_page.html.j2").render(context))


def _share(stages: list[Stage]) -> float:
    """Of the stages, those that are finished."""
    return sum(bool(stage.words) for stage in stages) / stages[-1].of if stages else 0.0


def _end_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MOST_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def live_server(folder: Path, port: int, recipe_hash: RecipeHash) -> ThreadingHTTPServer:
    """A server of the page on the loopback alone; ``serve_forever`` runs it. ``port`` 0 takes a free one.

    Raises:
        RequestError: the folder is no run's, or the port is taken.
        MissingCapability: jinja2 is not installed.
    """
    environment()
    if not (folder / LOG).is_file() and not (folder / PAGE).is_file():
        raise RequestError(
            f"{folder}: has no {LOG}, so no run has begun there; give a run folder, e.g. runs/quickstart"
        )
    try:
        return ThreadingHTTPServer((HOST, port), _handler(folder, recipe_hash))
    except OSError as error:
        raise RequestError(
            f"--port {port}: {error.strerror or error}; give another one, or none for a free one"
        ) from error


def _handler(folder: Path, recipe_hash: RecipeHash) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, timeout = "rsedge", "", 10

        def do_GET(self) -> None:
            # A browser that is gone, or that goes meanwhile, is nobody's error.
            with contextlib.suppress(ConnectionError, TimeoutError):
                self._answer()

        def _answer(self) -> None:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            if host not in LOOPBACK:  # a page of another name in a browser here, which must not read it
                self.send_error(403, explain="this page is for this machine alone, by its address")
            elif self.path.partition("?")[0] != "/":
                self.send_error(404)
            else:
                self._page()

        def _page(self) -> None:
            try:
                code, content = 200, live_page(folder, recipe_hash).encode()
            except (OSError, RequestError) as error:  # a file that is being replaced: asked again
                code, content = 503, html.escape(str(error)).encode()
            self.send_response(code)
            for name, value in (
                ("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(content))), ("Cache-Control", "no-store"),
                *((("Refresh", str(EVERY_S)),) if code != 200 else ()),
            ):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: every page asks again and again."""

    return Handler
