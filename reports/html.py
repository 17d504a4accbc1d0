"""``report.html``: one self-contained page from a report record and its assets. No network; the one script sorts, filters
and enlarges (:file:`templates/page.js`), and all is there without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsedge.data.files import write_bytes
from rsedge.devices.measure.soak import Soak
from rsedge.devices.table.rows import LatencyTable
from rsedge.reports import compare_page, figures, images, latency, layers, search, soak, view
from rsedge.reports.assets import BoxAsset, ImageAsset, ReportAssets, TileAsset
from rsedge.reports.page import page
from rsedge.reports.schema import LayerProfile, Report
from rsedge.reports.templating import environment

BOX_COLOURS = ("#ffd400", "#00c8ff", "#ff4fa3", "#7dff5a", "#ff8c1a", "#c9a0ff")
"""Of classes of objects, bright ones for outlines over images."""


@dataclass(frozen=True)
class TileView:
    """A tile ready for the page: (title, data address) per picture."""

    name: str
    caption: str
    pictures: list[tuple[str, str]]
    differing: str


@dataclass(frozen=True)
class CurveView:
    """A small plot of one training figure and the phases drawn in it."""

    title: str
    plot: str
    phases: list[str]


def render(report: Report, assets: ReportAssets | None = None) -> str:
    """The whole page as text.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    return _rendered("report.html.j2", _context(report, assets or ReportAssets()))


def write_layers_html(title: str, profiles: list[LayerProfile], path: str | Path) -> None:
    """Writes a page of profiles alone, atomically.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    _write_page("layers_page.html.j2", layers.page_context(title, profiles), path)


def write_soak_html(record: Soak, path: str | Path) -> None:
    """Writes a page of one soak alone, atomically.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    _write_page("soak_page.html.j2", soak.page_context(record), path)


def write_search_html(found: search.SearchView, path: str | Path) -> None:
    """Writes the page of a search, atomically, in place of an earlier one.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    _write_page("search_page.html.j2", search.page_context(found), path)


def write_latency_html(table: LatencyTable, path: str | Path) -> None:
    """Writes a page of one model on many targets, atomically.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    _write_page("latency_page.html.j2", latency.page_context(table), path)


def write_compare_html(first: tuple[str, Report], others: compare_page.Runs, path: str | Path) -> None:
    """Writes a page of runs set against the first, atomically.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    _write_page("compare_page.html.j2", compare_page.page_context(first, others), path)


def _write_page(template: str, context: dict[str, Any], path: str | Path) -> None:
    write_bytes(path, _rendered(template, context).encode())


def check_pages() -> None:
    """Whether pages can be written, for whoever measures first what they are to show.

    Raises:
        MissingCapability: jinja2 is not installed.
    """
    environment()


def page_mark(writer: str) -> bytes:
    """What the page of a command (``rsedge compare``) has in its head, by which it is known for one of ours."""
    return f'<meta name="generator" content="{writer}">'.encode()


def _rendered(template: str, context: dict[str, Any]) -> str:
    return str(environment().get_template(template).render(context))


def write_html(report: Report, path: str | Path, assets: ReportAssets | None = None) -> None:
    """Renders and writes the page atomically."""
    write_bytes(path, render(report, assets).encode())


def _picture(rgb: images.Rgb) -> str:
    return images.data_uri(images.thin_out(rgb).astype("uint8"))


def _context(report: Report, assets: ReportAssets) -> dict[str, Any]:
    """The page's texts and tables, and beside them its pictures."""
    from rsedge.reports import svg, svg_budget, svg_model

    colours = figures.class_colours(report.classes, report.class_colours)
    seen = page(report, assets)
    return {
        "page": seen,
        "report": report,
        "pareto": svg.pareto(seen.points, seen.metric),
        "ecdf": svg.ecdf(_artefacts(report, assets), view.marks(report)),
        "samples": list(_artefacts(report, assets)),
        "tiles": [
            *(_tile(t, colours) for t in assets.tiles),
            *(_boxes(b) for b in assets.boxes),
            *map(_images, assets.images),
        ],
        "images": bool(assets.images),
        "disagreement": list(images.DIFFERENCES),
        "outlines": _class_outlines(report) if assets.boxes else [],
        "captions": [(c, _picture(c.rgb)) for c in assets.captions],
        "student_name": assets.student_name,
        "disagreement_maps": assets.disagreement_maps,
        "legend": list(zip(report.classes, colours, strict=True)),
        "curves": _curves(assets.history),
        "timeline": svg.timeline([(s.name, s.seconds, _stage_text(s)) for s in report.stages]),
        "maps": _maps(report),
        "width_plots": [
            svg_model.widths(s.widths, f"Widths before and after {s.name}") for s in report.stages if s.widths
        ],
        "damage_plots": [
            svg_model.sensitivity(s.damage, f"Damage of every layer, {s.name}") for s in report.stages if s.damage
        ],
        "budget_plots": [svg_budget.limits(b) for b in report.budgets],
        "profiles": seen.profiles,
        "soaks": seen.soaks,
    }


