"""Small real networks and contracts for the export tests: a U-Net with skips, and timm's ViT-Tiny cut to two blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rsedge.data.bands import BandSpec, DType, InputSpec

TILE = 64
CLASSES = ("land", "water", "cloud")
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")


def contract(dtype: DType = "uint16", nodata: float | None = 0, tile: int = TILE, **band: Any) -> InputSpec:
    """Six bands in reflectance, each with its own mean and std."""
    return InputSpec(
        bands=tuple(
            BandSpec(
                name=n, **{"scale": 1e-4, "offset": -0.1, "nodata": nodata, "mean": 0.1 + 0.02 * i, "std": 0.2, **band}
            )
            for i, n in enumerate(BANDS)
        ),
        dtype=dtype,
        tile=tile,
    )


class SmallUNet(nn.Module):
    """Two scales, batch norm, hard swish, squeeze by a global mean, one skip, bilinear upsampling."""

    def __init__(self, channels: int = 6, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.down = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.gate = nn.Conv2d(32, 32, 1)
        self.up = nn.Sequential(nn.Conv2d(48, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        coarse = self.down(fine)
        coarse = coarse * torch.sigmoid(self.gate(coarse.mean((2, 3), keepdim=True)))
        wide = nn.functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        return self.head(self.up(torch.cat([wide, fine], 1)))


class SmallViT(nn.Module):
    """Attention, LayerNorm and exact GELU, with a dense head over patch tokens."""

    def __init__(self, tile: int = TILE) -> None:
        super().__init__()
        import timm

        self.side = tile // 16
        self.body = timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, img_size=tile, in_chans=6, depth=2, num_classes=0
        )
        self.head = nn.Conv2d(192, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.body.forward_features(x)[:, 1:]
        grid = tokens.transpose(1, 2).reshape(-1, 192, self.side, self.side)
        return nn.functional.interpolate(self.head(grid), scale_factor=16.0, mode="bilinear")


def trained_like(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and batch-norm statistics that are neither 0 nor 1, so that folding shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return net.eval()


def unet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return trained_like(SmallUNet(), seed)


def vit(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return SmallViT().eval()


def tiles(spec: InputSpec, count: int = 3, seed: int = 0) -> list[np.ndarray]:
    """Smooth scenes with noise, a nodata corner in the first, and DN above 32767 where the type allows."""
    rng = np.random.default_rng(seed)
    high = {"uint8": 255, "int16": 32767, "uint16": 65535, "float32": 60000}[spec.dtype]
    found = []
    for index in range(count):
        coarse = rng.random((1, spec.channels, spec.tile // 8, spec.tile // 8))
        dn = (
            coarse.repeat(8, 2).repeat(8, 3) * 0.9 + 0.1 * rng.random((1, spec.channels, spec.tile, spec.tile))
        ) * high
        dn = np.clip(np.rint(dn), 1, high).astype(spec.dtype)
        if index == 0 and spec.nodata is not None:
            dn[:, :, :10, :7] = spec.nodata
            dn[:, 0, 20, 20] = spec.nodata  # one band only: still valid
        found.append(dn)
    return found
