"""Maps of features of whole scenes: what heads make of them on the scene's grid, and the maps themselves on their own, coarser one.

A head is linear, so that it comes before all that works on pixels: its few outputs at each place of the map are enlarged inside the
tile, become probabilities (values stay as they are), and are blended where tiles overlap, as those of class maps are. The encoder
runs once per tile for all heads; what is held are rows of tiles of what heads give, never a scene of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.errors import IntegrityError, RequestError
from rsedge.runtimes.bundle.head import Head, beside
from rsedge.runtimes.bundle.manifest import NODATA_CLASS, Manifest
from rsedge.runtimes.inference.blending import Blending, Sums, best_class, softmax
from rsedge.runtimes.inference.enlarging import enlarged
from rsedge.runtimes.inference.mosaic import blend_rows
from rsedge.runtimes.inference.raster_out import atomic_raster, finish, read_back, sink, writing_rows
from rsedge.runtimes.inference.raster_parts import CLASS_BAND, Layer, RowWriter, count_classes
from rsedge.runtimes.inference.scene_run import SceneRun
from rsedge.runtimes.inference.style import PLAIN, Style
from rsedge.runtimes.inference.tiles import Progress, Scene, Screen, default_overlap, first_pixel, panels, screen_of
from rsedge.runtimes.session import Array, Session

Floats = npt.NDArray[np.float32]


def head_scores(head: Head, features: Array, edge: int) -> Floats:
    """What a head says of a tile's features (D, h, w): probabilities of its classes, or values, (K, edge, edge).

    Raises:
        IntegrityError: as the head itself.
    """
    places = np.ascontiguousarray(features.reshape(len(features), -1).T)
    outputs = enlarged(head(places).T.reshape(-1, *features.shape[1:]), edge)
    if not head.tells_classes:
        return outputs
    return softmax(np.concatenate([np.zeros_like(outputs), outputs]) if len(outputs) == 1 else outputs)


def heads_blending(heads: Sequence[Head], manifest: Manifest, runtime: str) -> Sums:
    """The blended answers of all heads, one after the other along the bands."""
    edge = manifest.input_spec.tile

    def scores(features: Array) -> Floats:
        _check_map(features, manifest, runtime)
        if not np.isfinite(features).all():
            return np.full((1, 1, 1), np.nan, np.float32)  # the tile has no answer
        return np.concatenate([head_scores(head, features, edge) for head in heads])

    return Sums(scores, sum(len(head.names) for head in heads))


def _check_map(features: Array, manifest: Manifest, runtime: str) -> None:
    assert manifest.stride is not None
    edge = manifest.input_spec.tile // manifest.stride
    wanted = (len(manifest.classes), edge, edge)
    if features.shape != wanted:
        raise IntegrityError(f"the model gives {features.shape}, its manifest says {wanted}; runtime {runtime}")


@dataclasses.dataclass
class _Mask:
    """A head's answer as it is written: ``bands`` of what is blended, a class map or a band per value."""

    head: Head
    place: Path
    bands: slice
    counts: npt.NDArray[np.int64] | None
    missing: int = 0

    def layer(self, style: Style) -> Layer:
        names, head = self.head.names, self.head
        tags = {**style.tags, "rsedge_head": head.record.name, "rsedge_head_sha256": head.sha256}
        style = dataclasses.replace(style, tags=tags)
        if self.counts is None:
            return Layer(names, "float32", names, style=style)
        return Layer([CLASS_BAND], "uint8", names, style=style, counts=self.counts)

    def add(self, rows: RowWriter, values: Floats, seen: npt.NDArray[np.bool_], col: int) -> None:
        """Takes rows of what is blended (all heads' bands)."""
        self.missing += int(np.count_nonzero(~seen))
        mine = values[self.bands]
        if self.counts is None:
            rows.add(np.where(seen, mine, np.float32(np.nan)), col)
            return
        classes = best_class(mine)
        classes[~seen] = NODATA_CLASS
        count_classes(classes, len(self.head.names), self.counts)
        rows.add(classes[None], col)

    def check(self, temporary: Path) -> None:
        read_back(temporary, self.place, None if self.counts is None else (self.counts, len(self.head.names)))

    def record(self) -> dict[str, Any]:
        pixels = {} if self.counts is None else dict(zip(self.head.names, self.counts.tolist(), strict=False))
        return {"output": str(self.place), "pixels": pixels, "nodata_pixels": self.missing, **self.head.about()}


def masks_of_heads(heads: Sequence[Head], output: Path) -> list[_Mask]:
    """Where each head's answer goes, and which of the blended bands are its."""
    first, found = 0, list[_Mask]()
    for head in heads:
        bands = slice(first, first + len(head.names))
        counts = np.zeros(256, np.int64) if head.tells_classes else None
        found.append(_Mask(head, beside(output, head), bands, counts))
        first = bands.stop
    return found


