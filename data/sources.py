"""Named scenes with their band contracts, and user scenes from a GeoTIFF: all come out as reflectance with band names.

Where a sensor's file has no band names, the order below is the publisher's. Scenes under ``RSEDGE_DATA`` are read in place;
the ``spyndex`` and ``ukis-csmask`` wheels bring the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import canonical_band
from rsedge.data.errors import MissingCapability, RequestError, missing_extra
from rsedge.data.files import sha256_file

WAVELENGTHS_NM: Mapping[str, float] = {
    "coastal": 443, "blue": 490, "green": 560, "red": 665, "rededge1": 705, "rededge2": 740, "rededge3": 783,
    "nir": 842, "nir08": 865, "watervapour": 945, "cirrus": 1375, "swir16": 1610, "swir22": 2190,
}  # fmt: skip
S2_L1C_13 = ("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "watervapour", "cirrus",
             "swir16", "swir22")  # fmt: skip
S2_NO_CIRRUS_12 = tuple(b for b in S2_L1C_13 if b != "cirrus")
SIX = ("blue", "green", "red", "nir", "swir16", "swir22")


@dataclass(frozen=True)
class Scene:
    """One scene in physical units: ``image`` (C, H, W) float32 reflectance, ``valid`` (H, W), band names, GSD (m)."""

    name: str
    image: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    bands: tuple[str, ...]
    gsd_m: float
    sha256: str
    labels: npt.NDArray[np.uint8] | None = None

    def select(self, wanted: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """The wanted bands in order, shape (len(wanted), H, W), or None when this scene lacks one of them."""
        if not set(wanted) <= set(self.bands):
            return None
        return self.image[[self.bands.index(b) for b in wanted]]


@dataclass(frozen=True)
class SceneSource:
    """Where a named scene lies and what its bands mean: reflectance = DN * scale + offset, per band or for all."""

    path: str
    bands: tuple[str, ...]
    gsd_m: float
    about: str
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    nodata: float | None = None
    labels: str | None = None
    package: str | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)


def _etm_plus() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nominal Landsat-7 ETM+ calibration to top-of-atmosphere reflectance, sun at 55 degrees elevation.

    Radiance = gain * DN + bias (high gain), reflectance = pi * radiance / (ESUN * sin(elevation)), with gains, biases and
    solar irradiances of Chander, Markham & Helder (2009), table 4. The scene's own elevation is not in its file.
    """
    gain = (0.778740, 0.798819, 0.621654, 0.639764, 0.126220, 0.043898)
    bias = (-6.98, -7.20, -5.62, -5.74, -1.13, -0.39)
    esun = (1997.0, 1812.0, 1533.0, 1039.0, 230.8, 84.90)
    factor = [np.pi / (e * np.sin(np.deg2rad(55.0))) for e in esun]
    return tuple(g * f for g, f in zip(gain, factor, strict=True)), tuple(
        b * f for b, f in zip(bias, factor, strict=True)
    )


_ETM_SCALE, _ETM_OFFSET = _etm_plus()

CATALOGUE: dict[str, SceneSource] = {
    "ukis-sentinel2": SceneSource(
        "ukis_csmask/sentinel2.npz", SIX, 10.0, "Sentinel-2 L1C farmland with clouds and shadows, labelled", labels="msk",
        label_map={0: 2, 4: 1, 1: 0, 2: 0, 3: 0},
    ),
    "sen1floods11-spain": SceneSource(
        "sen1floods11_spain/west_S2.tif", S2_L1C_13, 10.0, "Sentinel-2 L1C, flooded farmland", scale=1e-4, nodata=0,
    ),
    "s2-chip-33188": SceneSource("sentinel2_chips/patch_33188.tif", S2_NO_CIRRUS_12, 10.0, "Sentinel-2 chip", scale=1e-4),
    "s2-chip-445": SceneSource("sentinel2_chips/patch_445.tif", S2_NO_CIRRUS_12, 10.0, "Sentinel-2 chip", scale=1e-4),
    "landsat7-olinda": SceneSource(
        "unlabelled_scenes/L7_ETMs_olinda_dn.tif", SIX, 28.5, "Landsat-7 ETM+, coast and town; nominal calibration",
        scale=_ETM_SCALE, offset=_ETM_OFFSET,
    ),
    "naip": SceneSource(
        "unlabelled_scenes/m_4709963_se_14_1_20180716.tif", ("red", "green", "blue", "nir"), 5.0,
        "NAIP aerial image, uncalibrated: brightness scaled to plausible reflectance", scale=1 / 700, offset=0.0,
    ),
    "spyndex-sentinel2": SceneSource(
        "data/S2_10m.json", ("blue", "green", "red", "nir"), 10.0, "Sentinel-2 L2A chip in the spyndex wheel",
        scale=1e-4, package="spyndex",
    ),
}  # fmt: skip


