"""Readers of the real sample sets under ``RSEDGE_DATA`` and in the GeoCLIP wheel.

Units of the pixel time series are those of Presto's and Galileo's rows: Sentinel-1 in dB, Sentinel-2 reflectance times
10000, temperature in K, precipitation in m, elevation in m, slope in degrees, month 0 to 11, place in degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rsedge.data.arrays import read_array
from rsedge.data.errors import MissingCapability, RequestError
from rsedge.data.files import sha256_file, sha256_of
from rsedge.data.root import data_root, wheel_folder
from rsedge.data.samples.samples import Samples
from rsedge.data.samples.tables import Column, read_columns
from rsedge.data.sets.scene_sources import load_scene
from rsedge.data.tiles import cut_maps, tile_origins

S2_TEN = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
SERIES_BANDS = ("vv", "vh", *S2_TEN, "temperature", "precipitation", "elevation", "slope", "land_cover", "month",
                "latitude", "longitude")  # fmt: skip
LAND_COVER_UNKNOWN = 9
"""Dynamic World has classes 0 to 8; Presto's row takes 9 for none."""
MONTHS = 12

# Columns of the WorldCereal extraction in the order of SERIES_BANDS; 65535 is missing.
_WORLDCEREAL = (
    "SAR-VV-ts{t}-20m", "SAR-VH-ts{t}-20m",
    *(f"OPTICAL-{band}-ts{{t}}-{gsd}m" for band, gsd in (
        ("B02", 10), ("B03", 10), ("B04", 10), ("B05", 20), ("B06", 20), ("B07", 20), ("B08", 10), ("B8A", 20), ("B11", 20),
        ("B12", 20))),
    "METEO-temperature_mean-ts{t}-100m", "METEO-precipitation_flux-ts{t}-100m",
)  # fmt: skip
_WORLDCEREAL_MISSING = 65535
_CROP, _LEFT_OUT = 11, (0, 10)

# Channels of the fuel moisture arrays. The last, an NDVI, is of B7 and B3, so it is left out: models make their own.
_FUEL = ("vv", "vh", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "watervapour", "swir16",
         "swir22", "temperature", "precipitation", "elevation", "slope")  # fmt: skip
_PATCH_SCENES = ("s2-chip-33188", "s2-chip-445", "sen1floods11-spain")
_PATCH = 32
_BLOCK = 64
"""Side in pixels of what intervals draw in scenes of patches: the patches of one block count as one."""


@dataclass(frozen=True)
class SampleSet:
    """A real set: where it lies under the folder of shared data (or in a wheel), and its reader."""

    about: str
    task: str
    layout: str
    bands: tuple[str, ...]
    gsd_m: float | None
    licence: str
    where: str
    read: Callable[[Path], Samples]
    wheel: tuple[str, str] | None = None
    """Package and extra, for a set that an installed package brings."""

    def load(self, root: Path | None = None) -> Samples:
        """The set from ``root``, else from the package or the folder of shared data.

        Raises:
            MissingCapability: its files or its package are not on this machine.
            RequestError: a file is not what it should be.
        """
        if root is None and self.wheel is not None:
            root = wheel_folder(*self.wheel, "these samples")
        return self.read(data_root() if root is None else root)


def worldcereal_crop(root: Path) -> Samples:
    """Labelled pixel series (N, 12, 20), crop or not; rows labelled 0 or 10 are left out, as the publishers do.

    Sentinel-1 is stored as an amplitude ``10 ** ((dB + 83) / 20)``, temperature in K/100, precipitation in m/1e5.
    """
    path = root / "worldcereal" / "labelled_series.parquet"
    columns = read_columns(_found(path))
    series = np.stack([_months(columns, name) for name in _WORLDCEREAL], axis=2)
    gone = series == _WORLDCEREAL_MISSING
    series[..., :2] = 20 * np.log10(np.maximum(series[..., :2], 1)) - 83
    series[..., 12:14] /= np.array([100, 1e5], np.float32)
    series[gone] = np.nan
    first = np.array([int(str(date)[5:7]) - 1 for date in columns["start_date"]])
    places = np.stack([columns["lon"], columns["lat"]], axis=1).astype(np.float64)
    month = (first[:, None] + np.arange(MONTHS)) % MONTHS
    still = [
        np.repeat(np.asarray(columns[c], np.float32)[:, None], MONTHS, axis=1) for c in ("DEM-alt-20m", "DEM-slo-20m")
    ]
    values = _with_context(series, still, np.full(month.shape, LAND_COVER_UNKNOWN), month, places)
    cover = np.asarray(columns["LANDCOVER_LABEL"])
    samples = Samples(
        "worldcereal-crop", values, SERIES_BANDS, "TC", sha256_file(path),
        labels=(cover == _CROP).astype(np.int64), classes=("other", "crop"),
        group=np.asarray(columns["aez_zoneid"]).astype(np.str_), places=places, gsd_m=10.0,
        notes=("Licence not stated: for development results; nothing derived from it is published.",),
    )  # fmt: skip
    return samples.take(np.flatnonzero(~np.isin(cover, _LEFT_OUT)))


