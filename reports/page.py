"""Everything that a report says, as texts and tables: the one view that HTML and Markdown are written from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rsedge.data.metrics.table import title_of
from rsedge.reports import view, view_data, view_steps
from rsedge.reports.assets import ReportAssets
from rsedge.reports.banner import Banner, banner
from rsedge.reports.glossary import GLOSSARY, Term
from rsedge.reports.layers import LayersView, layers_view
from rsedge.reports.schema import Report
from rsedge.reports.soak import SoakView, soak_view
from rsedge.reports.svg import Point
from rsedge.reports.tables import Table
from rsedge.reports.texts import reference
from rsedge.reports.view_budget import BudgetView, budget_view

ROLES = {"teacher": "Teacher", "baseline": "Baselines", "step": "Compression steps", "target": "Targets"}


@dataclass(frozen=True)
class Page:
    """A report; ``sections`` are those that have something to show: anchor and title, in their order."""

    report: Report
    title: str
    banner: Banner
    cards: list[view.Card]
    columns: list[str]
    groups: list[tuple[str, list[view.Row]]]
    reference: str | None
    metric: str
    points: list[Point]
    left_out: list[str]
    budgets: list[BudgetView]
    soaks: list[SoakView]
    profiles: list[LayersView]
    matrices: list[view.Matrix]
    seams: Table | None
    steps: Table
    details: list[Table]
    widths: list[Table]
    damage: list[tuple[str, view_steps.Damage]]
    splits: Table
    bands: Table | None
    scenes: Table | None
    origin: Table | None
    environment: Table | None
    glossary: tuple[Term, ...]
    sections: dict[str, str]


def page(report: Report, assets: ReportAssets) -> Page:
    """What the page shows of a report; of the assets only that there are some."""
    points, left_out = view.points(report)
    base = reference(report)
    rows = view.table(report)
    metric = title_of(view.metric_name(report))
    found = Page(
        report=report,
        title=report.name,
        banner=banner(report),
        cards=view.cards(report),
        columns=[metric if c == "metric" else c for c in view.COLUMNS],
        groups=[(ROLES[role], [r for r in rows if r.role == role]) for role in ROLES],
        reference=base[0] if base else None,
        metric=metric,
        points=points,
        left_out=left_out,
        budgets=[budget_view(b) for b in report.budgets],
        soaks=[soak_view(t.soak) for t in report.targets if t.soak is not None],
        profiles=[layers_view(p) for p in report.layers],
        matrices=view.matrices(report),
        seams=view.seams(report),
        steps=view_steps.steps(report),
        details=[t for s in report.stages if (t := view_steps.details(report, s)) is not None],
        widths=[t for s in report.stages if (t := view_steps.widths(s)) is not None],
        damage=[(s.name, view_steps.damage(s)) for s in report.stages if s.damage],
        splits=view_data.splits(report),
        bands=view_data.bands(report),
        scenes=view_data.scenes(report),
        origin=view_data.origin(report),
        environment=view_data.environment(report),
        glossary=GLOSSARY,
        sections={},
    )
    return replace(found, sections=_sections(found, assets))


def _sections(made: Page, assets: ReportAssets) -> dict[str, str]:
    """Anchors and titles of what there is to show, in the order of the page."""
    names = {row.name for row in (*made.report.baselines, *made.report.targets)}
    there: dict[str, tuple[str, object]] = {
        "targets": ("Targets", made.cards),
        "comparison": ("Accuracy, latency and size", made.groups),
        "pareto": ("Accuracy against latency", made.points),
        "budget": ("Mission budget", made.budgets),
        "latency": ("How latency spreads", [n for n in assets.latency_samples if n in names]),
        "soak": ("Under load for long", made.soaks),
        "layers": ("Where the time goes", made.profiles),
        "tiles": ("Side by side", [*assets.tiles, *assets.boxes, *assets.images]),
        "captions": ("Captions", assets.captions),
        "confusion": ("Confusion matrices", made.matrices),
        "seams": ("Tiles in a whole scene", made.seams),
        "steps": ("Steps", made.steps),
        "data": ("Data", made.splits),
        "origin": ("Where this comes from", made.origin),
        "environment": ("Environment", made.environment),
        "glossary": ("What the numbers mean", made.glossary),
    }
    return {anchor: title for anchor, (title, content) in there.items() if content}
