"""What lies in a folder of scenes: GeoTIFFs, their label rasters, their bands, and what their numbers look like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from rsedge.data.band_names import SENSORS, name_bands
from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.file_bands import file_bands
from rsedge.data.scenes.raster import Raster, open_raster
from rsedge.data.wording import Wording

SUFFIXES = (".tif", ".tiff")
CHIPS = (".png", ".jpg", ".jpeg")
MOST = 2000
_LABEL = r"labels?|masks?|msk|gt|truth|annotations?|targets?"
_SCENE = r"images?|img|scenes?"
_EDGE, _WINDOWS, _LOOKED_AT = 256, 4, 8
_REFLECTANCE = (-0.2, 2.5)


@dataclass(frozen=True)
class Found:
    """Scenes, and label rasters by the scene they are of."""

    scenes: tuple[Path, ...]
    labels: Mapping[Path, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Numbers:
    """Digital numbers of some bands, and their mean and spread once they are physical values."""

    dtype: str
    scale: float
    offset: float
    nodata: float | None
    quantity: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def find_scenes(folder: Path) -> Found:
    """GeoTIFFs below a folder; those called labels or masks, or in a folder that is, are the labels of what is called alike.

    Raises:
        RequestError: none, too many, or label rasters that belong to no scene or to several.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and _is_seen(p, folder))
    if not files:
        chips = any(p.suffix.lower() in CHIPS for p in folder.rglob("*"))
        why = "holds pictures, but no GeoTIFF; chips go into an .npz with their labels" if chips else "holds no GeoTIFF"
        raise RequestError(f"{folder}: {why} (docs/data.md)")
    if len(files) > MOST:
        raise RequestError(f"{folder}: {len(files)} GeoTIFFs; name those that are to be used, {MOST} at most")
    labels = [p for p in files if is_label(p, folder)]
    scenes = [p for p in files if p not in labels]
    if not scenes:
        raise RequestError(f"{folder}: holds label rasters only, by their names ({labels[0].name}, ...)")
    return Found(tuple(scenes), _paired(scenes, labels))


def _is_seen(path: Path, folder: Path) -> bool:
    """Whether neither it nor a folder on the way is hidden, as copies of other systems (``._a.tif``) are."""
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_label(path: Path, folder: Path) -> bool:
    """Whether a file below a folder is called labels or masks, or lies in a folder that is."""
    inside = path.relative_to(folder).parent.parts
    named = re.search(rf"(^|[^a-z])({_LABEL})([^a-z]|$)", path.stem.lower()) is not None
    return named or any(re.fullmatch(_LABEL, part.lower()) for part in inside)


def _paired(scenes: Sequence[Path], labels: Sequence[Path]) -> dict[Path, Path]:
    if len(scenes) == len(labels) == 1:
        return {scenes[0]: labels[0]}
    by_key: dict[str, list[Path]] = {}
    for scene in scenes:
        by_key.setdefault(_key(scene), []).append(scene)
    paired = {}
    for label in labels:
        of = by_key.get(_key(label), [])
        if len(of) != 1 or of[0] in paired:
            raise RequestError(
                f"{label}: labels of {'no scene' if not of else 'a scene that has labels, or of several'}; call them as the "
                "scene with _labels behind (a.tif, a_labels.tif), or lay them into a folder 'labels' under the same name"
            )
        paired[of[0]] = label
    return paired


def _key(path: Path) -> str:
    words = re.split(r"[^a-z0-9]+", path.stem.lower())
    return "_".join(w for w in words if not re.fullmatch(f"{_LABEL}|{_SCENE}", w))


def band_names(path: Path, spec: InputSpec | None = None) -> tuple[str, ...]:
    """Names of a file's bands in its order, as recipes read them for a contract; '' where it says none.

    Raises:
        RequestError: it cannot be read.
    """
    with open_raster(path) as file:
        if not any(file.descriptions):
            return ("",) * file.count
        return file_bands(file, path, Wording.RECIPE, spec=spec).names


def band_indices(path: Path, bands: Sequence[str], sensor: str | None = None) -> list[int]:
    """Where the bands of a contract, of a sensor where it says one, lie in a file, from 0.

    Raises:
        RequestError: it has not all of them; or it names none, and has another number of them.
    """
    spec = _contract(bands, sensor)
    there = band_names(path, spec)
    if not any(there):
        if len(there) != len(bands):
            raise RequestError(f"bands: {path} names none and has {len(there)}; name all of them, in its order")
        return list(range(len(there)))
    return spec.select(there, str(path), "; or name them as the file does")


