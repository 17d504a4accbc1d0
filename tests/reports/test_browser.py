"""The page in a real browser: opens from a file, asks for nothing, logs nothing, axe finds nothing in either theme.

Skipped where playwright (``pip install rsedge[browser]``) or Chromium is not here; axe-core is fetched from npm's registry, and
where that cannot be, the checks of our own hold alone.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from rsedge.data.errors import MissingCapability
from rsedge.reports import figures, pdf
from rsedge.reports.assets import ReportAssets, TileAsset
from rsedge.reports.html import write_html
from rsedge.reports.schema import LayerDamage, Report, StageRecord
from rsedge.reports.tables import Cell, Column, Table
from rsedge.reports.templating import environment
from tests.reports.random_reports import reports

AXE = "axe-core@4"
SEEN = """() => {
  const levels = [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1]);
  return {
    jumps: levels.filter((l, i) => i && l > levels[i - 1] + 1).length, tops: levels.filter(l => l == 1).length,
    bare: [...document.querySelectorAll('table')]
      .filter(t => !t.caption || [...t.querySelectorAll('th')].some(h => !h.scope)).length,
    unnamed: [...document.querySelectorAll('img,svg[role=img]')]
      .filter(e => !(e.alt || e.getAttribute('aria-label'))).length,
    dead: [...document.querySelectorAll('a[href^="#"]')].filter(a => !document.getElementById(a.hash.slice(1))).length,
    wide: document.documentElement.scrollWidth > innerWidth,
  };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not here: pip install rsedge[browser]")
    try:
        program = pdf.find_browser()
    except MissingCapability as error:
        pytest.skip(str(error))
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """axe-core's script, None where it cannot be had."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    if npm is None:
        return None
    done = subprocess.run([npm, "pack", AXE, "--silent"], cwd=folder, capture_output=True, timeout=60, check=False)
    packed = next(folder.glob("*.tgz"), None)
    if done.returncode or packed is None:
        return None
    with tarfile.open(packed) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        (folder / "axe.min.js").write_bytes(script.read())
    return folder / "axe.min.js"


def example() -> Report:
    """A random record with three targets, one of each provenance, and gates."""
    found: list[Report] = []

    @settings(
        max_examples=200,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(reports())
    def look(report: Report) -> None:
        if {t.provenance for t in report.targets} == {"measured", "predicted", "unavailable"} and report.judged.gates:
            found.append(report)

    look()
    return found[0]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    classes = np.arange(64 * 64).reshape(64, 64).astype(np.uint8) % 2
    tile = TileAsset("tile 1", np.full((64, 64, 3), 99, np.uint8), classes, 1 - classes, classes, "a tile")
    history = {"distill": [{"step": float(i), "loss": 1 / (1 + i)} for i in range(5)]}
    damage = [LayerDamage(layer=f"layer {i}", damage=i / 100) for i in range(12)]
    report = example()
    stage = StageRecord(name="quantize", outcome="applied", damage=damage)
    report = report.model_copy(
        update={"stages": [*(s.model_copy(update={"damage": []}) for s in report.stages), stage]}
    )
    write_html(report, path, ReportAssets(tiles=[tile], history=history))
    return path


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_opens_from_a_file_and_everybody_can_read_it(
    browser: Any, axe: Path | None, page_file: Path, theme: str, width: int
) -> None:
    with browser.new_context(color_scheme=theme, bypass_csp=True, viewport={"width": width, "height": 900}) as context:
        page, logged, asked = context.new_page(), [], []
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        assert page.evaluate(SEEN) == {"jumps": 0, "tops": 1, "bare": 0, "unnamed": 0, "dead": 0, "wide": False}
        assert not logged and [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
        if axe is not None:
            page.add_script_tag(path=str(axe))
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
            assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == []


def test_the_keyboard_reaches_the_report_first_and_focus_is_seen(browser: Any, page_file: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(page_file.as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "report"
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


SORTED = """() => [...document.querySelectorAll('#comparison tbody')].map(body => [...body.rows].map(row =>
  row.classList.contains('group') || row.classList.contains('notes') ? row.className : row.cells[1].textContent.trim()))"""


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page under its own policy."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(page_file.as_uri())
        yield page


def test_tables_sort_by_any_column_within_their_groups_and_back(opened: Any) -> None:
    """In the order of the values whatever their units; notes stay with their rows."""
    before = opened.evaluate(SORTED)
    head = opened.locator("#comparison thead th", has_text="size")
    column = head.evaluate("head => head.cellIndex")
    sizes = """column => [...document.querySelectorAll('#comparison tbody')].map(body => [...body.rows]
      .filter(row => !row.matches('.group,.notes')).map(row => [...row.cells].at(column - row.parentElement.parentElement
        .tHead.rows[0].cells.length)?.firstChild?.textContent))"""
    for way in ("ascending", "descending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == way
        for group in opened.evaluate(sizes, column):
            values = [_bytes(text) for text in group if text and text.strip() != "–"]
            assert values == sorted(values, reverse=way == "descending")
            assert [t for t in group if t and t.strip() == "–"] == [t for t in group if t][len(values) :]
    assert [sorted(g) for g in opened.evaluate(SORTED)] == [sorted(g) for g in before]
    assert all(g[0] == "group" for g in opened.evaluate(SORTED))
    head.locator("button").click()
    assert head.get_attribute("aria-sort") is None and opened.evaluate(SORTED) == before


def _bytes(text: str) -> float:
    number, unit = text.strip().split()
    return float(number.replace(",", "")) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]


TABLE = """{% from 'page.macros.j2' import data_table, foot, head with context %}
<!doctype html><html lang="en"><head>{{ head('t') }}</head><body>{{ data_table(t) }}{{ foot() }}</body></html>"""
COLUMNS: dict[str, tuple[Callable[[Any], str], list[Any]]] = {
    "count": (figures.count, [4.09e9, 17.5e6, 900e3, 812, 35]),
    "milliseconds": (figures.milliseconds, [12_000, 9.5, 0.325, 1430, 20]),
    "size": (figures.size, [552e3, 78e6, 1.2e9, 900, 30.5e6]),
    "duration": (figures.duration, [8.2, 185, 200, 4000, 59]),
    "share": (figures.share, [0.5, 0.031, 0.999, 0.0, 0.2]),
    "times": (figures.times, [21.2, 0.9, 141, 3.5, 1]),
    "small": (lambda v: figures.figure("damage", v), [8.5e-5, 0.5, 0.0021, 0.04, 1.5]),
    "signed": (figures.signed, [-0.2, 0.1, 0.0, -0.031, 0.5]),
    "date": (str, [f"2026-11-{day:02d}T10:00:00+00:00" for day in (3, 1, 30, 12, 2)]),
    "predicted": (lambda v: f"predicted {v} ms to {2 * v} ms", [1.5, 0.3, 20.0, 3.0, 150.0]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_kind_of_figure_sorts_by_its_value(browser: Any, tmp_path: Path, name: str) -> None:
    words, values = COLUMNS[name]
    rows = [[Cell(str(number)), Cell(words(value))] for number, value in enumerate(values)]
    table = Table("t", [Column("row"), Column("value", True)], [*rows[:2], [Cell("none"), Cell("–")], *rows[2:]])
    path = tmp_path / "t.html"
    path.write_text(environment().from_string(TABLE).render(t=table), encoding="utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(path.as_uri())
        for backwards in (False, True):
            page.locator("th button").nth(1).click()
            found = page.locator("tbody th").all_inner_texts()
            order = sorted(range(len(values)), key=values.__getitem__, reverse=backwards)
            assert found == [*map(str, order), "none"]


def test_long_tables_are_filtered_and_print_whole(opened: Any) -> None:
    label, rows = opened.locator("#steps .filter"), opened.locator("#steps table:has(.meter) tbody tr")
    label.locator("input").fill("Layer 1")
    shown = [rows.nth(i).inner_text() for i in range(rows.count()) if rows.nth(i).is_visible()]
    assert [text.split("\t")[0].strip() for text in shown] == ["layer 11", "layer 10", "layer 1"]
    assert label.locator("output").inner_text() == "3 of 12 rows"
    opened.emulate_media(media="print")
    assert all(rows.nth(i).is_visible() for i in range(rows.count())) and not label.is_visible()


def test_pictures_enlarge_to_the_same_place_by_keys_alone(opened: Any) -> None:
    first = opened.locator(".pictures .enlarge").first
    first.focus()
    opened.keyboard.press("Enter")
    dialog = opened.locator("dialog")
    name, wide = dialog.locator("img").get_attribute("alt"), dialog.locator("img").evaluate("one => one.clientWidth")
    assert dialog.is_visible() and name == first.locator("img").get_attribute("alt")
    opened.keyboard.press("+")
    opened.keyboard.press("+")
    place = "pane => [pane.scrollLeft, pane.scrollTop]"
    there = dialog.locator(".pane").evaluate(place)
    assert dialog.locator("img").evaluate("one => one.clientWidth") == pytest.approx(4 * wide, abs=4) and max(there) > 0
    opened.keyboard.press("PageDown")
    assert dialog.locator("img").get_attribute("alt") != name and dialog.locator(".pane").evaluate(place) == there
    opened.keyboard.press("Escape")
    assert not dialog.is_visible() and first.evaluate("one => document.activeElement === one")


def test_no_other_script_runs(opened: Any, page_file: Path, tmp_path: Path) -> None:
    """The policy names the page's script by its hash; what came in by a name would not run."""
    assert opened.locator(".sort").count() > 0
    spoiled = tmp_path / "spoiled.html"
    text = page_file.read_text(encoding="utf-8")
    spoiled.write_text(text.replace("</main>", "<script>document.title = 'in'</script></main>"), encoding="utf-8")
    opened.goto(spoiled.as_uri())
    assert opened.title() != "in" and opened.locator(".sort").count() > 0


def test_prints_as_pdf(browser: Any, page_file: Path, tmp_path: Path) -> None:
    pdf.write_pdf(page_file, tmp_path / "out.pdf")
    content = (tmp_path / "out.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and b"/Page" in content and [p.name for p in tmp_path.iterdir()] == ["out.pdf"]
