"""The trials of a search, ready for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsedge.data.metrics.table import METRICS
from rsedge.reports import figures as f

EVERY_S = 5
"""How often a page of a search that goes on is read again by whoever has it open."""


@dataclass(frozen=True)
class TrialView:
    """One trial: texts by column, and its figures by objective."""

    number: int
    state: str
    best: bool
    gates: str
    figures: dict[str, float]
    predicted: tuple[str, ...]
    point: dict[str, str]
    words: str
    seconds: float | None


@dataclass(frozen=True)
class SearchView:
    """A search as a page shows it; ``objectives`` in their order, each with whether it was sought high."""

    title: str
    facts: Sequence[tuple[str, str]]
    objectives: dict[str, bool]
    trials: Sequence[TrialView]
    running: bool


def figure_text(name: str, value: float | None, predicted: bool) -> str:
    """An objective's figure in its unit; a prediction with the word."""
    text = f.DASH if value is None else f"{value:.3g} mJ" if name == "energy" else f.figure(name, value)
    return f"predicted {text}" if predicted else text


def title_of(name: str) -> str:
    """An objective in words."""
    return METRICS[name].title if name in METRICS else name


def page_context(view: SearchView) -> dict[str, Any]:
    """What the template takes: facts, the picture where there are a latency and a metric, a row of texts a trial."""
    names = list(dict.fromkeys(name for t in view.trials for name in t.point))
    return {
        "view": view, "every": EVERY_S if view.running else 0, "plot": _plot(view), "accuracy": _accuracy(view),
        "columns": [title_of(name) for name in view.objectives], "variables": names,
        "rows": [
            {
                "trial": t, "figures": [figure_text(n, t.figures.get(n), n in t.predicted) for n in view.objectives],
                "point": [t.point.get(n, f.DASH) for n in names], "seconds": f.duration(t.seconds),
            }
            for t in view.trials
        ],
    }  # fmt: skip


def _accuracy(view: SearchView) -> str | None:
    """The first objective of which more is better."""
    return next((name for name, high in view.objectives.items() if high), None)


def _plot(view: SearchView) -> str:
    from rsedge.reports import svg

    metric = _accuracy(view)
    if metric is None or "latency" not in view.objectives:
        return ""
    points = [
        svg.Point(
            str(t.number), f"trial {t.number}: {figure_text('latency', t.figures['latency'], 'latency' in t.predicted)}, "
            f"{title_of(metric)} {f.figure(metric, t.figures[metric])}", t.figures["latency"], t.figures[metric],
            t.figures.get("size"),
            "target" if t.best else "baseline", low=t.figures["latency"] if "latency" in t.predicted else None,
        )
        for t in view.trials
        if t.state == "done" and t.figures["latency"] > 0
    ]  # fmt: skip
    return svg.pareto(points, f"{title_of(metric)} on selection")
