"""The band contract: what a model's input axis means, so that no bare channel count ever travels.

An :class:`InputSpec` goes with every artefact (ONNX ``metadata_props``, OpenVINO ``rt_info``, bundle manifest). It says
how digital numbers (DN) become physical values (``physical = DN * scale + offset``) and how those are normalised
(``(physical - mean) / std``); both are baked into exported graphs, so that flight code passes raw DN.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rsedge.data.errors import RequestError

DType = Literal["uint8", "int16", "uint16", "float32"]

# Names that sensors and file writers use for the common-name bands of this project.
BAND_ALIASES: dict[str, tuple[str, ...]] = {
    "coastal": ("b1", "b01", "aerosol", "coastal_aerosol", "ultra_blue"),
    "blue": ("b2", "b02"),
    "green": ("b3", "b03"),
    "red": ("b4", "b04"),
    "rededge1": ("b5", "b05", "rededge", "red_edge_1", "rededge705"),
    "rededge2": ("b6", "b06", "red_edge_2", "rededge740"),
    "rededge3": ("b7", "b07", "red_edge_3", "rededge783"),
    "nir": ("b8", "b08", "nir08_broad"),
    "nir08": ("b8a", "narrow_nir", "nir_narrow"),
    "watervapour": ("b9", "b09", "nir09", "water_vapor"),
    "cirrus": ("b10",),
    "swir16": ("b11", "swir1", "swir_1"),
    "swir22": ("b12", "swir2", "swir_2"),
}


def canonical_band(name: str, sensor: str | None = None) -> str:
    """The common name of a band, e.g. ``B02`` -> ``blue``.

    Bare numbers such as ``B5`` mean another band on each sensor; they are read as Sentinel-2 names only when
    ``sensor`` is ``"sentinel-2"``, and otherwise come back unchanged (lower case).
    """
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    for common, aliases in BAND_ALIASES.items():
        if key == common:
            return common
        if key in aliases and (sensor == "sentinel-2" or not key.startswith("b")):
            return common
    return key


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BandSpec(_Frozen):
    """One band: its name, where it looks, and how its digital numbers become a normalised value."""

    name: str
    wavelength_nm: float | None = Field(default=None, gt=0, description="centre wavelength (nm)")
    polarisation: Literal["VV", "VH", "HH", "HV"] | None = None
    gsd_m: float | None = Field(default=None, gt=0, description="ground sampling distance (m)")
    scale: float = Field(default=1.0, description="physical = DN * scale + offset")
    offset: float = 0.0
    nodata: float | None = Field(default=None, description="DN that marks a missing pixel")
    valid_range: tuple[float, float] | None = Field(default=None, description="physical values a sensor can deliver")
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    sensor: str | None = None

    @model_validator(mode="after")
    def _check(self) -> BandSpec:
        if self.scale == 0:
            raise ValueError(f"band '{self.name}': scale must not be 0")
        if self.valid_range and self.valid_range[0] >= self.valid_range[1]:
            raise ValueError(f"band '{self.name}': valid_range must be (low, high) with low < high")
        return self


class InputSpec(_Frozen):
    """What a model takes: its bands in order, DN type, tile size in pixels and the GSD range (m) it was made for."""

    bands: tuple[BandSpec, ...] = Field(min_length=1)
    layout: Literal["CHW"] = "CHW"
    dtype: DType = "uint16"
    tile: int = Field(default=256, ge=16, description="tile edge (pixels)")
    quantity: str = Field(default="toa_reflectance", description="physical quantity after scale and offset")
    gsd_range_m: tuple[float, float] | None = Field(default=None, description="GSD the model may be used at (m)")

    @model_validator(mode="after")
    def _check(self) -> InputSpec:
        names = self.band_names
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"band names occur twice: {', '.join(twice)}")
        return self

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

    def select(self, available: Sequence[str], where: str) -> list[int]:
        """Indices into ``available`` that give this contract's bands in order.

        Raises:
            RequestError: a band is missing or ambiguous; names ``where``, the band and the nearest names.
        """
        found = list(available)
        indices = []
        for name in self.band_names:
            hits = [i for i, a in enumerate(found) if a == name]
            if len(hits) > 1:
                raise RequestError(f"{where}: band '{name}' occurs {len(hits)} times in {found}")
            if not hits:
                near = difflib.get_close_matches(name, [f for f in found if f], n=1)
                hint = f" (nearest: '{near[0]}')" if near else ""
                raise RequestError(
                    f"{where}: band '{name}' is missing{hint}; the model needs {', '.join(self.band_names)}, "
                    f"the file has {', '.join(f or '(unnamed)' for f in found)}. "
                    "Name the file's bands in its order with --bands, e.g. --bands "
                    f"{','.join(self.band_names)}"
                )
            indices.append(hits[0])
        return indices

    def to_physical(self, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """DN of shape (..., C, H, W) to physical values, float32."""
        scale, offset = self.vector("scale")[:, None, None], self.vector("offset")[:, None, None]
        return (dn.astype(np.float32) * scale + offset).astype(np.float32)

    def to_dn(self, physical: npt.NDArray[np.floating]) -> npt.NDArray[np.generic]:
        """Physical values (..., C, H, W) to DN of the contract's dtype, rounded and clipped off the nodata value."""
        scale, offset = self.vector("scale")[:, None, None], self.vector("offset")[:, None, None]
        dn = (physical - offset) / scale
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return dn.astype(dtype)
        info = np.iinfo(dtype)
        low = max(info.min, 1) if self.nodata == 0 else info.min
        return np.clip(np.rint(dn), low, info.max).astype(dtype)

    def normalise(self, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """DN (..., C, H, W) to normalised float32; pixels that are nodata in every band become 0 (the mean)."""
        mean, std = self.vector("mean")[:, None, None], self.vector("std")[:, None, None]
        out = (self.to_physical(dn) - mean) / std
        return np.where(self.valid(dn)[..., None, :, :], out, np.float32(0)).astype(np.float32)

    def valid(self, dn: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
        """Mask (..., H, W), True where at least one band of DN (..., C, H, W) is not nodata."""
        keep = [np.not_equal(dn[..., i, :, :], b.nodata) for i, b in enumerate(self.bands) if b.nodata is not None]
        if len(keep) < self.channels:
            return np.ones(dn.shape[:-3] + dn.shape[-2:], dtype=np.bool_)
        return np.logical_or.reduce(keep)
