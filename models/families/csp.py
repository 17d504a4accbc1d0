"""CSP's location encoder: sines and cosines of longitude and latitude at geometric scales (Space2Vec grid), then an MLP.

Sources: Mai et al. (2023), "CSP: contrastive spatial pre-training"; Mai et al. (2020), "Space2Vec". The published code leaves
torch for numpy in the forward pass; here the features are torch, with phases reduced to one turn before they are rounded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.architecture import Arch, Shapes
from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, vectors

ACTIVATIONS: dict[str, nn.Module] = {
    "gelu": nn.GELU(), "leakyrelu": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(),
}  # fmt: skip
COARSE_STEPS = 2.0**12
"""Steps of the coarse part: times whole degrees (8 bits) it is exact in float32."""


class Grid(nn.Module):
    """Degrees (N, 2) -> (N, 4 * frequencies): per coordinate, per scale from small to large, sine and cosine.

    Args:
        shortest, longest: scales in degrees per radian of phase.

    Raises:
        RequestError: they are none.
    """

    coarse: Tensor
    fine: Tensor

    def __init__(self, frequencies: int, shortest: float, longest: float) -> None:
        super().__init__()
        if not all(_plain(number) for number in (frequencies, shortest, longest)) or frequencies < 2:
            raise RequestError(
                f"CSP: {frequencies!r} frequencies between {shortest!r} and {longest!r} are no scales; two or more, "
                "between numbers above 0"
            )
        steps = np.arange(frequencies) / (frequencies - 1)
        turns = 1 / (shortest * (longest / shortest) ** steps) / (2 * math.pi)
        coarse = np.round(turns * COARSE_STEPS) / COARSE_STEPS
        self.register_buffer("coarse", torch.tensor(coarse, dtype=torch.float32), persistent=False)
        self.register_buffer("fine", torch.tensor(turns - coarse, dtype=torch.float32), persistent=False)

    def forward(self, degrees: Tensor) -> Tensor:
        whole = torch.floor(degrees)
        turns = fraction(whole[..., None] * self.coarse)
        turns = turns + (degrees - whole)[..., None] * self.coarse + degrees[..., None] * self.fine
        phase = fraction(turns) * (2 * math.pi)
        return torch.stack([torch.sin(phase), torch.cos(phase)], dim=-1).flatten(1)


def _plain(number: Any) -> bool:
    """Whether a file's setting is a number above 0."""
    return isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf


def fraction(turns: Tensor) -> Tensor:
    """What is left of ``turns`` after whole ones, -0.5 to 0.5."""
    return turns - torch.floor(turns + 0.5)


class Layer(nn.Module):
    """A linear layer, its activation and, in hidden layers, layer norm."""

    def __init__(self, inputs: int, outputs: int, activation: str, norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.act = ACTIVATIONS[activation]
        self.layernorm = nn.LayerNorm(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layernorm(self.act(self.linear(x)))  # type: ignore[no-any-return]


class LocationEncoder(nn.Module):
    """Degrees longitude, latitude (N, 2) -> embedding (N, dim); the last layer has the activation too."""

    def __init__(
        self,
        frequencies: int = 32,
        shortest: float = 0.1,
        longest: float = 360.0,
        width: int = 512,
        dim: int = 256,
        activation: str = "gelu",
        norm: bool = False,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise RequestError(f"CSP: activation '{activation}' is unknown; known: {', '.join(ACTIVATIONS)}")
        self.grid = Grid(frequencies, shortest, longest)
        self.layers = nn.ModuleList(
            [Layer(4 * frequencies, width, activation, norm), Layer(width, dim, activation, False)]
        )

    def forward(self, degrees: Tensor) -> Tensor:
        x = self.grid(degrees)
        for layer in self.layers:
            x = layer(x)
        return x


def fit(arch: Arch, shapes: Shapes) -> Arch:
    """Layer norm was a training option; the file says whether it is there."""
    found: dict[str, Any] = {"norm": "layers.0.layernorm.weight" in shapes}
    return arch | found


def features(net: nn.Module, shape: Shape) -> Features:
    """Both layers."""
    assert isinstance(net, LocationEncoder)
    widths = [layer.linear.out_features for layer in net.layers if isinstance(layer, Layer)]
    return vectors(*((f"layers.{i}", width) for i, width in enumerate(widths)))


FAMILY = Family(LocationEncoder, fit, features=features)
