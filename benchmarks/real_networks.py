"""Small networks with real weights, and real inputs (RSEDGE_DATA); what is made of them is judged by likeness to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import rasterio
import torch
from torch import Tensor, nn

from rsedge.data.root import data_root
from rsedge.data.sets.sample_sources import load_samples
from rsedge.models.teachers import load_teacher


@dataclass(frozen=True)
class Case:
    """A network with real weights and inputs for it.

    Attributes:
        make: the network, and its inputs, normalised (N, ...).
        trunk: the blocks that Torch-Pruning is shown, where it cannot follow what lies around them; the whole network otherwise.
        stays: layers whose outputs it is told to leave: the last, and those that write what position codes are added to.
    """

    make: Callable[[], tuple[nn.Module, Tensor]]
    trunk: str | None
    stays: tuple[str, ...]


class Trunk(nn.Module):
    """The blocks of a transformer, on tokens (N, L, width) without any missing."""

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.children():
            x = block(x, None)
        return x


def _series(row: str, checkpoint: str) -> Callable[[], tuple[nn.Module, Tensor]]:
    def make() -> tuple[nn.Module, Tensor]:
        teacher = load_teacher(row, data_root() / checkpoint)
        spec = teacher.spec.input_spec
        samples = load_samples("worldcereal-crop", fill="time")
        return teacher.net, torch.from_numpy(spec.normalise(samples.dn(spec)))

    return make


def _zones() -> tuple[nn.Module, Tensor]:
    """So2Sat's classifier on 32x32 tiles of two Sentinel-2 chips and a flood scene; bands by their places in the files."""
    teacher = load_teacher("so2sat-resnet20", data_root() / "so2sat_resnet20/s2_resnet20.h5")
    files = {
        "sentinel2_chips/patch_33188.tif": (1, 2, 3, 4, 5, 6, 7, 8, 10, 11),
        "sentinel2_chips/patch_445.tif": (1, 2, 3, 4, 5, 6, 7, 8, 10, 11),
        "sen1floods11_spain/west_S2.tif": (1, 2, 3, 4, 5, 6, 7, 8, 11, 12),
    }
    tiles = []
    for name, bands in files.items():
        with rasterio.open(data_root() / name) as file:
            values = file.read([b + 1 for b in bands]).astype(np.float32)
        side = [n // 32 * 32 for n in values.shape[1:]]
        grid = values[:, : side[0], : side[1]].reshape(10, side[0] // 32, 32, side[1] // 32, 32)
        tiles.append(grid.transpose(1, 3, 0, 2, 4).reshape(-1, 10, 32, 32))
    return teacher.net, torch.from_numpy(teacher.spec.input_spec.normalise(np.concatenate(tiles).clip(0, 65535)))


_STREAM = ("attn.proj", "mlp.fc2")
CASES = {
    "Presto, fine-tuned for crop": Case(
        _series("presto-worldcereal-crop", "worldcereal/presto_finetuned_crop.pt"), "encoder.blocks", _STREAM
    ),
    "So2Sat ResNet-20": Case(_zones, None, ("dense",)),
    "Galileo-nano, series": Case(_series("galileo-nano-series", "galileo_nano/encoder.pt"), "blocks", _STREAM),
}
