"""Change detection: one slim U-Net encoder for both dates, decoded from the differences of its features.

After FC-Siam-diff (Daudt, Le Saux & Boulch 2018).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rsedge.data.errors import RequestError
from rsedge.models.students.slim_unet import SlimUNet, Upsample


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
    ) -> None:
        if frames != 2:
            raise RequestError(f"student siamese-unet compares 2 frames, not {frames}")
        super().__init__(bands, classes, stem, encoder, blocks, decoder, upsample)

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.encode(x[:, 0]), self.encode(x[:, 1])
        return self.logits([(b - a).abs() for a, b in zip(before, after, strict=True)])
