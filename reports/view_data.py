"""What a report says of data, of where it comes from and of the machine; no HTML here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rsedge.reports import figures as f
from rsedge.reports.schema import Report, SceneRecord
from rsedge.reports.tables import Cell, Column, Table


def splits(report: Report) -> Table:
    """The roles of the data."""
    columns = [
        Column("role"),
        Column("tiles or samples", True),
        Column("pixels", True),
        Column("labels"),
        Column("scenes"),
    ]
    rows = [
        [Cell(name, swatch=index), Cell(_tiles(one.tiles, one.pixels)), Cell(f.count(one.pixels)),
         Cell("yes" if one.labelled else "no"), Cell(", ".join(one.scenes), tuple(filter(None, (one.note,))))]
        for index, (name, one) in enumerate(report.data.splits.items())
    ]  # fmt: skip
    return Table("Roles of the data", columns, rows)


def _tiles(tiles: int | None, pixels: int | None) -> str:
    """Records of before views were told apart have 0 for them."""
    return "views, drawn anew" if not tiles and pixels else f"{tiles or 0:,}"


def scenes(report: Report) -> Table | None:
    """Size, place and time of each scene."""
    rows = [
        [Cell(name), Cell(f"{s.width:,} × {s.height:,}"), Cell(f.DASH if s.gsd_m is None else f"{f.significant(s.gsd_m)} m"),
         Cell(_place(s)), Cell(s.taken or "not known"), Cell(", ".join(s.bands)), Cell(s.sha256 or f.DASH)]
        for name, s in report.data.scenes.items()
    ]  # fmt: skip
    columns = [
        Column("scene"),
        Column("pixels", True),
        Column("GSD", True),
        Column("place"),
        Column("taken"),
        Column("bands"),
    ]
    return Table("Scenes", [*columns, Column("SHA-256")], rows) if rows else None


def _place(scene: SceneRecord) -> str:
    if scene.bounds is None:
        return "not known"
    west, south, east, north = scene.bounds
    return f"{south:.4f} to {north:.4f}° N, {west:.4f} to {east:.4f}° E"


def origin(report: Report) -> Table | None:
    """What the results come from, with hashes."""
    found, teacher = report.origin, report.teacher
    rows = [("teacher", "; ".join(filter(None, (teacher.name, teacher.source, teacher.licence))))]
    rows += [("data manifest, SHA-256", report.data.manifest_sha256)]
    if found is not None:
        rows += [("recipe, SHA-256", found.recipe_sha256), ("seed", str(found.seed)),
                 ("commit of rsedge", found.commit or "not known: not installed from a repository"),
                 ("signing key, fingerprint", found.key or "none")]  # fmt: skip
        rows += [(f"bundle {name}, SHA-256 of its manifest", digest) for name, digest in found.bundles.items()]
        rows += [(f"stage {name}, SHA-256 of its outcome", digest) for name, digest in found.stages.items()]
    if report.seconds is not None:
        rows.append(("the whole run took", f.duration(report.seconds)))
    return Table("Origin and hashes", [Column("what"), Column("value")], [[Cell(a), Cell(b)] for a, b in rows])


def bands(report: Report) -> Table | None:
    """What values each band has."""
    columns = ["values", "minimum", "maximum", "saturated", "clipped", "outside the valid range"]
    rows = [
        [Cell(b.name), Cell(f.count(b.count)), Cell(f.significant(b.minimum)), Cell(f.significant(b.maximum)),
         *(Cell(f.DASH if v is None else f"{100 * v:.2f} %") for v in (b.saturated, b.clipped, b.outside))]
        for b in report.data.bands
    ]  # fmt: skip
    return Table("Values of each band", [Column("band"), *(Column(c, True) for c in columns)], rows) if rows else None


def environment(report: Report) -> Table | None:
    """Machine and tools."""
    if report.environment is None:
        return None
    rows = [[Cell(name), Cell(value)] for name, value in _flat(report.environment.model_dump())]
    return Table("Machine and tools", [Column("what"), Column("value")], rows)


def _flat(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested mappings as dotted names with text values."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list | tuple) else f.figure(key, value)
