"""Class maps of whole scenes: tiles blended by :mod:`rsedge.runtimes.inference.mosaic`, written by
:mod:`rsedge.runtimes.inference.raster_out`."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.bundle.self_test import SelfTested
from rsedge.runtimes.inference.blending import LargestClass, best_class, probabilities_of
from rsedge.runtimes.inference.journal import FROM_PIXELS, Kept, journal_of
from rsedge.runtimes.inference.mosaic import Panels, blend_rows
from rsedge.runtimes.inference.raster_out import atomic_raster, check_rasters, finish, read_back, sink
from rsedge.runtimes.inference.raster_parts import CLASS_BAND, Layer, as_bytes, count_classes
from rsedge.runtimes.inference.scene_run import FailedTile, SceneRun
from rsedge.runtimes.inference.style import PLAIN, Style
from rsedge.runtimes.inference.threads import behind
from rsedge.runtimes.inference.tiles import PANEL_BYTES, Progress, Scene, first_pixel, panels
from rsedge.runtimes.session import Session

_BEHIND = 2
"""Rows of tiles that wait to be written."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """Finished rows of the result: ``classes`` [h, w] uint8 (255 = nodata) and, where asked for, ``probabilities`` [K, h, w]
    float32 (NaN = nodata); ``start`` and ``col`` are the scene row and column of the first pixel."""

    start: int
    col: int
    classes: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32] | None


def predict_rows(
    session: Session,
    reader: Scene,
    overlap: int | None = None,
    progress: Progress | None = None,
    *,
    classes: Sequence[str] | None = None,
    probabilities: bool = False,
    panels: Panels | None = None,
    run: SceneRun | None = None,
    done: int = 0,
) -> Generator[Rows, None, None]:
    """Runs a scene and yields its result from top to bottom, panel after panel.

    Args:
        classes: names, one for each that the model gives.
        probabilities: give them too; needs ``classes``.
        panels, run, done: as :func:`rsedge.runtimes.inference.mosaic.blend_rows` takes them, whose errors this raises.

    Raises:
        IntegrityError: the model gives another number of classes.
    """
    blending = probabilities_of(classes or ()) if probabilities else LargestClass(classes)
    with contextlib.closing(blend_rows(session, reader, blending, overlap, progress, panels, run, done)) as strips:
        for rows in strips:
            if not probabilities:
                found = np.maximum(rows.values[0], (~rows.seen).view(np.uint8) * np.uint8(NODATA_CLASS))
                yield Rows(rows.start, rows.col, found, None)
                continue
            found = best_class(rows.values)
            found[~rows.seen] = NODATA_CLASS
            rows.values[:, ~rows.seen] = np.nan
            yield Rows(rows.start, rows.col, found, rows.values)


def infer_scene(
    session: Session,
    reader: Scene,
    out_path: str | Path,
    classes: Sequence[str],
    overlap: int | None = None,
    probabilities: str | Path | None = None,
    progress: Progress | None = None,
    style: Style = PLAIN,
    made_from: Callable[[], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Writes the class map of a scene, and its class probabilities if asked.

    The map is a tiled, compressed uint8 GeoTIFF on the scene's grid (255 = nodata) with a palette and the class names in its tags
    (``rsedge_classes`` as JSON); the probabilities are float32 bands named by class (NaN = nodata), or bytes with scale tags where
    the style says so. Both have statistics, appear under their names only once they are complete, and the map is read back
    before that.

    Args:
        made_from: gives what the answer depends on, beside how it is cut into tiles. With it, a large scene that is killed goes on
            where it was (:mod:`rsedge.runtimes.inference.journal`).

    Returns:
        ``output``, ``probabilities``, ``height``, ``width``, ``pixels`` by class, ``nodata_pixels``, ``seconds``, and under ``run``
        the record of :class:`rsedge.runtimes.inference.scene_run.SceneRun`.

    Raises:
        RequestError: an output is called another kind of file, would overwrite the scene, or cannot be written there.
        IntegrityError: the scene is damaged, the model gives NaN for every tile, or the map reads back differently.
        MissingCapability: the disk is full.
    """
    out_path, began, run = Path(out_path), time.perf_counter(), SceneRun()
    wanted = [p for p in (out_path, Path(probabilities) if probabilities else None) if p is not None]
    check_rasters(reader, wanted)
    counts = np.zeros(256, dtype=np.int64)
    with contextlib.ExitStack() as files:
        journal = files.enter_context(journal_of(out_path, _key(reader, made_from, overlap, len(wanted))))
        temporary = [files.enter_context(atomic_raster(p)) for p in wanted]
        with contextlib.ExitStack() as sinks:
            of_classes = Layer([CLASS_BAND], "uint8", classes, style=style, counts=counts)
            of_shares, kind = Layer(classes, style.probabilities, classes, style=style), style.probabilities
            maps = sinks.enter_context(sink(temporary[0], reader, of_classes))
            shares = sinks.enter_context(sink(temporary[1], reader, of_shares)) if probabilities else None

            def write(rows: Rows, failed: list[FailedTile] | None = None, tests: int | None = None) -> None:
                with run.stage("compress"):
                    if journal is not None and failed is not None:
                        arrays = (rows.classes,) if rows.probabilities is None else (rows.classes, rows.probabilities)
                        journal.add(Kept(rows.start, rows.col, arrays, [dataclasses.asdict(f) for f in failed]), tests)
                    count_classes(rows.classes, len(classes), counts)
                    maps.add(rows.classes[None], rows.col)
                    if shares is not None and rows.probabilities is not None:
                        shares.add(as_bytes(rows.probabilities) if kind == "uint8" else rows.probabilities, rows.col)

            def finished(new: tuple[Rows, list[FailedTile], int | None]) -> None:
                write(*new)

            for kept in () if journal is None else journal.kept():
                run.take(kept.failed)
                write(Rows(kept.start, kept.col, kept.arrays[0], kept.arrays[1] if shares is not None else None))
            found = predict_rows(
                session,
                reader,
                overlap,
                progress,
                classes=classes,
                probabilities=shares is not None,
                panels=panels,
                run=run,
                done=run.kept_rows,
            )
            listed = len(run.failed)
            with behind(finished, _BEHIND) as give, contextlib.closing(found):
                for rows in found:
                    give((rows, run.failed[listed:], session.passed if isinstance(session, SelfTested) else None))
                    listed = len(run.failed)
            with run.stage("compress"):
                sinks.close()
        with run.stage("compress", alone=True):
            for path in temporary:
                finish(path, style)
        with run.stage("check"):
            for path, target in zip(temporary, wanted, strict=True):
                read_back(path, target, (counts, len(classes)) if target is out_path else None)
        with run.stage("write"):
            files.close()
    return {
        "output": str(out_path),
        "probabilities": str(probabilities) if probabilities else None,
        "height": reader.height,
        "width": reader.width,
        "pixels": {name: int(n) for name, n in zip(classes, counts, strict=False)},
        "nodata_pixels": int(counts[NODATA_CLASS]),
        "seconds": round(time.perf_counter() - began, 3),
        "run": run.record(session.device),
    }


def _key(
    reader: Scene, made_from: Callable[[], Mapping[str, Any]] | None, overlap: int | None, outputs: int
) -> dict[str, Any] | None:
    """What a journal of the scene holds good for; None where none is kept."""
    if made_from is None or reader.height * reader.width < FROM_PIXELS:
        return None
    return {
        **made_from(),
        "rsedge": version("rsedge"),
        "size": [reader.height, reader.width],
        "overlap": overlap,
        "first_pixel": list(first_pixel(reader)),
        "panel_bytes": PANEL_BYTES,
        "outputs": outputs,
    }
