"""Prompts on a scene: points and boxes that say which object's mask is wanted, from GeoJSON or from a table of pixels."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.map_files import geojson_crs
from rsedge.data.errors import RequestError
from rsedge.data.files import require_file
from rsedge.data.json_text import MAX_BYTES, read_object
from rsedge.data.scenes.raster import between, gdal_errors
from rsedge.data.scenes.raster_file import NO_PLACE
from rsedge.runtimes.inference.tiles import Scene

Floats = npt.NDArray[np.float32]
OUTSIDE, INSIDE, FIRST_CORNER, LAST_CORNER, NOTHING = 0, 1, 2, 3, -1
"""What a point is, as SAM numbers it (Kirillov et al. 2023): not of the object, of it, a box's corners, or none."""
SUFFIXES = (".geojson", ".json", ".csv")
LABEL, PROMPT = "label", "prompt"
_BOX = ("xmin", "ymin", "xmax", "ymax")
_POINT = ("x", "y")


@dataclass(frozen=True, eq=False)
class Prompt:
    """What says of one object where it is; two of one name are two.

    Attributes:
        name: as its file calls it.
        points: (m, 2) x and y, pixels of the scene.
        labels: (m,) what each point is.
    """

    name: str
    points: Floats
    labels: Floats

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """x low, y low, x high, y high of its points."""
        low, high = self.points.min(0), self.points.max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def read_prompts(path: Path, scene: Scene) -> list[Prompt]:
    """The prompts of a file.

    GeoJSON (longitude and latitude): a Point or MultiPoint of one object, whose property ``label`` is 1 inside it and 0 outside (a
    list of them for a MultiPoint); a Polygon stands for the box around it. CSV (pixels): columns ``x``, ``y`` and perhaps ``label``
    and ``prompt``, which says whose point it is; or ``xmin``, ``ymin``, ``xmax``, ``ymax``.

    Raises:
        RequestError: another suffix, no prompt, one that lies outside the scene, or GeoJSON for a scene without coordinates.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise RequestError(f"{path}: prompts are GeoJSON (.geojson) or a table of pixels (.csv)")
    found = list(_of_table(path) if kind == ".csv" else _of_geojson(path, scene))
    if not found:
        raise RequestError(f"{path}: holds no prompt")
    for prompt in found:
        x0, y0, x1, y1 = prompt.extent
        if min(x0, y0) < 0 or x1 > scene.width or y1 > scene.height:
            raise RequestError(
                f"{path}: prompt '{prompt.name}' lies at {x0:.1f} to {x1:.1f}, {y0:.1f} to {y1:.1f} pixels (x, y), outside of "
                f"{scene.path} ({scene.width} x {scene.height})"
            )
    return found


def filled(prompts: Sequence[Prompt], count: int, points: int, origin: tuple[int, int]) -> tuple[Floats, Floats]:
    """Prompts as a part of fixed shape takes them: points (count, points, 2) from a tile's corner, and what each is.

    Args:
        origin: row and column of the tile.

    Raises:
        RequestError: a prompt has more points.
    """
    places, labels = np.zeros((count, points, 2), np.float32), np.full((count, points), NOTHING, np.float32)
    for i, prompt in enumerate(prompts):
        number = len(prompt.points)
        # SAM adds a point that is none where there is no box.
        if number + (prompt.labels[0] != FIRST_CORNER) > points:
            raise RequestError(
                f"prompt '{prompt.name}' has {number} points; the bundle takes {points - 1} of each, or a box"
            )
        places[i, :number] = prompt.points - np.array([origin[1], origin[0]], np.float32)
        labels[i, :number] = prompt.labels
    return places, labels


def _of_table(path: Path) -> Iterator[Prompt]:
    if not (rows := _rows(path)):
        return
    columns = set(rows[0])
    if set(_BOX) <= columns:
        for number, row in enumerate(rows, 2):
            yield _box(str(row.get(PROMPT) or number - 1), [_number(path, number, row, c) for c in _BOX])
        return
    if not set(_POINT) <= columns:
        raise RequestError(
            f"{path}: needs columns x and y, or xmin, ymin, xmax and ymax; it has {', '.join(sorted(columns))}"
        )
    held: dict[str, list[tuple[float, float, float]]] = {}
    for number, row in enumerate(rows, 2):
        x, y = (_number(path, number, row, c) for c in _POINT)
        label = _label(f"{path}: line {number}", row.get(LABEL) or INSIDE)
        held.setdefault(str(row.get(PROMPT) or number - 1), []).append((x, y, label))
    for name, points in held.items():
        table = np.array(points, np.float32)
        yield Prompt(name, table[:, :2], table[:, 2])


def _rows(path: Path) -> list[dict[str, str]]:
    require_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise RequestError(f"{path}: is larger than {MAX_BYTES >> 20} MiB; split it into several files")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path}: not a readable CSV file ({error})") from error


def _number(path: Path, line: int, row: dict[str, Any], column: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError) as error:
        raise RequestError(f"{path}: line {line}: {column} is {row[column]!r}, no number") from error
    if not math.isfinite(value):
        raise RequestError(f"{path}: line {line}: {column} is {row[column]!r}, no number of pixels")
    return value


def _label(where: str, value: Any) -> float:
    if str(value) not in ("0", "1"):
        raise RequestError(f"{where}: {LABEL} is {value!r}; 1 says inside the object, 0 outside")
    return float(value)


def _box(name: str, corners: Sequence[float]) -> Prompt:
    points = np.array(corners, np.float32).reshape(2, 2)
    ordered = np.stack([points.min(0), points.max(0)])
    return Prompt(name, ordered, np.array([FIRST_CORNER, LAST_CORNER], np.float32))


def _of_geojson(path: Path, scene: Scene) -> Iterator[Prompt]:
    if scene.crs is None:
        raise RequestError(f"{scene.path}: {NO_PLACE}, and GeoJSON is longitude and latitude; give pixels (.csv)")
    content = read_object(path)
    features = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(features, list):
        raise RequestError(f"{path}: 'features' is no list")
    crs = geojson_crs(path, content)
    for number, feature in enumerate(features, 1):
        where = f"{path}: feature {number}"
        if not isinstance(feature, dict) or not isinstance(geometry := feature.get("geometry"), dict):
            raise RequestError(f"{where}: has no geometry")
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise RequestError(f"{where}: its properties are no object ({{...}})")
        yield _feature(where, str(properties.get(PROMPT) or number), geometry, properties, scene, crs)


def _feature(
    where: str, name: str, geometry: dict[str, Any], properties: dict[str, Any], scene: Scene, crs: str
) -> Prompt:
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Point":
        coordinates = [coordinates]
    elif kind == "Polygon":
        coordinates = coordinates[0] if isinstance(coordinates, list) and coordinates else coordinates
    elif kind != "MultiPoint":
        raise RequestError(
            f"{where}: is a {kind}; prompts are Points, MultiPoints, or Polygons for the boxes around them"
        )
    points = _pixels(where, coordinates, scene, crs)
    if kind == "Polygon":
        return _box(name, [*points.min(0), *points.max(0)])
    given = properties.get(LABEL, INSIDE)
    labels = given if isinstance(given, list) else [given] * len(points)
    if len(labels) != len(points):
        raise RequestError(f"{where}: {len(labels)} labels for {len(points)} points")
    return Prompt(name, points, np.array([_label(where, one) for one in labels], np.float32))


def _pixels(where: str, coordinates: Any, scene: Scene, crs: str) -> Floats:
    """Places of a system as pixels (m, 2) of a scene."""
    try:
        places = np.array([[float(pair[0]), float(pair[1])] for pair in coordinates], np.float64).reshape(-1, 2)
    except (TypeError, ValueError, LookupError) as error:
        raise RequestError(f"{where}: its coordinates are no pairs of longitude and latitude") from error
    if not len(places) or not np.isfinite(places).all():
        raise RequestError(f"{where}: its coordinates are no pairs of longitude and latitude")
    with gdal_errors(f"{where}: cannot be brought onto {scene.path}"):
        x, y = between(crs, scene.crs, *places.T)
    found = np.stack(scene.transform.to_pixel(x, y), 1)
    if not np.isfinite(found).all():
        raise RequestError(f"{where}: lies where the scene's coordinate reference system does not reach")
    return found.astype(np.float32)