def _artefacts(report: Report, assets: ReportAssets) -> dict[str, Sequence[float]]:
    """Single latencies of what the report has as artefacts: of steps in between it shows a median alone."""
    names = {row.name for row in (*report.baselines, *report.targets)}
    return {name: values for name, values in assets.latency_samples.items() if name in names and len(values)}


def _stage_text(stage: Any) -> str:
    took = figures.duration(stage.seconds)
    return took if stage.outcome == "applied" else f"{took}, {stage.outcome}"


def _tile(tile: TileAsset, colours: Sequence[str]) -> TileView:
    rgb = images.thin_out(tile.rgb).astype("uint8")
    teacher, student = (images.thin_out(m).astype("uint8") for m in (tile.teacher, tile.student))
    label = None if tile.label is None else images.thin_out(tile.label).astype("uint8")
    pictures = [("image" if tile.before is None else "after", images.data_uri(rgb))]
    if tile.before is not None:
        pictures.insert(0, ("before", _picture(tile.before)))
    if label is not None:
        pictures.append(("label", images.data_uri(images.paint(label, colours))))
    pictures.append(("teacher", images.data_uri(images.paint(teacher, colours))))
    pictures.append(("student", images.data_uri(images.paint(student, colours))))
    pictures.append(("disagreement", images.data_uri(images.disagreement(rgb, teacher, student, label))))
    differing = f"{figures.share(images.differing_share(tile.teacher, tile.student))} of pixels differ"
    return TileView(tile.name, tile.caption, pictures, differing)


def _class_outlines(report: Report) -> list[tuple[str, str]]:
    return [(name, BOX_COLOURS[i % len(BOX_COLOURS)]) for i, name in enumerate(report.classes)]


def _images(tile: ImageAsset) -> TileView:
    """Every image on the finest grid of them."""
    edge = max(len(image) for image in tile.images.values())
    grown = {t: i.repeat(edge // len(i), 0).repeat(edge // len(i), 1) for t, i in tile.images.items()}
    return TileView(tile.name, tile.caption, [(title, _picture(image)) for title, image in grown.items()], "")


def _boxes(tile: BoxAsset) -> TileView:
    """The image as it is, and once with the boxes of each."""
    pictures = [("image", images.data_uri(tile.rgb))]
    pictures += [(title, images.data_uri(images.outlined(tile.rgb, b, BOX_COLOURS))) for title, b in tile.boxes.items()]
    counts = ", ".join(f"{title} {len(b)}" for title, b in tile.boxes.items())
    return TileView(tile.name, tile.caption, pictures, f"objects: {counts}")


def _curves(history: Mapping[str, Sequence[Mapping[str, float]]]) -> list[CurveView]:
    """One small plot per figure that occurs in the history, with a line per phase."""
    from rsedge.reports import svg

    rows = [row for phase in history.values() for row in phase]
    axis = "epoch" if any("epoch" in row for row in rows) else "step"
    names = dict.fromkeys(key for row in rows for key in row if key not in ("epoch", "step", "seconds"))
    found = []
    for name in names:
        series = {
            phase: [(float(r.get(axis, i)), float(r[name])) for i, r in enumerate(entries) if name in r]
            for phase, entries in history.items()
        }
        series = {phase: values for phase, values in series.items() if len(values) > 1}
        if series:
            title = figures.label(name)
            found.append(CurveView(title, svg.curves(series, f"{title} per {axis}", axis), list(series)))
    return found


def _maps(report: Report) -> list[tuple[str, str]]:
    from rsedge.reports import svg

    splits = list(report.data.splits)
    found: list[tuple[str, str]] = []
    for name, scene in report.data.scenes.items():
        blocks = [(b.split, b.row, b.col, b.height, b.width) for b in report.data.blocks if b.scene == name]
        if blocks:
            found.append((name, svg.split_map(scene.height, scene.width, blocks, splits, name)))
    return found
