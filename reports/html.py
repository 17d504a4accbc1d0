"""``report.html``: one self-contained page from a report record and its assets. No network, no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsedge.data.errors import missing_extra
from rsedge.data.files import write_bytes
from rsedge.data.metrics import verdict
from rsedge.data.metrics.table import title_of
from rsedge.reports import figures, images, layers, view
from rsedge.reports.assets import BoxAsset, ImageAsset, ReportAssets, TileAsset
from rsedge.reports.schema import LayerProfile, Report

BOX_COLOURS = ("#ffd400", "#00c8ff", "#ff4fa3", "#7dff5a", "#ff8c1a", "#c9a0ff")
"""Of classes of objects, bright ones for outlines over images."""
TEMPLATES = Path(__file__).parent / "templates"


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
    write_bytes(path, _rendered("layers_page.html.j2", layers.page_context(title, profiles)).encode())


def _rendered(template: str, context: dict[str, Any]) -> str:
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise missing_extra("jinja2", "report", "writing HTML") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(context)


def write_html(report: Report, path: str | Path, assets: ReportAssets | None = None) -> None:
    """Renders and writes the page atomically."""
    write_bytes(path, render(report, assets).encode())


def _picture(rgb: images.Rgb) -> str:
    return images.data_uri(images.thin_out(rgb).astype("uint8"))


def _context(report: Report, assets: ReportAssets) -> dict[str, Any]:
    from rsedge.reports import svg, svg_budget

    colours = figures.class_colours(report.classes, report.class_colours)
    metric = view.metric_name(report)
    points, left_out = view.points(report)
    base = view.reference(report)
    return {
        "report": report,
        "fmt": figures,
        "view": view,
        "gates": verdict,
        "summary": view.summary(report),
        "cards": view.cards(report),
        "columns": view.COLUMNS,
        "table": view.table(report),
        "metric_title": metric,
        "reference": base[0] if base else None,
        "points": points,
        "left_out": left_out,
        "pareto": svg.pareto(points, title_of(metric)),
        "ecdf": svg.ecdf(assets.latency_samples),
        "samples": list(assets.latency_samples),
        "matrices": view.matrices(report),
        "tiles": [
            *(_tile(t, colours) for t in assets.tiles),
            *(_boxes(b) for b in assets.boxes),
            *map(_images, assets.images),
        ],
        "images": bool(assets.images),
        "outlines": _class_outlines(report) if assets.boxes else [],
        "captions": [(c, _picture(c.rgb)) for c in assets.captions],
        "student_name": assets.student_name,
        "legend": list(zip(report.classes, colours, strict=True)),
        "curves": _curves(assets.history),
        "timeline": svg.timeline([(s.name, s.seconds, _stage_text(s)) for s in report.stages]),
        "details": [(s, *view.details_table(s.details)) for s in report.stages if s.details],
        "damage": [(s, view.damage(s)) for s in report.stages if s.damage],
        "changes": [(s, view.changes(s)) for s in report.stages if s.before or s.after],
        "maps": _maps(report),
        "budgets": [(b, view.budget_facts(b), svg_budget.limits(b)) for b in report.budgets],
        "profiles": [layers.layers_view(p) for p in report.layers],
        "environment": list(view.flat(report.environment.model_dump())) if report.environment else [],
    }


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
            found.append(CurveView(name, svg.curves(series, f"{name} per {axis}", axis), list(series)))
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
