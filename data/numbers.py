"""Numbers as people read them, with their units."""

from __future__ import annotations

import math

DASH = "–"


def fixed(value: float, places: int) -> str:
    """``value`` with so many decimals; what rounds to nothing has no sign."""
    text = f"{value:.{places}f}"
    return text.lstrip("-") if text.strip("-0.") == "" else text


def milliseconds(value: float | None) -> str:
    """Three significant digits, e.g. ``12.4 ms``; seconds from 10,000 ms on."""
    if value is None:
        return DASH
    return f"{significant(value / 1e3)} s" if value >= 10_000 else f"{significant(value)} ms"


def significant(value: float, digits: int = 3) -> str:
    """``value`` with that many significant digits and no exponent."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def size(value: float | None) -> str:
    """Bytes in decimal units, e.g. ``70.3 MB``."""
    if value is None:
        return DASH
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= step:
            return f"{significant(value / step)} {unit}"
    return f"{value:.0f} B"


def share(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return DASH if value is None else f"{fixed(100 * value, 1)} %"


def score(value: float | None) -> str:
    """A score such as kappa with three decimals."""
    return DASH if value is None else fixed(value, 3)


def times(value: float | None) -> str:
    """A ratio, e.g. ``15.2x``."""
    return DASH if value is None else f"{significant(value)}×"
