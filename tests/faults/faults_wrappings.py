"""Checkpoints wrapped and worn at random, and what people hand to the front door in Python."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import rsedge
from rsedge.api_data import data_section
from rsedge.models.checkpoint import load_strict, read_checkpoint
from rsedge.models.wrappings import unwrapped
from tests.faults.kinds import Result, kind, told
from tests.runtimes import tiny_models as tiny

PREFIXES = ("", "model.", "module.", "net._orig_mod.", "_orig_mod.", "student.", "a.b.")
ENTRIES = ("state_dict", "model", "model_state", "ema", "weights", "x")


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)))


def _worn(state: dict[str, Tensor], rng: np.random.Generator) -> tuple[dict[str, Tensor], str]:
    """One thing that may be wrong with a state dict; what it holds of the network stays as it was."""
    name = str(rng.choice(sorted(state)))
    how = str(rng.choice(["whole", "whole", "lost", "extra", "shape", "renamed", "type"]))
    if how == "lost":
        del state[name]
    elif how == "extra":
        state[f"{name}_more"] = torch.ones(1)
    elif how == "shape":
        state[name] = torch.cat([state[name].reshape(-1), torch.ones(1, dtype=state[name].dtype)])
    elif how == "renamed":
        state[name[::-1]] = state.pop(name)
    elif how == "type":
        state[name] = state[name].double()
    return state, how


@kind("checkpoint: wrapped, nested, averaged, worn", few=40)
def wrapped(rng: np.random.Generator, folder: Path) -> Result:
    """Right is what holds the very numbers that were saved; of two sets of weights none may be taken unasked."""
    seed, prefix = int(rng.integers(1000)), str(rng.choice(PREFIXES))
    state, how = _worn({k: v.clone() for k, v in _net(seed).state_dict().items()}, rng)
    content: Any = {prefix + name: value for name, value in state.items()}
    second = bool(rng.integers(2))
    entries = [str(e) for e in rng.choice(ENTRIES, int(rng.integers(3)), replace=False)]
    if second:
        content = {"plain": content, "averaged": dict(_net(seed + 1).state_dict())}
    for entry in entries:
        content = {entry: content, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    torch.save(content, folder / "c.pth")
    net = _net(seed + 2)

    def right() -> bool:
        found = unwrapped(read_checkpoint(folder / "c.pth"), net, folder / "c.pth")
        load_strict(net, found.tensors, folder / "c.pth")
        wanted = _net(seed).state_dict()
        whole = all(
            torch.equal(v.to(wanted[n].dtype), wanted[n]) for n, v in net.state_dict().items() if "batches" not in n
        )
        # Where the plain weights do not fit the average does, and is told.
        averaged = second and bool(found.notes) and "averaged" in found.entry and how not in ("whole", "type")
        return whole or averaged

    return told(f"prefix '{prefix}', entries {entries}, {how}{', beside an average' if second else ''}", right)


@functools.cache
def _bundle() -> rsedge.Bundle:
    import tempfile

    return rsedge.load(tiny.make_bundle(Path(tempfile.mkdtemp()) / "b", tiny.spec(), "openvino-cpu-f32"))


@kind("front door: arrays of any shape and type are asked", few=40)
def arrays(rng: np.random.Generator, folder: Path) -> Result:
    """Right is a map of each image's size; the same image alone and among others gets the same."""
    spec = tiny.spec()
    shape = [int(n) for n in rng.choice([0, 1, 3, 4, 5, 16, 31, 32, 33, 70], int(rng.integers(1, 6)))]
    if rng.integers(2):
        shape = [*([2] if rng.integers(2) else []), spec.channels, *shape[-2:], 40][:4]
    kind_of = str(rng.choice(["u2", "f4", "f8", "i8", "u1", "?", "U2", "c8"]))
    values: Any = (rng.random(shape) * float(rng.choice([1, 300, 9000, 1e9]))).astype(kind_of)
    if kind_of[0] == "f" and values.size and rng.integers(2):
        values.reshape(-1)[rng.integers(values.size)] = rng.choice([np.nan, np.inf, -1e30])

    def right() -> bool:
        found = _bundle().predict(values)
        return bool(found.shape == (*shape[:-3], *shape[-2:]) and found.dtype == np.uint8)

    return told(f"{kind_of} {shape}", right)


@kind("front door: data, labels and groups of any shape are given", few=40)
def given(rng: np.random.Generator, folder: Path) -> Result:
    """Right is a section that reads back as many samples as were given."""
    from rsedge.data.sets.sample_sources import load_samples

    spec = tiny.spec()
    count = int(rng.choice([0, 3, 9, 12]))
    tiles = rng.integers(0, int(rng.choice([2, 60000, 70000])), (count, spec.channels, spec.tile, spec.tile))
    made: Any = tiles.astype(str(rng.choice(["u2", "i4", "f4"])))
    other = int(rng.choice([count, count, count, 5]))
    tile = (spec.tile, spec.tile)
    kinds: list[Any] = [
        None,
        rng.integers(0, 3, other),
        rng.integers(0, 2, (other, *tile)),
        rng.random((other, 2)),
        rng.random(other),
        np.array(["a"] * other),
        rng.integers(0, 3, (other, 1, 1, 1)),
    ]
    labels = kinds[int(rng.integers(len(kinds)))]
    groups: Any = [None, list(range(other)), np.array(["x"] * other)][int(rng.integers(3))]

    def right() -> bool:
        section = data_section(made, spec, folder / "run", labels, groups, ("a", "b", "c"))["samples"]
        found = load_samples(section["source"], **section["options"])
        return len(found) == count and (labels is None) == (found.labels is None)

    shape = None if labels is None else labels.shape
    return told(f"{made.dtype} {made.shape}, labels {shape}, groups {groups is not None}", right)
