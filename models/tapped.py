"""Encoders out of teachers: one published feature of a network as a map of features, in place of its output."""

from __future__ import annotations

import dataclasses

import torch

from rsedge.data.errors import RequestError
from rsedge.models.families.tapped import Tapped
from rsedge.models.features import Feature, chosen
from rsedge.models.teachers import Teacher


def tapped(teacher: Teacher, name: str) -> Teacher:
    """The teacher with a feature of it for its output.

    Args:
        name: as the teacher publishes it, ``net.`` first.

    Raises:
        RequestError: no such feature, or it is no map of whole places over the tile.
    """
    row = teacher.spec
    (found,) = chosen(teacher.features, [name], "teacher.name", "the teacher")
    feature = dataclasses.replace(found, name=found.name.removeprefix("net."))
    net = Tapped(teacher.net, feature, row.family).eval()
    arch = {**teacher.arch, "tapped": row.family, "feature": feature.as_dict()}
    changes = {
        "family": "tapped", "task": "features", "classes": (), "arch": arch, "stride": _stride(net, feature, row.input_spec.shape),
        "params": _used(net, row.input_spec.shape), "taps": (),
    }  # fmt: skip
    return Teacher(net, row.model_copy(update=changes), arch).eval().requires_grad_(False)


def _stride(net: Tapped, feature: Feature, shape: tuple[int, ...]) -> int:
    """Pixels that one place is wide.

    Raises:
        RequestError: it has no places, or the tile no whole number of them.
    """
    if len(shape) != 3 or not feature.stride or (feature.layout == "NLC" and feature.grid is None):
        raise RequestError(
            f"teacher.name: '{feature.name}' ({feature.words}) has no places on an image; name another feature"
        )
    with torch.inference_mode():
        found = net(torch.zeros(1, *shape)).shape
    tile = shape[-1]
    if found[2] != found[3] or tile % found[2]:
        raise RequestError(
            f"teacher.name: '{feature.name}' gives {found[2]}x{found[3]} places, and a tile of {tile}x{tile} pixels is no whole "
            "number of them; name another feature"
        )
    return int(tile // found[2])


def _used(net: Tapped, shape: tuple[int, ...]) -> int:
    """Weights that the feature depends on."""
    wanted = {name: p.requires_grad for name, p in net.named_parameters()}
    net.requires_grad_(True)
    net(torch.zeros(1, *shape)).sum().backward()  # type: ignore[no-untyped-call]
    used = sum(p.numel() for p in net.parameters() if p.grad is not None)
    for name, parameter in net.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(wanted[name])
    return max(1, used)
