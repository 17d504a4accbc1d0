"""The graph that flies: raw digital numbers in, logits and a validity mask out.

Scale, offset, mean and std fold into one multiply and one add per band (stretched inputs add a clip and whole levels, per-image
ones a minimum and a maximum); pixels that are nodata in every band enter the
network as 0 (the mean). The form of the mask was chosen by measurement (OpenVINO CPU, 6 x 256 x 256, two threads): a
running maximum over single-band slices and one select cost a third of a logical-and reduction over the band axis.
"""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.bands import LEVEL_SLACK, DType, InputSpec
from rsedge.data.boxes.candidates import width_of
from rsedge.data.errors import RequestError

TORCH_DTYPES: dict[DType, torch.dtype] = {
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.uint16,
    "float32": torch.float32,
}


Output = Literal["map", "vector", "boxes", "oriented", "tokens", "image", "features"]


class Deployable(nn.Module):
    """A network together with its band contract.

    Args:
        net: normalised float32 input in the contract's layout -> logits. It is copied to the CPU in float32 and put in
            evaluation mode; the caller's module stays as it is.
        spec: the contract that the network was trained with.
        output: ``map`` for logits ``(1, K, T, T)``, ``vector`` for class scores or an embedding ``(1, K)``, ``boxes`` for a
            detector's candidates ``(1, A, 5 + K)``, ``oriented`` for those of turned boxes ``(1, A, 5 + K + 2)``, ``tokens``
            for K embeddings ``(1, K, D)`` that a language model reads,
            ``image`` for K bands on a grid k times finer ``(1, K, k T, k T)``, ``features`` for K features on a grid s times
            coarser ``(1, K, T / s, T / s)``.

    Raises:
        RequestError: the network does not give that output for the contract's tile.
    """

    gain: Tensor
    bias: Tensor
    after_gain: Tensor
    after_bias: Tensor

    def __init__(self, net: nn.Module, spec: InputSpec, output: Output = "map") -> None:
        super().__init__()
        self.spec, self.output = spec, output
        self.net = copy.deepcopy(net).cpu().float().eval()
        self.axis = -3 if spec.is_image else -1
        for name, values in zip(("gain", "bias"), folded_affine(spec), strict=True):
            self.register_buffer(name, self._along_bands(values))
        if spec.normalisation != "linear":
            for name, values in zip(("after_gain", "after_bias"), after_stretch(spec), strict=True):
                self.register_buffer(name, self._along_bands(values))
        self.nodata = maskable_nodata(spec)
        self.classes = self._count_classes()
        self.eval()

    def forward(self, dn: Tensor) -> tuple[Tensor, Tensor]:
        """DN ``(1, ...)`` in the contract's layout -> logits float32 and valid uint8, ``(1, T, T)`` for a map."""
        normalised, valid = self.prepare(dn)
        return self.net(normalised).to(torch.float32), valid

    def prepare(self, dn: Tensor) -> tuple[Tensor, Tensor]:
        """DN -> normalised float32 of the same shape and valid uint8, the same without the band axis.

        A map of several dates is valid where each of them is.
        """
        values = dn.to(torch.float32)
        mask = self._mask(values)
        normalised = self._normalise(values, mask)
        if mask is None:
            if self.spec.dtype == "uint16":
                # Changes nothing. OpenVINO's CPU plugin joins conversion and quantizer where nothing lies between, and has no
                # such kernel for uint16.
                normalised = torch.where(values.narrow(self.axis, 0, 1) >= 0, normalised, 0.0)
            return normalised, torch.ones(self._valid_shape(), dtype=torch.uint8)
        return torch.where(mask, normalised, 0.0), self._on_all_dates(mask.squeeze(self.axis)).to(torch.uint8)

    @property
    def _joins_dates(self) -> bool:
        return self.output == "map" and self.spec.layout == "TCHW"

    def _valid_shape(self) -> tuple[int, ...]:
        sizes = [s for s, axis in zip(self.spec.shape, self.spec.layout, strict=True) if axis != "C"]
        return (1, *sizes[1:]) if self._joins_dates else (1, *sizes)

    def _on_all_dates(self, seen: Tensor) -> Tensor:
        """Dates (1, T, H, W) joined to (1, H, W) where the output is one map."""
        if not self._joins_dates:
            return seen
        joined = seen[:, 0]
        for date in range(1, self.spec.frames):
            joined = joined & seen[:, date]
        return joined

    def _normalise(self, values: Tensor, mask: Tensor | None) -> Tensor:
        scaled = values * self.gain + self.bias
        if self.spec.normalisation == "linear":
            return scaled
        if self.spec.normalisation == "stretch":
            scaled = scaled.clamp(0.0, float(self.spec.levels or 1))
            stretched = torch.floor(scaled + LEVEL_SLACK) if self.spec.levels else scaled
        else:
            low = scaled if mask is None else torch.where(mask, scaled, torch.finfo(torch.float32).max)
            high = scaled if mask is None else torch.where(mask, scaled, -torch.finfo(torch.float32).max)
            least = low.amin((-2, -1), keepdim=True)
            span = high.amax((-2, -1), keepdim=True) - least
            stretched = (scaled - least) / torch.where(span > 0, span, 1.0)
        return stretched * self.after_gain + self.after_bias

    def _along_bands(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values[:, None, None] if self.spec.is_image else values)[None]

    def _mask(self, values: Tensor) -> Tensor | None:
        """True where some band is not nodata, band axis kept at size 1; None when every pixel is valid by contract."""
        if self.nodata is None:
            return None
        bands = torch.split(values, 1, dim=self.axis)
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
            logits = self.net(torch.zeros(1, *self.spec.shape))
        if self.output in ("boxes", "oriented"):
            return _count_box_classes(logits, self.output == "oriented")
        wanted = {
            "map": f"logits (1, K, {tile}, {tile}) for its {tile}-pixel tile",
            "vector": "a vector (1, K)",
            "tokens": "tokens (1, K, D)",
            "image": f"an image (1, K, k {tile}, k {tile}), k whole, for its {tile}-pixel tile",
            "features": f"a map of features (1, K, {tile} / s, {tile} / s), s whole, for its {tile}-pixel tile",
        }[self.output]
        axes = {"map": 4, "vector": 2, "tokens": 3, "image": 4, "features": 4}[self.output]
        fits = isinstance(logits, Tensor) and logits.ndim == axes
        if fits and axes == 4:
            edge = {"image": max(1, logits.shape[2] // tile) * tile, "features": divisor(tile, logits.shape[2])}
            fits = tuple(logits.shape[2:]) == (edge.get(self.output, tile),) * 2
        if not fits:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise RequestError(f"the network must give {wanted}; it gave {got}")
        return int(logits.shape[1])


def divisor(tile: int, edge: int) -> int:
    """``edge`` where a tile holds it a whole number of times, else 0."""
    return 0 if edge < 1 or tile % edge else edge


def _count_box_classes(candidates: object, oriented: bool) -> int:
    beside = width_of(0, oriented)
    if not isinstance(candidates, Tensor) or candidates.ndim != 3 or candidates.shape[2] <= beside:
        got = tuple(candidates.shape) if isinstance(candidates, Tensor) else type(candidates).__name__
        turn = " + 2" if oriented else ""
        raise RequestError(f"a detector must give candidates (1, A, 5 + classes{turn}); it gave {got}")
    return int(candidates.shape[2]) - beside


def folded_affine(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Gain and bias per band, float32 ``(C,)``, folded in float64.

    ``DN * gain + bias`` is the normalised value, or what is still to be stretched: levels, or the physical value for
    ``image_minmax``.
    """
    scale, offset, mean, std = (
        np.array([getattr(band, field) for band in spec.bands], dtype=np.float64)
        for field in ("scale", "offset", "mean", "std")
    )
    if spec.normalisation == "image_minmax":
        return scale.astype(np.float32), offset.astype(np.float32)
    if spec.normalisation == "stretch":
        ends = np.array([band.stretch for band in spec.bands], dtype=np.float64)
        mean, std = ends[:, 0], (ends[:, 1] - ends[:, 0]) / (spec.levels or 1)
    return (scale / std).astype(np.float32), ((offset - mean) / std).astype(np.float32)


def after_stretch(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Gain and bias per band, float32 ``(C,)``, that make stretched values (levels, or 0..1) normalised ones."""
    mean, std = (np.array([getattr(band, field) for band in spec.bands], dtype=np.float64) for field in ("mean", "std"))
    levels = spec.levels or 1
    return (1 / (levels * std)).astype(np.float32), (-mean / std).astype(np.float32)


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
