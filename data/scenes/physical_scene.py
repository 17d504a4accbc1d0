"""Images of samples (pairs of dates, images with boxes): all named bands of a GeoTIFF as physical values, before any contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from rsedge.data.errors import RequestError
from rsedge.data.files import sha256_file
from rsedge.data.scenes.file_bands import file_bands
from rsedge.data.scenes.fills import Fills, absurd, absurd_warnings
from rsedge.data.scenes.raster import equals, ground_sampling_distance, open_raster
from rsedge.data.scenes.raster_kinds import GEOTIFF, PICTURES
from rsedge.data.scenes.scene import Scene
from rsedge.data.scenes.units import units_of
from rsedge.data.wording import Wording

COLOUR_SCALE = 1 / 255
"""Of 8-bit images that say nothing else: colour from 0 to 1."""


def read_physical(
    path: Path,
    *,
    bands: Sequence[str] | None = None,
    sensor: str | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    nan_nodata: bool = False,
    gsd_m: float | None = None,
    drivers: Sequence[str] = GEOTIFF,
) -> Scene:
    """Values by the rules of :class:`rsedge.data.scenes.geotiff.SceneReader`; NaN per band where missing.

    ``drivers`` are the formats that are taken.
    ``gsd_m`` of the scene is NaN where it is unknown, and ``valid`` where no band is missing.

    Raises:
        RequestError: not readable, no band names, bare integers, or undeclared NaN or fill values.
    """
    with open_raster(path, drivers) as file:
        found = file_bands(file, path, Wording.RECIPE, given=bands, sensor=sensor)
        indices = [i for i, name in enumerate(found.names, start=1) if name]
        names = tuple(found.names[i - 1] for i in indices)
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            fix = f"name the file's bands in its order under {Wording.RECIPE.say('bands', '[...]')}"
            raise RequestError(f"{path}: bands occur twice: {', '.join(twice)}; {fix}")
        units = units_of(file, path, indices, None, scale, offset, Wording.RECIPE)
        window = Window(0, 0, file.width, file.height)
        raw = file.read(indices, window)
        missing = file.missing(indices, window, raw, [a for a in found.alpha if a not in indices])
        metres = gsd_m or ground_sampling_distance(file)
    missing |= equals(raw, nodata)
    undeclared = ~np.isfinite(raw) & ~missing
    if undeclared.any() and not nan_nodata:
        raise RequestError(
            f"{path}: {int(undeclared.any(axis=0).sum())} pixels with NaN or infinite values that the file does not declare as "
            f"nodata; treat them as missing with {Wording.RECIPE.say('nan_nodata')}"
        )
    odd = absurd(raw) & ~missing
    missing |= undeclared | odd
    scales, offsets = (np.array(v, dtype=np.float64)[:, None, None] for v in (units.scale, units.offset))
    image = np.where(missing, np.nan, raw * scales + offsets)
    valid = np.logical_not(missing.any(axis=0))
    fills = Fills()
    fills.look(raw[:, valid], image[:, valid])
    fills.refuse(path, Wording.RECIPE)
    return Scene(path.stem, image.astype(np.float32), valid, names, metres or float("nan"), sha256_file(path),
                 warnings=tuple(absurd_warnings(path, int(odd.any(axis=0).sum()))), sensor=found.sensor)  # fmt: skip


def read_picture(path: Path, *, scale: float | None = None, **given: Any) -> Scene:
    """As :func:`read_physical`, of a picture: bytes without a scale of their own are colours from 0 to 1.

    Raises:
        RequestError: as :func:`read_physical`.
    """
    with open_raster(path, PICTURES) as file:
        bare = file.dtypes[0] == "uint8" and (file.scales[0], file.offsets[0]) == (1.0, 0.0)
    return read_physical(path, scale=COLOUR_SCALE if scale is None and bare else scale, drivers=PICTURES, **given)
