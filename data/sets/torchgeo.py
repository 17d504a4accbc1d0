"""Survey data sets through torchgeo's own classes, as :class:`Samples`. For the compression side only: needs torch.

Nothing is downloaded: a set lies under ``root`` in the layout its class expects. torchgeo unpacks archives it finds there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.boxes.geometry import CORNERS, cornered
from rsedge.data.boxes.oriented import rectangle_around
from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.data.root import data_root
from rsedge.data.samples.samples import Samples
from rsedge.data.scenes.scene import Scene
from rsedge.data.sets.datasets import DatasetRow, TorchgeoOptions, dataset_row, scene_reference
from rsedge.data.tiles import Boxes, cut_boxes, cut_maps, tile_origins

MAX_BYTES = 2 << 30
"""Of all samples together; joining them takes twice as much for a moment."""
UNKNOWN = 255


@dataclass
class _Found:
    """What has been read so far; one entry per sample, tiles counted singly."""

    values: list[npt.NDArray[np.float32]] = field(default_factory=list)
    labels: list[npt.NDArray[np.generic]] = field(default_factory=list)
    boxes: list[Boxes] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    split: list[str] = field(default_factory=list)
    small: int = 0


def load_torchgeo(name: str, root: Path, options: TorchgeoOptions) -> Samples:
    """A survey data set.

    Args:
        name: a row of ``data/sets/datasets.yaml``.
        root: the folder that torchgeo's class takes.

    Raises:
        MissingCapability: torchgeo is not installed, or the set is not under ``root``; names the layout and the publisher.
        RequestError: unknown name or split, images of different sizes without ``tile``, or more than fits into memory.
    """
    row = dataset_row(name)
    _check_options(row, options)
    wanted = options.splits or list(row.splits) or ["all"]
    sets = {split: _open(row, root, split) for split in wanted}
    entries = [(split, i) for split, found in sets.items() for i in _numbers(row, root, found)]
    if not entries:
        raise MissingCapability(_absent(row, root, "no sample"))
    if options.limit is not None and options.limit < len(entries):
        entries = [entries[i] for i in _spread(len(entries), options.limit)]
    digest, found = hashlib.sha256(), _Found()
    scale, offset = _affine(row)
    for split, index in entries:
        raw = _sample(row, sets[split], split, index)
        image = _image(row, raw, options)
        values = image * scale + np.float32(offset)
        label = _label(row, raw, sets[split])
        digest.update(image.tobytes())
        digest.update(label.tobytes())
        _add(row, found, values, label, f"{split}-{index}", split, options)
        _check_memory(row, found, len(entries))
    return _samples(row, found, digest.hexdigest(), options)


def load_torchgeo_scene(name: str, root: Path | None = None) -> Scene:
    """One image of a survey set with class maps, ``torchgeo:loveda/train/0``, as a scene with labels (255 unknown).

    Raises:
        RequestError: not the name of one image, or past the last one.
        MissingCapability: as :func:`load_torchgeo`; ``root`` is by default the set's name under ``RSEDGE_DATA``.
    """
    reference = scene_reference(name)
    row, split = reference.row, reference.split
    if len(reference.numbers) != 1:
        raise RequestError(f"scene '{name}': one image is wanted here, not {len(reference.numbers)}")
    found, index = _open(row, root or data_root() / row.name, split), reference.numbers[0]
    if index >= len(found):
        raise RequestError(f"scene '{name}': {split} has {len(found)} images, numbered from 0")
    raw = _sample(row, found, split, index)
    scale, offset = _affine(row)
    image = (_image(row, raw, TorchgeoOptions()) * scale + np.float32(offset)).astype(np.float32)
    label = _label(row, raw, found).astype(np.uint8)
    digest = hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
    return Scene(
        name,
        image,
        np.logical_and.reduce(np.isfinite(image)),
        row.bands,
        row.gsd_m or 1.0,
        digest,
        label,
        sensor=row.sensor,
    )


def _check_options(row: DatasetRow, options: TorchgeoOptions) -> None:
    where = f"samples 'torchgeo:{row.name}'"
    unknown = sorted(set(options.splits or ()) - set(row.splits))
    if unknown:
        raise RequestError(f"{where}: splits: no {', '.join(unknown)}; it has {', '.join(row.splits) or 'no splits'}")
    if options.tile and row.task in ("classification", "multilabel"):
        raise RequestError(f"{where}: tile: its labels are of whole images, which cannot be cut")
    if options.tiles_per_image and not options.tile:
        raise RequestError(f"{where}: tiles_per_image goes with tile")
    if options.frames and (options.frames > row.frames or row.task == "change"):
        raise RequestError(f"{where}: frames: a sample has {row.frames} image(s), which change sets need all")


def _open(row: DatasetRow, root: Path, split: str) -> Any:
    """torchgeo's data set of one split."""
    try:
        from torchgeo import datasets as torchgeo
    except ImportError as error:
        raise missing_extra("torchgeo", "geo", f"samples 'torchgeo:{row.name}'") from error
    arguments = dict(row.arguments)
    if row.splits:
        arguments["split"] = row.splits[split]  # type: ignore[index]
    try:
        return getattr(torchgeo, row.cls)(root=str(root), **arguments)
    except torchgeo.DependencyNotFoundError as error:
        raise MissingCapability(f"samples 'torchgeo:{row.name}': {error}") from error
    except FileNotFoundError as error:
        raise MissingCapability(_absent(row, root, f"split '{split}' was not found")) from error


