"""Whole scenes through a tile-sized model, with memory that does not grow with the scene's height.

Tiles overlap; each contributes its class probabilities with a weight that rises smoothly from the tile's edge. The
weights of all tiles that cover a pixel sum to one, and factor into a row and a column part, so that they are known
before the first tile runs. Only one row of tiles is held at a time; rows that no later tile touches are written out.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.windows import Window

from rsedge.data.bands import InputSpec
from rsedge.data.errors import IntegrityError, MissingCapability, RequestError
from rsedge.data.files import atomic_path
from rsedge.data.memory import check_memory
from rsedge.data.scenes.raster import CLASSES_TAG, GDAL_ERRORS, bounded_cache, open_raster
from rsedge.runtimes.bundle.manifest import NODATA_CLASS
from rsedge.runtimes.inference.outputs import check_outputs
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Array, Session

Progress = Callable[[int, int], None]
GEOTIFF = (".tif", ".tiff")
_BLOCK = 256


class Scene(Protocol):
    """What :func:`predict_rows` needs of a scene; :class:`rsedge.data.scenes.geotiff.SceneReader` is one, and for models that
    compare dates :class:`rsedge.data.scenes.geotiff_dates.DatesReader`, whose bands stand date after date."""

    height: int
    width: int
    crs: Any
    transform: Any
    path: Path
    spec: InputSpec

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]: ...


@dataclasses.dataclass(frozen=True)
class Blended:
    """Finished rows of what tiles give, blended: ``values`` [K, h, W] float32 and ``seen`` [h, W], False where the scene is nodata;
    ``start`` is the row of the first."""

    start: int
    values: npt.NDArray[np.float32]
    seen: npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Finished rows of the result: ``classes`` [h, W] uint8 (255 = nodata), ``probabilities`` [K, h, W] float32 (NaN =
    nodata); ``start`` is the scene row of the first."""

    start: int
    classes: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]


def default_overlap(tile: int) -> int:
    """An eighth of the tile edge (pixels)."""
    return tile // 8


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixel of each tile along an axis; the last one ends at the scene's edge. ``[0]`` for smaller scenes."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def tile_weights(length: int, tile: int, overlap: int) -> npt.NDArray[np.float32]:
    """Weight of each tile's pixels along one axis, shape (tiles, tile); they sum to one at each pixel of the scene."""
    ramp = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    window = np.ones(tile)
    window[:overlap] *= ramp
    window[tile - overlap :] *= ramp[::-1]
    starts = tile_starts(length, tile, overlap)
    total = np.zeros(max(length, tile))
    for start in starts:
        total[start : start + tile] += window
    return np.stack([window / total[s : s + tile] for s in starts]).astype(np.float32)


def predict_rows(
    session: Session, reader: Scene, overlap: int | None = None, progress: Progress | None = None
) -> Iterator[Rows]:
    """Runs a scene and yields its result from top to bottom.

    Memory: about ``tile * width * (C * sizeof(DN) + 4 K)`` bytes and GDAL's block cache, whatever the height.

    Raises:
        RequestError: overlap outside 0 .. half a tile; or the scene turns out to be unreadable.
        MissingCapability: a row of tiles is wider than this machine's memory.
        IntegrityError: the model gives NaN or infinity.
    """
    for rows in blend_rows(session, reader, softmax, 1, overlap, progress):
        classes = best_class(rows.values)
        classes[~rows.seen] = NODATA_CLASS
        rows.values[:, ~rows.seen] = np.nan
        yield Rows(rows.start, classes, rows.values)


