"""Objects of whole scenes: tiles overlap, each answers for the objects whose centres lie in its own part, and what two tiles find
both is suppressed. :mod:`.object_files` writes them.

Half of the overlap lies between a tile's own part and its edge, so objects up to that overlap are seen whole.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.files import read_box_file
from rsedge.data.boxes.geometry import CORNERS, FOUND, TRUTH, Floats, clipped, overlaps, places, upright
from rsedge.data.errors import RequestError
from rsedge.data.metrics.boxes import BoxComparison
from rsedge.data.metrics.figures import record_of
from rsedge.data.scenes.raster_file import bounded_cache
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.inference.answers import Place, answers, finite
from rsedge.runtimes.inference.boxes import boxes_of
from rsedge.runtimes.inference.object_files import check_output, write_boxes
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.tiles import Progress, Scene, screen_of, starts_of, walk_tiles
from rsedge.runtimes.session import Session

LEAST_SCORE = 0.01
"""Certainty from which boxes count for average precision."""


def default_overlap(tile: int) -> int:
    """A quarter of the tile edge (pixels): more than for maps, because an object is found whole or not at all."""
    return tile // 4


def detect_scene(
    session: Session,
    reader: Scene,
    settings: BoxSettings,
    overlap: int | None = None,
    progress: Progress | None = None,
    run: SceneRun | None = None,
) -> Floats:
    """Boxes (n, 6) of a scene, the most certain first: corners x0, y0, x1, y1 (pixels of the scene), score, class number; (n, 7)
    with the angle where the bundle's boxes are turned (:mod:`rsedge.data.boxes.geometry`).

    Args:
        run: is told what becomes of tiles; without one a tile that fails is an error.

    Raises:
        RequestError: overlap outside 0 .. half a tile, or every pixel is nodata.
        IntegrityError: the model gives NaN or infinity for every tile.
    """
    run = run or SceneRun(strict=True)
    tile = session.input_spec.tile
    overlap = default_overlap(tile) if overlap is None else overlap
    if not 0 <= overlap <= tile // 2:
        raise RequestError(f"--overlap must lie between 0 and half a tile ({tile // 2}), not {overlap}")
    rows, cols = starts_of(reader, tile, overlap)
    lines = [_lines(starts, tile, length) for starts, length in ((rows, reader.height), (cols, reader.width))]
    run.every = len(rows) * len(cols)
    walk = run.reads(walk_tiles(reader, tile, rows, cols), reader)
    tiles = (
        (Place(0, i, j, rows[i], cols[j], hidden), dn.reshape(1, *session.input_spec.shape))
        for i, j, dn, hidden in walk
    )
    found: list[Floats] = []
    tile_of: list[tuple[int, int]] = []
    with bounded_cache():
        for place, outputs in answers(session, tiles, run):
            i, j = place.i, place.j
            if progress is not None:
                progress(i * len(cols) + j + 1, len(rows) * len(cols))
            candidates = finite(outputs, place, reader, run)
            if candidates is None:
                continue
            table = boxes_of(candidates, **settings.model_dump()).table
            own = _seen(table, place.missing, (rows[i], cols[j]), (lines[0][i : i + 2], lines[1][j : j + 2]))
            own[:, :4] += np.array([cols[j], rows[i]] * 2, np.float32)
            found.append(own)
            tile_of += [(i, j)] * len(own)
    screen = screen_of(reader)
    run.check_any(reader.path, screened=screen is not None and screen.spared > 0)
    if not found:
        return np.zeros((0, FOUND + settings.oriented), np.float32)
    merged = _merged(np.concatenate(found), np.array(tile_of, dtype=np.int64).reshape(-1, 2), settings.nms_iou)
    inside = clipped(places(merged, FOUND), (0, 0), (reader.width, reader.height))
    merged[:, :CORNERS] = inside[:, :CORNERS]
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


def _merged(boxes: Floats, tile_of: npt.NDArray[np.int64], overlap: float) -> Floats:
    """All tiles' boxes by certainty, without those that a more certain one of the same class, of the tile or one beside it,
    overlaps by more than ``overlap``."""
    order = np.argsort(-boxes[:, 4], kind="stable")
    boxes, tile_of = boxes[order], tile_of[order]
    placed = places(boxes, FOUND)
    members: dict[tuple[int, int], list[int]] = {}
    for number, (i, j) in enumerate(tile_of.tolist()):
        members.setdefault((i, j), []).append(number)
    alive = np.ones(len(boxes), dtype=bool)
    for number, (i, j) in enumerate(tile_of.tolist()):
        if not alive[number]:
            continue
        beside = [members.get((i + di, j + dj), []) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
        near = np.array([n for part in beside for n in part if n > number], dtype=np.intp)
        if len(near):
            near = near[boxes[near, 5] == boxes[number, 5]]
            alive[near[overlaps(placed[number : number + 1], placed[near])[0] > overlap]] = False
    return boxes[alive]


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
        ``output``, ``height``, ``width``, ``objects`` by class, ``seconds``, and ``run`` as
        :func:`rsedge.runtimes.inference.scene.infer_scene`.
    """
    began, run = time.perf_counter(), SceneRun()
    check_output(path, reader)
    boxes = detect_scene(session, reader, settings, overlap, progress, run)
    with run.stage("write"):
        write_boxes(path, reader, boxes, classes, about)
    counts = {name: int((boxes[:, 5] == i).sum()) for i, name in enumerate(classes)}
    return {"output": str(path), "height": reader.height, "width": reader.width, "objects": counts,
            "seconds": round(time.perf_counter() - began, 3), "run": run.record(session.device)}  # fmt: skip


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
    truth = _labels(labels, reader, classes, settings.oriented)
    boxes = detect_scene(session, reader, settings.model_copy(update={"score": LEAST_SCORE}), overlap, progress)
    found = BoxComparison("boxes", [boxes], [truth], classes, np.array(["scene"]), settings.score)
    return {"classes": list(classes), "score": settings.score, **record_of(found)}


def _labels(path: Path, reader: Scene, classes: Sequence[str], oriented: bool) -> Floats:
    """Objects of the scene, turned where the bundle's boxes are; else the boxes around turned ones."""
    images = read_box_file(path)
    own = [one for one in images if Path(one.image).name == reader.path.name] or (images if len(images) == 1 else [])
    if len(own) != 1:
        raise RequestError(f"{path}: holds {len(images)} images, none of them named {reader.path.name}")
    if own[0].size not in (None, (reader.width, reader.height)):
        raise RequestError(f"{path}: made for {own[0].size} pixels, {reader.path} has {(reader.width, reader.height)}")
    unknown = [label for label in own[0].labels if label not in classes]
    if unknown:
        raise RequestError(f"{path}: class '{unknown[0]}', the bundle finds {', '.join(classes)}")
    placed = own[0].on(reader.crs, reader.transform)
    table = placed.table(classes, placed.oriented)
    return table if oriented else np.column_stack([upright(places(table, TRUTH)), table[:, 4]]).astype(np.float32)
