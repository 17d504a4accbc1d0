"""GeoTIFF scenes by window, as the contract's digital numbers (DN).

Units are declared, never guessed. In this order:

1. ``scale`` / ``offset`` given by the user: ``physical = value * scale + offset``.
2. GDAL scale/offset tags on the model's bands: the same formula.
3. 16- and 32-bit integers without tags are the contract's DN. Other integers are DN only when the contract has the very
   same type: an 8-bit file is refused by a 16-bit contract.
4. Floats without tags are physical values (e.g. reflectance).

Cases 3 and 4 are then held against the values the contract finds plausible (reflectance: -0.2 to 2.5; otherwise its
``valid_range`` widened by a fifth): if more than 1 % of the valid values lie outside, the scene is refused. Integers
are looked at in samples spread over the scene, floats everywhere.

Missing pixels: what the file declares missing (nodata value, mask or alpha band) in **any** of the model's bands is
missing, because the model was never trained to see part of a pixel; it becomes the contract's nodata in all bands. In
files of DN the contract's own nodata counts as well: missing where every band has that value.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from rsedge.data.bands import InputSpec, canonical_band
from rsedge.data.errors import IntegrityError, RequestError

REFLECTANCE_RANGE = (-0.2, 2.5)
IMPLAUSIBLE_SHARE = 0.01
SKIP_BAND = "-"
_SURVEY_ROWS = 256
_SURVEY_COLS = 2048
_CACHE_BYTES = 128 << 20
_SURVEY_SAMPLES = 32
_WIDE_INTEGERS = ("uint16", "int16", "uint32", "int32")
# The WGS 84 ellipsoid: semi-major axis (m) and first eccentricity squared.
_SEMI_MAJOR_M, _ECCENTRICITY_2 = 6378137.0, 6.69437999014e-3
# Names that only Sentinel-2 products use (Landsat has no band 12 or 8A and writes B8 without a zero).
_SENTINEL2_ONLY = {"b08", "b8a", "b12"}

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Units:
    """How a file's values become DN: ``dn`` as they are, or physical values by ``value * scale + offset`` per band."""

    source: str
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()

    @property
    def is_dn(self) -> bool:
        return not self.scale


