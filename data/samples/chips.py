"""Images of one's own in a folder, each of the class that its sub-folder is called after, or without labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.folders import is_folder
from rsedge.data.record import Record
from rsedge.data.samples.samples import PUBLISHED, Samples
from rsedge.data.scenes.physical_scene import read_picture
from rsedge.data.scenes.scene import SceneNotes
from rsedge.data.tiles import cut_maps, tile_origins

CHIPS = "chips"
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp")
BLOCK_TILES = 4
"""Edge, in tiles, of the blocks that a single image is held out by."""


class ChipOptions(Record):
    """Where the images lie and what their numbers mean: physical = stored * scale + offset."""

    folder: Path = Field(description="holds the images, in sub-folders too")
    tile: int = Field(ge=8, description="edge of the samples (pixels): the model's tile; larger images are cut")
    labels: Literal["folders", "none"] = Field(
        default="none",
        description="folders: an image is of the class that the first folder below `folder` is called after",
    )
    classes: list[str] | None = Field(
        default=None,
        min_length=2,
        description="names of those folders in the order of the model's outputs; else A to Z",
    )
    bands: list[str] | None = Field(default=None, description="names of the files' bands in their order")
    sensor: str | None = Field(default=None, description="whose band numbers the files' names are")
    scale: float | None = Field(default=None, description="over the files' own tags")
    offset: float | None = Field(default=None, description="over the files' own tags")
    nodata: float | None = Field(
        default=None, description="file value of missing pixels, beside those the files declare"
    )
    nan_nodata: bool = Field(default=False, description="NaN and infinity are missing pixels")
    gsd_m: float | None = Field(default=None, gt=0, description="ground sampling distance (m), over the files' own")


def chip_files(folder: Path) -> list[Path]:
    """The images below a folder, by name; hidden files and folders do not count.

    Raises:
        RequestError: no such folder, or no image in it.
    """
    if not is_folder(folder):
        raise RequestError(f"samples 'chips': folder: {folder} is no folder")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    found = sorted(p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    if not found:
        raise RequestError(f"samples 'chips': folder: {folder} holds no image ({', '.join(SUFFIXES)})")
    return found


def folder_classes(folder: Path, files: list[Path]) -> list[str]:
    """Names of the first folders below one, A to Z; nothing where images lie beside them, there is but one, or they are splits."""
    inside = [path.relative_to(folder).parts for path in files]
    names = sorted({parts[0] for parts in inside})
    splits = all(name.casefold() in PUBLISHED for name in names)
    return names if len(names) > 1 and not splits and all(len(parts) > 1 for parts in inside) else []


def load_chips(root: Path | None, options: ChipOptions) -> Samples:
    """Samples of layout ``CHW``, perhaps with class numbers. An image is held out whole, a single one by blocks of tiles.

    Raises:
        RequestError: a file cannot be read, other bands, folders that are no classes, or images smaller than a tile.
    """
    folder = (root or Path()) / options.folder
    files = chip_files(folder)
    names = _classes(folder, files, options)
    notes = SceneNotes()
    cut = [tile for number, path in enumerate(files) for tile in _tiles(number, path, options, notes)]
    if not cut:
        raise RequestError(f"samples 'chips': every image is smaller than the tile of {options.tile} pixels, or empty")
    values, cells, bands, gsd_m = zip(*cut, strict=True)
    if odd := next((i for i, found in enumerate(bands) if found != bands[0]), None):
        raise RequestError(
            f"samples 'chips': {files[cells[odd][0]]} has the bands {', '.join(bands[odd])}, {files[cells[0][0]]} "
            f"{', '.join(bands[0])}; give `bands`, or take it away"
        )
    step = BLOCK_TILES if len(files) == 1 else 0
    group = [f"image {n}" + (f" {row // step}-{col // step}" if step else "") for n, row, col in cells]
    labels = [names.index(files[n].relative_to(folder).parts[0]) for n, _, _ in cells] if names else None
    return Samples(
        CHIPS, np.stack(values), bands[0], "CHW", sha256_of([sha256_file(path) for path in files]),
        labels=None if labels is None else np.array(labels, np.int64), classes=tuple(names), group=np.array(group),
        cells=np.array(cells, np.intp) if step else None, gsd_m=gsd_m[0], notes=tuple(notes.warnings),
        sensors=tuple(sorted(notes.sensors)),
    )  # fmt: skip


Cell = tuple[int, int, int]
Tile = tuple[npt.NDArray[np.float32], Cell, tuple[str, ...], float | None]


def _classes(folder: Path, files: list[Path], options: ChipOptions) -> list[str]:
    if options.labels == "none":
        return []
    found = folder_classes(folder, files)
    if not found:
        raise RequestError(
            f"samples 'chips': labels: images in {folder} do not lie in two or more folders, one a class; write labels: none"
        )
    for name in options.classes or []:
        if name not in found:
            raise RequestError(f"samples 'chips': classes: {folder} has no folder '{name}'{nearest(name, found)}")
    for name in found:
        if options.classes and name not in options.classes:
            raise RequestError(
                f"samples 'chips': classes: the folder '{name}' is none of them; name it too, or move it away"
            )
    return options.classes or found


def _tiles(number: int, path: Path, options: ChipOptions, notes: SceneNotes) -> Iterator[Tile]:
    read = {"bands", "sensor", "scale", "offset", "nodata", "nan_nodata", "gsd_m"}
    scene = read_picture(path, **options.model_dump(include=read))
    notes.add(scene)
    for row, col in tile_origins(scene.valid.shape, options.tile):
        tile = cut_maps(scene.image, (row, col), options.tile)
        if not np.isnan(tile).all():
            cell = (number, row // options.tile, col // options.tile)
            yield tile, cell, scene.bands, scene.gsd_m if math.isfinite(scene.gsd_m) else None
