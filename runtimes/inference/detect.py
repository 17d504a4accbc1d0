"""Objects of whole scenes: tiles overlap, and what several of them see is one object (:mod:`.object_seams`). :mod:`.object_files`
writes them.

Half of the overlap lies between a tile's own part and its edge, so objects up to that overlap are seen whole.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsedge.data.boxes.files import read_box_file
from rsedge.data.boxes.geometry import CORNERS, FOUND, TRUTH, Floats, clipped, places, upright_within
from rsedge.data.boxes.placed import PlacedObjects, objects_on
from rsedge.data.errors import RequestError
from rsedge.data.metrics.boxes import BoxComparison
from rsedge.data.metrics.figures import record_of
from rsedge.data.scenes.raster_file import bounded_cache
from rsedge.runtimes.bundle.manifest import BoxSettings
from rsedge.runtimes.inference.answers import Place, answers, finite
from rsedge.runtimes.inference.boxes import boxes_of
from rsedge.runtimes.inference.object_files import check_output, write_boxes
from rsedge.runtimes.inference.object_seams import Axis, SeenBoxes, merged
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
    axes = Axis(rows, tile, reader.height), Axis(cols, tile, reader.width)
    run.every = len(rows) * len(cols)
    walk = run.reads(walk_tiles(reader, tile, rows, cols), reader)
    tiles = (
        (Place(0, i, j, rows[i], cols[j], hidden), dn.reshape(1, *session.input_spec.shape))
        for i, j, dn, hidden in walk
    )
    found: list[SeenBoxes] = []
    with bounded_cache():
        for place, outputs in answers(session, tiles, run):
            i, j = place.i, place.j
            if progress is not None:
                progress(i * len(cols) + j + 1, len(rows) * len(cols))
            candidates = finite(outputs, place, reader, run)
            if candidates is None:
                continue
            table = boxes_of(candidates, **settings.model_dump()).table
            found.append(SeenBoxes.of(table, place.missing, (i, j), *axes))
    screen = screen_of(reader)
    run.check_any(reader.path, screened=screen is not None and screen.spared > 0)
    if not found:
        return np.zeros((0, FOUND + settings.oriented), np.float32)
    boxes = merged(SeenBoxes.together(found), *axes, settings.nms_iou)
    inside = clipped(places(boxes, FOUND), (0, 0), (reader.width, reader.height))
    boxes[:, :CORNERS] = inside[:, :CORNERS]
    return boxes


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

    Returns:
        Its figures, ``classes``, ``score``, and ``label_warnings``: which objects of the file are none of the scene.

    Raises:
        RequestError: the file does not hold the scene, has a class that the model does not know, or as
            :func:`rsedge.data.boxes.placed.objects_on`.
    """
    known = _labels(labels, reader, classes)
    truth = known.table
    if not settings.oriented:
        around = upright_within(places(truth, TRUTH), (0, 0), (reader.width, reader.height))
        truth = np.column_stack([around, truth[:, 4]]).astype(np.float32)
    boxes = detect_scene(session, reader, settings.model_copy(update={"score": LEAST_SCORE}), overlap, progress)
    found = BoxComparison("boxes", [boxes], [truth], classes, np.array(["scene"]), settings.score)
    record = {"classes": list(classes), "score": settings.score, **record_of(found)}
    return record | {"label_warnings": list(known.warnings)}


def _labels(path: Path, reader: Scene, classes: Sequence[str]) -> PlacedObjects:
    """Objects of the scene, turned as the file has them."""
    images = read_box_file(path)
    own = [one for one in images if Path(one.image).name == reader.path.name] or (images if len(images) == 1 else [])
    if len(own) != 1:
        raise RequestError(f"{path}: holds {len(images)} images, none of them named {reader.path.name}")
    unknown = [label for label in own[0].labels if label not in classes]
    if unknown:
        raise RequestError(f"{path}: class '{unknown[0]}', the bundle finds {', '.join(classes)}")
    return objects_on(own[0], reader.path, reader, classes, own[0].oriented)
