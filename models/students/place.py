"""A student for places: Fourier features of the point on the unit sphere, then an MLP.

Fourier features after Tancik et al. (2020). On the sphere there is no seam at 180 degrees and no pole that is a line. Phases
reach hundreds of radians and need float32; they come before the first matrix product, where quantization and fp16 begin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rsedge.data.errors import RequestError
from rsedge.models.students.columns import Angles


class _Residual(nn.Module):
    """Two linear layers around a shortcut: (N, width) -> same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        more = self.fc2(torch.relu(self.fc1(x)))
        # x + more. OpenVINO 2026.4 crashes on one thread where it fuses a sum of vectors with a product (AVX2, checked 2026-11).
        return torch.relu(torch.stack([x, more]).sum(0))


class PlaceMLP(nn.Module):
    """Latitude and longitude (N, 2), in the order that ``angles`` says -> (N, classes).

    Args:
        angles: ``[column, gain, offset]`` of both, latitude first; ``value * gain + offset`` is in radians.
        scales: spread of the random directions, in waves per radian; one set of ``count`` directions each.
        width, blocks: of the MLP.
    """

    directions: Tensor

    def __init__(
        self,
        bands: int,
        classes: int,
        angles: Angles = ((0, math.pi / 180, 0.0), (1, math.pi / 180, 0.0)),
        scales: Sequence[float] = (0.5, 4.0, 32.0),
        count: int = 128,
        width: int = 256,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if bands != 2 or sorted(int(a[0]) for a in angles) != [0, 1]:
            raise RequestError(f"student place-mlp takes latitude and longitude, not {bands} columns, angles {angles}")
        self.angles = [[int(a[0]), float(a[1]), float(a[2])] for a in angles]
        spread = torch.cat([torch.randn(3, count) * scale for scale in scales], dim=1)
        self.register_buffer("directions", spread * (2 * math.pi))
        self.stem = nn.Linear(3 + 2 * count * len(scales), width)
        self.blocks = nn.ModuleList(_Residual(width) for _ in range(blocks))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        latitude, longitude = (x[:, c : c + 1] * gain + offset for c, gain, offset in self.angles)
        flat = torch.cos(latitude)
        point = flat * torch.cos(longitude), flat * torch.sin(longitude), torch.sin(latitude)
        # Without a matrix product, which would be quantized.
        phase = point[0] * self.directions[0] + point[1] * self.directions[1] + point[2] * self.directions[2]
        y = torch.relu(self.stem(torch.cat([*point, torch.cos(phase), torch.sin(phase)], dim=1)))
        for block in self.blocks:
            y = block(y)
        return self.head(y)  # type: ignore[no-any-return]
