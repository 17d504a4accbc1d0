"""Objects of whole scenes: tiles overlap, each answers for the objects whose centres lie in its own part, and what two tiles find
both is suppressed; written as GeoJSON (RFC 7946) or as a table of pixels.

Half of the overlap lies between a tile's own part and its edge, so objects up to that overlap are seen whole.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.files import read_box_file
from rsedge.data.boxes.geometry import Floats, overlaps
from rsedge.data.errors import IntegrityError, RequestError
from rsedge.data.files import write_bytes
from rsedge.data.metrics.boxes import BoxComparison
from rsedge.data.metrics.figures import record_of
from rsedge.data.scenes.raster import bounded_cache, degrees, gdal_errors, pixel_to_map
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.inference.boxes import boxes_of
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.inference.scene import Progress, Scene, tile_starts, walk_tiles
from rsedge.runtimes.session import INPUT, LOGITS, Session

SUFFIXES = (".geojson", ".json", ".csv")
LEAST_SCORE = 0.01
"""Certainty from which boxes count for average precision."""
_DIGITS = 7
"""Decimals of a degree: about a centimetre."""


def default_overlap(tile: int) -> int:
    """A quarter of the tile edge (pixels): more than for maps, because an object is found whole or not at all."""
    return tile // 4


def detect_scene(
    session: Session, reader: Scene, settings: BoxSettings, overlap: int | None = None, progress: Progress | None = None
) -> Floats:
    """Boxes (n, 6) of a scene, the most certain first: corners x0, y0, x1, y1 (pixels of the scene), score, class number.

    Raises:
        RequestError: overlap outside 0 .. half a tile, or every pixel is nodata.
        IntegrityError: the model gives NaN or infinity.
    """
    tile = session.input_spec.tile
    overlap = default_overlap(tile) if overlap is None else overlap
    if not 0 <= overlap <= tile // 2:
        raise RequestError(f"--overlap must lie between 0 and half a tile ({tile // 2}), not {overlap}")
    rows, cols = (tile_starts(length, tile, overlap) for length in (reader.height, reader.width))
    lines = [_lines(starts, tile, length) for starts, length in ((rows, reader.height), (cols, reader.width))]
    waiting: list[tuple[int, int, npt.NDArray[np.bool_]]] = []

    def tiles() -> Any:
        for i, j, dn, hidden in walk_tiles(reader, tile, rows, cols):
            waiting.append((i, j, hidden))
            yield {INPUT: dn.reshape(1, *session.input_spec.shape)}

    found: list[Floats] = []
    places: list[tuple[int, int]] = []
    with bounded_cache():
        for outputs in session.stream(tiles()):
            i, j, hidden = waiting.pop(0)
            candidates = outputs[LOGITS][0]
            if not np.isfinite(candidates).all():
                raise IntegrityError(
                    f"{reader.path}: the model gives NaN or infinity in the tile at row {rows[i]}, column {cols[j]}; check "
                    "the bundle with `rsedge verify`"
                )
            boxes = boxes_of(candidates, settings.score, settings.nms_iou, settings.max_detections)
            table = np.column_stack([boxes.corners, boxes.scores, boxes.classes]).astype(np.float32)
            own = _seen(table, hidden, (rows[i], cols[j]), (lines[0][i : i + 2], lines[1][j : j + 2]))
            own[:, :4] += np.array([cols[j], rows[i]] * 2, np.float32)
            found.append(own)
            places += [(i, j)] * len(own)
            if progress is not None:
                progress(i * len(cols) + j + 1, len(rows) * len(cols))
    if not found:
        raise RequestError(f"{reader.path}: every pixel is nodata, there is nothing to look at")
    edges = np.array([reader.width, reader.height] * 2, np.float32)
    merged = _merged(np.concatenate(found), np.array(places, dtype=np.int64).reshape(-1, 2), settings.nms_iou)
    merged[:, :4] = merged[:, :4].clip(0, edges)
    return merged


def _lines(starts: Sequence[int], tile: int, length: int) -> npt.NDArray[np.float64]:
    """Where one tile's own part ends and the next one's begins: the middles of overlaps."""
    between = [(a + tile + b) / 2 for a, b in itertools.pairwise(starts)]
    return np.array([0.0, *between, float(length)])


def _seen(
    table: Floats, hidden: npt.NDArray[np.bool_], start: tuple[int, int], own: tuple[npt.NDArray[np.float64], ...]
) -> Floats:
    """Boxes whose centre lies in the tile's own part, on a pixel that is not missing."""
    x, y = (table[:, 0] + table[:, 2]) / 2, (table[:, 1] + table[:, 3]) / 2
    keep = (
        (y + start[0] >= own[0][0])
        & (y + start[0] < own[0][1])
        & (x + start[1] >= own[1][0])
        & (x + start[1] < own[1][1])
    )
    edge = len(hidden) - 1
    keep &= ~hidden[y.astype(int).clip(0, edge), x.astype(int).clip(0, edge)]
    return table[keep]


