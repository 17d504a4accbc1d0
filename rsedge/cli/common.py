"""What commands on bundles share: help texts, opened bundles and scenes, progress, JSON."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rsedge.data.errors import RequestError

if TYPE_CHECKING:
    from rsedge.runtimes.bundle.reading import Bundle
    from rsedge.runtimes.inference.tiles import Progress
    from rsedge.runtimes.session import Hint


def unwrapped(text: str) -> str:
    """Paragraphs on one line each, so that the terminal's width alone breaks them."""
    paragraphs = textwrap.dedent("    " + text).strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in p.splitlines()) for p in paragraphs)


def hint_named(name: str | None) -> Hint | None:
    hints: dict[str | None, Hint | None] = {None: None, "latency": "latency", "throughput": "throughput"}
    if name not in hints:
        raise RequestError(f"--hint {name}: choose {' or '.join(filter(None, hints))}")
    return hints[name]


@contextlib.contextmanager
def opened_bundle(path: Path, key: Path | None) -> Iterator[Bundle]:
    from rsedge.runtimes.bundle.reading import Bundle

    with Bundle.open(path, key=key) as bundle:
        yield bundle


def say_warning(text: str) -> None:
    """On stderr, since stdout is the command's own."""
    typer.echo(f"warning: {text}", err=True)


def band_names(text: str | None) -> tuple[str, ...] | None:
    """Names as they are written, with commas between."""
    return None if text is None else tuple(name.strip() for name in text.split(","))


def check_page(html: Path | None, writer: str) -> None:
    """Whether the page of a command (``writer``: ``rsedge compare``) can be written, before what it is to show is measured.

    Raises:
        MissingCapability: what writes pages is not installed. RequestError: the file is there, and is no page of that command.
    """
    if html is not None:
        from rsedge.reports.html import check_pages, page_mark
        from rsedge.runtimes.inference.outputs import check_replaces

        check_pages()
        check_replaces(html, page_mark(writer), f"{writer} --html")


@contextlib.contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Progress]:
    """A bar with the time left, on stderr and only where someone looks at it."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def scenes_bar(quiet: bool) -> Iterator[Callable[[int, int, Any, int, int], None]]:
    """As :func:`progress_bar`, over many scenes: which one it is, and the share of all that is done."""
    with progress_bar("mapping", quiet) as bar:

        def step(number: int, count: int, source: Any, done: int, total: int) -> None:
            bar(round(1000 * (number + done / max(total, 1))), 1000 * count)

        yield step


def print_json(record: dict[str, Any]) -> None:
    typer.echo(json.dumps(_finite(record), allow_nan=False))


def _finite(value: Any) -> Any:
    """NaN and infinity are not JSON; they become null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
