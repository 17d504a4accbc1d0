"""The graph that flies: raw digital numbers in, logits and a validity mask out.

Scale, offset, mean and std fold into one multiply and one add per band; pixels that are nodata in every band enter the
network as 0 (the mean). The form of the mask was chosen by measurement (OpenVINO CPU, 6 x 256 x 256, two threads): a
running maximum over single-band slices and one select cost a third of a logical-and reduction over the band axis.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.bands import DType, InputSpec
from rsedge.data.errors import RequestError

TORCH_DTYPES: dict[DType, torch.dtype] = {
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.uint16,
    "float32": torch.float32,
}


class Deployable(nn.Module):
    """A network together with its band contract.

    Args:
        net: normalised float32 ``(1, C, T, T)`` -> logits ``(1, K, T, T)``. It is copied to the CPU in float32 and put
            in evaluation mode; the caller's module stays as it is.
        spec: the contract that the network was trained with.

    Raises:
        RequestError: the network does not give ``(1, K, T, T)`` logits for the contract's tile.
    """

    gain: Tensor
    bias: Tensor

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec
        self.net = copy.deepcopy(net).cpu().float().eval()
        gain, bias = folded_affine(spec)
        self.register_buffer("gain", torch.from_numpy(gain)[None, :, None, None])
        self.register_buffer("bias", torch.from_numpy(bias)[None, :, None, None])
        self.nodata = maskable_nodata(spec)
        self.classes = self._count_classes()
        self.eval()

    def forward(self, dn: Tensor) -> tuple[Tensor, Tensor]:
        """DN ``(1, C, T, T)`` -> logits float32 ``(1, K, T, T)`` and valid uint8 ``(1, T, T)``."""
        normalised, valid = self.prepare(dn)
        return self.net(normalised).to(torch.float32), valid

    def prepare(self, dn: Tensor) -> tuple[Tensor, Tensor]:
        """DN ``(1, C, T, T)`` -> normalised float32 of the same shape and valid uint8 ``(1, T, T)``."""
        values = dn.to(torch.float32)
        normalised = values * self.gain + self.bias
        mask = self._mask(values)
        if mask is None:
            return normalised, torch.ones(1, self.spec.tile, self.spec.tile, dtype=torch.uint8)
        return torch.where(mask, normalised, 0.0), mask.squeeze(1).to(torch.uint8)

    def _mask(self, values: Tensor) -> Tensor | None:
        """True where some band is not nodata, ``(1, 1, T, T)``; None when every pixel is valid by contract."""
        if self.nodata is None:
            return None
        bands = torch.split(values, 1, dim=1)
        if self.spec.dtype == "float32":  # exact comparison: differences may be NaN or underflow
            differs = [band != nodata for band, nodata in zip(bands, self.nodata, strict=True)]
            mask = differs[0]
            for other in differs[1:]:
                mask = mask | other
            return mask
        distances = [self._distance(band, nodata) for band, nodata in zip(bands, self.nodata, strict=True)]
        largest = distances[0]
        for distance in distances[1:]:
            largest = torch.maximum(largest, distance)
        return largest > 0

    def _distance(self, band: Tensor, nodata: float) -> Tensor:
        if nodata == 0:
            return band if self.spec.dtype in ("uint8", "uint16") else band.abs()
        return (band - nodata).abs()

    def _count_classes(self) -> int:
        tile = self.spec.tile
        with torch.no_grad():
            logits = self.net(torch.zeros(1, self.spec.channels, tile, tile))
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[2:] != (tile, tile):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise RequestError(
                f"the network must give logits (1, K, {tile}, {tile}) for its {tile}-pixel tile; it gave {got}"
            )
        return int(logits.shape[1])


def folded_affine(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Gain and bias per band, float32 ``(C,)``, so that ``normalised = DN * gain + bias``; folded in float64."""
    scale, offset, mean, std = (
        np.array([getattr(band, field) for band in spec.bands], dtype=np.float64)
        for field in ("scale", "offset", "mean", "std")
    )
    return (scale / std).astype(np.float32), ((offset - mean) / std).astype(np.float32)


def maskable_nodata(spec: InputSpec) -> tuple[float, ...] | None:
    """Nodata DN per band, or None where no pixel can be nodata in every band.

    That is so when a band has no nodata value, or one that its DN type cannot hold (for example -9999 in uint16).
    """
    values = [band.nodata for band in spec.bands if band.nodata is not None]
    if len(values) < spec.channels or any(np.isnan(v) for v in values):
        return None
    if spec.dtype != "float32":
        info = np.iinfo(spec.dtype)
        if any(not float(v).is_integer() or not info.min <= v <= info.max for v in values):
            return None
    return tuple(float(v) for v in values)