def fuel_moisture(root: Path) -> Samples:
    """Live fuel moisture (%): series (2313, 3, 21) with the publisher's test split; one group per place."""
    folder = root / "presto_eval" / "fuel_moisture"
    names = ("s1_s2_era5_srtm", "dynamic_world", "month", "latlon", "target", "is_test")
    files = {name: _found(folder / f"{name}.npy") for name in names}
    arrays = {name: read_array(path) for name, path in files.items()}
    places = np.ascontiguousarray(arrays["latlon"][:, ::-1], dtype=np.float64)
    series = arrays["s1_s2_era5_srtm"][..., : len(_FUEL)].astype(np.float32)
    values = _with_context(series, [], arrays["dynamic_world"], arrays["month"], places)
    return Samples(
        "fuel-moisture", values, (*_FUEL, *SERIES_BANDS[-4:]), "TC",
        sha256_of({name: sha256_file(path) for name, path in files.items()}),
        labels=arrays["target"].astype(np.float32)[:, None], classes=("live fuel moisture (%)",),
        group=np.array([f"{lon:.5f} {lat:.5f}" for lon, lat in places]),
        split=np.where(arrays["is_test"] == 1, "test", "train"), places=places, gsd_m=10.0,
        notes=("Label terms not stated: for development results.",),
    )  # fmt: skip


def geoclip_gallery(root: Path) -> Samples:
    """The 100,000 land points of GeoCLIP's gallery, (N, 2): latitude and longitude in degrees."""
    path = _found(root / "model" / "gps_gallery" / "coordinates_100K.csv")
    columns = read_columns(path)
    if set(columns) != {"LAT", "LON"}:
        raise RequestError(f"{path}: columns LAT and LON are expected, found {', '.join(columns)}")
    latitude, longitude = (np.asarray(columns[c], np.float64) for c in ("LAT", "LON"))
    return Samples(
        "geoclip-gallery", np.stack([latitude, longitude], 1).astype(np.float32), ("latitude", "longitude"), "C",
        sha256_file(path), places=np.stack([longitude, latitude], 1),
    )  # fmt: skip


def sentinel2_lcz_patches(root: Path) -> Samples:
    """Patches (N, 10, 32, 32) of three Sentinel-2 scenes, reflectance, in blocks of 64 pixels; whole ones only."""
    patches, groups, blocks, hashes = [], [], [], []
    for name in _PATCH_SCENES:
        scene = load_scene(name, root)
        image = scene.select(S2_TEN)
        if image is None:
            raise RequestError(f"scene '{name}' lacks one of {', '.join(S2_TEN)}")
        origins = [
            (row, col)
            for row, col in tile_origins(scene.valid.shape, _PATCH)
            if scene.valid[row : row + _PATCH, col : col + _PATCH].all()
        ]
        patches += [cut_maps(image, origin, _PATCH) for origin in origins]
        groups += [name] * len(origins)
        blocks += [f"{row // _BLOCK}/{col // _BLOCK}" for row, col in origins]
        hashes.append(scene.sha256)
    return Samples(
        "sentinel2-lcz-patches", np.stack(patches), S2_TEN, "CHW", sha256_of(hashes), group=np.array(groups),
        block=np.array(blocks), gsd_m=10.0,
    )  # fmt: skip


def _months(columns: Mapping[str, Column], name: str) -> npt.NDArray[np.float32]:
    return np.stack([np.asarray(columns[name.format(t=t)], np.float32) for t in range(MONTHS)], axis=1)


def _with_context(
    series: npt.NDArray[np.float32],
    still: list[npt.NDArray[np.float32]],
    land_cover: npt.NDArray[np.generic],
    month: npt.NDArray[np.generic],
    places: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """(N, T, C) with more bands (N, T) each at its end: constant ones, land cover, month, latitude, longitude."""
    longitude, latitude = (np.broadcast_to(p[:, None], month.shape) for p in places.T)
    more = np.stack([*still, land_cover, month, latitude, longitude], axis=2)
    return np.concatenate([series, more.astype(np.float32)], axis=2)


def _found(path: Path) -> Path:
    if not path.is_file():
        raise MissingCapability(f"{path} does not exist; set RSEDGE_DATA to the folder of shared data, or give root")
    return path


_S1_S2_ERA5_SRTM = "Sentinel-1 dB, Sentinel-2 reflectance x 10000, ERA5, SRTM"
SAMPLE_SETS: Mapping[str, SampleSet] = {
    "worldcereal-crop": SampleSet(
        f"315 pixel series of 12 months ({_S1_S2_ERA5_SRTM}), crop or not, grouped by agro-ecological zone",
        "classification",
        "TC", SERIES_BANDS, 10.0, "not stated", "worldcereal/labelled_series.parquet", worldcereal_crop,
    ),
    "fuel-moisture": SampleSet(
        f"2313 pixel series of 3 months ({_S1_S2_ERA5_SRTM}), live fuel moisture in %, publisher's test split",
        "regression",
        "TC", (*_FUEL, *SERIES_BANDS[-4:]), 10.0, "repository MIT, labels not stated", "presto_eval/fuel_moisture/*.npy",
        fuel_moisture,
    ),
    "geoclip-gallery": SampleSet(
        "100,000 places on land, no labels",
        "none", "C", ("latitude", "longitude"), None, "MIT",
        "model/gps_gallery/coordinates_100K.csv in the geoclip wheel", geoclip_gallery, wheel=("geoclip", "places"),
    ),
    "sentinel2-lcz-patches": SampleSet(
        "256 patches of 32x32 pixels of three Sentinel-2 scenes, no labels",
        "none", "CHW", S2_TEN, 10.0,
        "Copernicus Sentinel data", "sentinel2_chips/, sen1floods11_spain/", sentinel2_lcz_patches,
    ),
}  # fmt: skip