def infer_heads(
    session: Session,
    reader: Scene,
    output: Path,
    heads: Sequence[Head],
    manifest: Manifest,
    overlap: int | None = None,
    progress: Progress | None = None,
    style: Style = PLAIN,
) -> dict[str, Any]:
    """Writes what each head says of a scene, on the scene's grid, beside ``output``, which itself is not written: a class map
    (uint8, 255 = nodata) with palette and names, or a float32 band per value (NaN = nodata).

    Returns:
        ``heads`` by name (``output``, ``pixels`` by class, ``nodata_pixels`` and what :meth:`Head.about` says), ``height``,
        ``width``, ``seconds``, and ``run`` as :func:`rsedge.runtimes.inference.scene.infer_scene`.

    Raises:
        RequestError, IntegrityError, MissingCapability: as :func:`rsedge.runtimes.inference.mosaic.blend_rows`; a head's weights
            are damaged; or what it gives cannot be written there.
    """
    began, run, masks = time.perf_counter(), SceneRun(), masks_of_heads(heads, output)
    blending = heads_blending(heads, manifest, session.runtime)
    with contextlib.ExitStack() as files:
        temporary = [files.enter_context(atomic_raster(mask.place)) for mask in masks]
        with contextlib.ExitStack() as sinks:
            pairs = zip(masks, temporary, strict=True)
            writers = [sinks.enter_context(sink(place, reader, mask.layer(style))) for mask, place in pairs]
            strips = blend_rows(session, reader, blending, overlap, progress, panels, run)
            with contextlib.closing(strips):
                for strip in strips:
                    with run.stage("compress"):
                        for mask, writer in zip(masks, writers, strict=True):
                            mask.add(writer, strip.values, strip.seen, strip.col)
            with run.stage("compress"):
                sinks.close()
        with run.stage("compress", alone=True):
            for place in temporary:
                finish(place, style)
        with run.stage("check"):
            for mask, place in zip(masks, temporary, strict=True):
                mask.check(place)
        with run.stage("write"):
            files.close()
    return {
        "heads": {mask.head.record.name: mask.record() for mask in masks},
        "height": reader.height,
        "width": reader.width,
        "seconds": round(time.perf_counter() - began, 3),
        "run": run.record(session.device),
    }


class WholePlaces:
    """A scene without what lies before its first and behind its last whole place of ``stride`` x ``stride`` pixels, as a scene.

    Places begin at the scene's own edge, or on the map's grid where its reader begins tiles there.

    Raises:
        RequestError: it is smaller than one place.
    """

    def __init__(self, scene: Scene, stride: int) -> None:
        self._scene = scene
        first = first_pixel(scene)
        self._top, self._left = (-at % stride for at in first)
        self.first_pixel = first[0] + self._top, first[1] + self._left
        sizes = (scene.height - self._top) // stride * stride, (scene.width - self._left) // stride * stride
        if min(sizes) < stride:
            raise RequestError(
                f"{scene.path}: {scene.height}x{scene.width} pixels are less than a place of {stride}x{stride}"
            )
        self.height, self.width = sizes
        self.transform = scene.transform.shifted(self._left, self._top) if self._top or self._left else scene.transform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scene, name)

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        return self._scene.read(self._top + row, self._left + col, height, width)

    @property
    def screen(self) -> Screen | None:
        """What keeps tiles of the scene from the model, seen from here."""
        found = screen_of(self._scene)
        return found if found is None else _ScreenFrom(found, self._top, self._left)


class _ScreenFrom:
    """A screen of which the first rows and columns are left out."""

    def __init__(self, whole: Screen, top: int, left: int) -> None:
        self._whole, self._top, self._left = whole, top, left

    @property
    def spared(self) -> int:
        return self._whole.spared

    def hidden(self, row: int, col: int, height: int, width: int) -> npt.NDArray[np.bool_]:
        return self._whole.hidden(self._top + row, self._left + col, height, width)

    def spares(self, missing: npt.NDArray[np.bool_]) -> bool:
        return self._whole.spares(missing)


def feature_rows(
    session: Session,
    reader: WholePlaces,
    manifest: Manifest,
    overlap: int | None = None,
    progress: Progress | None = None,
    run: SceneRun | None = None,
) -> Iterator[Floats]:
    """A scene's features from top to bottom (D, rows, width / stride), blended where tiles overlap, NaN where nothing is seen.

    Args:
        reader: a scene of whole places.
        overlap: of tiles, rounded down to whole places.

    Raises:
        RequestError, IntegrityError, MissingCapability: as :func:`rsedge.runtimes.inference.mosaic.blend_rows`, and where the
            model gives another map than its manifest says.
    """
    stride, tile = manifest.stride or 1, manifest.input_spec.tile
    overlap = (default_overlap(tile) if overlap is None else overlap) // stride * stride

    def values(features: Array) -> Floats:
        _check_map(features, manifest, session.runtime)
        return features

    blending: Blending = Sums(values, len(manifest.classes), coarser=stride)
    with contextlib.closing(blend_rows(session, reader, blending, overlap, progress, run=run)) as strips:
        for strip in strips:
            strip.values[:, ~strip.seen] = np.nan
            yield strip.values


def infer_features(
    session: Session,
    reader: Scene,
    output: Path,
    manifest: Manifest,
    overlap: int | None = None,
    progress: Progress | None = None,
    style: Style = PLAIN,
) -> dict[str, Any]:
    """Writes a scene's features: a float32 band each (NaN = nodata), a pixel for every ``stride`` x ``stride`` of the scene's.

    Returns:
        ``output``, ``height``, ``width``, ``features``, ``stride``, ``nodata_pixels``, ``seconds``, ``run``.

    Raises:
        RequestError, IntegrityError, MissingCapability: as :func:`feature_rows` and :class:`WholePlaces`; or it cannot be
            written there.
    """
    began, missing, run, stride = time.perf_counter(), 0, SceneRun(), manifest.stride or 1
    places = WholePlaces(reader, stride)
    with writing_rows(output, places, manifest.classes, 1, style, stride) as writer:
        for rows in feature_rows(session, places, manifest, overlap, progress, run):
            missing += int(np.isnan(rows[0]).sum())
            with run.stage("compress"):
                writer.add(rows)
    return {
        "output": str(output),
        "height": places.height // stride,
        "width": places.width // stride,
        "features": len(manifest.classes),
        "stride": stride,
        "nodata_pixels": missing,
        "seconds": round(time.perf_counter() - began, 3),
        "run": run.record(session.device),
    }
