"""Scenes, and the same places on a finer grid where they are known, cut into samples for super-resolution."""

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
from rsedge.data.scenes.grids import FinerGrid, check_same_grid
from rsedge.data.scenes.physical_scene import read_physical
from rsedge.data.scenes.raster import open_raster
from rsedge.data.scenes.scene import Scene, SceneNotes
from rsedge.data.tiles import cut_maps, tile_origins

FINER = "finer"
BLOCK_TILES = 2
"""Edge, in tiles, of the blocks that a single scene is held out by."""


class FinerPair(Record):
    """A scene, and where it is known the same place on a grid a whole number of times finer."""

    scene: Path = Field(description="GeoTIFF that the model is shown")
    finer: Path | None = Field(default=None, description="GeoTIFF of the same place on the finer grid")


class FinerOptions(Record):
    """The scenes and what their numbers mean, those of the finer ones too: physical = stored * scale + offset."""

    scenes: list[FinerPair] = Field(min_length=1, description="the scenes")
    tile: int = Field(ge=16, description="edge of the samples (pixels of the scenes): the model's tile")
    bands: list[str] | None = Field(default=None, description="names of the scenes' bands in their order")
    finer_bands: list[str] | None = Field(
        default=None, description="those of the finer scenes; as `bands` when not given"
    )
    sensor: str | None = Field(default=None, description="whose band numbers the files' names are")
    scale: float | None = Field(default=None, description="over the files' own tags")
    offset: float | None = Field(default=None, description="over the files' own tags")
    nodata: float | None = Field(
        default=None, description="file value of missing pixels, beside those the files declare"
    )
    nan_nodata: bool = Field(default=False, description="NaN and infinity are missing pixels")
    gsd_m: float | None = Field(default=None, gt=0, description="of the scenes")


def load_finer(root: Path | None, options: FinerOptions) -> Samples:
    """Samples of layout ``CHW``; labels are the finer images (N, K, k T, k T), NaN where missing, classes their bands.

    A scene is held out whole, a single one by blocks of :data:`BLOCK_TILES` tiles.

    Raises:
        RequestError: a file cannot be read, grids or bands do not go together, finer scenes for some only, or scenes smaller than
            a tile.
    """
    folder = root or Path()
    if len({pair.finer is None for pair in options.scenes}) > 1:
        raise RequestError("samples 'finer': finer: give the finer scenes for all or for none")
    notes = SceneNotes()
    cut = [t for number, pair in enumerate(options.scenes) for t in _tiles(folder, number, pair, options, notes)]
    if not cut:
        raise RequestError(f"samples 'finer': every scene is smaller than the tile of {options.tile} pixels")
    values, truths, group, cells, bands, finer_bands, gsd_m = zip(*cut, strict=True)
    for what, names, shapes in (("bands", bands, values), ("finer bands", finer_bands, truths)):
        odd = next((i for i, n in enumerate(names) if n != names[0] or shapes[i].shape != shapes[0].shape), None)
        if odd is not None:
            raise RequestError(
                f"samples 'finer': the scenes differ in {what} or how fine they are: {', '.join(names[0])} {shapes[0].shape} and "
                f"{', '.join(names[odd])} {shapes[odd].shape}"
            )
    files = [folder / name for pair in options.scenes for name in (pair.scene, pair.finer) if name]
    known = options.scenes[0].finer is not None
    return Samples(
        FINER, np.stack(values), bands[0], "CHW", sha256_of([sha256_file(path) for path in files]),
        labels=np.stack(truths) if known else None, classes=finer_bands[0] if known else (), group=np.array(group),
        cells=np.array(cells, np.intp) if len(options.scenes) == 1 else None, gsd_m=gsd_m[0], notes=tuple(notes.warnings),
        sensors=tuple(sorted(notes.sensors)),
    )  # fmt: skip


Floats = npt.NDArray[np.float32]
Cell = tuple[int, int, int]
Tile = tuple[Floats, Floats, str, Cell, tuple[str, ...], tuple[str, ...], float | None]


def _tiles(folder: Path, number: int, pair: FinerPair, options: FinerOptions, notes: SceneNotes) -> Iterator[Tile]:
    scene = _read(folder / pair.scene, options, options.bands)
    truth, times = scene, 1
    if pair.finer is not None:
        times = _times(folder / pair.scene, folder / pair.finer)
        truth = _read(folder / pair.finer, options, options.finer_bands or options.bands)
    notes.add(scene)
    if truth is not scene:
        notes.warnings.extend(truth.warnings)
    step = options.tile * BLOCK_TILES
    for row, col in tile_origins(scene.valid.shape, options.tile):
        tile = cut_maps(scene.image, (row, col), options.tile)
        if not np.isnan(tile).all():
            block = f" {row // step}-{col // step}" if len(options.scenes) == 1 else ""
            finer = cut_maps(truth.image, (times * row, times * col), times * options.tile)
            gsd = scene.gsd_m if math.isfinite(scene.gsd_m) else None
            cell = (number, row // options.tile, col // options.tile)
            yield tile, finer, f"scene {number}{block}", cell, scene.bands, truth.bands, gsd


def _read(path: Path, options: FinerOptions, bands: list[str] | None) -> Scene:
    return read_physical(
        path, bands=bands, **options.model_dump(include={"sensor", "scale", "offset", "nodata", "nan_nodata", "gsd_m"})
    )


def _times(scene: Path, finer: Path) -> int:
    """How many times finer a file's grid is than a scene's.

    Raises:
        RequestError: not a whole number of times, or it lies elsewhere.
    """
    with open_raster(scene) as coarse, open_raster(finer) as fine:
        times = max(1, round(fine.width / coarse.width))
        check_same_grid(fine, finer, FinerGrid.over(coarse, times), f"the scene on a grid {times} times finer")
    return times
