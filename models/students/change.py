"""Change detection: one slim U-Net encoder for both dates, decoded from the differences of its features.

After FC-Siam-diff (Daudt, Le Saux & Boulch 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rsedge.data.errors import RequestError
from rsedge.models.features import Features, Shape
from rsedge.models.students.slim_unet import Skips, SlimUNet, Upsample


class SiameseUNet(SlimUNet):
    """Two dates (N, 2, bands, H, W) normalised -> logits (N, classes, H, W); H and W multiples of 2 ** (stages + 1).

    Args:
        frames: 2; the others are those of :class:`SlimUNet`.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        frames: int = 2,
        stem: int = 16,
        encoder: Sequence[int] = (32, 48, 64, 96),
        blocks: Sequence[int] = (1, 1, 1, 1),
        decoder: Sequence[int] = (64, 48, 32, 16),
        upsample: Upsample = "bilinear",
        skips: Skips = "concat",
    ) -> None:
        if frames != 2:
            raise RequestError(f"student siamese-unet compares 2 frames, not {frames}")
        super().__init__(bands, classes, stem, encoder, blocks, decoder, upsample, skips)

    def feature_contract(self, shape: Shape) -> Features:
        """The decoder's stages: the encoder's have both dates along the batch axis."""
        return tuple(f for f in super().feature_contract(shape) if f.name.startswith("decoder"))

    def forward(self, x: Tensor) -> Tensor:
        # Both dates as one batch: each layer runs once, and its batch statistics are those of both.
        features = self.encode(torch.cat([x[:, 0], x[:, 1]]))
        differences = [(after - before).abs() for before, after in (f.chunk(2) for f in features)]
        return self.logits(differences)
