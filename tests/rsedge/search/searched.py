"""A recipe small enough to be searched in tests: a real chip, a black box of two convolutions, a student of a few channels."""

from __future__ import annotations

from pathlib import Path

import torch

from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.search.figures import objectives_of
from rsedge.search.reading import read_space
from rsedge.search.space import Space
from rsedge.search.study import Search, begin_search

F32, JETSON = "openvino-cpu-f32", "tensorrt-jetson-orin-nano-8gb-fp16"
RECIPE = """\
name: small
threads: 1
teacher:
  name: onnx:net.onnx
  classes: [water]
  input: {bands: [blue, green, red, nir], tile: 64, quantity: boa_reflectance, scale: 1.0e-4, nodata: 0, mean: 0.1, std: 0.1}
data:
  train: [{source: spyndex-sentinel2}]
  test: {source: spyndex-sentinel2}
  block: 50
student: {name: slim-unet, stem: 8, encoder: [8, 16], blocks: [0, 0], decoder: [16, 8]}
steps:
  - distill: {steps: 12, views: 8, batch: 2, validate_every: 4, checkpoint_every: 2}
targets: [openvino-cpu-f32]
gates:
  - {metric: agreement, min: 0.0}
  - {metric: size, max: 600000}
"""
SPACE = """\
variables:
  student.encoder: [[8, 16], [8, 8], [512, 512]]
  steps.distill.lr: [1e-3, 2e-3]
rungs: {shares: [0.34], keep: 0.67}
"""
TOO_LARGE = [512, 512]
"""Breaks the gate on size, whatever is trained."""


def write(folder: Path, recipe: str = RECIPE, space: str = SPACE, seed: int = 0) -> tuple[Path, Path]:
    """Recipe and space, with the teacher that the recipe names."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1)).eval()
    torch.onnx.export(net, (torch.zeros(1, 4, 64, 64),), str(folder / "net.onnx"), dynamo=True, verbose=False)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "space.yaml").write_text(space)
    return folder / "recipe.yaml", folder / "space.yaml"


def loaded(path: Path) -> Recipe:
    found = load_recipe(path)
    assert isinstance(found, Recipe)
    return found


def begun(folder: Path, recipe: Path, space: Path, url: str | None = None) -> Search:
    found: Space = read_space(space, loaded(recipe))
    return begin_search(folder, found, objectives_of(found), url)
