"""Axes of stored arrays by their names, and where a raster lies by coordinates along its rows and columns.

Coordinates are the middles of pixels, as CF and xarray have them; a transform begins at the corner of the first pixel. They may run
either way, but in even steps: a transform can say nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rsedge.data.errors import RequestError
from rsedge.data.scenes.raster_file import Array, Transform

NAMES = {
    "bands": ("band", "bands", "channel", "channels", "wavelength", "c"),
    "rows": ("y", "lat", "latitude", "row", "rows", "northing"),
    "columns": ("x", "lon", "longitude", "col", "cols", "column", "easting"),
    "time": ("time", "t", "date"),
}
"""Of axes, in lower case, by what they hold."""
_UNEVEN, _COARSE = 0.01, 0.25
"""Of a step: how far a coordinate may lie off an even one, and how far where its own type is no finer."""


@dataclass(frozen=True)
class Axes:
    """Numbers of the axes of an array that hold its rows, columns, bands and time; None where it has no such axis."""

    rows: int
    columns: int
    bands: int | None
    time: int | None

    def sizes(self, lengths: Sequence[int]) -> tuple[int, int, int]:
        """Bands, rows and columns, of a length for each axis."""
        return 1 if self.bands is None else lengths[self.bands], lengths[self.rows], lengths[self.columns]

    def window(self, bands: slice | list[int], rows: slice, columns: slice) -> tuple[slice | list[int], ...]:
        """What is wanted of each axis."""
        wanted: dict[int | None, slice | list[int]] = {
            self.bands: bands, self.rows: rows, self.columns: columns, self.time: slice(0, 1),
        }  # fmt: skip
        return tuple(wanted[axis] for axis in sorted(axis for axis in wanted if axis is not None))

    def image(self, values: Array) -> Array:
        """Values by these axes as bands, rows, columns."""
        order = [axis for axis in (self.time, self.bands, self.rows, self.columns) if axis is not None]
        ordered = values.transpose(order)
        return ordered.reshape(-1, *ordered.shape[-2:])


def axes_of(names: Sequence[str | None], lengths: Sequence[int], path: Path) -> Axes:
    """Which axis holds what: by its name, whatever their order; axes of other names are bands, rows and columns in that order.

    Args:
        names: of each axis, None or of any case; none at all where the file names none.

    Raises:
        RequestError: another number of names, two axes that hold one thing, none for rows or columns, or several times.
    """
    if names and len(names) != len(lengths):
        raise RequestError(f"{path}: names {len(names)} axes of an array of {len(lengths)}; name all, or none")
    found: dict[str, int] = {}
    others: list[int] = []
    for axis, name in enumerate(names or [None] * len(lengths)):
        held = next((what for what, known in NAMES.items() if str(name).lower() in known), None)
        if held is None:
            others.append(axis)
        elif found.setdefault(held, axis) != axis:
            raise _unknown(names, path)
    missing = [what for what in ("bands", "rows", "columns") if what not in found]
    if len(others) == len(missing) - 1 and "bands" in missing:
        missing.remove("bands")
    if len(others) != len(missing):
        raise _unknown(names, path)
    found |= dict(zip(missing, others, strict=True))
    time = found.get("time")
    if time is not None and lengths[time] != 1:
        raise RequestError(
            f"{path}: its axis '{names[time]}' has {lengths[time]} times, a scene is of one; write one of them, with that axis of "
            "length 1 or without"
        )
    return Axes(found["rows"], found["columns"], found.get("bands"), time)


def _unknown(names: Sequence[str | None], path: Path) -> RequestError:
    shown = ", ".join(str(name) for name in names) or "not named"
    return RequestError(
        f"{path}: its axes are {shown}; a scene has one of rows (y), one of columns (x), and may have one of bands (band) and one "
        "of a single time (time)"
    )


class Coordinate(NamedTuple):
    """Middles of pixels along an axis, and how the file calls them."""

    name: str
    values: Array


def place_of(rows: Coordinate, columns: Coordinate, path: Path) -> tuple[Transform | None, tuple[str, ...]]:
    """The transform of coordinates of rows and columns, None where no transform can say where they lie; and why not, in words.

    Raises:
        RequestError: they hold NaN or infinity.
    """
    why = [words for one in (rows, columns) if (words := _uneven(one, path)) is not None]
    if why:
        return None, tuple(why)
    dx, dy = _step(columns.values), _step(rows.values)
    return Transform(dx, 0.0, float(columns.values[0]) - dx / 2, 0.0, dy, float(rows.values[0]) - dy / 2), ()


def _step(values: Array) -> float:
    return (float(values[-1]) - float(values[0])) / (len(values) - 1)


def _uneven(coordinate: Coordinate, path: Path) -> str | None:
    """Why a coordinate says no place; None where it says one."""
    name, values = coordinate
    if not np.isfinite(values).all():
        raise RequestError(f"{path}: its coordinate '{name}' holds NaN or infinity; mend it, or leave it out")
    nowhere = "so it lies nowhere on the map"
    if len(values) < 2:
        return f"its coordinate '{name}' has one value, which does not say how large a pixel is, {nowhere}; give its transform"
    step = _step(values)
    even = float(values[0]) + step * np.arange(len(values))
    off = float(np.abs(values.astype(np.float64) - even).max())
    rounding = float(np.spacing(np.abs(values).max())) if values.dtype.kind == "f" else 0.0
    if step and math.isfinite(step) and off <= min(_UNEVEN * abs(step) + rounding, _COARSE * abs(step)):
        return None
    steps = np.abs(np.diff(values.astype(np.float64)))
    return f"its coordinate '{name}' has uneven steps ({steps.min():.6g} to {steps.max():.6g}), {nowhere}; warp it to an even grid"
