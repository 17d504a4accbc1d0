"""Real Sentinel-2 tiles and a tiny deployable graph, shared by the quantization tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import torch
from openvino.preprocess import PrePostProcessor
from torch import Tensor, nn

from rsedge.models.students import build_student
from rsedge.runtimes.openvino.core import settings

BANDS = (2, 3, 4, 8, 11, 12)  # of the chips' twelve: blue green red nir swir16 swir22
TILE = 64
STUDENT = {"bands": 6, "classes": 3, "stem": 8, "encoder": [16, 24], "blocks": [1, 1], "decoder": [16, 8]}
MEAN, STD = 0.2, 0.1


def real_tiles(limit: int = 16) -> list[npt.NDArray[np.uint16]]:
    """DN tiles (6, 64, 64) uint16 from the chips under RSEDGE_DATA; the test is skipped where they are absent."""
    root = Path(os.environ.get("RSEDGE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    chips = sorted((root / "sentinel2_chips").glob("*.tif"))
    if not chips:
        pytest.skip(f"no Sentinel-2 chips under {root}")
    rasterio = pytest.importorskip("rasterio")
    tiles = []
    for chip in chips:
        with rasterio.open(chip) as scene:
            dn = scene.read(BANDS)
        steps = range(0, dn.shape[1] - TILE + 1, TILE)
        tiles += [np.ascontiguousarray(dn[:, r : r + TILE, c : c + TILE]) for r in steps for c in steps]
    return tiles[:: max(1, len(tiles) // limit)][:limit]


def normalised(tiles: list[npt.NDArray[np.uint16]]) -> Tensor:
    """(N, 6, 64, 64) float32 as the network sees it."""
    return (torch.from_numpy(np.stack(tiles).astype(np.float32)) * 1e-4 - MEAN) / STD


def trained_student(tiles: list[npt.NDArray[np.uint16]], steps: int = 60) -> nn.Module:
    """A tiny student that has learnt a rule (bright, dark, else) on the tiles, so that its classes mean something."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = build_student("slim-unet", dict(STUDENT)).train()
    x, y = normalised(tiles), rule(tiles)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(steps):
        pick = torch.arange(step * 4, step * 4 + 4) % len(x)
        optimizer.zero_grad()
        loss: Any = nn.functional.cross_entropy(net(x[pick]), y[pick])
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return net.eval()


def rule(tiles: list[npt.NDArray[np.uint16]]) -> Tensor:
    """Classes (N, 64, 64) by brightness terciles of the real tiles, smoothed."""
    mean = nn.functional.avg_pool2d(normalised(tiles).mean(1, keepdim=True), 5, 1, 2)[:, 0]
    low, high = torch.quantile(mean.flatten()[::7], torch.tensor([1 / 3, 2 / 3]))
    classes: Tensor = (mean > low).long() + (mean > high).long()
    return classes


class Deployable(nn.Module):
    """DN in, logits and validity out, as the export room builds it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, dn: Tensor) -> tuple[Tensor, Tensor]:
        values = dn.float()
        valid = (values != 0).any(1, keepdim=True)
        x = torch.where(valid, (values * 1e-4 - MEAN) / STD, 0.0)
        return self.net(x), valid[:, 0].to(torch.uint8)


def openvino_model(net: nn.Module) -> ov.Model:
    """The f32 graph with uint16 ``dn`` (1, 6, 64, 64)."""
    example = torch.ones(1, 6, TILE, TILE)
    model = ov.convert_model(Deployable(net).eval(), example_input=example, input=[ov.PartialShape(example.shape)])
    model.inputs[0].set_names({"dn"})
    typed = PrePostProcessor(model)
    typed.input().tensor().set_element_type(ov.Type.u16)
    return typed.build()


def compile_f32(model: ov.Model) -> Any:
    """The model on this host's CPU, where float layers stay float."""
    return ov.Core().compile_model(model, "CPU", settings("CPU", "f32", None))


def classes_of(model: Any, tiles: list[npt.NDArray[np.uint16]]) -> npt.NDArray[np.int64]:
    """Class maps (N, 64, 64) on this host's executable."""
    compiled = compile_f32(model)
    return np.concatenate([compiled({0: t[None]})[0].argmax(1) for t in tiles])