def sensor_of(path: Path, bands: Sequence[str]) -> str | None:
    """The sensor that a contract must say for a file's numbered bands to be its bands: ``B8`` is ``nir`` on one alone.

    None where the file has them without that, or has them on no sensor, or on several.
    """

    def has(sensor: str | None) -> bool:
        spec = _contract(bands, sensor)
        return not spec.missing(band_names(path, spec))

    if has(None):
        return None
    fitting = {SENSORS[s].family or s for s in SENSORS if has(s)}
    own = name_bands(bands).sensor
    return own if own in fitting else fitting.pop() if len(fitting) == 1 else None


def _contract(bands: Sequence[str], sensor: str | None) -> InputSpec:
    return InputSpec(bands=tuple(BandSpec(name=name, sensor=sensor) for name in bands))


def edge(paths: Iterable[Path]) -> int:
    """The shortest edge of some scenes (pixels)."""
    found = []
    for path in paths:
        with open_raster(path) as file:
            found += [file.height, file.width]
    return min(found)


def numbers(paths: Sequence[Path], bands: Sequence[str], sensor: str | None = None) -> Numbers:
    """What the numbers of the files' bands are by their type and tags, seen in parts of a few of them.

    Args:
        sensor: that the contract says.

    Raises:
        RequestError: files of different types, scales or nodata values, or without a pixel that is there.
    """
    kinds, parts = set(), []
    for path in paths[:_LOOKED_AT]:
        indices = band_indices(path, bands, sensor)
        with open_raster(path) as file:
            kinds.add(tuple((file.dtypes[i], file.scales[i], file.offsets[i], file.nodatavals[i]) for i in indices))
            parts.append(_sampled(file, indices))
    if len(kinds) > 1 or len(set(next(iter(kinds)))) > 1:
        raise RequestError(
            f"{paths[0].parent}: files or bands of several types, scales or nodata values; write the recipe by hand"
        )
    ((dtype, scale, offset, nodata),) = set(next(iter(kinds)))
    values = np.concatenate(parts, axis=1)
    if not values.size:
        raise RequestError(f"{paths[0]}: no pixel is there in the parts that were looked at; give scenes with content")
    if (scale, offset) == (1.0, 0.0) and dtype != "float32":
        scale = 1 / 255 if dtype == "uint8" else 1e-4
    values = values * scale + offset
    plausible = float(((values >= _REFLECTANCE[0]) & (values <= _REFLECTANCE[1])).mean()) > 0.99
    quantity = "rgb_8bit" if dtype == "uint8" else "toa_reflectance" if plausible else "values"
    return Numbers(
        dtype if dtype in ("uint8", "int16", "uint16") else "float32", scale, offset, nodata, quantity,
        tuple(float(f"{v:.4g}") for v in values.mean(1)), tuple(float(f"{max(v, 1e-6):.4g}") for v in values.std(1)),
    )  # fmt: skip


def _sampled(file: Raster, indices: Sequence[int]) -> np.ndarray:
    """Values (C, N) of pixels that are there in all bands, from windows along the diagonal."""
    height, width = min(_EDGE, file.height), min(_EDGE, file.width)
    bands, found = [i + 1 for i in indices], []
    for part in np.linspace(0, 1, _WINDOWS):
        window = Window(int(part * (file.width - width)), int(part * (file.height - height)), width, height)
        values = file.read(bands, window)
        here = ~file.missing(bands, window, values, ()).any(0) & np.isfinite(values.astype(np.float64)).all(0)
        found.append(values[:, here].astype(np.float64))
    return np.concatenate(found, axis=1)


def label_values(path: Path) -> tuple[int, ...]:
    """Values of a label raster, without those that it declares missing.

    Raises:
        RequestError: several bands, fractions, or more values than there are classes.
    """
    found: set[int] = set()
    with open_raster(path) as file:
        if file.count != 1 or np.dtype(file.dtypes[0]).kind not in "iub":
            raise RequestError(f"{path}: labels are one band of whole numbers, not {file.count} of {file.dtypes[0]}")
        for row in range(0, file.height, 512):
            window = Window(0, row, file.width, min(512, file.height - row))
            values = file.read([1], window)
            found |= set(np.unique(values[~file.missing([1], window, values, ())]).tolist())
            if len(found) > 256:
                raise RequestError(f"{path}: more than 256 values; is it a label raster?")
    return tuple(sorted(found))
