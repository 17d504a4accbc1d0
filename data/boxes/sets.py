"""Images of one's own with boxes around objects (source ``boxes``), cut into samples."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rsedge.data.boxes.files import LabelledImage, read_box_file
from rsedge.data.boxes.placed import PlacedObjects, objects_on
from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.folders import is_file
from rsedge.data.record import Record
from rsedge.data.samples.samples import Samples
from rsedge.data.scenes.physical_scene import read_picture
from rsedge.data.scenes.raster import open_raster
from rsedge.data.scenes.raster_kinds import PICTURES
from rsedge.data.scenes.scene import Scene, SceneNotes
from rsedge.data.tiles import cut_boxes, cut_maps, tile_origins

BOXES = "boxes"
BLOCK_TILES = 2
"""Edge, in tiles, of the blocks that are held out where there are too few images to hold out whole ones."""
FEW_IMAGES = 8
_PICTURE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".bmp")


class BoxOptions(Record):
    """Files of boxes and what the numbers of their images mean: physical = stored * scale + offset."""

    annotations: list[str] = Field(
        min_length=1,
        description="Pascal VOC .xml, COCO .json or .csv; of turned boxes .csv, DOTA .txt, .geojson or .gpkg; patterns such as "
        "labels/*.xml too",
    )
    images: str | None = Field(default=None, description="folder of the images; default: that of each annotation file")
    tile: int = Field(ge=8, description="edge of the samples (pixels): the model's tile")
    classes: list[str] | None = Field(
        default=None, description="names that count, in order; default: all found, by alphabet"
    )
    block: int | None = Field(
        default=None,
        ge=0,
        description="edge, in tiles, of the blocks held out together; 0: whole images (default for 8 or more)",
    )
    bands: list[str] | None = Field(
        default=None, description="names of the images' bands; red, green, blue where the files say so"
    )
    sensor: str | None = Field(default=None, description="whose band numbers the images' names are")
    scale: float | None = Field(default=None, description="default: 1/255 for 8-bit images")
    offset: float | None = Field(default=None, description="see scale")
    nodata: float | None = Field(
        default=None, description="file value of missing pixels, beside those the files declare"
    )
    nan_nodata: bool = Field(default=False, description="NaN and infinity are missing pixels")
    missing: float | None = Field(
        default=None, description="physical value of missing pixels, for models without a nodata value"
    )
    gsd_m: float | None = Field(default=None, gt=0, description="ground sampling distance (m), over the images' own")


def load_box_set(root: Path | None, options: BoxOptions) -> Samples:
    """Samples of layout ``CHW`` with boxes. What is left of an image at its right and lower edge is dropped; a box goes with the
    tile of its centre, clipped at the tile's edges. Tiles of one block (or image) share a group.

    Raises:
        RequestError: a file cannot be read or does not fit its annotation, a class that is not in ``classes``, images of other
            bands, or images smaller than a tile.
    """
    folder = root or Path()
    files = _files(folder, options)
    images = [(path, one) for path in files for one in read_box_file(path)]
    oriented = any(one.oriented for _, one in images)
    names = _class_names(images, options)
    block = options.block
    if block is None:
        block = 0 if len(images) >= FEW_IMAGES else BLOCK_TILES
    notes = SceneNotes()
    cut = [
        tile
        for number, (path, one) in enumerate(images)
        for tile in _tiles(folder, number, path, one, names, block, options, notes, oriented)
    ]
    if not cut:
        raise RequestError(f"samples 'boxes': every image is smaller than the tile of {options.tile} pixels")
    values, boxes, group, cells, bands, gsd_m = zip(*cut, strict=True)
    if len(set(bands)) > 1:
        other = next(b for b in bands if b != bands[0])
        raise RequestError(f"samples 'boxes': the images differ in bands: {bands[0]} and {other}")
    hashes = [sha256_file(path) for path in [*files, *(_image(folder, path, one, options) for path, one in images)]]
    return Samples(
        BOXES, np.stack(values), bands[0], "CHW", sha256_of(hashes), boxes=tuple(boxes), classes=tuple(names),
        group=np.array(group), cells=np.array(cells, np.intp) if block else None, gsd_m=gsd_m[0], notes=tuple(notes.warnings),
        sensors=tuple(sorted(notes.sensors)),
    )  # fmt: skip


def _files(folder: Path, options: BoxOptions) -> list[Path]:
    found: list[Path] = []
    for pattern in options.annotations:
        hits = sorted(folder.glob(pattern)) if any(c in pattern for c in "*?[") else [folder / pattern]
        if not hits:
            raise RequestError(f"samples 'boxes': annotations: no file in {folder} fits '{pattern}'")
        found += hits
    return list(dict.fromkeys(found))


def _class_names(images: Sequence[tuple[Path, LabelledImage]], options: BoxOptions) -> list[str]:
    labels = sorted({label for _, one in images for label in one.labels})
    if options.classes is None:
        if not labels:
            raise RequestError("samples 'boxes': the files hold no box; name the classes under options.classes")
        return labels
    unknown = [label for label in labels if label not in options.classes]
    if unknown:
        where = next(one.where for _, one in images if unknown[0] in one.labels)
        hint = nearest(unknown[0], options.classes)
        raise RequestError(f"{where}: class '{unknown[0]}' is not in classes ({', '.join(options.classes)}){hint}")
    return list(options.classes)


Cell = tuple[int, int, int]
Tile = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], str, Cell, tuple[str, ...], float | None]


def _tiles(
    folder: Path,
    number: int,
    path: Path,
    one: LabelledImage,
    names: Sequence[str],
    block: int,
    options: BoxOptions,
    notes: SceneNotes,
    oriented: bool,
) -> Iterator[Tile]:
    image = _image(folder, path, one, options)
    scene = _scene(image, options)
    notes.add(scene)
    values = scene.image if options.missing is None else np.where(scene.valid, scene.image, np.float32(options.missing))
    placed = _placed(one, image, names, oriented)
    notes.warnings.extend(placed.warnings)
    step = options.tile * block
    for row, col in tile_origins(values.shape[1:], options.tile):
        tile = cut_maps(values, (row, col), options.tile)
        if not np.isnan(tile).all():
            cell = number, row // options.tile, col // options.tile
            place = f" {row // step}-{col // step}" if block else ""
            yield (
                tile,
                cut_boxes(placed.table, (row, col), options.tile),
                f"image {number}{place}",
                cell,
                scene.bands,
                options.gsd_m,
            )


def _image(folder: Path, path: Path, one: LabelledImage, options: BoxOptions) -> Path:
    image = (path.parent if options.images is None else folder / options.images) / one.image
    if not image.suffix:
        image = _picture_named(image)
    if not is_file(image):
        raise RequestError(f"{one.where}: its image {image} does not exist; name the folder of the images under images")
    return image


def _picture_named(stem: Path) -> Path:
    """The picture of a name without its suffix; that name where there is none.

    Raises:
        RequestError: there are several.
    """
    found = [
        p for p in sorted(stem.parent.glob(f"{glob.escape(stem.name)}.*")) if p.suffix.lower() in _PICTURE_SUFFIXES
    ]
    if len(found) > 1:
        raise RequestError(
            f"{stem}: several pictures have this name: {', '.join(p.name for p in found)}; remove or rename one"
        )
    return found[0] if found else stem


def _placed(one: LabelledImage, image: Path, names: Sequence[str], oriented: bool) -> PlacedObjects:
    with open_raster(image, PICTURES) as file:
        return objects_on(one, image, file, names, oriented)


def _scene(path: Path, options: BoxOptions) -> Scene:
    read = {"bands", "sensor", "scale", "offset", "nodata", "nan_nodata", "gsd_m"}
    return read_picture(path, **options.model_dump(include=read))
