"""Who is on the Pareto front, and what is to be said of ours there."""

from __future__ import annotations

from collections.abc import Mapping

Point = tuple[float, ...]
"""What is wanted low: time, size, and a figure of quality with its sign turned."""


def front(points: Mapping[str, Point]) -> list[str]:
    """Names of those that no other is at least as good as in everything and better in something."""
    return [name for name, point in points.items() if not beaten_by(name, point, points)]


def beaten_by(name: str, point: Point, points: Mapping[str, Point]) -> list[str]:
    """Names of those that are at least as good in everything and better in something."""
    return [other for other, found in points.items() if other != name and _beats(found, point)]


def _beats(first: Point, second: Point) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True)) and first != second


def words(name: str, points: Mapping[str, Point], titles: Mapping[str, str]) -> str:
    """One sentence: whether ``name`` is on the front, and if not who beats it."""
    if name not in points:
        return f"**{titles[name]} gave nothing that could be judged.**"
    better = beaten_by(name, points[name], points)
    others = [titles[other] for other in front(points) if other != name]
    if better:
        return f"**{titles[name]} is not on the front**: {', '.join(titles[o] for o in better)} beats it in everything."
    return f"{titles[name]} is on the front{', with ' + '; '.join(others) if others else ', alone'}."
