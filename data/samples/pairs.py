"""Pairs of scenes of two dates, GeoTIFFs on the same grid, cut into samples with a map of what has changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.record import Record
from rsedge.data.samples.samples import Samples
from rsedge.data.scenes.grids import check_same_grid
from rsedge.data.scenes.label_files import UNKNOWN, LabelReader
from rsedge.data.scenes.physical_scene import read_physical
from rsedge.data.scenes.raster import open_raster
from rsedge.data.scenes.scene import Scene, SceneNotes
from rsedge.data.tiles import cut_maps, tile_origins
from rsedge.data.wording import Wording

PAIRS = "pairs"
BLOCK_TILES = 4
"""Edge, in tiles, of the blocks that a single pair is held out by."""


class Pair(Record):
    """Two dates of one place; ``labels`` is one band of class numbers, 255 or nodata where unknown."""

    before: Path = Field(description="GeoTIFF of the first date")
    after: Path = Field(description="GeoTIFF of the second date, on the same grid")
    labels: Path | None = Field(default=None, description="GeoTIFF of what has changed")


class PairOptions(Record):
    """The pairs and what their numbers mean: physical = stored * scale + offset."""

    pairs: list[Pair] = Field(min_length=1, description="the pairs")
    tile: int = Field(ge=8, description="edge of the samples (pixels): the model's tile")
    bands: list[str] | None = Field(default=None, description="names of the files' bands in their order")
    sensor: str | None = Field(default=None, description="whose band numbers the files' names are")
    scale: float | None = Field(default=None, description="over the files' own tags")
    offset: float | None = Field(default=None, description="over the files' own tags")
    nodata: float | None = Field(
        default=None, description="file value of missing pixels, beside those the files declare"
    )
    nan_nodata: bool = Field(default=False, description="NaN and infinity are missing pixels")
    gsd_m: float | None = Field(default=None, gt=0, description="ground sampling distance (m), over the files' own")
    classes: list[str] = Field(default=["no change", "change"], min_length=2, description="in order of their numbers")
    map: dict[int, int | str] | None = Field(
        default=None, description="what the labels' values are: value -> class name, number or ignore"
    )


def load_pairs(root: Path | None, options: PairOptions) -> Samples:
    """Samples of layout ``TCHW`` (two dates). A pair is held out whole, a single one by blocks of :data:`BLOCK_TILES` tiles.

    Raises:
        RequestError: a file cannot be read, dates or labels on different grids, other bands, labels for some pairs only, or
            scenes smaller than a tile.
    """
    folder = root or Path()
    if len({pair.labels is None for pair in options.pairs}) > 1:
        raise RequestError("samples 'pairs': labels: give them for every pair or for none")
    notes = SceneNotes()
    cut = [part for number, pair in enumerate(options.pairs) for part in _tiles(folder, number, pair, options, notes)]
    if not cut:
        raise RequestError(f"samples 'pairs': every scene is smaller than the tile of {options.tile} pixels")
    values, labels, group, cells, bands, gsd_m = zip(*cut, strict=True)
    if len(set(bands)) > 1:
        raise RequestError(
            f"samples 'pairs': the scenes differ in bands: {bands[0]} and {next(b for b in bands if b != bands[0])}"
        )
    files = [path for pair in options.pairs for path in _files(folder, pair)]
    return Samples(
        PAIRS, np.stack(values), bands[0], "TCHW", sha256_of([sha256_file(path) for path in files]),
        labels=None if options.pairs[0].labels is None else np.stack(labels), classes=tuple(options.classes),
        group=np.array(group), cells=np.array(cells, np.intp) if len(options.pairs) == 1 else None, gsd_m=gsd_m[0],
        notes=tuple(notes.warnings),
        sensors=tuple(sorted(notes.sensors)),
    )  # fmt: skip


Cell = tuple[int, int, int]
Tile = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], str, Cell, tuple[str, ...], float | None]


def _tiles(folder: Path, number: int, pair: Pair, options: PairOptions, notes: SceneNotes) -> Iterator[Tile]:
    dates = [_scene(folder / name, options) for name in (pair.before, pair.after)]
    for date in dates:
        notes.add(date)
    with open_raster(folder / pair.before) as first, open_raster(folder / pair.after) as second:
        check_same_grid(second, folder / pair.after, first, "it")
    if dates[0].bands != dates[1].bands:
        raise RequestError(f"{folder / pair.after}: bands {dates[1].bands}, {pair.before} has {dates[0].bands}")
    values = np.stack([d.image for d in dates])
    truth = (
        _labels(folder, pair, options, notes.warnings) if pair.labels else np.full(values.shape[2:], UNKNOWN, np.uint8)
    )
    step = options.tile * BLOCK_TILES
    for row, col in tile_origins(values.shape[2:], options.tile):
        tile = cut_maps(values, (row, col), options.tile)
        if not np.isnan(tile).all():
            block = f" {row // step}-{col // step}" if len(options.pairs) == 1 else ""
            yield (
                tile,
                cut_maps(truth, (row, col), options.tile),
                f"pair {number}{block}",
                (number, row // options.tile, col // options.tile),
                dates[0].bands,
                dates[0].gsd_m if math.isfinite(dates[0].gsd_m) else None,
            )


def _scene(path: Path, options: PairOptions) -> Scene:
    return read_physical(path, **options.model_dump(exclude={"pairs", "tile", "classes", "map"}))


def _labels(folder: Path, pair: Pair, options: PairOptions, notes: list[str]) -> npt.NDArray[np.uint8]:
    assert pair.labels is not None
    path = folder / pair.labels
    with (
        open_raster(folder / pair.before) as scene,
        LabelReader(path, scene, options.classes, mapping=options.map, wording=Wording.RECIPE) as labels,
    ):
        notes += labels.warnings
        return labels.whole()


def _files(folder: Path, pair: Pair) -> list[Path]:
    return [folder / name for name in (pair.before, pair.after, pair.labels) if name]
