"""A run with its log, from its recipe to its report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsedge.cache.run_folder import RunFolder
from rsedge.data.metrics.table import METRICS
from rsedge.data.metrics.verdict import gate_line
from rsedge.progress import Reporter
from rsedge.recipe.reading import AnyRecipe, resolved
from rsedge.recipe.track import TrackSection
from rsedge.tracking.base import Log, Outcome, Tracking

if TYPE_CHECKING:
    from rsedge.reports.schema import Report, TargetRecord

LAST = 0
"""The step of what is found once, at the end."""


@contextlib.contextmanager
def tracked(recipe: AnyRecipe, run: RunFolder, reporter: Reporter) -> Iterator[Tracking]:
    """Logs a run as its recipe says, if it does; how it ended is logged however it ends."""
    tracking = Tracking(None if recipe.track is None else open_log(recipe.track, run.tracking), reporter.note)
    tracking.begin(recipe.name, flat(resolved(recipe)))
    if recipe.track is not None:
        reporter.listen = tracking.figures
    outcome: Outcome = "failed"
    try:
        yield tracking
        outcome = "finished"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        reporter.listen = None
        tracking.end(outcome)


def open_log(section: TrackSection, folder: Path) -> Log:
    """The log that a recipe names; it writes into ``folder`` where it is told no other place."""
    if section.to == "mlflow":
        from rsedge.tracking.to_mlflow import MlflowLog

        return MlflowLog(folder, section.uri, section.experiment)
    from rsedge.tracking.to_tensorboard import TensorboardLog

    return TensorboardLog(folder / "tensorboard")


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Plain values by their paths, as ``--set`` names them."""
    if isinstance(value, Mapping) and value:
        inner: Any = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        inner = enumerate(value)
    else:
        return {name: str(value)}
    found: dict[str, str] = {}
    for key, item in inner:
        found |= flat(item, f"{name}.{key}" if name else str(key))
    return found


def log_report(tracking: Tracking, report: Report, run: RunFolder) -> None:
    """The figures of every target, what became of its gates, and the report itself."""
    for target in report.targets:
        tracking.figures(target.name, LAST, _figures(target))
    gates = {
        f"gate {t.name} {gate.name}": f"{gate.outcome}: {gate_line(gate)}" for t in report.targets for gate in t.gates
    }
    files = [run.report_html, run.report_json, run.report_markdown, run.resolved_recipe]
    tracking.tell({"verdict": report.judged.word, **gates}, [path for path in files if path.is_file()])


def _figures(target: TargetRecord) -> dict[str, float]:
    """What gates can hold of a target, with its latency and whether that was measured or predicted."""
    found = {name: float(v) for name, v in target.metrics.items() if name in METRICS and isinstance(v, int | float)}
    if target.latency_ms is not None:
        found["latency_ms"] = target.latency_ms.p50
    if target.interval is not None:
        found["latency_ms predicted"] = target.interval.mid_ms
    if target.agreement is not None:
        found["agreement"] = target.agreement
    if target.size_bytes is not None:
        found["size_bytes"] = float(target.size_bytes)
    return found
