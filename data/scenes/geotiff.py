"""Scenes by window, whatever kind of file they are (:mod:`rsedge.data.scenes.kinds`), as the contract's digital numbers (DN): the
one reader of training and flight.

Bands are named by :mod:`rsedge.data.scenes.file_bands`, units by :mod:`rsedge.data.scenes.units`. Values whose units nobody
declares are held against what the contract finds plausible (reflectance: -0.2 to 2.5; otherwise its ``valid_range`` widened by
a fifth): if more than 1 % of the valid values lie outside, the scene is refused, and so is a single undeclared fill value such
as -9999. Any other value that all bands of many pixels hold alike is refused below those limits, and told of elsewhere.
Integers are looked at in samples spread over the scene (all of a training scene), floats everywhere.

Missing pixels: what the file declares missing (:mod:`rsedge.data.scenes.raster`) in **any** of the model's bands is missing,
because the model was never trained to see part of a pixel; it becomes the contract's nodata in all bands. In files of DN the
contract's own nodata counts as well: missing where every band has that value.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rsedge.data.band_names import sensor_warnings
from rsedge.data.band_values import BandValues, band_values, joined, saturation
from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.scenes.file_bands import choose_bands, file_bands
from rsedge.data.scenes.fills import Alike, Fills, absurd, absurd_warnings, check_nodata
from rsedge.data.scenes.kinds import kind_of
from rsedge.data.scenes.raster_file import NO_PLACE, Array, RasterFile, Window, bounded_cache, equals, whole_number
from rsedge.data.scenes.sentinel2 import Floor, declared, with_offset
from rsedge.data.scenes.units import WIDE_INTEGERS, units_of
from rsedge.data.wording import Wording

REFLECTANCE_RANGE = (-0.2, 2.5)
IMPLAUSIBLE_SHARE = 0.01
_BYTE, _FLAT = 255, 4
_SURVEY_ROWS = 256
_SURVEY_COLS, _SAMPLED_COLS = 2048, 256
_SURVEY_SAMPLES = (8, 32)
_SURVEY_SHARE = 0.05


class _Raw(NamedTuple):
    """A window of the file: values [C, h, w], missing [h, w], non-finite values [C, h, w] that nobody declared, and how many pixels
    are missing by absurd values alone."""

    values: Array
    missing: npt.NDArray[np.bool_]
    bad: npt.NDArray[np.bool_]
    absurd: int


class SceneReader:
    """Reads a scene in the contract's bands, order, units and type.

    Attributes:
        spec: the contract; of the bands at hand where it was opened as ``partial``.
        height, width: pixels. crs: None where the file says no place. transform, points: as in the file. gsd_m: metres, None
            when it cannot be known.
        band_indices: 1-based file bands in the contract's order. units: :class:`rsedge.data.scenes.units.Units`.
        values: what the looked at values of the bands are like. warnings: for the user.
        blocks: how the file stores the bands. unpacking_s: processor seconds that went into reading and unpacking them so far.
        first_pixel: row and column of its first pixel on the grid that tiles begin on; that of the scene itself if not set.
        screen: what keeps tiles of it from a model, where there is such a thing (:class:`rsedge.runtimes.inference.tiles.Screen`).
    """

    first_pixel: tuple[int, int] = (0, 0)
    screen: Any = None

    def __init__(
        self,
        path: str | Path,
        spec: InputSpec,
        *,
        bands: Sequence[str] | None = None,
        sensor: str | None = None,
        scale: float | None = None,
        offset: float | None = None,
        nodata: float | None = None,
        nan_nodata: bool = False,
        any_gsd: bool = False,
        gsd_m: float | None = None,
        training: bool = False,
        wording: Wording = Wording.COMMAND,
    ) -> None:
        """Opens and checks the whole request before any work.

        Args:
            path: the scene.
            spec: the model's contract.
            bands: names of all the file's bands in file order (``-`` for one to leave out); None uses descriptions.
            sensor: whose band numbers the file's names are, over its own tags.
            scale, offset: physical = value * scale + offset, over the file's own tags.
            nodata: a file value that marks missing pixels, beside those that the file declares.
            nan_nodata: NaN and infinity are missing pixels instead of an error.
            any_gsd: accept a ground sampling distance outside the contract's range.
            gsd_m: the ground sampling distance, over the file's own.
            training: ground to make views of: may lack bands and be finer than the contract, and is looked at as a whole.
            wording: how advice in messages is written.

        Raises:
            RequestError: missing file, not a raster, bands, units, GSD, NaN/inf, undeclared fill values, saturation, or nothing
                but nodata; each names the value found and the option or command that mends it.
        """
        self.path, self.nan_nodata, self.nodata = Path(path), nan_nodata, nodata
        self.training, self.wording = training, wording
        self.warnings: list[str] = []
        self._file: RasterFile = kind_of(self.path).open(self.path, spec, sensor)
        try:
            self.height, self.width = self._file.height, self._file.width
            self.crs, self.transform, self.points = self._file.crs, self._file.transform, self._file.points()
            found = file_bands(self._file, self.path, wording, given=bands, sensor=sensor, spec=spec)
            self.warnings += sensor_warnings(str(self.path), found.sensor, spec.sensor)
            self.spec = spec.without(spec.missing(found.names)) if training else spec
            self.band_indices = choose_bands(found, self.spec, self.path, wording)
            self.blocks, self.unpacking_s = self._file.blocks(self.band_indices), 0.0
            self._alpha = [a for a in found.alpha if a not in self.band_indices]
            units = units_of(self._file, self.path, self.band_indices, self.spec, scale, offset, wording)
            dtype = self._file.dtypes[self.band_indices[0] - 1]
            check_nodata(nodata, dtype, self.path, wording)
            product = declared(self._file.product, self._file.tags(), found.sensor) if dtype in WIDE_INTEGERS else None
            self.units = with_offset(units, product, self.spec, dtype)
            self._floor = Floor(self.units, product, self.spec, found.sensor)
            self.gsd_m = gsd_m or self._file.gsd_m()
            self._check_gsd(any_gsd)
            with bounded_cache():
                self.values = self._survey()
        except BaseException:
            self._file.close()
            raise

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """A window inside the scene.

        Returns:
            DN [C, height, width] in the contract's dtype, and the missing-pixel mask [height, width].
        """
        raw = self._read_raw(row, col, height, width)
        return self._to_dn(raw.values, raw.missing), raw.missing

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_raw(self, row: int, col: int, height: int, width: int) -> _Raw:
        window = Window(col, row, width, height)
        with self._unpacking():
            values = self._file.read(self.band_indices, window)
        if values.dtype.kind == "f":
            return self._floats(window, values)
        missing = self._file.missing_anywhere(self.band_indices, window, values, self._alpha)
        if self.nodata is not None:
            missing |= equals(values, self.nodata).any(axis=0)
        return _Raw(values, self._known_missing(values, missing), np.broadcast_to(np.False_, values.shape), 0)

    def _floats(self, window: Window, values: Array) -> _Raw:
        missing_bands = self._file.missing(self.band_indices, window, values, self._alpha)
        if self.nodata is not None:
            missing_bands |= equals(values, self.nodata)
        bad = ~np.isfinite(values) & ~missing_bands
        if self.nan_nodata:
            missing_bands |= bad
            bad = np.zeros(values.shape, dtype=bool)
        odd = absurd(values) & ~missing_bands
        missing = self._known_missing(values, np.asarray((missing_bands | odd).any(axis=0)))
        return _Raw(values, missing, bad & ~missing, int(odd.any(axis=0).sum()))

    def _known_missing(self, values: Array, missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """What is missing by the units or the contract, too."""
        if self.units.fill is not None:
            missing |= (values == self.units.fill).all(axis=0)
        if self.units.is_dn:
            missing |= ~self._valid(values)
        return missing

    def _valid(self, values: Array) -> npt.NDArray[np.bool_]:
        """:meth:`InputSpec.valid`, without making floats of integers."""
        if values.dtype.kind not in "ui" or any(b.nodata is None for b in self.spec.bands):
            return self.spec.valid(values)
        found = np.zeros(values.shape[1:], dtype=bool)
        for band, b in zip(values, self.spec.bands, strict=True):
            whole = whole_number(float(b.nodata or 0), values.dtype)
            found |= True if whole is None else band != whole
        return found

    @contextlib.contextmanager
    def _unpacking(self) -> Iterator[None]:
        began = time.thread_time()
        try:
            yield
        finally:
            self.unpacking_s += time.thread_time() - began

    def _to_dn(self, values: Array, missing: npt.NDArray[np.bool_]) -> Array:
        seen = values if self.units.is_dn else np.where(missing, 0, values)
        dn = self._fit(seen) if self.units.is_dn else self.spec.to_dn(self._physical(seen))
        if missing.all():
            dn[:] = self.spec.missing_dn()[:, None, None]
        elif missing.any():
            dn[:, missing] = self.spec.missing_dn()[:, None]
        return dn

    def _fit(self, values: Array) -> Array:
        """DN of another integer type in the contract's, saturated; a saturated value never turns into nodata."""
        dtype = np.dtype(self.spec.dtype)
        if values.dtype == dtype or dtype.kind == "f":
            return values.astype(dtype, copy=False)
        info, wide = np.iinfo(dtype), values.astype(np.int64)
        low = info.min + (self.spec.nodata == info.min)
        high = info.max - (self.spec.nodata == info.max)
        return np.where(wide < info.min, low, np.where(wide > info.max, high, wide)).astype(dtype)

    def _physical(self, values: Array) -> Array:
        if self.units.is_dn:
            return self.spec.to_physical(values)
        scale, offset = np.array(self.units.scale), np.array(self.units.offset)
        return np.asarray(values.astype(np.float64) * scale[:, None, None] + offset[:, None, None], dtype=np.float64)

    def _check_gsd(self, any_gsd: bool) -> None:
        allowed, say = self.spec.gsd_range_m, self.wording.say
        self.warnings += [f"{self.path}: {why}" for why in self._file.unread]
        if self.crs is None and self.points:
            self.warnings.append(
                f"{self.path}: is placed by ground control points or RPC alone, which a raster made of it keeps; warp it first "
                "(gdalwarp) where objects are to have longitude and latitude"
            )
        elif self.crs is None and not self.training:
            self.warnings.append(f"{self.path}: {NO_PLACE}; the output will say none either")
        if self.gsd_m is None:
            if self.wording is Wording.RECIPE:
                raise RequestError(
                    f"{self.path}: pixel size on the ground is unknown; give it, e.g. {say('gsd_m', '10')}"
                )
            if allowed is not None and not any_gsd:
                self.warnings.append(
                    f"{self.path}: pixel size on the ground is unknown, so it is not checked against the model's "
                    f"{allowed[0]:g} to {allowed[1]:g} m"
                )
            return
        # Half a percent of slack: a 10 m grid stored in degrees is not 10 m to the last digit.
        if any_gsd or allowed is None:
            return
        if self.gsd_m <= allowed[1] * 1.005 and (self.training or allowed[0] * 0.995 <= self.gsd_m):
            return
        raise RequestError(
            f"{self.path}: pixels are {self.gsd_m:.3g} m, the model was made for {allowed[0]:g} to {allowed[1]:g} m; "
            f"resample the scene (e.g. gdalwarp -tr), or take it all the same with {say('any_gsd')}"
        )

    def _survey(self) -> list[BandValues]:
        """Looks at the values: at all of a float or training scene, at samples of others (more while all is nodata)."""
        bad = np.zeros(self.spec.channels, dtype=np.int64)
        fills = Fills({b.nodata for b in self.spec.bands} if self.units.is_dn else ())
        outside, odd, parts = 0, 0, list[BandValues]()
        limits = self._plausible()
        alike = Alike(limits)
        for n, (row, col) in enumerate(self._survey_windows(), start=1):
            rows, cols = min(_SURVEY_ROWS, self.height - row), min(self._survey_cols(), self.width - col)
            values, missing, wrong, absurd_pixels = self._read_raw(row, col, rows, cols)
            bad += wrong.sum(axis=(1, 2))
            odd += absurd_pixels
            keep = ~missing & ~wrong.any(axis=0)
            if keep.any():
                seen = values.reshape(len(values), -1) if keep.all() else values[:, keep]
                physical = self._physical(seen[:, None])[:, 0]
                fills.look(seen, physical, limits)
                alike.look(seen, physical)
                outside += int(np.sum(physical < limits[0]) + np.sum(physical > limits[1]))
                self._floor.look(physical)
                parts += band_values(physical, self.spec)
            if parts and n >= self._survey_samples() and values.dtype.kind != "f" and not self.training:
                break
        self._refuse_bad(bad)
        fills.refuse(self.path, self.wording)
        self.warnings += absurd_warnings(self.path, odd)
        if not parts:
            why = f", {odd} of them by values that nothing measures" if odd else ""
            raise RequestError(f"{self.path}: every pixel is nodata{why}, there is nothing to look at")
        found = joined(parts)
        share = (outside / self.spec.channels + odd) / (found[0].count + odd)
        if not self.units.declared and share > IMPLAUSIBLE_SHARE:
            raise RequestError(self._implausible(share, found, limits))
        fix = f"if its units are others, give {self.wording.say('scale', 'S')} (physical = value * scale + offset)"
        self.warnings += alike.warnings(self.path, self.wording)
        self.warnings += saturation(str(self.path), found, fix, flying=not self.training)
        self.warnings += self._floor.warnings(self.path, self.wording)
        self.warnings += self._empty(found)
        return found

    def _empty(self, found: list[BandValues]) -> list[str]:
        """Warnings on values that fill next to nothing of the contract's digital numbers."""
        if np.dtype(self.spec.dtype).kind == "f":
            return []
        bands = {b.name: b for b in self.spec.bands}
        fix = f"if its units are others, give {self.wording.say('scale', 'S')} (physical = value * scale + offset)"
        flat = [v.name for v in found if v.maximum - v.minimum < _FLAT * abs(bands[v.name].scale)]
        if flat:
            return [f"{self.path}: fills less than {_FLAT} of the model's digital numbers in {', '.join(flat)}; {fix}"]
        highest = max((v.maximum - bands[v.name].offset) / bands[v.name].scale for v in found)
        if self.units.is_dn and not self.units.declared and self.spec.dtype != "uint8" and highest <= _BYTE:
            return [f"{self.path}: its digital numbers end at {highest:g}, as 8-bit pictures do; {fix}"]
        return []

    def _survey_cols(self) -> int:
        """Columns of a window: fewer where samples are all that is looked at, but for files whose blocks are wide anyway."""
        sampled = np.dtype(self._file.dtypes[self.band_indices[0] - 1]).kind != "f" and not self.training
        return min(_SURVEY_COLS, max(_SAMPLED_COLS, self.blocks.width)) if sampled else _SURVEY_COLS

    def _survey_samples(self) -> int:
        """How many windows are enough where samples are: a share of the scene, so that looking never takes long beside mapping."""
        least, most = _SURVEY_SAMPLES
        return min(max(least, round(_SURVEY_SHARE * len(self._survey_corners()))), most)

    def _survey_corners(self) -> list[tuple[int, int]]:
        rows, cols = range(0, self.height, _SURVEY_ROWS), range(0, self.width, self._survey_cols())
        return [(row, col) for row in rows for col in cols]

    def _survey_windows(self) -> Iterator[tuple[int, int]]:
        """Upper left corners of windows that cover the scene, the first ones spread over it."""
        corners = self._survey_corners()
        step = max(1, len(corners) // self._survey_samples())
        for first in range(step):
            yield from corners[first::step]

    def _plausible(self) -> tuple[float, float]:
        """Physical values that a scene may hold; unlimited where the contract does not say."""
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
            f"treat them as missing with {self.wording.say('nan_nodata')}"
        )

    def _implausible(self, share: float, found: list[BandValues], limits: tuple[float, float]) -> str:
        low, high = min(v.minimum for v in found), max(v.maximum for v in found)
        say = self.wording.say
        fill = f"declare the fill value with {say('nodata', 'V')}"
        if self.units.is_dn:
            fix = (
                "they are not the model's digital numbers: say how they become physical values with "
                f"{say('scale', 'S')} and {say('offset', 'O')}, or {fill}"
            )
        elif share < 0.5:
            # Most are plausible, so that another scale would take them all to nothing.
            fix = f"if those are no measurements, {fill}; or say what they are with {say('scale', 'S')}"
        else:
            fix = f"if they are percent, bytes or digital numbers, say so, e.g. {say('scale', _likely_scale(high))}"
        return (
            f"{self.path}: read as {self.spec.quantity} ({self.units.source}), {share:.0%} of its values lie outside "
            f"{limits[0]:g} to {limits[1]:g} (they reach from {low:g} to {high:g}); {fix}"
        )


def _likely_scale(highest: float) -> str:
    """What is usual for values up to there."""
    return "0.01" if highest <= 150 else "0.00392157" if highest <= 255 else "0.0001"