def _absent(row: DatasetRow, root: Path, what: str) -> str:
    return (
        f"samples 'torchgeo:{row.name}': {what} under {root}. Nothing is downloaded: get the set from its publisher "
        f"({row.where}) and put there {row.folders}; or give root, or other splits"
    )


def _numbers(row: DatasetRow, root: Path, found: Any) -> list[int]:
    """Indices that can be asked for; sets that count on being whole are asked only for folders that are there."""
    if row.numbered is None:
        return list(range(len(found)))
    return sorted(int(folder.name) for folder in root.glob(row.numbered) if folder.name.isdigit())


def _spread(total: int, wanted: int) -> list[int]:
    """``wanted`` of ``total`` indices, evenly."""
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(wanted, total)).round())]


def _sample(row: DatasetRow, found: Any, split: str, index: int) -> dict[str, Any]:
    import torch

    try:
        with torch.random.fork_rng(devices=[], enabled=row.draws):
            if row.draws:
                torch.manual_seed(index)
            sample: dict[str, Any] = found[index]
    except (OSError, KeyError, ValueError) as error:
        raise RequestError(
            f"samples 'torchgeo:{row.name}': sample {index} of {split} cannot be read ({error}); expected {row.folders}"
        ) from error
    return sample


def _affine(row: DatasetRow) -> tuple[npt.NDArray[np.float32], float]:
    scale = np.broadcast_to(np.asarray(row.scale, np.float32), (len(row.bands),))
    return scale[:, None, None], row.offset


def _image(row: DatasetRow, sample: dict[str, Any], options: TorchgeoOptions) -> npt.NDArray[np.float32]:
    """Raw values, (C, H, W) or (T, C, H, W); times stacked along the bands are taken apart and sorted by date."""
    image = np.asarray(sample[row.image], np.float32)
    if row.frames > 1 and image.ndim == 3:
        image = image.reshape(row.frames, -1, *image.shape[1:])
        image = image[np.argsort(np.asarray(sample["t"]), kind="stable")]
    if image.shape[-3] != len(row.bands):
        raise RequestError(
            f"samples 'torchgeo:{row.name}': {image.shape[-3]} bands in the files, {len(row.bands)} expected: "
            + ", ".join(row.bands)
        )
    if options.frames == 1:
        return np.ascontiguousarray(image[0] if row.frames > 1 else image)
    return image[: options.frames] if row.frames > 1 else image


def _label(row: DatasetRow, sample: dict[str, Any], found: Any) -> npt.NDArray[np.generic]:
    if row.task == "none":
        return np.zeros(0, np.int64)
    if row.task == "classification":
        return np.asarray(_class_number(row, int(sample["label"]), found), np.int64)
    if row.task == "multilabel":
        return np.asarray(sample["label"], np.float32)
    if row.boxes is not None:
        corners, classes = (np.asarray(sample[key], np.float32) for key in row.boxes)
        if row.oriented:
            return _turned(corners.reshape(-1, 4, 2), classes.ravel())
        return np.concatenate([corners.reshape(-1, 4), classes.reshape(-1, 1)], axis=1)
    stored = np.asarray(sample["mask"]).astype(np.int64)
    stored = stored.reshape(stored.shape[-2:]) - row.first_label
    return np.where((stored >= 0) & (stored < len(row.classes)), stored, UNKNOWN).astype(np.uint8)


