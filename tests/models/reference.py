"""Outputs of the authors' own code on weights drawn by a written rule, from the folder of facts (its ``reference/README.md``)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from rsedge.data.root import data_root
from rsedge.models.conformance import drawn_input, drawn_state, grid_table, line_table

FOLDER = Path(os.environ.get("RSEDGE_FACTS", data_root().parent / "facts")) / "reference"
TOLERANCE = 1e-4
"""Of the largest value of an array."""
FINE = 1e-3
"""Of what an array varies by, where it varies little: a wrong branch must not hide behind a constant."""
Arrays = Mapping[str, npt.NDArray[Any]]

needs_reference = pytest.mark.skipif(
    not (FOLDER / "README.md").is_file(), reason="no outputs of the authors' code: RSEDGE_FACTS has no reference/"
)


@dataclass(frozen=True)
class Reference:
    """One published network: its names and shapes, what was put in and what came out."""

    system: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((FOLDER / f"{self.system}.json").read_text())
        return found

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        with np.load(FOLDER / f"{self.system}.npz") as file:
            return {name: file[name] for name in file.files}

    def given(self, name: str) -> Tensor:
        """An input that is stored, because it is no image."""
        return torch.from_numpy(self.arrays[f"input.{name}"])

    def image(self, name: str = "image") -> Tensor:
        """The input that the rule draws."""
        shape = re.search(r"standard_normal\(\(([\d, ]+)\)\)", self.facts["inputs"][name])
        assert shape is not None
        return drawn_input(*map(int, shape[1].split(", ")))

    def state(self) -> dict[str, Tensor]:
        """Weights by the rule under the published names."""
        fixed = {name: self._fixed(name) for name in self.facts["fixed_keys"]}
        return drawn_state(self.facts["state_dict"], fixed, self.facts.get("shared_tensors"))

    def _fixed(self, name: str) -> Tensor:
        """A tensor as the authors' constructor makes it, held against what is stored of it."""
        shape = tuple(self.facts["state_dict"][name])
        table = self.facts["fixed_tables"].get(name)
        if name.endswith("relative_position_index"):
            return _window_index(shape)
        if table is None:  # counters
            return torch.zeros(shape, dtype=torch.int64)
        if name.endswith("anchors"):
            return torch.tensor(self.facts["anchors"])
        if name.endswith("attn_mask"):  # of the old Swin code; every reader computes it
            return torch.zeros(shape)
        found = _constructed(name, shape)
        assert tuple(found.shape) == shape
        assert float(found.double().abs().sum()) == pytest.approx(table["sum_abs"], rel=1e-5), name
        assert found.flatten()[:4].tolist() == pytest.approx(table["first"], abs=1e-6), name
        return found

    def compare(self, outputs: Mapping[str, Tensor]) -> float:
        """The largest difference over the largest value, of all arrays.

        Raises:
            AssertionError: an array differs by more than its tolerance; it is named with its figures.
        """
        worst = 0.0
        for name, output in outputs.items():
            expected, found = self.arrays[name].astype(np.float64), output.double().numpy()
            assert found.shape == expected.shape, name
            difference = np.abs(found - expected).max() / (np.abs(expected).max() or 1.0)
            allowed = self.tolerance(name)
            assert difference <= allowed, (
                f"{self.system}, {name}: {difference:.3g} of the largest, allowed {allowed:.3g}"
            )
            worst = max(worst, float(difference))
        return worst

    def tolerance(self, name: str) -> float:
        """Over the largest value of an array."""
        expected = self.arrays[name].astype(np.float64)
        largest, varies = np.abs(expected).max() or 1.0, np.inf
        spread = self.facts["spread_between_first_two_samples"].get(name)
        if spread is not None:
            varies = spread * np.abs(expected).mean()
        deviation = self.arrays.get(f"{name.rpartition('.')[0]}.std")
        if deviation is not None and deviation.any() and not name.endswith(".std"):
            varies = min(varies, float(deviation.max()))
        return float(min(TOLERANCE, max(FINE * varies / largest, 2e-6)))


def _constructed(name: str, shape: tuple[int, ...]) -> Tensor:
    """Sine and cosine tables of MAE, and the logarithmic distances of Swin V2 (Liu et al. 2022)."""
    if name.endswith("relative_coords_table"):
        half = (shape[1] - 1) // 2
        steps = np.arange(-half, half + 1) * 8 / half
        logs = np.sign(steps) * np.log2(np.abs(steps) + 1) / 3
        return torch.from_numpy(np.stack(np.meshgrid(logs, logs, indexing="ij"), -1)[None].astype(np.float32))
    if name.endswith("channel_embed"):
        return torch.from_numpy(line_table(np.arange(shape[1]), shape[2])[None])
    side = int(shape[1] ** 0.5)
    return torch.from_numpy(grid_table(side, shape[2], shape[1] - side**2))


def _window_index(shape: tuple[int, ...]) -> Tensor:
    """Row of the bias table for each pair of places in a window (Liu et al. 2021)."""
    side = round(math.prod(shape) ** 0.25)
    steps = torch.arange(side)
    rows, columns = (axis.flatten() for axis in torch.meshgrid(steps, steps, indexing="ij"))
    down, right = (axis[:, None] - axis[None] + side - 1 for axis in (rows, columns))
    return (down * (2 * side - 1) + right).reshape(shape)


def summed_up(name: str, maps: Tensor, channels: int = 32) -> dict[str, Tensor]:
    """What is stored of feature maps (N, C, H, W)."""
    wide = maps.double()
    return {
        f"{name}.corner": maps[:, :channels, :4, :4],
        f"{name}.mean": wide.mean((2, 3)),
        f"{name}.std": wide.std((2, 3), correction=0),
        f"{name}.sumabs": wide.abs().sum((2, 3)),
    }


@torch.no_grad()
def run(net: nn.Module, inputs: tuple[Tensor, ...], *names: str) -> dict[str, Any]:
    """A network's output, as ``output``, and what its submodules give, by their names."""
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: found.__setitem__(name, output)

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    found["output"] = net(*inputs)
    for handle in handles:
        handle.remove()
    return found
