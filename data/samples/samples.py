"""Sets of samples of one shape (image chips, pixel time series, places) with what is known of each.

Scenes (:mod:`rsedge.data.sets.scene_sources`) are cut into tiles by the pipeline; samples come cut already. All readers give
physical values with band names, so that :meth:`Samples.dn` can bring them into any teacher's band contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rsedge.data.band_names import name_bands
from rsedge.data.band_values import BandValues, band_values
from rsedge.data.bands import InputSpec, Layout
from rsedge.data.errors import RequestError
from rsedge.data.paged import sha256_with_arrays

Floats = npt.NDArray[np.float32]
PUBLISHED: Mapping[str, Literal["train", "selection", "test"]] = {
    "train": "train", "training": "train", "restval": "train", "val": "selection", "valid": "selection",
    "validation": "selection", "dev": "selection", "test": "test", "testing": "test",
}  # fmt: skip
"""Names that publishers give their splits, and the role each maps to."""


@dataclass(frozen=True)
class Samples:
    """N samples.

    Attributes:
        values: (N, *axes of ``layout``) float32 physical values; NaN where missing.
        labels: what is to be told: (N,) int64 class numbers, -1 where unknown; (N, K) float32 zeros and ones (multi-label) or
            targets (regression); (N, H, W) uint8 class maps, 255 where unknown. None without labels.
        classes: names of the classes or targets.
        group: (N,) what a split keeps together (region, scene, tile); each sample its own group where None.
        block: (N,) parts of groups that lie apart enough to be drawn on their own for intervals; whole groups where None.
        cells: (N, 3) number of the image, row and column of tiles that were cut from images whose parts are held out; else None.
        split: (N,) the publisher's split by its name (see :data:`PUBLISHED`), or None.
        boxes: N arrays (M, 5) float32: x low, y low, x high, y high (pixels) and class number of M objects, or None.
        texts: of each sample, its captions or answers, or None.
        places: (N, 2) float64 longitude and latitude (degrees), or None.
        sha256: of the files read.
        notes: what whoever judges by them should know; a run says it.
        sensors: whose bands they are, as :data:`rsedge.data.band_names.SENSORS` calls them, as far as that is known.
    """

    name: str
    values: Floats
    bands: tuple[str, ...]
    layout: Layout
    sha256: str
    labels: npt.NDArray[np.generic] | None = None
    classes: tuple[str, ...] = ()
    group: npt.NDArray[np.str_] | None = None
    block: npt.NDArray[np.str_] | None = None
    cells: npt.NDArray[np.intp] | None = None
    split: npt.NDArray[np.str_] | None = None
    places: npt.NDArray[np.float64] | None = None
    boxes: tuple[Floats, ...] | None = None
    texts: tuple[tuple[str, ...], ...] | None = None
    gsd_m: float | None = None
    notes: tuple[str, ...] = field(default=())
    sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count, axes = len(self.values), len(self.layout)
        if self.values.ndim != axes + 1:
            raise RequestError(
                f"samples '{self.name}': layout {self.layout} needs {axes + 1} axes, found {self.values.shape}"
            )
        channels = self.values.shape[1 + self.layout.index("C")]
        if channels != len(self.bands):
            raise RequestError(f"samples '{self.name}': {channels} bands need {channels} names, not {len(self.bands)}")
        for what in ("labels", "group", "block", "cells", "split", "places", "boxes", "texts"):
            value = getattr(self, what)
            if value is not None and len(value) != count:
                raise RequestError(f"samples '{self.name}': {len(value)} {what} for {count} samples")

    def __len__(self) -> int:
        return len(self.values)

    def digest(self) -> str:
        """Hash of all that is known of them: the same files may stand in other folders, which name other classes."""
        flat: list[Any] = []
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            for part in value if name == "boxes" and value is not None else [value]:
                flat += [name, getattr(part, "shape", None), part]
        return sha256_with_arrays(flat)

    def published(self) -> npt.NDArray[np.str_] | None:
        """(N,) ``train``, ``selection`` or ``test`` by the publisher's split; None without one, or with one that trains on nothing.

        Raises:
            RequestError: a name that says no role.
        """
        if self.split is None:
            return None
        names = [str(name).strip() for name in self.split.tolist()]
        unknown = sorted({name for name in names if name.casefold() not in PUBLISHED})
        if unknown:
            raise RequestError(
                f"samples '{self.name}': split '{unknown[0]}' is unknown; known: {', '.join(PUBLISHED)}. Rename it in the data, or "
                "leave the field of the split out, so that whole groups are held out"
            )
        roles = np.array([PUBLISHED[name.casefold()] for name in names])
        return roles if (roles == "train").any() else None

    def take(self, index: npt.NDArray[np.intp]) -> Samples:
        """The samples at ``index``, in its order."""
        picked: dict[str, Any] = {
            what: None if (value := getattr(self, what)) is None else value[index]
            for what in ("labels", "group", "block", "cells", "split", "places")
        }
        boxes = None if self.boxes is None else tuple(self.boxes[i] for i in index)
        texts = None if self.texts is None else tuple(self.texts[i] for i in index)
        return replace(self, values=self.values[index], boxes=boxes, texts=texts, **picked)

    def filled(self) -> Samples:
        """Missing values taken from the times before and after, linearly; a band missing at all times stays missing.

        Raises:
            RequestError: the layout has no times.
        """
        if "T" not in self.layout:
            raise RequestError(f"samples '{self.name}': layout {self.layout} has no times to fill gaps from")
        series = np.moveaxis(self.values, 1, -1).copy()
        rows, times = series.reshape(-1, series.shape[-1]), np.arange(series.shape[-1])
        gone = np.isnan(rows)
        for row in np.flatnonzero(gone.any(axis=1) & ~gone.all(axis=1)):
            rows[row, gone[row]] = np.interp(times[gone[row]], times[~gone[row]], rows[row, ~gone[row]])
        return replace(self, values=np.moveaxis(rows.reshape(series.shape), -1, 1))

    def band_values(self, spec: InputSpec) -> list[BandValues]:
        """What the bands of a contract are like over all samples.

        Raises:
            RequestError: a missing band.
        """
        known = name_bands(self.bands, supposed=spec.sensor).names
        axis = 1 + self.layout.index("C")
        chosen = np.take(self.values, spec.select(known, f"samples '{self.name}'"), axis=axis)
        return band_values(np.moveaxis(chosen, axis, 0).reshape(spec.channels, -1), spec)

    def dn(self, spec: InputSpec) -> npt.NDArray[np.generic]:
        """Digital numbers (N, *spec.shape) under a band contract; missing values become each band's nodata.

        Raises:
            RequestError: another layout or shape, a missing band, or a missing value in a band without a nodata value.
        """
        where = f"samples '{self.name}'"
        if self.layout != spec.layout:
            raise RequestError(f"{where}: layout {self.layout}, the model takes {spec.layout}")
        axis = 1 + self.layout.index("C")
        known = name_bands(self.bands, supposed=spec.sensor).names
        chosen = np.take(self.values, spec.select(known, where), axis=axis)
        if chosen.shape[1:] != spec.shape:
            raise RequestError(f"{where}: samples are {chosen.shape[1:]}, the model takes {spec.shape} ({spec.layout})")
        missing = np.isnan(chosen)
        if spec.is_image:
            # As in flight: a model is never shown a part of a pixel.
            missing = np.broadcast_to(missing.any(axis=axis, keepdims=True), chosen.shape)
        dn = spec.to_dn(np.where(missing, np.float32(0), chosen))
        for i, band in enumerate(spec.bands):
            here = (slice(None),) * axis + (i,)
            if not missing[here].any():
                continue
            if band.nodata is None:
                raise RequestError(
                    f"{where}: band '{band.name}' has missing values, and the model has no nodata value for it"
                )
            dn[here] = np.where(missing[here], np.asarray(band.nodata, dn.dtype), dn[here])
        return dn