def blend_rows(
    session: Session,
    reader: Scene,
    scores: Callable[[Array], npt.NDArray[np.float32]],
    finer: int,
    overlap: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Blended]:
    """Runs a scene and yields what its tiles give, blended, from top to bottom; errors as of :func:`predict_rows`.

    Args:
        scores: a tile's outputs [K, finer T, finer T] to what is blended.
        finer: how many times finer than the scene's grid that of the outputs is; rows are counted on theirs.
    """
    tile = session.input_spec.tile
    overlap = default_overlap(tile) if overlap is None else overlap
    if not 0 <= overlap <= tile // 2:
        raise RequestError(f"--overlap must lie between 0 and half a tile ({tile // 2}), not {overlap}")
    with bounded_cache():
        yield from _Mosaic(session, reader, scores, finer, tile, overlap, progress).rows()


def walk_tiles(
    reader: Scene, tile: int, row_starts: Sequence[int], col_starts: Sequence[int]
) -> Iterator[tuple[int, int, Array, npt.NDArray[np.bool_]]]:
    """Tiles from left to right and top to bottom: number of row and column, DN [C, tile, tile], missing [tile, tile].

    Those without a seen pixel are left out. Scenes smaller than a tile are continued by reflection.
    """
    for i, dn, missing in _strips(reader, tile, row_starts):
        for j, col in enumerate(col_starts):
            hidden = missing[:, col : col + tile]
            if not hidden.all():
                yield i, j, dn[:, :, col : col + tile], hidden.copy()


def _strips(reader: Scene, tile: int, row_starts: Sequence[int]) -> Iterator[tuple[int, Array, npt.NDArray[np.bool_]]]:
    """(tile row, DN [C, tile, W], missing [tile, W]); each scene row is read once, overlaps are kept."""
    dn: Array = np.empty((0,))
    missing = np.empty((0, 0), dtype=bool)
    end = 0
    for i, start in enumerate(row_starts):
        stop = min(start + tile, reader.height)
        new, new_missing = reader.read(end, 0, stop - end, reader.width)
        if i == 0:
            dn, missing = new, new_missing
        else:
            keep = end - start
            dn = np.concatenate([dn[:, dn.shape[1] - keep :], new], axis=1)
            missing = np.concatenate([missing[len(missing) - keep :], new_missing])
        end = stop
        yield i, *_padded(dn, missing, tile)


