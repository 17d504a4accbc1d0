"""The band contract: what a model's input axis means, so that no bare channel count ever travels.

An :class:`InputSpec` goes with every artefact (ONNX ``metadata_props``, OpenVINO ``rt_info``, bundle manifest). It says
how digital numbers (DN) become physical values (``physical = DN * scale + offset``) and how those are normalised; both are
baked into exported graphs, so that flight code passes raw DN.
"""

from __future__ import annotations

import collections
import difflib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from rsedge.data.band_names import name_bands, sensor_key
from rsedge.data.errors import RequestError
from rsedge.data.record import Record

DType = Literal["uint8", "int16", "uint16", "float32"]
Layout = Literal["CHW", "TCHW", "TC", "C"]
Normalisation = Literal["linear", "stretch", "image_minmax"]
LEVEL_SLACK = 1e-3
"""Part of a level added before cutting to whole levels, so that rounding does not move values that are whole already."""


class BandSpec(Record):
    """One band: its name, where it looks, and how its digital numbers become a normalised value."""

    name: str = Field(description="as the file names it, or a common name")
    wavelength_nm: float | None = Field(default=None, gt=0, description="centre wavelength (nm)")
    polarisation: Literal["VV", "VH", "HH", "HV"] | None = Field(default=None, description="of a radar band")
    gsd_m: float | None = Field(default=None, gt=0, description="ground sampling distance (m)")
    scale: float = Field(default=1.0, description="physical = DN * scale + offset")
    offset: float = Field(default=0.0, description="see scale")
    nodata: float | None = Field(default=None, description="DN that marks a missing pixel")
    valid_range: tuple[float, float] | None = Field(default=None, description="physical values a sensor can deliver")
    stretch: tuple[float, float] | None = Field(default=None, description="physical values that become 0 and 1")
    mean: float = Field(default=0.0, description="of the values after stretching, if any; else of the physical values")
    std: float = Field(default=1.0, gt=0, description="of the same values")
    sensor: str | None = Field(default=None, description="whose band it is, e.g. sentinel-2")

    @model_validator(mode="after")
    def _check(self) -> BandSpec:
        if self.scale == 0:
            raise ValueError(f"band '{self.name}': scale must not be 0")
        if self.valid_range and self.valid_range[0] >= self.valid_range[1]:
            raise ValueError(f"band '{self.name}': valid_range must be (low, high) with low < high")
        if self.stretch and self.stretch[0] >= self.stretch[1]:
            raise ValueError(f"band '{self.name}': stretch must be (low, high) with low < high")
        return self


