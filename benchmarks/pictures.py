"""Pictures of a run's report for README and docs, taken in Chromium: ``make pictures`` after ``make demo``.

Needs playwright (``pip install rsedge[browser]``) and a Chromium; writes ``docs/report*.png``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rsedge.data.errors import RsedgeError, missing_extra
from rsedge.reports.pdf import find_browser

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 1180, 860


def take(report: Path, folder: Path) -> list[Path]:
    """Its top, its picture of accuracy against latency, and one of its tiles enlarged, as PNG files.

    Raises:
        MissingCapability: playwright or a Chromium is not here.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        raise missing_extra("playwright", "browser", "taking pictures of a report") from error
    made = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(report.resolve().as_uri())
        for name, shot in (("report", _top), ("report-pareto", _pareto), ("report-tile", _tile)):
            path = folder / f"{name}.png"
            shot(page, path)
            made.append(path)
        browser.close()
    return made


def _top(page: Any, path: Path) -> None:
    page.screenshot(path=path)


def _pareto(page: Any, path: Path) -> None:
    page.locator("#pareto").screenshot(path=path)


def _tile(page: Any, path: Path) -> None:
    page.locator(".pictures .enlarge").last.click()
    page.keyboard.press("+")
    page.screenshot(path=path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, nargs="?", default=Path("runs/quickstart/report.html"))
    parser.add_argument("--output-dir", type=Path, default=DOCS)
    given = parser.parse_args()
    if not given.report.is_file():
        print(f"error: {given.report} is not there; `make demo` makes it", file=sys.stderr)
        return 2
    try:
        made = take(given.report, given.output_dir)
    except RsedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    for path in made:
        print(f"{path}: {path.stat().st_size // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