def _turned(rings: npt.NDArray[np.float32], classes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Objects (M, 6) of four corners each; publishers have some without an area, which are none."""
    boxes = np.array([rectangle_around(ring) for ring in rings]).reshape(-1, 5)
    there = boxes[:, 2] * boxes[:, 3] > 0
    placed = cornered(boxes[there])
    return np.column_stack([placed[:, :CORNERS], classes[there], placed[:, CORNERS:]]).astype(np.float32)


def _class_number(row: DatasetRow, number: int, found: Any) -> int:
    """Folder sets number the class folders that are there; ours are those of the whole set."""
    if not hasattr(found, "class_to_idx"):
        return number
    name = found.classes[number]
    if name not in row.classes:
        raise RequestError(f"samples 'torchgeo:{row.name}': class folder '{name}' is none of {', '.join(row.classes)}")
    return row.classes.index(name)


def _add(
    row: DatasetRow,
    found: _Found,
    values: npt.NDArray[np.float32],
    label: npt.NDArray[np.generic],
    image: str,
    split: str,
    options: TorchgeoOptions,
) -> None:
    if options.tile is None:
        found.values.append(values)
        (found.boxes if row.boxes else found.labels).append(label)  # type: ignore[arg-type]
        found.group.append(image)
        found.split.append(split)
        return
    origins = tile_origins(values.shape[-2:], options.tile)
    found.small += not origins
    for i in _spread(len(origins), options.tiles_per_image or len(origins)) if origins else []:
        found.values.append(cut_maps(values, origins[i], options.tile))
        if row.boxes:
            found.boxes.append(cut_boxes(label.astype(np.float32), origins[i], options.tile))
        else:
            found.labels.append(label if row.task == "none" else cut_maps(label, origins[i], options.tile))
        found.group.append(image)
        found.split.append(split)


def _check_memory(row: DatasetRow, found: _Found, images: int) -> None:
    if len(set(found.group)) != 1 or len(found.group) != len(found.values):
        return
    needed = sum(v.nbytes for v in found.values) * images
    if needed > MAX_BYTES:
        raise RequestError(
            f"samples 'torchgeo:{row.name}': {images} images would take {needed / 2**30:.0f} GiB of memory, the most is "
            f"{MAX_BYTES >> 30}; give limit (images), or tile and tiles_per_image"
        )


def _samples(row: DatasetRow, found: _Found, digest: str, options: TorchgeoOptions) -> Samples:
    where = f"samples 'torchgeo:{row.name}'"
    shapes = sorted({v.shape[-2:] for v in found.values})
    if not shapes:
        raise RequestError(
            f"{where}: every image is smaller than the tile of {options.tile} pixels; give a smaller tile"
        )
    if len(shapes) > 1:
        sizes = ", ".join(f"{h}x{w}" for h, w in shapes[:3])
        raise RequestError(
            f"{where}: images differ in size ({sizes} ...); give tile, e.g. tile: {min(map(min, shapes))}"
        )
    notes = [*row.notes, *_left_out(found)]
    values = np.stack(found.values)
    return Samples(
        f"torchgeo:{row.name}", values, row.bands, "TCHW" if values.ndim == 5 else "CHW", digest,
        labels=np.stack(found.labels) if row.task != "none" and not row.boxes else None, classes=row.classes,
        boxes=tuple(found.boxes) if row.boxes else None, group=np.array(found.group),
        split=np.array(found.split) if row.splits else None, gsd_m=row.gsd_m, notes=tuple(notes),
        sensors=() if row.sensor is None else (row.sensor,),
    )  # fmt: skip


def _left_out(found: _Found) -> Iterator[str]:
    if found.small:
        yield f"{found.small} image(s) smaller than the tile were left out."
