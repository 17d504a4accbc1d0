"""The largest value of several images at each place (SatlasPretrain's networks over several images)."""

from __future__ import annotations

from torch import Tensor, nn


class Largest(nn.Module):
    """Maps of all images, (N * frames, ...) -> the largest of each image's, (N, ...)."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, maps: Tensor) -> Tensor:
        return maps.unflatten(0, (-1, self.frames)).amax(1)  # type: ignore[no-untyped-call, no-any-return]
