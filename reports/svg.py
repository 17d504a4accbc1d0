"""Plots as inline SVG, drawn here so that they follow the page's light and dark colours and need no library.

Colours are CSS classes (``s0``..``s7`` for series, ``grid``, ``axis``); sizes are in user units of a scalable view box.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from rsedge.reports.figures import milliseconds, significant

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Point:
    """One artefact in the accuracy-latency plot.

    Attributes:
        low, high: ends of the interval (ms), where the latency is predicted. p90, p99: (ms), where it was measured.
        y_low, y_high: 95 % interval of the accuracy. care: why the measurement is
            to be taken with care, in a word or two.
    """

    key: str
    label: str
    x: float
    y: float
    size_bytes: float | None
    role: str
    low: float | None = None
    high: float | None = None
    y_low: float | None = None
    y_high: float | None = None
    p90: float | None = None
    p99: float | None = None
    care: str = ""

    @property
    def predicted(self) -> bool:
        return self.low is not None


HATCH = Markup(
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path class="hatch" d="M0 0V6"/></pattern></defs>'
)
"""What fills predicted points, so that they are told apart without colour."""


@dataclass(frozen=True)
class Frame:
    """The plotting area inside a view box, and the words on its axes."""

    width: float = 720
    height: float = 380
    left: float = 68
    right: float = 18
    top: float = 16
    bottom: float = 46
    x_title: str = ""
    y_title: str = ""

    @property
    def x_range(self) -> tuple[float, float]:
        return self.left, self.width - self.right

    @property
    def y_range(self) -> tuple[float, float]:
        return self.height - self.bottom, self.top


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Maps low..high onto start..end."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Maps low..high (both > 0) onto start..end by their logarithms."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(value))


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) from low to high."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from low to high; powers of ten only where that is more than ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    inside = [t for t in ticks if low <= t <= high]
    if len(inside) > 10:
        inside = [t for t in inside if math.log10(t) == round(math.log10(t))]
    return inside


def pareto(points: Sequence[Point], y_name: str) -> Markup:
    """Accuracy against latency (log scale), bubble area by file size.

    Measured points are filled, with a line to p90 and p99; predicted ones are hatched, with their interval dashed, and carry the
    word. The upright lines are the 95 % intervals of the accuracy.
    """
    if not points:
        return Markup("")
    frame = Frame(height=420, x_title="latency per tile (ms, log scale) · faster is further left", y_title=y_name)
    xs = [v for p in points for v in (p.x, p.low, p.high, p.p99) if v is not None]
    low, high = min(xs) / 1.6, max(xs) * 1.6
    y_low, y_high = _padded([v for p in points for v in (p.y, p.y_low, p.y_high) if v is not None], least=0.008)
    x, y = logarithmic(low, high, *frame.x_range), linear(y_low, y_high, *frame.y_range)
    parts = [HATCH, *axes(frame, x, log_ticks(low, high), y, nice_ticks(y_low, y_high))]
    parts += [_front(points, x, y, frame)]
    ordered = sorted(points, key=lambda p: -(p.size_bytes or 0))
    largest = max((p.size_bytes or 0) for p in points)
    discs = [(p, x(p.x), y(p.y), _radius(p, largest)) for p in ordered]
    parts += [_bubble(p, cx, cy, r) for p, cx, cy, r in discs]
    parts += [_bars(p, x, y) for p in ordered]
    parts += [Markup('<g class="keys">{}</g>').format(Markup("").join(_keys(discs)))]
    return drawing(frame, parts, f"Scatter of {y_name} against latency for {len(points)} artefacts, listed below")


def _front(points: Sequence[Point], x: Scale, y: Scale, frame: Frame) -> Markup:
    """The step line of measured artefacts that no other measured one beats in both."""
    best, corners = -math.inf, []
    for p in sorted((p for p in points if not p.predicted), key=lambda p: (p.x, -p.y)):
        if p.y > best:
            best = p.y
            corners.append(p)
    if len(corners) < 2:
        return Markup("")
    path = f"M{x(corners[0].x):.1f} {frame.y_range[0]:.1f}V{y(corners[0].y):.1f}"
    path += "".join(f"H{x(p.x):.1f}V{y(p.y):.1f}" for p in corners[1:]) + f"H{frame.x_range[1]:.1f}"
    return Markup('<path class="front" d="{}"/>').format(path)


def _radius(p: Point, largest: float) -> float:
    return 11 + 17 * math.sqrt((p.size_bytes or 0) / largest) if largest else 11.0


def _bubble(p: Point, cx: float, cy: float, radius: float) -> Markup:
    kind = "predicted" if p.predicted else "measured"
    return Markup('<g class="bubble {} {}"><title>{}</title><circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/></g>').format(
        p.role, kind, p.label, cx, cy, radius
    )


def _bars(p: Point, x: Scale, y: Scale) -> Markup:
    """The interval of the accuracy upright, and along the latency that of a prediction, or p90 and p99."""
    cx, cy = x(p.x), y(p.y)
    lines = []
    if p.y_low is not None and p.y_high is not None:
        lines.append(("", f"M{cx - 4:.1f} {y(p.y_high):.1f}h8m-4 0V{y(p.y_low):.1f}m-4 0h8"))
    if p.low is not None and p.high is not None:
        lines.append(("dashed", f"M{x(p.low):.1f} {cy - 4:.1f}v8m0 -4H{x(p.high):.1f}m0 -4v8"))
    if p.p90 is not None and p.p99 is not None:
        lines.append(("", f"M{cx:.1f} {cy:.1f}H{x(p.p90):.1f}m0 -3v6m0 -3H{x(p.p99):.1f}m0 -5v10"))
    mark = Markup('<path class="whisker {}" d="{}"><title>{}</title></path>')
    return Markup("").join(mark.format(kind, path, p.label) for kind, path in lines)


def _keys(discs: Sequence[tuple[Point, float, float, float]]) -> list[Markup]:
    """The keys above all bubbles: inside their own, or on top of it where a later one covers the centre."""
    parts = []
    for index, (p, cx, cy, radius) in enumerate(discs):
        covered = any(math.hypot(cx - ox, cy - oy) < r for _, ox, oy, r in discs[index + 1 :])
        place, ty = ("outside", cy - radius - 5) if covered else ("hollow" if p.predicted else "inside", cy + 4)
        parts.append(Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(place, cx, ty, p.key))
        word = "predicted" if p.predicted else p.care
        if word:
            under = cy + radius + 12
            parts.append(Markup('<text class="word" x="{:.1f}" y="{:.1f}">{}</text>').format(cx, under, word))
    return parts


def ecdf(samples: Mapping[str, Sequence[float]], marks: Mapping[str, Sequence[tuple[str, float, float]]]) -> Markup:
    """Share of calls that took at most so long, one line per artefact.

    Args:
        samples: milliseconds by artefact, a part of all calls.
        marks: by artefact (name, share, milliseconds) of the dots, which are of all calls.
    """
    series = {name: np.sort(np.asarray(v, dtype=float)) for name, v in samples.items() if len(v)}
    if not series:
        return Markup("")
    frame = Frame(height=320, x_title="latency of one call (ms, log scale)", y_title="share of calls")
    dots = [value for name in series for _, _, value in marks.get(name, ())]
    low = min([float(v[0]) for v in series.values()] + dots) / 1.15
    high = max([float(v[-1]) for v in series.values()] + dots) * 1.15
    x, y = logarithmic(low, high, *frame.x_range), linear(0, 1, *frame.y_range)
    parts = axes(frame, x, log_ticks(low, high), y, [0, 0.25, 0.5, 0.75, 1.0], y_percent=True)
    for index, (name, values) in enumerate(series.items()):
        shares = np.arange(1, len(values) + 1) / len(values)
        keep = np.unique(np.linspace(0, len(values) - 1, min(len(values), 240)).astype(int))
        path = f"M{x(float(values[0])):.1f} {y(0):.1f}"
        path += "".join(f"H{x(float(values[i])):.1f}V{y(float(shares[i])):.1f}" for i in keep)
        parts.append(Markup('<path class="line s{}" d="{}"><title>{}</title></path>').format(index % 8, path, name))
        for quantile, share, value in marks.get(name, ()):
            parts.append(_dot(x(value), y(share), index, f"{name}: {quantile} = {milliseconds(value)}"))
    return drawing(frame, parts, "Empirical distribution of latency per artefact")


def curves(series: Mapping[str, Sequence[tuple[float, float]]], title: str, x_title: str) -> Markup:
    """Lines of one figure over epochs or steps, one line per phase."""
    data = {n: [(a, b) for a, b in v if math.isfinite(b)] for n, v in series.items()}
    data = {n: v for n, v in data.items() if v}
    if not data:
        return Markup("")
    frame = Frame(width=350, height=220, left=54, right=12, top=12, bottom=42, x_title=x_title)
    xs, ys = [a for v in data.values() for a, _ in v], [b for v in data.values() for _, b in v]
    y_low, y_high = _padded(ys, least=1e-6)
    x, y = linear(min(xs), max(xs), *frame.x_range), linear(y_low, y_high, *frame.y_range)
    parts = axes(frame, x, nice_ticks(min(xs), max(xs), 4), y, nice_ticks(y_low, y_high, 4))
    for index, (name, values) in enumerate(data.items()):
        path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in values)
        parts.append(Markup('<path class="line s{}" d="{}"><title>{}</title></path>').format(index % 8, path, name))
        last_x, last_y = values[-1]
        parts.append(_dot(x(last_x), y(last_y), index, f"{name}: {significant(last_y)} at the end"))
    return drawing(frame, parts, title)


def timeline(stages: Sequence[tuple[str, float, str]]) -> Markup:
    """One bar per stage (name, seconds, text), as long as it took."""
    if not stages:
        return Markup("")
    row, left, width = 26.0, 118.0, 720.0
    longest = max(s for _, s, _ in stages) or 1.0
    parts = []
    for index, (name, seconds, text) in enumerate(stages):
        top = 4 + index * row
        bar = max(2.0, seconds / longest * (width - left - 110))
        parts.append(
            Markup(
                '<text class="tick end" x="{:.0f}" y="{:.1f}">{}</text>'
                '<rect class="bar" x="{:.0f}" y="{:.1f}" width="{:.1f}" height="16" rx="3"/>'
                '<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>'
            ).format(left - 10, top + 13, name, left, top, bar, left + bar + 8, top + 13, text)
        )
    return drawing(Frame(width=width, height=8 + row * len(stages)), parts, "Time per stage")


def split_map(
    height: int, width: int, blocks: Sequence[tuple[str, int, int, int, int]], splits: Sequence[str], name: str
) -> Markup:
    """A scene's rectangle (pixels) with its blocks (split, row, col, height, width) coloured by split."""
    parts = [Markup('<rect class="scene" width="{}" height="{}"/>').format(width, height)]
    for split, row, col, high, wide in blocks:
        index = splits.index(split) if split in splits else 7
        parts.append(
            Markup('<rect class="block s{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                index % 8, col, row, wide, high, split
            )
        )
    return drawing(Frame(width=width, height=height), parts, f"Blocks of {name} by split", "map")