def _padded(dn: Array, missing: npt.NDArray[np.bool_], tile: int) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Strips smaller than a tile, continued by reflection; what is added is dropped on writing."""
    bottom, right = tile - dn.shape[1], max(tile - dn.shape[2], 0)
    if not bottom and not right:
        return dn, missing
    pad = ((0, bottom), (0, right))
    return np.pad(dn, ((0, 0), *pad), mode="reflect"), np.pad(missing, pad, mode="reflect")


class _Mosaic:
    """One pass over a scene. Tiles start on its grid; all else is on that of the outputs, ``finer`` times finer."""

    def __init__(
        self,
        session: Session,
        reader: Scene,
        scores: Callable[[Array], npt.NDArray[np.float32]],
        finer: int,
        tile: int,
        overlap: int,
        progress: Progress | None,
    ) -> None:
        self.session, self.reader, self.progress = session, reader, progress
        self.scores, self.finer, self.scene_tile, self.tile = scores, finer, tile, finer * tile
        self.row_starts = tile_starts(reader.height, tile, overlap)
        self.col_starts = tile_starts(reader.width, tile, overlap)
        self.row_weights = tile_weights(finer * reader.height, self.tile, finer * overlap)
        self.col_weights = tile_weights(finer * reader.width, self.tile, finer * overlap)
        self.width = finer * max(reader.width, tile)
        self.waiting: collections.deque[tuple[int, int]] = collections.deque()
        self.masks: collections.deque[npt.NDArray[np.bool_]] = collections.deque()
        self.total = np.zeros((0, self.tile, self.width), dtype=np.float32)
        self.seen = np.zeros((self.tile, self.width), dtype=bool)
        self.first = 0

    def rows(self) -> Iterator[Blended]:
        every = len(self.row_starts) * len(self.col_starts)
        current = 0
        for outputs in self.session.stream(self._tiles()):
            i, j = self.waiting.popleft()
            if not len(self.total):
                check_memory(outputs[LOGITS].shape[1] * self.tile * self.width * 4, self.reader.path)
                self.total = np.zeros((outputs[LOGITS].shape[1], self.tile, self.width), dtype=np.float32)
            while current < i:
                current += 1
                yield from self._flush(self.row_starts[current])
            self._add(i, j, outputs[LOGITS][0], outputs[VALID][0].astype(bool), self.masks.popleft())
            self._report(i * len(self.col_starts) + j + 1, every)
        if not len(self.total):
            raise RequestError(f"{self.reader.path}: every pixel is nodata, there is nothing to look at")
        for start in self.row_starts[current + 1 :]:  # rows of tiles in which no pixel is seen
            yield from self._flush(start)
        yield from self._flush(self.reader.height)
        self._report(every, every)

    def _report(self, done: int, every: int) -> None:
        if self.progress is not None:
            self.progress(done, every)

    def _tiles(self) -> Iterator[dict[str, Array]]:
        for i, j, dn, hidden in walk_tiles(self.reader, self.scene_tile, self.row_starts, self.col_starts):
            self.waiting.append((i, j))
            self.masks.append(hidden)
            yield {INPUT: dn.reshape(1, *self.session.input_spec.shape)}

    def _add(self, i: int, j: int, logits: Array, valid: npt.NDArray[np.bool_], missing: npt.NDArray[np.bool_]) -> None:
        top = self.finer * self.row_starts[i] - self.first
        col = self.finer * self.col_starts[j]
        share = self.scores(logits)
        if not np.isfinite(share).all():
            raise IntegrityError(
                f"{self.reader.path}: the model gives NaN or infinity in the tile at row {self.row_starts[i]}, column "
                f"{self.col_starts[j]}; check the bundle with `rsedge verify`"
            )
        share *= self.row_weights[i][None, :, None] * self.col_weights[j][None, None, :]
        self.total[:, top : top + self.tile, col : col + self.tile] += share
        self.seen[top : top + self.tile, col : col + self.tile] |= self._on_grid(valid & ~missing)

    def _on_grid(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return mask if self.finer == 1 else mask.repeat(self.finer, 0).repeat(self.finer, 1)

    def _flush(self, stop: int) -> Iterator[Blended]:
        """Yields rows up to ``stop`` (scene row), then moves the held rows up."""
        n = self.finer * min(stop, self.reader.height) - self.first
        if n <= 0:
            return
        width = self.finer * self.reader.width
        yield Blended(self.first, self.total[:, :n, :width].copy(), self.seen[:n, :width].copy())
        keep = self.tile - n
        self.total[:, :keep] = self.total[:, n:].copy()
        self.total[:, keep:] = 0
        self.seen[:keep] = self.seen[n:].copy()
        self.seen[keep:] = False
        self.first += n


def softmax(logits: Array) -> npt.NDArray[np.float32]:
    """Class probabilities over the first axis, float32; NaN where logits are infinite, which the self-test tells."""
    with np.errstate(invalid="ignore"):
        exponent = np.exp(logits - logits.max(axis=0, keepdims=True), dtype=np.float32)
    return np.asarray(exponent / exponent.sum(axis=0, keepdims=True), dtype=np.float32)


def best_class(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Index of the largest of scores [K, h, w] per pixel, the first one of equals; K at most 255.

    Plane by plane, which is faster than ``argmax`` over the first axis where K is small.
    """
    highest = scores[0].copy()
    index = np.zeros(highest.shape, dtype=np.uint8)
    for k in range(1, len(scores)):
        np.copyto(index, np.uint8(k), where=scores[k] > highest)
        np.maximum(highest, scores[k], out=highest)
    return index


