"""Named scenes with their band contracts: all come out as reflectance with band names.

Where a sensor's file has no band names, the order below is the publisher's. Scenes under ``RSEDGE_DATA`` are read in place;
the ``spyndex`` and ``ukis-csmask`` wheels bring the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.arrays import read_arrays
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_file
from rsedge.data.json_text import read_json
from rsedge.data.root import data_root, wheel_folder
from rsedge.data.scenes.scene import Scene
from rsedge.data.sets.datasets import TORCHGEO

S2_L1C_13 = ("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "watervapour", "cirrus",
             "swir16", "swir22")  # fmt: skip
S2_NO_CIRRUS_12 = tuple(b for b in S2_L1C_13 if b != "cirrus")
SIX = ("blue", "green", "red", "nir", "swir16", "swir22")


@dataclass(frozen=True)
class SceneSource:
    """Where a named scene lies and what its bands mean: reflectance = DN * scale + offset, per band or for all.

    ``sensor`` is one of :data:`rsedge.data.band_names.SENSORS`.
    """

    path: str
    bands: tuple[str, ...]
    gsd_m: float
    about: str
    licence: str
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    nodata: float | None = None
    labels: str | None = None
    package: str | None = None
    label_map: Mapping[int, int] = field(default_factory=dict)
    sensor: str = "sentinel-2"


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
        "ukis_csmask/sentinel2.npz", SIX, 10.0, "Sentinel-2 L1C farmland with clouds and shadows, labelled", "Apache-2.0",
        labels="msk", label_map={0: 2, 4: 1, 1: 0, 2: 0, 3: 0},
    ),
    "sen1floods11-spain": SceneSource(
        "sen1floods11_spain/west_S2.tif", S2_L1C_13, 10.0, "Sentinel-2 L1C, flooded farmland",
        "not stated in its repository", scale=1e-4, nodata=0,
    ),
    "s2-chip-33188": SceneSource("sentinel2_chips/patch_33188.tif", S2_NO_CIRRUS_12, 10.0, "Sentinel-2 chip",
        "Copernicus Sentinel data", scale=1e-4, nodata=0),
    "s2-chip-445": SceneSource(
        "sentinel2_chips/patch_445.tif", S2_NO_CIRRUS_12, 10.0, "Sentinel-2 chip of a baseline with the offset of -1000",
        "Copernicus Sentinel data", scale=1e-4, offset=-0.1, nodata=0,
    ),
    "landsat7-olinda": SceneSource(
        "unlabelled_scenes/L7_ETMs_olinda_dn.tif", SIX, 28.5, "Landsat-7 ETM+, coast and town; nominal calibration", "Apache-2.0",
        scale=_ETM_SCALE, offset=_ETM_OFFSET, sensor="landsat-7",
    ),
    "naip": SceneSource(
        "unlabelled_scenes/m_4709963_se_14_1_20180716.tif", ("red", "green", "blue", "nir"), 5.0,
        "NAIP aerial image, uncalibrated: brightness scaled to plausible reflectance", "MIT", scale=1 / 700, offset=0.0,
        sensor="naip",
    ),
    "spyndex-sentinel2": SceneSource(
        "data/S2_10m.json", ("blue", "green", "red", "nir"), 10.0, "Sentinel-2 L2A chip in the spyndex wheel", "MIT",
        scale=1e-4, package="spyndex",
    ),
}  # fmt: skip


def load_scene(name: str, root: Path | None = None) -> Scene:
    """A scene of :data:`CATALOGUE`, or an image of a survey set, by name; ``root`` takes the place of its default folder.

    Raises:
        RequestError: unknown name.
        MissingCapability: its file or wheel is not on this machine.
    """
    if name.startswith(TORCHGEO):
        from rsedge.data.sets.torchgeo import load_torchgeo_scene

        return load_torchgeo_scene(name, root)
    if name not in CATALOGUE:
        raise RequestError(f"data source '{name}' is unknown; known: {', '.join(sorted(CATALOGUE))}")
    source = CATALOGUE[name]
    path = _locate(name, source, root)
    raw, labels = _read(path, source)
    valid = np.logical_and.reduce(np.isfinite(raw))
    if source.nodata is not None:
        valid &= np.logical_and.reduce(raw != source.nodata)
    scale, offset = (
        np.broadcast_to(np.asarray(v, np.float32), (len(raw),))[:, None, None] for v in (source.scale, source.offset)
    )
    image = np.where(valid, np.nan_to_num(raw * scale + offset), 0).astype(np.float32)
    return Scene(name, image, valid, source.bands, source.gsd_m, sha256_file(path), labels, sensor=source.sensor)


def is_here(name: str) -> bool:
    """Whether the file or wheel of a scene of :data:`CATALOGUE` is on this machine."""
    try:
        _locate(name, CATALOGUE[name], None)
    except MissingCapability:
        return False
    return True


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
        stored = read_arrays(path, ["img", *([source.labels] if source.labels else [])])
        image = np.moveaxis(stored["img"], -1, 0).astype(np.float32)
        labels = _map_labels(stored[source.labels][..., 0], source.label_map) if source.labels else None
        return image, labels
    if path.suffix == ".json":
        values = read_json(path)
        return np.asarray(values, dtype=np.float32), None
    from rasterio.windows import Window

    from rsedge.data.scenes.raster import open_raster

    with open_raster(path) as file:
        everything = Window(0, 0, file.width, file.height)
        return file.read(range(1, file.count + 1), everything).astype(np.float32), None


def _map_labels(raw: npt.NDArray[np.integer], mapping: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    out = np.full(raw.shape, 255, dtype=np.uint8)
    for value, target in mapping.items():
        out[raw == value] = target
    return out
