"""Weights and inputs drawn by a written rule: how a row is held against its authors' own code where no weights are at hand.

Each tensor is drawn from a hash of its published name, so whoever has the authors' code fills their network with the same
numbers, runs it on the same input and sends the outputs; a checkpoint with these weights under the same names, loaded by the row,
must give them too. What the rule compares is structure (names, order, epsilons, windows, positions, pooling), not the quality of
weights. It uses NumPy's generator alone, whose numbers do not depend on a library of networks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rsedge.data.bands import InputSpec

Array = npt.NDArray[np.float32]
BASE = 10000.0
"""Of the wavelengths of sine and cosine tables (Vaswani et al. 2017)."""


def drawn(name: str, shape: Sequence[int]) -> Array:
    """The tensor of one published name, float32.

    Matrices and kernels have the spread that keeps a signal's size; variances, scales and the rest stand near 1, 1 and 0.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    z = np.random.default_rng(seed).standard_normal(tuple(shape))
    if len(shape) >= 2:
        z = z / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("running_var"):
        z = 1 + 0.2 * np.abs(z)
    elif name.endswith("running_mean"):
        z = 0.1 * z
    elif len(shape) == 1 and name.endswith(("weight", "gamma")):
        z = 1 + 0.1 * z
    else:
        z = 0.05 * z
    return np.asarray(z, dtype=np.float32)


def drawn_state(
    shapes: Mapping[str, Sequence[int]],
    fixed: Mapping[str, Tensor] | None = None,
    shared: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """All tensors of a network by the rule, under its published names.

    Args:
        shapes: published name -> shape.
        fixed: tensors that the rule leaves as the network's constructor makes them.
        shared: second names of a tensor -> the name under which it is drawn.
    """
    fixed, shared = fixed or {}, shared or {}
    own = {name: shape for name, shape in shapes.items() if name not in shared}
    state = {name: fixed[name] if name in fixed else torch.from_numpy(drawn(name, s)) for name, s in own.items()}
    return state | {second: state[first] for second, first in shared.items()}


def drawn_input(*shape: int) -> Tensor:
    """An input of normal deviates, taken as already normalised, float32."""
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def contract_input(spec: InputSpec, samples: int) -> Tensor:
    """Fixed inputs of a band contract, (samples, *shape): normal deviates, taken as already normalised; bands of :func:`meant` are
    whole numbers between their ends, one a sample."""
    values = drawn_input(samples, *spec.shape)
    rng, axis = np.random.default_rng(1), -3 if spec.is_image else -1
    for number in meant(spec):
        low, high = spec.bands[number].valid_range or (0.0, 0.0)
        whole = rng.integers(math.ceil(low), math.floor(high), samples, endpoint=True)
        one = values.select(axis, number)
        one.copy_(torch.from_numpy(whole).reshape(samples, *[1] * (one.ndim - 1)))
    return values


def meant(spec: InputSpec) -> list[int]:
    """Bands whose numbers reach the network as they are and have ends: degrees, months, kinds of land cover."""
    plain = (1.0, 0.0, 0.0, 1.0, None)
    bands = enumerate(spec.bands)
    return [i for i, b in bands if b.valid_range and (b.scale, b.offset, b.mean, b.std, b.stretch) == plain]


def line_table(places: npt.ArrayLike, dim: int) -> Array:
    """Sines, then cosines, of places along a line: (places, dim), as MAE's positions are (He et al. 2022)."""
    half = dim // 2
    phases = np.outer(np.asarray(places, dtype=np.float64), BASE ** -(np.arange(half) / half))
    return np.concatenate([np.sin(phases), np.cos(phases)], 1).astype(np.float32)


def grid_table(side: int, dim: int, prefix: int = 1) -> Array:
    """MAE's positions of a square grid row by row, (1, prefix + side ** 2, dim): half of the numbers are of the column, half of
    the row; ``prefix`` rows of zeros (the class token's) go before."""
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    table = np.concatenate([line_table(axis.ravel(), dim // 2) for axis in (column, row)], 1)
    return np.concatenate([np.zeros((prefix, dim), np.float32), table])[None]
