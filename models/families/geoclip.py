"""GeoCLIP's location encoder: Equal Earth projection, random Fourier features at three scales, three MLPs, summed.

Source: Vivanco Cepeda, Nayak & Shah (2023), "GeoCLIP"; the projection is that of Savric, Patterson & Jenny (2018), "The Equal
Earth map projection". GAIR (Liu et al. 2025) has the same encoder with another width and longitude first.

The features' phases reach thousands of radians, so projection and features must stay in float32: half precision there
leaves a median cosine of 0.91 to the encoder. Both are written without a matrix product. Quantization and fp16 typing begin
at the first matrix product of a graph, and so leave them alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, vectors

POLYNOMIAL = (1.340264, -0.081106, 0.000893, 0.003796)
"""A1 to A4 of the Equal Earth projection."""
SCALE = 66.50336
RADIANS = math.pi / 180


def equal_earth(latitude: Tensor, longitude: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees -> x and y of the Equal Earth projection, scaled as GeoCLIP scales them; every shape is kept."""
    a1, a2, a3, a4 = POLYNOMIAL
    root = math.sqrt(3)
    theta = torch.asin(root / 2 * torch.sin(latitude * RADIANS))
    # Powers and products in the published order: the phases that follow magnify every rounding some thousand times.
    slope = 3 * (9 * a4 * theta**8 + 7 * a3 * theta**6 + 3 * a2 * theta**2 + a1)
    x = 2 * root * (longitude * RADIANS) * torch.cos(theta) / slope
    y = a4 * theta**9 + a3 * theta**7 + a2 * theta**3 + a1 * theta
    return x * SCALE / 180, y * SCALE / 180


class Directions(nn.Module):
    """The fixed random directions (count, 2) of one scale's Fourier features."""

    def __init__(self, count: int, sigma: float) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.randn(count, 2) * sigma, requires_grad=False)


class Capsule(nn.Module):
    """One scale: its directions, the MLP over cosines and sines along them, and its head."""

    def __init__(self, sigma: float, dim: int, width: int, count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [Directions(count, sigma)]
        for size in (2 * count, width, width):
            layers += [nn.Linear(size, width), nn.ReLU()]
        self.capsule = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(width, dim))

    def forward(self, features: Tensor) -> Tensor:
        """(N, 2 * count) -> what the head takes, (N, width)."""
        for layer in self.capsule[1:]:
            features = layer(features)
        return features


class LocationEncoder(nn.Module):
    """Degrees (N, 2) -> embedding (N, dim).

    Args:
        dim: of the embedding.
        latitude_first: order of the two columns.
        sigmas: spread of the directions, one capsule each.
        width: of the MLPs.
        count: directions per capsule.
    """

    def __init__(
        self,
        dim: int = 512,
        latitude_first: bool = True,
        sigmas: Sequence[float] = (1, 16, 256),
        width: int = 1024,
        count: int = 256,
    ) -> None:
        super().__init__()
        self.latitude_first, self.count, self.scales = latitude_first, count, len(sigmas)
        for index, sigma in enumerate(sigmas):
            self.add_module(f"LocEnc{index}", Capsule(sigma, dim, width, count))

    def forward(self, degrees: Tensor) -> Tensor:
        first, second = degrees[:, :1], degrees[:, 1:2]
        x, y = equal_earth(first, second) if self.latitude_first else equal_earth(second, first)
        capsules = [self.get_submodule(f"LocEnc{i}") for i in range(self.scales)]
        b = torch.cat([self.get_parameter(f"LocEnc{i}.capsule.0.b") for i in range(self.scales)])
        phase = (2 * math.pi * x) * b[:, 0] + (2 * math.pi * y) * b[:, 1]
        cosines, sines = (part.split(self.count, dim=-1) for part in (torch.cos(phase), torch.sin(phase)))
        hidden = [c(torch.cat(pair, dim=-1)) for c, *pair in zip(capsules, cosines, sines, strict=True)]
        # Stacked, then summed: OpenVINO 2026.4 crashes on one thread where it fuses a sum of vectors with products (AVX2, 2026-11).
        return torch.stack([c.get_submodule("head")(h) for c, h in zip(capsules, hidden, strict=True)]).sum(0)


def features(net: nn.Module, shape: Shape) -> Features:
    """Each scale's hidden layer and head."""
    assert isinstance(net, LocationEncoder)
    found = []
    for i in range(net.scales):
        head = net.get_submodule(f"LocEnc{i}.head.0")
        assert isinstance(head, nn.Linear)
        found += [(f"LocEnc{i}", head.in_features), (f"LocEnc{i}.head", head.out_features)]
    return vectors(*found)


FAMILY = Family(LocationEncoder, features=features)
