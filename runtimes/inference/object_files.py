"""Boxes of a scene in files: GeoJSON (RFC 7946), GeoPackage, GeoParquet, or a table of pixels. A form is a function and a row.

Of turned boxes all four corners lie where they are on the map, whatever the scene's transform does to right angles. ``angle`` is
in degrees, counter-clockwise from the image's rows to the longer side, ``heading`` that of the longer side on the ground, clockwise
from true north; which end is the bow no box says, so both go from 0 (or -90) over half a turn.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.files import CSV_COLUMNS, POINT_COLUMNS
from rsedge.data.boxes.geometry import FOUND, Floats, centred, outlines, places
from rsedge.data.boxes.oriented import regular
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import write_bytes
from rsedge.data.scenes.kinds import files_read
from rsedge.data.scenes.raster_file import GEOGRAPHIC, NO_PLACE, azimuths, pixel_to_map
from rsedge.runtimes.inference import geopackage, geoparquet
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.tiles import Scene

_DIGITS = 7
"""Decimals of a degree: about a centimetre."""
Points = npt.NDArray[np.float64]


def write_boxes(path: Path, reader: Scene, boxes: Floats, classes: Sequence[str], about: Mapping[str, Any]) -> None:
    """Writes boxes as GeoJSON (longitude and latitude), as a GeoPackage or GeoParquet (``.gpkg``, ``.parquet``, in the scene's own
    system) or, with the suffix ``.csv``, as a table of pixels that ``data.samples`` with the source ``boxes`` reads.

    Args:
        boxes: (n, 6), or (n, 7) of turned ones (:func:`rsedge.runtimes.inference.detect.detect_scene`).
        about: provenance, kept under ``rsedge`` in the GeoJSON, as the layer's description in the GeoPackage, as metadata in the
            GeoParquet.

    Raises:
        RequestError: another suffix, the scene itself, or GeoJSON of a scene whose coordinate reference system is
            none or has no longitude and latitude there. MissingCapability: GeoParquet without pyarrow.
    """
    check_output(path, reader)
    _FORMS[path.suffix.lower()].write(path, reader, boxes, classes, about)


def check_output(path: Path, reader: Scene) -> None:
    """Holds the wanted file against the scene, before any work; raises as :func:`write_boxes`."""
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"{path}: boxes are written as .geojson, .gpkg, .parquet or .csv")
    check_outputs([path], files_read(reader.path))
    if reader.crs is None and path.suffix.lower() != ".csv":
        raise RequestError(
            f"{reader.path}: {NO_PLACE}, and objects lie on the earth in GeoJSON, GeoPackage and "
            f"GeoParquet; write pixels with --output {path.with_suffix('.csv').name}"
        )
    _FORMS[path.suffix.lower()].check(path, reader)


def _check_geojson(path: Path, reader: Scene) -> None:
    edges = np.array([(0, 0), (reader.width, 0), (0, reader.height), (reader.width, reader.height)], np.float64)
    _degrees(reader, _on_map(reader, edges), path)


def _write_table(path: Path, reader: Scene, boxes: Floats, classes: Sequence[str], about: Mapping[str, Any]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    turned = _turned(boxes)
    table.writerow(["image", *(POINT_COLUMNS if turned else CSV_COLUMNS), "label", "score"])
    numbers = outlines(places(boxes, FOUND)).reshape(-1, 8) if turned else boxes[:, :4]
    table.writerows(
        [reader.path.name, *(f"{v:.2f}" for v in own), classes[int(b[5])], f"{b[4]:.4f}"]
        for own, b in zip(numbers, boxes, strict=True)
    )
    write_bytes(path, text.getvalue().encode())


def _write_geojson(path: Path, reader: Scene, boxes: Floats, classes: Sequence[str], about: Mapping[str, Any]) -> None:
    rows = rows_of(boxes)
    if _turned(boxes):
        rows = [{**row, "heading": at} for row, at in zip(rows, _headings(reader, boxes, path), strict=True)]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"class": classes[int(b[5])], "score": round(float(b[4]), 4), **row},
        }
        for ring, b, row in zip(_rings(reader, boxes, path), boxes, rows, strict=True)
    ]
    content = {"type": "FeatureCollection", "features": features, "rsedge": dict(about)}
    write_bytes(path, (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _write_geopackage(
    path: Path, reader: Scene, boxes: Floats, classes: Sequence[str], about: Mapping[str, Any]
) -> None:
    columns = _columns(reader, boxes, classes, path)
    fields = {name: str if name == "class" else float for name in columns}
    rows = list(zip(*columns.values(), strict=True))
    geopackage.write_polygons(path, "objects", _closed(reader, boxes), fields, rows, reader.crs, about)


def _write_geoparquet(
    path: Path, reader: Scene, boxes: Floats, classes: Sequence[str], about: Mapping[str, Any]
) -> None:
    columns = _columns(reader, boxes, classes, path)
    text = {"rsedge": json.dumps(dict(about), ensure_ascii=False, allow_nan=False)}
    geoparquet.write_polygons(path, _closed(reader, boxes), columns, reader.crs, text)


class _Form(NamedTuple):
    """How boxes are written, and what is checked of the scene before any work."""

    write: Callable[[Path, Scene, Floats, Sequence[str], Mapping[str, Any]], None]
    check: Callable[[Path, Scene], object]


_GEOJSON = _Form(_write_geojson, _check_geojson)
_FORMS = {
    ".geojson": _GEOJSON,
    ".json": _GEOJSON,
    ".csv": _Form(_write_table, lambda path, reader: None),
    geopackage.SUFFIX: _Form(_write_geopackage, lambda path, reader: geopackage.check(path, reader.crs)),
    geoparquet.SUFFIX: _Form(_write_geoparquet, lambda path, reader: geoparquet.check(path, reader.crs)),
}
SUFFIXES = tuple(_FORMS)


def rows_of(boxes: Floats) -> list[dict[str, Any]]:
    """Where each box lies in its image: ``pixels`` (x0, y0, x1, y1), or of a turned one ``x``, ``y``, ``length``, ``width`` and
    ``angle``."""
    if not _turned(boxes):
        return [{"pixels": corners} for corners in boxes[:, :4].astype(np.float64).round(2).tolist()]
    fields = _turned_fields(boxes)
    return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]


def _turned(boxes: Floats) -> bool:
    return boxes.shape[1] > FOUND


def _columns(reader: Scene, boxes: Floats, classes: Sequence[str], path: Path) -> dict[str, list[Any]]:
    """What is said of each box beside its outline, by column."""
    said: dict[str, list[Any]] = {
        "class": [classes[int(b[5])] for b in boxes],
        "score": [round(float(b[4]), 4) for b in boxes],
    }
    if _turned(boxes):
        return {**said, **_turned_fields(boxes), "heading": _headings(reader, boxes, path)}
    return {**said, **dict(zip(CSV_COLUMNS, boxes[:, :4].T.astype(np.float64).round(2).tolist(), strict=True))}


def _regular(boxes: Floats) -> Points:
    return np.asarray(regular(centred(places(boxes, FOUND)).astype(np.float64)))


def _turned_fields(boxes: Floats) -> dict[str, list[Any]]:
    """Centre, length and width (pixels) and angle (degrees) of turned boxes."""
    x, y, length, width, angle = _regular(boxes).T
    # Rounded first: 89.999 is -90, not 90.
    degrees = (np.degrees(angle).round(2) + 90) % 180 - 90
    numbers = {"x": x, "y": y, "length": length, "width": width, "angle": degrees}
    return {name: values.round(2).tolist() for name, values in numbers.items()}


def _headings(reader: Scene, boxes: Floats, path: Path) -> list[float | None]:
    """Of the longer sides of turned boxes, degrees clockwise from true north, 0 to 180; None where the system has no north."""
    x, y, length, _, angle = _regular(boxes).T
    along = np.stack([np.cos(angle), -np.sin(angle)], 1) * length[:, None] / 2
    ends = np.stack([np.stack([x, y], 1) + sign * along for sign in (-1, 1)])
    try:
        start, end = _degrees(reader, _on_map(reader, ends.reshape(-1, 2)), path).reshape(2, -1, 2)
    except RequestError:
        return [None] * len(boxes)
    return (azimuths(start, end).round(2) % 180).tolist()  # type: ignore[no-any-return]


def _on_map(reader: Scene, pixels: Points) -> Points:
    return np.stack(pixel_to_map(reader.transform, pixels[..., 0], pixels[..., 1]), -1)


def _closed(reader: Scene, boxes: Floats) -> Points:
    """Closed rings (n, 5, 2) in the scene's system."""
    rings = _on_map(reader, outlines(places(boxes, FOUND)).astype(np.float64))
    return np.concatenate([rings, rings[:, :1]], 1)