class InputSpec(Record):
    """What a model takes: its bands in order, DN type, tile size in pixels and the GSD range (m) it was made for.

    Layouts, batch axis left out: ``CHW`` an image; ``TCHW`` images of several times; ``TC`` one pixel's time series; ``C`` one
    vector, such as a place. Normalisations, each followed by ``(value - mean) / std``:

    - ``linear``: the physical value as it is;
    - ``stretch``: each band's ``stretch`` to 0..1, clipped; with ``levels`` cut to whole levels, as an 8-bit image would be;
    - ``image_minmax``: each band's smallest and largest valid value in the image (tile, frame) to 0..1.
    """

    bands: tuple[BandSpec, ...] = Field(min_length=1, description="in order")
    layout: Layout = Field(default="CHW", description="axes of one input, batch axis left out")
    dtype: DType = Field(default="uint16", description="of digital numbers")
    tile: int = Field(default=256, ge=1, description="tile edge (pixels); at least 16 for images")
    frames: int = Field(default=1, ge=1, description="times, in layouts with a T")
    quantity: str = Field(default="toa_reflectance", description="physical quantity after scale and offset")
    gsd_range_m: tuple[float, float] | None = Field(default=None, description="GSD the model may be used at (m)")
    normalisation: Normalisation = Field(default="linear", description="of physical values, before mean and std")
    levels: int | None = Field(default=None, ge=1, description="whole levels after stretching, 255 for 8 bits")

    @model_validator(mode="after")
    def _check(self) -> InputSpec:
        names = self.band_names
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"band names occur twice: {', '.join(twice)}")
        if self.is_image and self.tile < 16:
            raise ValueError(f"tile: an image needs at least 16 pixels, not {self.tile}")
        if self.frames > 1 and "T" not in self.layout:
            raise ValueError(f"frames: layout {self.layout} has no times")
        unstretched = [b.name for b in self.bands if b.stretch is None]
        if self.normalisation == "stretch" and unstretched:
            raise ValueError(f"normalisation stretch: no stretch for {', '.join(unstretched)}")
        if self.normalisation != "stretch" and (self.levels or len(unstretched) < len(names)):
            raise ValueError(f"levels and the bands' stretch go with normalisation stretch, not {self.normalisation}")
        if self.normalisation == "image_minmax" and not self.is_image:
            raise ValueError(f"normalisation image_minmax needs an image, not layout {self.layout}")
        return self

    @property
    def is_image(self) -> bool:
        return self.layout.endswith("CHW")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, batch axis left out, axes as in ``layout``."""
        sizes = {"T": self.frames, "C": self.channels, "H": self.tile, "W": self.tile}
        return tuple(sizes[axis] for axis in self.layout)

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(b.name for b in self.bands)

    @property
    def channels(self) -> int:
        return len(self.bands)

    def vector(self, field: Literal["scale", "offset", "mean", "std"]) -> npt.NDArray[np.float32]:
        """One number per band as float32, shape (C,)."""
        return np.array([getattr(b, field) for b in self.bands], dtype=np.float32)

    @property
    def nodata(self) -> float | None:
        """The DN that marks a missing pixel in every band, or None."""
        values = {b.nodata for b in self.bands}
        return values.pop() if len(values) == 1 else None

    @property
    def sensor(self) -> str | None:
        """The sensor that all bands are of, as :func:`rsedge.data.band_names.sensor_key` writes it, or None."""
        found = {b.sensor for b in self.bands}
        only = found.pop() if len(found) == 1 else None
        return None if only is None else sensor_key(only)

    @property
    def common_names(self) -> tuple[str, ...]:
        """The bands' names as :func:`rsedge.data.band_names.name_bands` reads them; as they stand where two would be the same."""
        waves = [b.wavelength_nm for b in self.bands]
        names = name_bands(self.band_names, self.sensor, wavelengths_nm=waves).names
        return tuple(n if names.count(n) == 1 else own for n, own in zip(names, self.band_names, strict=True))

    def missing(self, available: Sequence[str]) -> list[str]:
        """Bands that are not among the names."""
        pairs = zip(self.band_names, self.common_names, strict=True)
        return [name for name, common in pairs if name not in available and common not in available]

    def without(self, names: Sequence[str]) -> InputSpec:
        """The contract of the other bands; as it is where none of its bands would be left."""
        kept = tuple(b for b in self.bands if b.name not in names)
        return self.model_copy(update={"bands": kept}) if 0 < len(kept) < self.channels else self

    def select(self, available: Sequence[str], where: str, advice: str = "") -> list[int]:
        """Indices into ``available`` (common names, or the contract's own) that give this contract's bands in order.

        Raises:
            RequestError: a band is missing or ambiguous; names ``where``, the band and the nearest names, then ``advice``.
        """
        found = list(available)
        indices = []
        for name, common in zip(self.band_names, self.common_names, strict=True):
            hits = [i for i, a in enumerate(found) if a == name] or [i for i, a in enumerate(found) if a == common]
            if len(hits) > 1:
                raise RequestError(f"{where}: band '{name}' occurs {len(hits)} times in {_listed(found)}{advice}")
            if not hits:
                near = difflib.get_close_matches(common, [f for f in found if f], n=1)
                hint = f" (nearest: '{near[0]}')" if near else ""
                raise RequestError(
                    f"{where}: band '{name}' is missing{hint}; the model needs {', '.join(self.band_names)}, "
                    f"the file has {_listed(found)}{advice}"
                )
            indices.append(hits[0])
        return indices

    def _along_bands(self, values: Sequence[float] | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One number per band, shaped to be combined with arrays in this layout."""
        found = np.asarray(values, dtype=np.float32)
        return found[:, None, None] if self.is_image else found

    def to_physical(self, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """DN in this layout, (..., C, H, W) for images, to physical values, float32."""
        scale, offset = self._along_bands(self.vector("scale")), self._along_bands(self.vector("offset"))
        return (dn.astype(np.float32) * scale + offset).astype(np.float32)

    def to_dn(self, physical: npt.NDArray[np.floating]) -> npt.NDArray[np.generic]:
        """Physical values to DN of the contract's dtype, rounded and clipped off the nodata value."""
        scale, offset = self._along_bands(self.vector("scale")), self._along_bands(self.vector("offset"))
        dn = (physical - offset) / scale
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return dn.astype(dtype)
        info = np.iinfo(dtype)
        low = max(info.min, 1) if self.nodata == 0 else info.min
        return np.clip(np.rint(dn), low, info.max).astype(dtype)

    def missing_dn(self) -> npt.NDArray[np.generic]:
        """DN (C,) of a missing pixel: nodata, or the mean where a band has none."""
        mean = self.to_dn(self.neutral()[:, None, None] if self.is_image else self.neutral()).reshape(-1)
        nodata = [m if b.nodata is None else b.nodata for b, m in zip(self.bands, mean, strict=True)]
        return np.array(nodata, dtype=self.dtype)

    def neutral(self) -> npt.NDArray[np.float32]:
        """Physical values (C,) that normalise to 0; for ``image_minmax``, where none do in general, 0."""
        mean = self.vector("mean")
        if self.normalisation == "linear":
            return mean
        if self.normalisation == "image_minmax":
            return np.zeros(self.channels, dtype=np.float32)
        low, high = self.stretches()
        return low + mean * (high - low)

    def normalised_nodata(self) -> list[float | None]:
        """Per band the normalised value that a missing sample arrives as where others of its pixel are there.

        None where a band has no nodata value, or where normalisation does not keep it apart (``stretch`` clips it,
        ``image_minmax`` depends on the image).
        """
        if self.normalisation != "linear":
            return [None] * self.channels
        return [None if b.nodata is None else (b.nodata * b.scale + b.offset - b.mean) / b.std for b in self.bands]

    def stretches(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Low and high ends of the bands' stretch, each (C,)."""
        ends = np.array([b.stretch or (0.0, 1.0) for b in self.bands], dtype=np.float32)
        return ends[:, 0], ends[:, 1]

    def normalise(self, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """DN in this layout to normalised float32; pixels that are nodata in every band become 0."""
        mean, std = self._along_bands(self.vector("mean")), self._along_bands(self.vector("std"))
        valid = np.expand_dims(self.valid(dn), -3 if self.is_image else -1)
        out = (self._stretched(self.to_physical(dn), valid) - mean) / std
        return np.where(valid, out, np.float32(0)).astype(np.float32)

    def _stretched(self, physical: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        if self.normalisation == "linear":
            return physical
        if self.normalisation == "image_minmax":
            low = np.where(valid, physical, np.float32(np.inf)).min((-2, -1), keepdims=True)
            high = np.where(valid, physical, np.float32(-np.inf)).max((-2, -1), keepdims=True)
            span = np.where(high > low, high - low, np.float32(1))
            return np.where(valid, (physical - low) / span, np.float32(0))
        low, high = (self._along_bands(ends) for ends in self.stretches())
        unit = np.clip((physical - low) / (high - low), 0, 1)
        if self.levels is None:
            return unit
        return np.asarray(np.floor(unit * self.levels + LEVEL_SLACK) / self.levels, dtype=np.float32)

    def valid(self, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
        """Mask without the band axis, True where at least one band of DN is not nodata."""
        bands = np.moveaxis(dn, -3 if self.is_image else -1, 0)
        keep = [np.not_equal(band, b.nodata) for band, b in zip(bands, self.bands, strict=True) if b.nodata is not None]
        if len(keep) < self.channels:
            return np.ones(bands.shape[1:], dtype=np.bool_)
        return np.logical_or.reduce(keep)


def _listed(names: Sequence[str]) -> str:
    """Names in their order, each once: ``red, nir, (unnamed) (10 times)``."""
    counts = collections.Counter(name or "(unnamed)" for name in names)
    return ", ".join(name if n == 1 else f"{name} ({n} times)" for name, n in counts.items())
