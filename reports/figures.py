"""Figures of a report as people read them (plain numbers: :mod:`rsedge.data.numbers`); the colours used throughout are of
:mod:`rsedge.data.colours`."""

from __future__ import annotations

from typing import Any

from rsedge.data.colours import PALETTE as PALETTE
from rsedge.data.colours import class_colours as class_colours
from rsedge.data.metrics.table import METRICS
from rsedge.data.metrics.verdict import metric_figure
from rsedge.data.numbers import DASH as DASH
from rsedge.data.numbers import milliseconds as milliseconds
from rsedge.data.numbers import score as score
from rsedge.data.numbers import share as share
from rsedge.data.numbers import significant as significant
from rsedge.data.numbers import size as size
from rsedge.data.numbers import times as times
from rsedge.runtimes.file_checks import Check, Difference


def count(value: float | None) -> str:
    """Large counts in short form, e.g. ``17.5 M``, ``4.09 G``."""
    if value is None:
        return DASH
    for unit, step in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= step:
            return f"{significant(value / step)} {unit}"
    return f"{value:,.0f}"


def signed(value: float | None) -> str:
    """A difference of scores with its sign and three decimals."""
    return DASH if value is None else f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as ``8.2 s``, ``3 min 20 s`` or ``1 h 05 min``."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def label(name: str) -> str:
    """The name of a figure in words: units go, since the value carries them."""
    known = {"peak_rss_bytes": "peak memory", "macs": "MACs", "score": "score on selection"}
    if name in known:
        return known[name]
    if name in METRICS:
        return METRICS[name].title
    for ending in ("_bytes", "_ms", "_seconds"):
        name = name.removesuffix(ending)
    return name.replace("_per_s", "/s").replace("_", " ")


def check_figures(check: Check) -> str:
    """What was checked of a file in a few words: largest logit difference and class agreement, or the compiler's outcome."""
    if isinstance(check, Difference):
        return f"largest logit difference {check.max_abs:.1e}, same class on {check.agreement:.2%}"
    return check.message


def figure(name: str, value: Any) -> str:
    """Any figure of a stage or table: metrics in the unit of their table, others by what their name says they are."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    key = name.lower()
    if key.endswith("bytes"):
        return size(value)
    if key.endswith("_ms") or key in ("p50", "p90", "p99"):
        return milliseconds(value)
    if key in ("seconds", "time_s") or key.endswith("_seconds"):
        return duration(value)
    if key in ("params", "macs") or key.endswith(("_params", "_macs")):
        return count(value)
    if key in METRICS:
        return metric_figure(key, value)
    if key.endswith("_share"):
        return share(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else significant(value)