def data_root() -> Path:
    """The folder of shared scenes: ``RSEDGE_DATA``, else ``../shared/data`` beside the working folder."""
    return Path(os.environ.get("RSEDGE_DATA", "../shared/data"))


def load_scene(name: str, root: Path | None = None) -> Scene:
    """A scene of :data:`CATALOGUE` by name; ``root`` takes the place of :func:`data_root`.

    Raises:
        RequestError: unknown name.
        MissingCapability: its file or wheel is not on this machine.
    """
    if name not in CATALOGUE:
        raise RequestError(f"data source '{name}' is unknown; known: {', '.join(sorted(CATALOGUE))}")
    source = CATALOGUE[name]
    path = _locate(name, source, root)
    raw, labels = _read(path, source)
    valid = np.logical_and.reduce(np.isfinite(raw))
    if source.nodata is not None:
        valid &= np.logical_or.reduce(raw != source.nodata)
    scale, offset = (
        np.broadcast_to(np.asarray(v, np.float32), (len(raw),))[:, None, None] for v in (source.scale, source.offset)
    )
    image = np.where(valid, np.nan_to_num(raw * scale + offset), 0).astype(np.float32)
    return Scene(name, image, valid, source.bands, source.gsd_m, sha256_file(path), labels)


def load_geotiff(
    path: str | Path,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    gsd_m: float | None = None,
) -> Scene:
    """A user's GeoTIFF as reflectance; ``bands`` names its bands in file order when it has no descriptions.

    Raises:
        RequestError: not readable, no band names, wrong number of names, or no scale for integer pixels.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    path = Path(path)
    try:
        with rasterio.open(path) as src:
            raw = src.read(masked=True)
            names = tuple(canonical_band(b or "") for b in (bands or src.descriptions))
            tags = (src.scales[0], src.offsets[0])
            gsd = gsd_m or (
                abs(src.transform.a) if src.crs is None or not src.crs.is_geographic else abs(src.transform.a) * 111_320
            )
    except RasterioIOError as error:
        raise RequestError(f"{path}: not a readable raster ({error})") from error
    if len(names) != len(raw) or not all(names):
        raise RequestError(f"{path}: {len(raw)} bands need {len(raw)} names; give bands: [...] in the file's order")
    if raw.dtype.kind in "iu" and scale is None and tags == (1.0, 0.0):
        raise RequestError(f"{path}: integer pixels need scale: (reflectance per DN, e.g. 0.0001)")
    valid = ~np.ma.getmaskarray(raw).all(0) & np.isfinite(raw.filled(0)).all(0)
    image = raw.filled(0).astype(np.float32) * (tags[0] if scale is None else scale) + (
        tags[1] if offset is None else offset
    )
    return Scene(
        path.stem,
        np.where(valid, np.nan_to_num(image), 0).astype(np.float32),
        valid,
        names,
        float(gsd),
        sha256_file(path),
    )


def wheel_folder(package: str, extra: str, purpose: str) -> Path:
    """Where an installed package lies, without importing it.

    Raises:
        MissingCapability: it is not installed.
    """
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra(package, extra, purpose)
    return Path(next(iter(spec.submodule_search_locations)))


def _locate(name: str, source: SceneSource, root: Path | None) -> Path:
    if source.package:
        return wheel_folder(source.package, "quickstart", f"data source '{name}'") / source.path
    path = (root or data_root()) / source.path
    if not path.exists():
        raise MissingCapability(
            f"data source '{name}': {path} does not exist; set RSEDGE_DATA to the folder of shared scenes"
        )
    return path


def _read(path: Path, source: SceneSource) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as z:
            image = np.moveaxis(z["img"], -1, 0).astype(np.float32)
            labels = _map_labels(z[source.labels][..., 0], source.label_map) if source.labels else None
        return image, labels
    if path.suffix == ".json":
        values: Any = json.loads(path.read_text())
        return np.asarray(values, dtype=np.float32), None
    import rasterio

    with rasterio.open(path) as src:
        return src.read().astype(np.float32), None


def _map_labels(raw: npt.NDArray[np.integer], mapping: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    out = np.full(raw.shape, 255, dtype=np.uint8)
    for value, target in mapping.items():
        out[raw == value] = target
    return out