class SceneReader:
    """Reads a GeoTIFF in the contract's bands, order, units and type.

    Attributes:
        height, width: pixels. crs, transform: as in the file. gsd_m: metres, None when it cannot be known.
        band_indices: 1-based file bands in the contract's order. units: :class:`Units`. warnings: for the user.
    """

    def __init__(
        self,
        path: str | Path,
        spec: InputSpec,
        *,
        bands: list[str] | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nan_nodata: bool = False,
        any_gsd: bool = False,
    ) -> None:
        """Opens and checks the whole request before any work.

        Args:
            path: the scene.
            spec: the model's contract.
            bands: names of all the file's bands in file order (``-`` for one to leave out); None uses descriptions.
            scale, offset: physical = value * scale + offset, over the file's own tags.
            nan_nodata: NaN and infinity are missing pixels instead of an error.
            any_gsd: accept a ground sampling distance outside the contract's range.

        Raises:
            RequestError: missing file, not a raster, bands, units, GSD, NaN/inf, or nothing but nodata; each names the
                value found and the option or command that mends it.
        """
        self.path, self.spec, self.nan_nodata = Path(path), spec, nan_nodata
        self.warnings: list[str] = []
        self._file = open_raster(self.path)
        try:
            self.height, self.width = int(self._file.height), int(self._file.width)
            self.crs, self.transform = self._file.crs, self._file.transform
            names = band_names(self._file, self.path, spec, bands)
            self.band_indices = [i + 1 for i in spec.select(names, str(self.path))]
            self._dtype = _common_dtype(self._file, self.band_indices, self.path)
            self._declared = _declares_missing(self._file, self.band_indices)
            self.units = self._units(scale, offset)
            self.gsd_m = ground_sampling_distance(self._file)
            self._check_gsd(any_gsd)
            with bounded_cache():
                self._survey()
        except BaseException:
            self._file.close()
            raise

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """A window inside the scene.

        Returns:
            DN [C, height, width] in the contract's dtype, and the missing-pixel mask [height, width].
        """
        values, missing, _ = self._read_raw(row, col, height, width)
        return self._to_dn(values, missing), missing

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_raw(
        self, row: int, col: int, height: int, width: int
    ) -> tuple[Array, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """File values [C, h, w], missing [h, w], and non-finite values [C, h, w] that nobody declared."""
        window = Window(col, row, width, height)
        values = read_window(self._file, self.path, self.band_indices, window)
        if self._declared:
            missing_bands = read_window(self._file, self.path, self.band_indices, window, masks=True) == 0
        else:
            missing_bands = np.zeros(values.shape, dtype=bool)
        bad = np.zeros(values.shape, dtype=bool)
        if values.dtype.kind == "f":
            bad = ~np.isfinite(values) & ~missing_bands
            if self.nan_nodata:
                missing_bands |= bad
                bad = np.zeros(values.shape, dtype=bool)
        missing = missing_bands.any(axis=0)
        if self.units.is_dn:
            missing |= ~self.spec.valid(values)
        return values, missing, bad & ~missing

    def _to_dn(self, values: Array, missing: npt.NDArray[np.bool_]) -> Array:
        seen = values if self.units.is_dn else np.where(missing, 0, values)
        dn = self._fit(seen) if self.units.is_dn else self.spec.to_dn(self._physical(seen))
        dn[:, missing] = self._fill()[:, None]
        return dn

    def _fit(self, values: Array) -> Array:
        """DN of another integer type in the contract's, saturated; a saturated value never turns into nodata."""
        dtype = np.dtype(self.spec.dtype)
        if values.dtype == dtype or dtype.kind == "f":
            return values.astype(dtype)
        info, wide = np.iinfo(dtype), values.astype(np.int64)
        low = info.min + (self.spec.nodata == info.min)
        high = info.max - (self.spec.nodata == info.max)
        return np.where(wide < info.min, low, np.where(wide > info.max, high, wide)).astype(dtype)

    def _fill(self) -> Array:
        """DN written where a pixel is missing, shape (C,): nodata, or the mean where the contract has none."""
        mean = self.spec.to_dn(self.spec.neutral()[:, None, None])[:, 0, 0]
        nodata = [m if b.nodata is None else b.nodata for b, m in zip(self.spec.bands, mean, strict=True)]
        return np.array(nodata, dtype=self.spec.dtype)

    def _physical(self, values: Array) -> Array:
        if self.units.is_dn:
            return self.spec.to_physical(values)
        scale, offset = np.array(self.units.scale), np.array(self.units.offset)
        return np.asarray(values.astype(np.float64) * scale[:, None, None] + offset[:, None, None], dtype=np.float64)

    def _units(self, scale: float | None, offset: float | None) -> Units:
        n = self.spec.channels
        if scale is not None or offset is not None:
            if scale == 0 or not all(math.isfinite(v) for v in (scale, offset) if v is not None):
                raise RequestError("--scale must not be 0, and --scale and --offset must be finite numbers")
            return Units("given", (1.0 if scale is None else scale,) * n, (offset or 0.0,) * n)
        scales = tuple(float(self._file.scales[i - 1]) for i in self.band_indices)
        offsets = tuple(float(self._file.offsets[i - 1]) for i in self.band_indices)
        tagged = [s != 1.0 or o != 0.0 for s, o in zip(scales, offsets, strict=True)]
        if all(tagged):
            return self._tagged(scales, offsets)
        if any(tagged):
            names = [b for b, t in zip(self.spec.band_names, tagged, strict=True) if not t]
            raise RequestError(
                f"{self.path}: some bands carry scale/offset tags, but {', '.join(names)} do not; "
                "give both for all with --scale and --offset"
            )
        return self._untagged()

    def _tagged(self, scales: tuple[float, ...], offsets: tuple[float, ...]) -> Units:
        same = all(s == b.scale and o == b.offset for s, o, b in zip(scales, offsets, self.spec.bands, strict=True))
        if same and self._dtype == self.spec.dtype:
            return Units("tags, equal to the contract's")
        return Units("tags", scales, offsets)

    def _untagged(self) -> Units:
        dtype, contract = self._dtype, self.spec.dtype
        if dtype.startswith("float"):
            n = self.spec.channels
            return Units(f"{dtype} without tags: physical values", (1.0,) * n, (0.0,) * n)
        wide = dtype in _WIDE_INTEGERS and contract != "uint8"
        if dtype == contract or wide:
            return Units(f"{dtype} without tags: digital numbers of the contract")
        raise RequestError(
            f"{self.path}: holds {dtype} values, the model takes {contract} digital numbers "
            f"({self.spec.quantity} = DN * {self.spec.bands[0].scale:g} + {self.spec.bands[0].offset:g}), and the file "
            f"does not say how its values become {self.spec.quantity}; say so with --scale and --offset"
        )

    def _check_gsd(self, any_gsd: bool) -> None:
        allowed = self.spec.gsd_range_m
        if self.crs is None:
            self.warnings.append(f"{self.path}: has no coordinate reference system; the output will have none either")
        if self.gsd_m is None:
            if allowed is not None and not any_gsd:
                self.warnings.append(
                    f"{self.path}: pixel size on the ground is unknown, so it is not checked against the model's "
                    f"{allowed[0]:g} to {allowed[1]:g} m"
                )
            return
        # Half a percent of slack: a 10 m grid stored in degrees is not 10 m to the last digit.
        if any_gsd or allowed is None or allowed[0] * 0.995 <= self.gsd_m <= allowed[1] * 1.005:
            return
        raise RequestError(
            f"{self.path}: pixels are {self.gsd_m:.3g} m, the model was made for {allowed[0]:g} to {allowed[1]:g} m; "
            "resample the scene (e.g. gdalwarp -tr), or run it all the same with --any-gsd"
        )

    def _survey(self) -> None:
        """Looks at the values: at all of a float scene, at samples of an integer one (more while all is nodata)."""
        seen = outside = 0
        low, high = math.inf, -math.inf
        bad = np.zeros(self.spec.channels, dtype=np.int64)
        limits = self._plausible()
        for n, (row, col) in enumerate(self._survey_windows(), start=1):
            rows, cols = min(_SURVEY_ROWS, self.height - row), min(_SURVEY_COLS, self.width - col)
            values, missing, wrong = self._read_raw(row, col, rows, cols)
            bad += wrong.sum(axis=(1, 2))
            physical = self._physical(values)[:, ~missing]
            physical = physical[np.isfinite(physical)]
            seen += int(physical.size)
            if physical.size:
                low, high = min(low, float(physical.min())), max(high, float(physical.max()))
            outside += sum(int(v) for v in (np.sum(physical < limits[0]), np.sum(physical > limits[1])))
            if seen and n >= _SURVEY_SAMPLES and values.dtype.kind != "f":
                break
        self._refuse_bad(bad)
        if not seen:
            raise RequestError(f"{self.path}: every pixel is nodata, there is nothing to look at")
        if outside > IMPLAUSIBLE_SHARE * seen:
            raise RequestError(self._implausible(outside / seen, low, high, limits))

    def _survey_windows(self) -> Iterator[tuple[int, int]]:
        """Upper left corners of windows that cover the scene, the first ones spread over it."""
        rows, cols = range(0, self.height, _SURVEY_ROWS), range(0, self.width, _SURVEY_COLS)
        corners = [(row, col) for row in rows for col in cols]
        step = max(1, len(corners) // _SURVEY_SAMPLES)
        for first in range(step):
            yield from corners[first::step]

    def _plausible(self) -> tuple[float, float]:
        """Physical values a scene may hold; unlimited when the file itself or the user declares the units."""
        if self.units.source in ("given", "tags", "tags, equal to the contract's"):
            return -math.inf, math.inf
        if "reflectance" in self.spec.quantity:
            return REFLECTANCE_RANGE
        ranges = [b.valid_range for b in self.spec.bands]
        if any(r is None for r in ranges):
            return -math.inf, math.inf
        low, high = min(r[0] for r in ranges if r), max(r[1] for r in ranges if r)
        return low - 0.2 * (high - low), high + 0.2 * (high - low)

    def _refuse_bad(self, bad: npt.NDArray[np.int64]) -> None:
        if not bad.any():
            return
        where = ", ".join(f"{n} in band '{b}'" for n, b in zip(bad, self.spec.band_names, strict=True) if n)
        raise RequestError(
            f"{self.path}: NaN or infinite values that the file does not declare as nodata: {where}; "
            "treat them as missing with --nan-nodata"
        )

    def _implausible(self, share: float, low: float, high: float, limits: tuple[float, float]) -> str:
        if self.units.is_dn:
            fix = (
                "they are not the model's digital numbers: say how they become physical values with --scale and "
                "--offset, or declare the fill value (gdal_edit.py -a_nodata VALUE)"
            )
        else:
            fix = "if they are digital numbers, say so, e.g. --scale 0.0001"
        return (
            f"{self.path}: read as {self.spec.quantity} ({self.units.source}), {share:.0%} of its values lie outside "
            f"{limits[0]:g} to {limits[1]:g} (they reach from {low:g} to {high:g}); {fix}"
        )


@contextlib.contextmanager
def bounded_cache() -> Iterator[None]:
    """Holds GDAL's block cache to 128 MiB (its default is a share of the machine's memory), unless the user set it."""
    if "GDAL_CACHEMAX" in os.environ:
        yield
        return
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        yield


def open_raster(path: Path) -> Any:
    """A rasterio dataset.

    Raises:
        RequestError: no such file, or not a raster.
    """
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except RasterioIOError as error:
        raise RequestError(f"{path}: not a raster that GDAL can read ({error})") from error
    if not dataset.count or dataset.height < 1 or dataset.width < 1:
        raise RequestError(f"{path}: holds no raster bands")
    return dataset


def read_window(dataset: Any, path: Path, indices: list[int], window: Window, masks: bool = False) -> Array:
    """Values (or masks) [C, h, w] of a window.

    Raises:
        IntegrityError: the file is truncated or damaged.
    """
    try:
        read = dataset.read_masks if masks else dataset.read
        return np.asarray(read(indices, window=window))
    except RasterioIOError as error:
        raise IntegrityError(
            f"{path}: cannot be read at rows {window.row_off} to {window.row_off + window.height}; the file is "
            f"truncated or damaged ({error})"
        ) from error


def band_names(dataset: Any, path: Path, spec: InputSpec, given: list[str] | None) -> list[str]:
    """Common names of all the file's bands, in file order; '' for one without a name.

    Raises:
        RequestError: the number of given names is not the number of bands, or nothing names the bands.
    """
    sensors = {b.sensor for b in spec.bands}
    if given is not None:
        names = [g.strip() for g in given]
        if len(names) != dataset.count:
            raise RequestError(
                f"{path}: --bands names {len(names)} bands ({', '.join(names)}), the file has {dataset.count}; name "
                f"them all in the file's order, '{SKIP_BAND}' for one to leave out"
            )
        sensor = sensors.pop() if len(sensors) == 1 else None
        return ["" if n == SKIP_BAND else canonical_band(n, sensor) for n in names]
    described = [(d or "").strip() for d in dataset.descriptions]
    if not any(described):
        raise RequestError(
            f"{path}: its {dataset.count} bands have no descriptions, and rsedge does not guess their order; name them "
            f"in the file's order, e.g. --bands {','.join(spec.band_names)} ('{SKIP_BAND}' for one to leave out)"
        )
    sensor = file_sensor(dataset)
    return [canonical_band(d, sensor) if d else "" for d in described]


def file_sensor(dataset: Any) -> str | None:
    """``sentinel-2`` when the file's tags or band names show it, else None: numbered bands then stay unnamed."""
    tags = " ".join(
        str(v).lower()
        for k, v in dataset.tags().items()
        if any(
            word in k.lower() for word in ("sensor", "platform", "spacecraft", "satellite", "constellation", "mission")
        )
    )
    if "sentinel-2" in tags or "sentinel2" in tags:
        return "sentinel-2"
    if tags:
        return None
    names = {(d or "").strip().lower() for d in dataset.descriptions}
    return "sentinel-2" if names & _SENTINEL2_ONLY else None


def ground_sampling_distance(dataset: Any) -> float | None:
    """Pixel size on the ground (m) at the scene's centre, geometric mean of both axes; None when it is unknown.

    Both axes are measured on the ellipsoid, so that degrees and stretched projections (Web Mercator) come out right.
    """
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    row, col = dataset.height / 2, dataset.width / 2
    points = [pixel_to_map(dataset.transform, *p) for p in ((col, row), (col + 1, row), (col, row + 1))]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    try:
        from rasterio.warp import transform as to_crs

        lon, lat = to_crs(dataset.crs, "EPSG:4326", xs, ys)
    except (CRSError, RasterioError):
        return None
    if not all(map(math.isfinite, (*lon, *lat))):
        return None
    across = _distance_m(lon[0], lat[0], lon[1], lat[1])
    along = _distance_m(lon[0], lat[0], lon[2], lat[2])
    return math.sqrt(across * along)


def pixel_to_map(transform: Any, col: float, row: float) -> tuple[float, float]:
    """Map coordinates of a pixel's upper left corner."""
    x = transform.a * col + transform.b * row + transform.c
    return x, transform.d * col + transform.e * row + transform.f


def _distance_m(lon_a: float, lat_a: float, lon_b: float, lat_b: float) -> float:
    """Short distance on the ellipsoid, by its radii of curvature in the meridian and across it."""
    lat = math.radians(0.5 * (lat_a + lat_b))
    w = 1 - _ECCENTRICITY_2 * math.sin(lat) ** 2
    turn = math.remainder(lon_b - lon_a, 360.0)
    north = math.radians(lat_b - lat_a) * _SEMI_MAJOR_M * (1 - _ECCENTRICITY_2) / w**1.5
    east = math.radians(turn) * _SEMI_MAJOR_M / math.sqrt(w) * math.cos(lat)
    return math.hypot(north, east)


def _common_dtype(dataset: Any, indices: list[int], path: Path) -> str:
    found = {str(dataset.dtypes[i - 1]) for i in indices}
    if len(found) > 1:
        raise RequestError(
            f"{path}: the model's bands differ in type ({', '.join(sorted(found))}); store them in one type"
        )
    dtype = found.pop()
    if dtype not in (*_WIDE_INTEGERS, "uint8", "float32", "float64"):
        raise RequestError(
            f"{path}: holds {dtype} values; rsedge reads uint8, {', '.join(_WIDE_INTEGERS)}, float32 and float64"
        )
    return dtype


def _declares_missing(dataset: Any, indices: list[int]) -> bool:
    return any(MaskFlags.all_valid not in dataset.mask_flag_enums[i - 1] for i in indices)