def _merged(boxes: Floats, places: npt.NDArray[np.int64], overlap: float) -> Floats:
    """All tiles' boxes by certainty, without those that a more certain one of the same class, of the tile or one beside it,
    overlaps by more than ``overlap``."""
    order = np.argsort(-boxes[:, 4], kind="stable")
    boxes, places = boxes[order], places[order]
    members: dict[tuple[int, int], list[int]] = {}
    for number, (i, j) in enumerate(places.tolist()):
        members.setdefault((i, j), []).append(number)
    alive = np.ones(len(boxes), dtype=bool)
    for number, (i, j) in enumerate(places.tolist()):
        if not alive[number]:
            continue
        beside = [members.get((i + di, j + dj), []) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
        near = np.array([n for part in beside for n in part if n > number], dtype=np.intp)
        if len(near):
            near = near[boxes[near, 5] == boxes[number, 5]]
            alive[near[overlaps(boxes[number : number + 1, :4], boxes[near, :4])[0] > overlap]] = False
    return boxes[alive]


def write_boxes(path: Path, reader: Scene, boxes: Floats, classes: Sequence[str], about: Mapping[str, Any]) -> None:
    """Writes boxes as GeoJSON (longitude and latitude) or, with the suffix ``.csv``, as a table of pixels that ``data.samples``
    with the source ``boxes`` reads.

    Args:
        about: provenance, kept under ``rsedge`` in the GeoJSON.

    Raises:
        RequestError: another suffix, the scene itself, or GeoJSON of a scene whose coordinate reference system is
            none or has no longitude and latitude there.
    """
    check_output(path, reader)
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "xmin", "ymin", "xmax", "ymax", "label", "score"])
        table.writerows(
            [reader.path.name, *(f"{v:.2f}" for v in b[:4]), classes[int(b[5])], f"{b[4]:.4f}"] for b in boxes
        )
        write_bytes(path, text.getvalue().encode())
        return
    rings = _rings(reader, boxes, path)
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"class": classes[int(b[5])], "score": round(float(b[4]), 4),
                           "pixels": [round(float(v), 2) for v in b[:4]]},
        }
        for ring, b in zip(rings, boxes, strict=True)
    ]  # fmt: skip
    content = {"type": "FeatureCollection", "features": features, "rsedge": dict(about)}
    write_bytes(path, (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode())


def check_output(path: Path, reader: Scene) -> None:
    """Holds the wanted file against the scene, before any work; raises as :func:`write_boxes`."""
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"{path}: boxes are written as .geojson or .csv")
    check_outputs([path], [reader.path])
    if reader.crs is None and path.suffix.lower() != ".csv":
        raise RequestError(
            f"{reader.path}: has no coordinate reference system, and GeoJSON is longitude and latitude; write pixels with "
            f"--output {path.with_suffix('.csv').name}"
        )
    if path.suffix.lower() != ".csv":
        edges = [(0, 0), (reader.width, 0), (0, reader.height), (reader.width, reader.height)]
        x, y = zip(*(pixel_to_map(reader.transform, *edge) for edge in edges), strict=True)
        _degrees(reader, x, y, path)


