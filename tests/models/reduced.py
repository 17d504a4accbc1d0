"""Every row at reduced width, as the graphs that are deployed: networks with their named inputs, whole or in parts."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.models.families import family
from rsedge.models.parts import Part
from rsedge.models.zoo import TeacherRow, teacher_row, zoo
from tests.models import small, small_parts

UKIS_TILE = 64  # the U-Net itself is not reduced: its encoder has one size


def reduced_row(name: str) -> TeacherRow:
    """The row with a reduced architecture, where its family has one."""
    row = teacher_row(name)
    if row.family in small.SMALL:
        return small.small_row(name)
    if row.family in small_parts.SMALL:
        return small_parts.small_row(name)
    return row.model_copy(update={"input": row.input_spec.model_copy(update={"tile": UKIS_TILE})})


def deployed(row: TeacherRow, net: nn.Module) -> dict[str, Part]:
    """The family's parts, or the one network with a normalised input as its band contract gives it."""
    parts = family(row.family).parts
    if parts is not None:
        return parts(net)
    dn = scenes(row.input_spec, 1)[0]
    return {"net": Part(net, {"dn": torch.from_numpy(row.input_spec.normalise(dn))}, ("logits",))}


@functools.cache
def by_family() -> dict[str, list[str]]:
    """Names of the rows of each family."""
    found: dict[str, list[str]] = {}
    for row in zoo():
        found.setdefault(row.family, []).append(row.name)
    return found


def scenes(spec: InputSpec, count: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Smooth digital numbers over the contract's range, with a nodata corner where it has nodata."""
    rng = np.random.default_rng(seed)
    if not spec.is_image:
        return [vectors(spec, rng) for _ in range(count)]
    high = 255 if spec.dtype == "uint8" else 6000
    found = []
    for _ in range(count):
        edge = -(-spec.tile // 8)
        coarse = rng.random((1, *spec.shape[:-2], edge, edge)).repeat(8, -2).repeat(8, -1)
        coarse = coarse[..., : spec.tile, : spec.tile]
        dn = np.clip(coarse * high * 0.9 + rng.random((1, *spec.shape)) * high * 0.1, 1, high).astype(spec.dtype)
        tops = np.array([b.valid_range[1] if b.valid_range else high for b in spec.bands])
        dn = np.minimum(dn, tops[:, None, None]).astype(spec.dtype)
        if spec.nodata is not None:
            dn[..., :5, :5] = spec.nodata
        found.append(dn)
    return found


def vectors(spec: InputSpec, rng: np.random.Generator) -> np.ndarray:
    """One place or series, evenly over each band's valid range."""
    low, high = np.array([b.valid_range or (0.0, 1.0) for b in spec.bands]).T
    return (low + (high - low) * rng.random((1, *spec.shape))).astype(spec.dtype)
