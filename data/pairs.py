"""Pairs of scenes of two dates, GeoTIFFs on the same grid, cut into samples with a map of what has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from rasterio.windows import Window

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.geotiff import open_raster, read_window
from rsedge.data.geotiff_dates import check_same_grid
from rsedge.data.samples import Samples
from rsedge.data.sources import Scene, load_geotiff
from rsedge.data.tiles import cut_maps, tile_origins

PAIRS = "pairs"
BLOCK_TILES = 4
"""Edge, in tiles, of the blocks that a single pair is held out by."""
UNKNOWN = 255


class Pair(BaseModel):
    """Two dates of one place; ``labels`` is one band of class numbers, 255 or nodata where unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: str
    after: str
    labels: str | None = None


class PairOptions(BaseModel):
    """The pairs and what their numbers mean: physical = stored * scale + offset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: list[Pair] = Field(min_length=1)
    tile: int = Field(ge=8, description="edge of the samples (pixels): the model's tile")
    bands: list[str] | None = Field(default=None, description="names of the files' bands in their order")
    scale: float | None = None
    offset: float | None = None
    gsd_m: float | None = Field(default=None, gt=0)
    classes: list[str] = Field(default=["no change", "change"], min_length=2)


def load_pairs(root: Path | None, options: PairOptions) -> Samples:
    """Samples of layout ``TCHW`` (two dates). A pair is held out whole, a single one by blocks of :data:`BLOCK_TILES` tiles.

    Raises:
        RequestError: a file cannot be read, dates or labels on different grids, other bands, labels for some pairs only, or
            scenes smaller than a tile.
    """
    folder = root or Path()
    if len({pair.labels is None for pair in options.pairs}) > 1:
        raise RequestError("samples 'pairs': labels: give them for every pair or for none")
    cut = [part for number, pair in enumerate(options.pairs) for part in _tiles(folder, number, pair, options)]
    if not cut:
        raise RequestError(f"samples 'pairs': every scene is smaller than the tile of {options.tile} pixels")
    values, labels, group, bands, gsd_m = zip(*cut, strict=True)
    if len(set(bands)) > 1:
        raise RequestError(
            f"samples 'pairs': the scenes differ in bands: {bands[0]} and {next(b for b in bands if b != bands[0])}"
        )
    files = [path for pair in options.pairs for path in _files(folder, pair)]
    return Samples(
        PAIRS, np.stack(values), bands[0], "TCHW", sha256_of([sha256_file(path) for path in files]),
        labels=None if options.pairs[0].labels is None else np.stack(labels), classes=tuple(options.classes),
        group=np.array(group), gsd_m=gsd_m[0],
    )  # fmt: skip


Tile = tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8], str, tuple[str, ...], float]


def _tiles(folder: Path, number: int, pair: Pair, options: PairOptions) -> Iterator[Tile]:
    dates = [_scene(folder / name, options) for name in (pair.before, pair.after)]
    with open_raster(folder / pair.before) as first, open_raster(folder / pair.after) as second:
        check_same_grid(second, folder / pair.after, first, "it")
    if dates[0].bands != dates[1].bands:
        raise RequestError(f"{folder / pair.after}: bands {dates[1].bands}, {pair.before} has {dates[0].bands}")
    values = np.stack([np.where(d.valid, d.image, np.float32(np.nan)) for d in dates])
    truth = _labels(folder, pair, options) if pair.labels else np.full(values.shape[2:], UNKNOWN, np.uint8)
    step = options.tile * BLOCK_TILES
    for row, col in tile_origins(values.shape[2:], options.tile):
        tile = cut_maps(values, (row, col), options.tile)
        if not np.isnan(tile).all():
            block = f" {row // step}-{col // step}" if len(options.pairs) == 1 else ""
            yield (
                tile,
                cut_maps(truth, (row, col), options.tile),
                f"pair {number}{block}",
                dates[0].bands,
                dates[0].gsd_m,
            )


def _scene(path: Path, options: PairOptions) -> Scene:
    return load_geotiff(path, options.bands, options.scale, options.offset, options.gsd_m)


def _labels(folder: Path, pair: Pair, options: PairOptions) -> npt.NDArray[np.uint8]:
    assert pair.labels is not None
    path = folder / pair.labels
    with open_raster(path) as file, open_raster(folder / pair.before) as scene:
        check_same_grid(file, path, scene, "the labels")
        whole = Window(0, 0, file.width, file.height)
        values = read_window(file, path, [1], whole)[0]
        known = (read_window(file, path, [1], whole, masks=True)[0] > 0) & (values != UNKNOWN)
    strange = values[known & ~((values >= 0) & (values < len(options.classes)))]
    if strange.size:
        raise RequestError(
            f"{path}: label {strange[0]:g} is none of the {len(options.classes)} classes (0 is the first)"
        )
    return np.where(known, values, UNKNOWN).astype(np.uint8)


def _files(folder: Path, pair: Pair) -> list[Path]:
    return [folder / name for name in (pair.before, pair.after, pair.labels) if name]