def infer_scene(
    session: Session,
    reader: Scene,
    out_path: str | Path,
    classes: Sequence[str],
    overlap: int | None = None,
    probabilities: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes the class map of a scene, and its class probabilities if asked.

    The map is a tiled, compressed uint8 GeoTIFF on the scene's grid (255 = nodata) with the class names in its tags
    (``rsedge_classes`` as JSON); the probabilities are float32 bands named by class (NaN = nodata). Both appear under
    their names only once they are complete, and the map is read back before that.

    Returns:
        ``output``, ``probabilities``, ``height``, ``width``, ``pixels`` by class, ``nodata_pixels``, ``seconds``.

    Raises:
        RequestError: an output is called another kind of file, would overwrite the scene, or cannot be written there.
        IntegrityError: the scene is damaged, the model gives NaN, or the map reads back differently.
        MissingCapability: the disk is full.
    """
    out_path, began = Path(out_path), time.perf_counter()
    wanted = [p for p in (out_path, Path(probabilities) if probabilities else None) if p is not None]
    _check_outputs(reader, wanted)
    counts = np.zeros(256, dtype=np.int64)
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(_atomic(p)) for p in wanted]
        with contextlib.ExitStack() as open_files:
            sinks = [open_files.enter_context(_sink(temporary[0], reader, ["class"], "uint8", classes))]
            if probabilities:
                sinks.append(open_files.enter_context(_sink(temporary[1], reader, list(classes), "float32", classes)))
            for rows in predict_rows(session, reader, overlap, progress):
                counts += np.bincount(rows.classes.ravel(), minlength=256)
                _check_classes(session, rows, classes)
                sinks[0].add(rows.classes[None])
                if probabilities:
                    sinks[1].add(rows.probabilities)
        for path, target in zip(temporary, wanted, strict=True):
            _read_back(path, target, counts if target is out_path else None)
    return {
        "output": str(out_path),
        "probabilities": str(probabilities) if probabilities else None,
        "height": reader.height,
        "width": reader.width,
        "pixels": {name: int(n) for name, n in zip(classes, counts, strict=False)},
        "nodata_pixels": int(counts[NODATA_CLASS]),
        "seconds": round(time.perf_counter() - began, 3),
    }


@contextlib.contextmanager
def writing_rows(path: Path, reader: Scene, bands: Sequence[str], finer: int) -> Iterator[_RowWriter]:
    """A GeoTIFF of float32 bands (NaN = nodata) on a grid ``finer`` times finer than a scene's, row by row, as
    :func:`infer_scene` writes: it appears when the block ends well.

    Raises:
        RequestError: it would overwrite the scene, or cannot be written there.
        MissingCapability: the disk is full.
    """
    _check_outputs(reader, [path])
    with _atomic(path) as temporary:
        with _sink(temporary, reader, list(bands), "float32", bands, finer=finer) as sink:
            yield sink
        _read_back(temporary, path)


class _RowWriter:
    """Collects rows so that compressed blocks are written once and whole."""

    def __init__(self, file: Any) -> None:
        self._file, self._rows, self._parts = file, 0, list[Array]()

    def add(self, rows: Array) -> None:
        self._parts.append(rows)
        if sum(p.shape[1] for p in self._parts) >= _BLOCK:
            held = np.concatenate(self._parts, axis=1)
            whole = held.shape[1] // _BLOCK * _BLOCK
            self._write(held[:, :whole])
            self._parts = [held[:, whole:]]

    def finish(self) -> None:
        if self._parts:
            self._write(np.concatenate(self._parts, axis=1))
        self._parts = []

    def _write(self, rows: Array) -> None:
        if rows.shape[1]:
            self._file.write(rows, window=Window(0, self._rows, rows.shape[2], rows.shape[1]))
            self._rows += rows.shape[1]


def write_grid(path: Path, reader: Scene, bands: list[str], values: Array, classes: Sequence[str], step: int) -> None:
    """Writes a grid of (B, rows, cols) values, each over ``step`` x ``step`` pixels of a scene, as :func:`infer_scene` does.

    Raises:
        RequestError: it would overwrite the scene, or cannot be written there.
        MissingCapability: the disk is full.
    """
    _check_outputs(reader, [path])
    with _atomic(path) as temporary:
        with _sink(temporary, reader, bands, str(values.dtype), classes, step) as sink:
            sink.add(values)
        _read_back(temporary, path)


@contextlib.contextmanager
def _sink(
    path: Path, reader: Scene, bands: list[str], dtype: str, classes: Sequence[str], step: int = 1, finer: int = 1
) -> Iterator[_RowWriter]:
    profile = {
        "driver": "GTiff",
        "height": finer * reader.height // step,
        "width": finer * reader.width // step,
        "count": len(bands),
        "dtype": dtype,
        "crs": reader.crs,
        "transform": reader.transform if step == finer else reader.transform * Affine.scale(step / finer),
        "nodata": NODATA_CLASS if dtype == "uint8" else float("nan"),
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "deflate",
        "predictor": 1 if dtype == "uint8" else 3,
        "bigtiff": "if_safer",
    }
    # As an absolute name, nothing in it is a prefix that means something to GDAL.
    with rasterio.open(path.absolute(), "w", **profile) as file:
        for index, name in enumerate(bands, start=1):
            file.set_band_description(index, name)
        file.update_tags(**{CLASSES_TAG: json.dumps(list(classes))}, **{f"class_{i}": c for i, c in enumerate(classes)})
        writer = _RowWriter(file)
        yield writer
        writer.finish()


@contextlib.contextmanager
def _atomic(target: Path) -> Iterator[Path]:
    """:func:`atomic_path`, with GDAL's complaints about the target turned into ours."""
    try:
        with atomic_path(target) as temporary:
            yield temporary
    except GDAL_ERRORS as error:
        raise _not_whole(target, error) from error


def _not_whole(target: Path, error: object) -> MissingCapability:
    """GDAL does not tell why a file could not be written; the limits of this process and of the disk do."""
    most, free = resource.getrlimit(resource.RLIMIT_FSIZE)[0], shutil.disk_usage(target.parent).free
    limit = "" if most == resource.RLIM_INFINITY else f", and a file may have {most / 1024:,.1f} KiB here (ulimit -f)"
    return MissingCapability(
        f"{target}: could not be written whole: its disk has {free / 1024:,.0f} KiB free{limit}; free some, or choose another "
        f"place, and run it again ({error})"
    )


def _check_outputs(reader: Scene, wanted: list[Path]) -> None:
    other = [p for p in wanted if p.suffix and p.suffix.lower() not in GEOTIFF]
    if other:
        raise RequestError(f"{other[0]}: what is written is a GeoTIFF; call it {other[0].with_suffix('.tif').name}")
    check_outputs(wanted, [reader.path])


def _check_classes(session: Session, rows: Rows, classes: Sequence[str]) -> None:
    if len(rows.probabilities) != len(classes):
        raise IntegrityError(
            f"the model gives {len(rows.probabilities)} classes, its manifest names {len(classes)} "
            f"({', '.join(classes)}); runtime {session.runtime}"
        )


def _read_back(temporary: Path, target: Path, counts: npt.NDArray[np.int64] | None = None) -> None:
    """GDAL closes a file without a word where a full disk, or a limit on files, took none of its last bytes.

    Args:
        counts: of each value, in a file of one band.

    Raises:
        MissingCapability: it is not whole. IntegrityError: it holds other values.
    """
    found = np.zeros(256, dtype=np.int64)
    try:
        with open_raster(temporary) as file:
            for row in range(0, file.height, _BLOCK):
                window = Window(0, row, file.width, min(_BLOCK, file.height - row))
                values = file.read(list(range(1, file.count + 1)), window)
                if counts is not None:
                    found += np.bincount(values.ravel(), minlength=256)
    except RequestError as error:
        raise _not_whole(target, "it cannot be read back") from error
    if counts is not None and not np.array_equal(found, counts):
        raise IntegrityError(f"{target}: reads back differently from what was written; check the disk")
