"""What the front door in Python takes for data, as the recipe's ``data`` section; needs no torch."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from rsedge.cache.run_folder import open_run_folder
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.files import atomic_path

Source = str | Path | Mapping[str, Any]
Data = npt.NDArray[Any] | Source | Sequence[Source] | BaseModel
LEAST = 8
"""Tiles: what trains, calibrates, chooses and judges are different ones."""


def plain(value: Any) -> Any:
    """A value of Python as a recipe would hold it: models, paths, tuples and numbers of NumPy become what YAML has.

    Raises:
        RequestError: something else is among them.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise RequestError(f"a recipe holds numbers, texts, lists and mappings, no {type(value).__name__}")


def data_section(
    data: Data, spec: InputSpec, folder: Path, labels: Any = None, groups: Any = None, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """The ``data`` section for tiles (kept in ``folder``), GeoTIFFs, or what is a section already.

    Raises:
        RequestError: it is none of these, or does not fit the band contract; says what is needed.
    """
    if isinstance(data, BaseModel) or (isinstance(data, Mapping) and not {"path", "source"} & set(data)):
        if labels is not None or groups is not None:
            raise RequestError("labels and groups go with an array or with GeoTIFFs; a data section has its own")
        return dict(plain(data))
    if isinstance(data, str | Path | Mapping):
        return _scenes([data], labels, groups)
    if isinstance(data, Sequence) and data and all(isinstance(one, str | Path | Mapping) for one in data):
        return _scenes(data, labels, groups)
    return _tiles(data, spec, folder, labels, groups, classes)


def _scenes(data: Sequence[Any], labels: Any, groups: Any) -> dict[str, Any]:
    """GeoTIFFs: all of them train, some blocks of the last one judge and choose."""
    if groups is not None:
        raise RequestError("groups go with an array of tiles; scenes are held out in blocks")
    scenes = [plain(one) if isinstance(one, Mapping) else {"path": str(one)} for one in data]
    judged = scenes[-1] | ({} if labels is None else {"labels": plain(labels)})
    return {"train": scenes, "test": judged}


def _tiles(
    data: Any, spec: InputSpec, folder: Path, labels: Any, groups: Any, classes: Sequence[str]
) -> dict[str, Any]:
    tiles = np.asarray(data)
    wanted = f"(N, {', '.join(map(str, spec.shape))}) ({spec.layout}: {', '.join(spec.band_names)})"
    if tiles.dtype.kind not in "iuf" or tiles.shape[1:] != spec.shape:
        raise RequestError(
            f"data: is {tiles.dtype} {tiles.shape}; give tiles {wanted}, GeoTIFFs by path, or a recipe's data section"
        )
    if len(tiles) < LEAST:
        raise RequestError(
            f"data: {len(tiles)} tiles are too few: some train, and others each calibrate, choose and judge; give {LEAST} at the "
            f"very least, {wanted}"
        )
    arrays = {"values": _physical(tiles, spec)}
    options: dict[str, Any] = {"bands": list(spec.band_names), "layout": spec.layout, "frames": spec.frames}
    if labels is not None:
        arrays["label"] = _one_each(labels, len(tiles), "labels")
        options |= {
            "label": "label",
            "task": _task_of(arrays["label"], spec),
            "classes": _label_names(arrays["label"], classes),
        }
    if groups is not None:
        arrays["group"] = _one_each(groups, len(tiles), "groups").astype(np.str_)
        options["group"] = "group"
    with open_run_folder(folder) as run:
        kept = _kept(arrays, run.inputs)
    return {"samples": {"source": str(kept.absolute()), "options": options}}


def _physical(tiles: npt.NDArray[Any], spec: InputSpec) -> npt.NDArray[np.float32]:
    """Physical values with NaN where a band has none: of digital numbers; floats for a contract of integers are physical already.

    Raises:
        RequestError: integers that the contract's type does not hold.
    """
    if tiles.dtype.kind == "f" and np.dtype(spec.dtype).kind != "f":
        return tiles.astype(np.float32)
    if not np.can_cast(tiles.dtype, np.dtype(spec.dtype), "safe"):
        info = np.iinfo(np.dtype(spec.dtype)) if np.dtype(spec.dtype).kind in "iu" else np.finfo(np.dtype(spec.dtype))
        if tiles.min() < info.min or tiles.max() > info.max:
            raise RequestError(
                f"data: {tiles.dtype} of {tiles.min()} to {tiles.max()} are no digital numbers of the contract's {spec.dtype}"
            )
    found = np.array(spec.to_physical(tiles.astype(spec.dtype)))
    axis = 1 + spec.layout.index("C")
    for i, band in enumerate(spec.bands):
        if band.nodata is not None:
            here = (slice(None),) * axis + (i,)
            found[here][tiles[here] == band.nodata] = np.nan
    return found


def _one_each(values: Any, count: int, what: str) -> npt.NDArray[Any]:
    found = np.asarray(values)
    if not found.ndim or len(found) != count:
        raise RequestError(f"{what}: {len(found) if found.ndim else 'one'} for {count} tiles; give one for each")
    return found


def _task_of(labels: npt.NDArray[Any], spec: InputSpec) -> str:
    """What labels say of the samples, by their shape and type."""
    if labels.ndim == 3 and spec.is_image:
        return "segmentation"
    if labels.dtype.kind == "f" and not np.isin(labels[np.isfinite(labels)], (0, 1)).all():
        return "regression"
    return "multilabel" if labels.ndim == 2 else "classification"


def _label_names(labels: npt.NDArray[Any], classes: Sequence[str]) -> list[str]:
    """Values of the labels in the order of the classes: class numbers, or names as they are."""
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return [str(number) for number in range(max(len(classes), 1))]
    return list(classes)


def _kept(arrays: Mapping[str, npt.NDArray[Any]], folder: Path) -> Path:
    """Writes the arrays once, under a name of their content."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    path = folder / f"tiles-{digest.hexdigest()[:16]}.npz"
    if not path.is_file():
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    return path