def _padded(values: Sequence[float], least: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = max(0.14 * (high - low), least)
    return low - pad, high + pad


def _dot(cx: float, cy: float, index: int, text: str) -> Markup:
    return Markup('<circle class="dot s{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>').format(
        index % 8, cx, cy, text
    )


def axes(
    frame: Frame, x: Scale, x_ticks: Sequence[float], y: Scale, y_ticks: Sequence[float], y_percent: bool = False
) -> list[Markup]:
    """The frame's two axes with their ticks, grid lines and titles."""
    parts = []
    (x0, x1), (y0, y1) = frame.x_range, frame.y_range
    places = _decimals(y_ticks)
    for tick in y_ticks:
        text = f"{tick:.0%}".replace("%", " %") if y_percent else f"{tick:.{places}f}"
        parts.append(
            Markup(
                '<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/><text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>'
            ).format(x0, y(tick), x1, x0 - 7, y(tick) + 4, text)
        )
    for tick in x_ticks:
        parts.append(
            Markup(
                '<path class="grid" d="M{:.1f} {:.1f}V{:.1f}"/><text class="tick mid" x="{:.1f}" y="{:.1f}">{}</text>'
            ).format(x(tick), y0, y1, x(tick), y0 + 17, f"{tick:g}" if tick < 1e5 else f"{tick:.0e}")
        )
    parts.append(Markup('<path class="axis" d="M{:.1f} {:.1f}V{:.1f}H{:.1f}"/>').format(x0, y1, y0, x1))
    middle = (x0 + x1) / 2
    parts.append(
        Markup('<text class="title mid" x="{:.1f}" y="{:.1f}">{}</text>').format(middle, y0 + 36, frame.x_title)
    )
    if frame.y_title:
        parts.append(
            Markup('<text class="title mid" transform="translate(13 {:.1f}) rotate(-90)">{}</text>').format(
                (y0 + y1) / 2, frame.y_title
            )
        )
    return parts


def _decimals(ticks: Sequence[float]) -> int:
    if len(ticks) < 2:
        return 3
    step = min(abs(b - a) for a, b in itertools.pairwise(ticks))
    return max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 3


def drawing(frame: Frame, parts: Sequence[Markup], label: str, kind: str = "plot") -> Markup:
    """The whole picture: ``parts`` in a view box, with words for those who cannot see it."""
    return Markup('<svg class="{}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        kind, frame.width, frame.height, escape(label), Markup("").join(parts)
    )
