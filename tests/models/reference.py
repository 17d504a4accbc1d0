"""Outputs of the authors' own code on weights drawn by a written rule (:mod:`rsedge.models.conformance`).

They lie in ``reference/``, one file a system: numbers alone, no code and no weights. ``python -m tests.models.reference FOLDER``
makes them from a folder of facts, whose README says how the authors' code was run (for CRS-Diff and HSIGene their ``notes``); of
long arrays every n-th value is kept.
"""

from __future__ import annotations

import json
import math
import re
import sys
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

from rsedge.models import comparing
from rsedge.models.conformance import drawn_input, drawn_state, grid_table, line_table

FOLDER = Path(__file__).parent / "reference"
FACTS = "facts"
"""Array of a file that holds its facts, JSON as bytes."""
KEPT_FACTS = (
    "system", "repository", "commit", "class", "constructor_arguments", "state_dict", "fixed_keys", "fixed_tables",
    "shared_tensors", "anchors", "inputs", "places_well_conditioned", "notes",
)  # fmt: skip
NOT_COMPARED = (".sumabs", "feature_deviation_from_exact", "float64_difference")
"""Ends of names of arrays that are left out."""
LONGEST = 384
"""Values along the last axis, and samples, that are kept whole."""
SAMPLES = 16


@dataclass(frozen=True)
class Reference:
    """One published network: its names and shapes, what was put in and what came out."""

    system: str

    @cached_property
    def _file(self) -> dict[str, npt.NDArray[Any]]:
        with np.load(FOLDER / f"{self.system}.npz") as file:
            return {name: file[name] for name in file.files}

    @cached_property
    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file[FACTS].tobytes())
        return found

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name: array for name, array in self._file.items() if name != FACTS}

    def kept(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Of a whole array the values that are kept of it."""
        return array[tuple(slice(None, None, step) for step in self.facts["steps"].get(name, ()))]

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
        if name.endswith("attn_mask"):  # of the old Swin code; every reader computes it
            return torch.zeros(shape)
        if table is None:  # counters
            return torch.zeros(shape, dtype=torch.int64)
        if name.endswith("anchors"):
            return torch.tensor(self.facts["anchors"])
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
        found = {name: self.kept(name, output.numpy()) for name, output in outputs.items()}
        expected = {name: array for name, array in self.arrays.items() if name in found}
        assert set(found) <= set(expected), set(found) - set(expected)
        judged = comparing.held(expected, found)
        for one in judged:
            assert one.agrees, f"{self.system}: {one}"
        return max(one.difference for one in judged)


def steps(system: str, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """One of so many values along each axis is kept; of inputs all, and of places whose precision is judged one by one."""
    if name.startswith("input.") or len(shape) < 2:
        return (1,) * len(shape)
    judged = system.startswith(("satclip", "range"))
    places = -(-shape[0] // SAMPLES) if len(shape) == 2 and not judged else 1
    return (places, *[1] * (len(shape) - 2), -(-shape[-1] // LONGEST))


def pack(facts: Path) -> None:
    """Writes every system of the folder of facts into :data:`FOLDER`."""
    FOLDER.mkdir(exist_ok=True)
    for path in sorted(facts.glob("*.json")):
        known = json.loads(path.read_text())
        known["fixed_tables"] = {k: v for k, v in known["fixed_tables"].items() if not k.endswith("attn_mask")}
        with np.load(path.with_suffix(".npz")) as file:
            arrays = {name: file[name] for name in file.files if not name.endswith(NOT_COMPARED)}
        if path.stem.startswith("satclip"):
            del arrays["features"]
        taken = {name: steps(path.stem, name, array.shape) for name, array in arrays.items()}
        kept = {key: known[key] for key in KEPT_FACTS if key in known} | {
            "steps": {name: step for name, step in taken.items() if max(step, default=1) > 1}
        }
        thinned = {name: array[tuple(slice(None, None, s) for s in taken[name])] for name, array in arrays.items()}
        packed = np.frombuffer(json.dumps(kept, separators=(",", ":")).encode(), np.uint8)
        np.savez_compressed(FOLDER / f"{path.stem}.npz", **{FACTS: packed}, **thinned)


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


def summed_up(name: str, maps: Tensor, channels: int = comparing.CORNER_CHANNELS) -> dict[str, Tensor]:
    """What is stored of feature maps (N, C, H, W)."""
    found = comparing.summed_up(name, maps.numpy(), channels)
    return {key: torch.from_numpy(value) for key, value in found.items() if not key.endswith(".sumabs")}


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


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