def _rings(reader: Scene, boxes: Floats, path: Path) -> list[list[list[float]]]:
    """Closed rings of longitude and latitude, counterclockwise as RFC 7946 asks.

    Raises:
        RequestError: the scene's CRS has no longitude and latitude there.
    """
    if not len(boxes):
        return []
    corners = np.stack([boxes[:, [0, 1]], boxes[:, [0, 3]], boxes[:, [2, 3]], boxes[:, [2, 1]]], 1).astype(np.float64)
    x, y = reader.transform * (corners[..., 0].ravel(), corners[..., 1].ravel())
    longitude, latitude = _degrees(reader, x, y, path)
    rings = np.stack([longitude, latitude], 1).reshape(-1, 4, 2)
    after = np.roll(rings, -1, axis=1)
    clockwise = (rings[..., 0] * after[..., 1] - after[..., 0] * rings[..., 1]).sum(1) < 0
    rings[clockwise] = rings[clockwise][:, ::-1]
    closed = np.concatenate([rings, rings[:, :1]], 1).round(_DIGITS)
    return closed.tolist()  # type: ignore[no-any-return]


def _degrees(
    reader: Scene, x: Sequence[float], y: Sequence[float], path: Path
) -> tuple[Sequence[float], Sequence[float]]:
    what = (
        f"{reader.path}: its coordinate reference system has no longitude and latitude there, and GeoJSON is made of them; write "
        f"pixels with --output {path.with_suffix('.csv').name}"
    )
    with gdal_errors(what):
        found = degrees(reader.crs, x, y)
    if not np.isfinite(found).all():
        raise RequestError(what)
    return found


def infer_boxes(
    session: Session,
    reader: Scene,
    path: Path,
    classes: Sequence[str],
    settings: BoxSettings,
    about: Mapping[str, Any],
    overlap: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Finds and writes; raises as :func:`detect_scene` and :func:`write_boxes`.

    Returns:
        ``output``, ``height``, ``width``, ``objects`` by class, ``seconds``.
    """
    began = time.perf_counter()
    check_output(path, reader)
    boxes = detect_scene(session, reader, settings, overlap, progress)
    write_boxes(path, reader, boxes, classes, about)
    counts = {name: int((boxes[:, 5] == i).sum()) for i, name in enumerate(classes)}
    return {"output": str(path), "height": reader.height, "width": reader.width, "objects": counts,
            "seconds": round(time.perf_counter() - began, 3)}  # fmt: skip


def evaluate_boxes(
    session: Session,
    reader: Scene,
    labels: Path,
    classes: Sequence[str],
    settings: BoxSettings,
    overlap: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """A scene's boxes against a file of boxes: a :class:`~rsedge.data.metrics.boxes.BoxComparison` with the scene as one image.

    Raises:
        RequestError: the file does not hold the scene, or has a class that the model does not know.
    """
    truth = _labels(labels, reader, classes)
    boxes = detect_scene(session, reader, settings.model_copy(update={"score": LEAST_SCORE}), overlap, progress)
    found = BoxComparison("boxes", [boxes], [truth], classes, np.array(["scene"]), settings.score)
    return {"classes": list(classes), "score": settings.score, **record_of(found)}


def _labels(path: Path, reader: Scene, classes: Sequence[str]) -> Floats:
    images = read_box_file(path)
    own = [one for one in images if Path(one.image).name == reader.path.name] or (images if len(images) == 1 else [])
    if len(own) != 1:
        raise RequestError(f"{path}: holds {len(images)} images, none of them named {reader.path.name}")
    if own[0].size not in (None, (reader.width, reader.height)):
        raise RequestError(f"{path}: made for {own[0].size} pixels, {reader.path} has {(reader.width, reader.height)}")
    unknown = [label for label in own[0].labels if label not in classes]
    if unknown:
        raise RequestError(f"{path}: class '{unknown[0]}', the bundle finds {', '.join(classes)}")
    rows = [(*box, classes.index(label)) for box, label in zip(own[0].boxes, own[0].labels, strict=True)]
    return np.array(rows, np.float32).reshape(-1, 5)