def _rings(reader: Scene, boxes: Floats, path: Path) -> list[list[list[float]]]:
    """Closed rings of longitude and latitude, counterclockwise as RFC 7946 asks.

    Raises:
        RequestError: the scene's CRS has no longitude and latitude there.
    """
    if not len(boxes):
        return []
    rings = _degrees(reader, _closed(reader, boxes)[:, :4].reshape(-1, 2), path).reshape(-1, 4, 2)
    after = np.roll(rings, -1, axis=1)
    clockwise = (rings[..., 0] * after[..., 1] - after[..., 0] * rings[..., 1]).sum(1) < 0
    rings[clockwise] = rings[clockwise][:, ::-1]
    closed = np.concatenate([rings, rings[:, :1]], 1).round(_DIGITS)
    return closed.tolist()  # type: ignore[no-any-return]


def _degrees(reader: Scene, points: Points, path: Path) -> Points:
    """Points (n, 2) of the scene's system as longitude and latitude."""
    what = (
        f"{reader.path}: its coordinate reference system has no longitude and latitude there, and GeoJSON is made of them; write "
        f"pixels with --output {path.with_suffix('.csv').name}"
    )
    if reader.crs == GEOGRAPHIC:
        return points
    try:
        from rsedge.data.scenes.raster import degrees, gdal_errors
    except ImportError as error:
        raise MissingCapability(
            f"{path}: longitude and latitude need rasterio; install it, or write pixels (.csv)"
        ) from error
    with gdal_errors(what):
        found = np.stack(degrees(reader.crs, *points.T), -1) if len(points) else points
    if not np.isfinite(found).all():
        raise RequestError(what)
    return found
