"""The bands of an image that a network gives: values in the contract's normalised units, brought back to physical ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rsedge.data.bands import BandSpec, InputSpec
from rsedge.data.errors import RequestError

Floats = npt.NDArray[np.float32]
REFLECTANCE_PEAK = 1.0


@dataclass(frozen=True)
class ImageBands:
    """Some bands of a contract, in the order in which a network gives them.

    Attributes:
        mean, std: (K, 1, 1) float32; physical = normalised * std + mean.
        peak: the largest physical value that images have, by which PSNR and SSIM are taken.
    """

    names: tuple[str, ...]
    mean: Floats
    std: Floats
    peak: float

    @classmethod
    def of(cls, spec: InputSpec, names: Sequence[str]) -> ImageBands:
        """The bands of a contract by their names.

        Raises:
            RequestError: a name that is no band, a normalisation that cannot be undone, or nothing says how large values get.
        """
        if spec.normalisation != "linear" or spec.layout != "CHW":
            raise RequestError(
                f"teacher.input: an image is given back in physical values from layout CHW and normalisation linear, not from "
                f"{spec.layout} and {spec.normalisation}"
            )
        unknown = [name for name in names if name not in spec.band_names]
        if unknown:
            raise RequestError(
                f"teacher.classes: '{unknown[0]}' is no band of the contract ({', '.join(spec.band_names)}), as an image's are"
            )
        bands = [spec.bands[spec.band_names.index(name)] for name in names]
        mean, std = (np.array([getattr(b, what) for b in bands], np.float32)[:, None, None] for what in ("mean", "std"))
        return cls(tuple(names), mean, std, max(_peak(band, spec) for band in bands))

    def physical(self, normalised: npt.NDArray[np.generic]) -> Floats:
        """Values (..., K, H, W) as a network gives them to physical ones."""
        return (normalised.astype(np.float32) * self.std + self.mean).astype(np.float32)

    def normalised(self, physical: Floats) -> Floats:
        """Physical values (..., K, H, W) as a network is to give them."""
        return ((physical - self.mean) / self.std).astype(np.float32)


def _peak(band: BandSpec, spec: InputSpec) -> float:
    if band.valid_range is not None:
        return band.valid_range[1]
    if "reflectance" in spec.quantity:
        return REFLECTANCE_PEAK
    if spec.dtype != "float32":
        return float(np.iinfo(spec.dtype).max) * band.scale + band.offset
    raise RequestError(
        f"teacher.input: band '{band.name}' has no valid_range, so nothing says how large its values get, which PSNR and SSIM go by"
    )
