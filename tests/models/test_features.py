"""What families publish of their networks, held against the tensors that run through them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rsedge.models.families import Without, family
from rsedge.models.features import Feature, Features
from rsedge.models.parts import Part
from rsedge.models.zoo import teacher_row, zoo
from tests.models.reduced import deployed, reduced_row
from tests.models.small import random_net

NAMES = [row.name for row in zoo()]
FAMILIES = sorted({row.family for row in zoo()})
TOKENS = (
    "clip", "galileo", "gair", "geopix", "group_vit", "hypersigma", "rsprompter", "rsprompter_query", "rvsa",
    "rvsa_oriented", "rvsa_upernet", "sam", "sam2", "spectral_vit", "swin", "swin_v2", "temporal_vit", "vit", "vlm",
)  # fmt: skip
"""Families with maps that have their channels last, or tokens on the image."""
WITHOUT = ("latent_control", "latent_decoder", "latent_unet")


@torch.no_grad()
def ran(
    net: nn.Module, features: Features, parts: Mapping[str, Part], inputs: Mapping[str, Tensor] | None = None
) -> Any:
    """What the published submodules gave when all parts ran, by the features' names; the first input may be another one."""
    found: dict[str, Any] = {}

    def keep(feature: Feature) -> Any:
        return lambda module, given, output: found.__setitem__(feature.name, feature.taken(output))

    handles = [net.get_submodule(f.module).register_forward_hook(keep(f)) for f in features]
    for name, part in parts.items():
        part.net(*{**part.inputs, **(inputs or {} if name == next(iter(parts)) else {})}.values())
    for handle in handles:
        handle.remove()
    return found


@functools.cache
def network(name: str) -> tuple[nn.Module, Features, Mapping[str, Part]]:
    """A row's network at reduced width, what is published of it, and its parts."""
    row = reduced_row(name)
    net = random_net(row)
    parts = deployed(row, net)
    first = next(iter(next(iter(parts.values())).inputs.values()))
    return net, family(row.family).features_of(net, tuple(first.shape[1:])), parts


@pytest.mark.parametrize("name", NAMES)
def test_features_are_what_is_published(name: str) -> None:
    net, features, parts = network(name)
    assert bool(features) == (teacher_row(name).family not in WITHOUT)
    assert len({f.name for f in features}) == len(features)
    found = ran(net, features, parts)
    edge = next(iter(next(iter(parts.values())).inputs.values())).shape[-1]
    for feature in features:
        shape = found[feature.name].shape
        assert feature.holds(shape) and feature.lies_on(shape, edge), (feature, shape)
        if feature.grid and teacher_row(name).family != "galileo":  # which has tokens of other things behind them
            assert shape[1] == feature.prefix + feature.tokens, (feature, shape)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_what_it_publishes(name: str) -> None:
    said = family(name).features
    assert isinstance(said, Without) == (name in WITHOUT)
    if isinstance(said, Without):
        assert "family says none" not in said.reason


@pytest.mark.parametrize("name", NAMES)
def test_the_taps_of_a_row_are_published(name: str) -> None:
    published = {f"net.{f.name}" for f in network(name)[1]}
    assert set(teacher_row(name).taps) <= published, sorted(published)


@pytest.mark.parametrize("name", [n for n in NAMES if teacher_row(n).family in TOKENS])
def test_a_changed_corner_changes_that_corner_of_maps_and_tokens(name: str) -> None:
    """Rows and columns are where the contract says: not exchanged, not among the channels, not one token on."""
    net, features, parts = network(name)
    placed = tuple(f for f in features if f.layout == "NHWC" or f.grid)
    assert placed or name == "galileo-nano-series"
    key, image = next(iter(next(iter(parts.values())).inputs.items()))
    half = image.shape[-1] // 2
    quadrants = {"upper right": (slice(0, half), slice(half, None)), "lower left": (slice(half, None), slice(0, half))}
    before = ran(net, placed, parts)
    for corner, (rows, columns) in quadrants.items():
        changed = image.clone()
        # Galileo's last band is the month, GAIR's query's last two the place.
        changed[..., : image.shape[-3] - 2 or 1, rows, columns] += 1.5
        after = ran(net, placed, parts, {key: changed})
        for feature in placed:
            moved = (feature.channels_first(after[feature.name]) - feature.channels_first(before[feature.name])).abs()
            if moved.shape[-1] < 2:
                continue
            felt = torch.nn.functional.adaptive_avg_pool2d(moved.mean((0, 1))[None, None], 2)[0, 0]
            most = {1: "upper right", 2: "lower left"}.get(int(felt.argmax()), "another")
            assert most == corner, (feature, felt)
