"""Two runs side by side: what changed per target, from their ``report.json``."""

from __future__ import annotations

from dataclasses import dataclass

from rsedge.data.metrics.table import row_of
from rsedge.reports.schema import Report, TargetRecord
from rsedge.reports.view import metric_name

MEASURED = ("p50_ms", "throughput_per_s", "peak_rss_bytes")
"""Figures that depend on the machine."""


@dataclass(frozen=True)
class Change:
    """One figure of one target before and after; None where a run does not have it.

    ``comparable`` is False where the two cannot be set against each other: latencies and memory of which one is predicted or of
    another machine, accuracy on other data, likeness to another teacher.
    """

    target: str
    figure: str
    before: float | None
    after: float | None
    comparable: bool = True

    @property
    def ratio(self) -> float | None:
        """after / before, None where one is missing, zero or not comparable."""
        if not self.comparable or not self.before or self.after is None:
            return None
        return self.after / self.before


def compare(before: Report, after: Report) -> list[Change]:
    """Accuracy, agreement, latency, size and memory of every target that either report has."""
    old, new = ({t.name: t for t in r.targets} for r in (before, after))
    metric = metric_name(after)
    same_machine, same_data, same_teacher = _shared(before, after)
    judged = same_data and (same_teacher or bool({"labels", "texts"} & set(row_of(metric).needs)))
    fair = {metric: judged, "agreement": same_data and same_teacher}
    changes = []
    for name in dict.fromkeys([*old, *new]):
        a, b = _figures(old.get(name), metric), _figures(new.get(name), metric)
        kinds = {t.provenance for t in (old.get(name), new.get(name)) if t is not None}
        measured = dict.fromkeys(MEASURED, kinds == {"measured"} and same_machine)
        for figure in dict.fromkeys([*a, *b]):
            changes.append(Change(name, figure, a.get(figure), b.get(figure), (fair | measured).get(figure, True)))
    return changes


def _shared(before: Report, after: Report) -> tuple[bool, bool, bool]:
    """Whether two runs have the machine, the data of every role, and the teacher in common."""
    machines = [r.environment.machine if r.environment else None for r in (before, after)]
    teachers = [(r.teacher.name, r.teacher.size_bytes, r.teacher.metrics) for r in (before, after)]
    same_machine = machines[0] is not None and machines[0] == machines[1]
    return same_machine, before.data.manifest_sha256 == after.data.manifest_sha256, teachers[0] == teachers[1]


def _figures(target: TargetRecord | None, metric: str) -> dict[str, float]:
    if target is None:
        return {}
    score = target.metrics.get(metric)
    found = {
        metric: score if isinstance(score, int | float) else None,
        "agreement": target.agreement,
        "p50_ms": target.central_ms,
        "throughput_per_s": target.throughput_per_s,
        "size_bytes": target.size_bytes,
        "peak_rss_bytes": target.peak_rss_bytes,
    }
    return {name: float(value) for name, value in found.items() if value is not None}
