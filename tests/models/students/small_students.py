"""Contracts and arguments that make the catalogue's entries small, for tests."""

from __future__ import annotations

from typing import Any

from rsedge.data.bands import BandSpec, InputSpec, Layout
from rsedge.models.students import CATALOGUE, contract_arguments

OUTPUTS = 5
FINER = 2
STRIDE = 4
# One per kind of network; the others build in the long sweep.
QUICK = (
    "slim-unet", "unet-mobilenetv4", "siamese-unet", "slim-detector", "slim-encoder", "mobilenetv4-small", "resnet18", "vit-tiny",
    "series-transformer", "series-conv", "place-mlp",
)  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "smp-unet": {"encoder": "tu-mobilenetv4_conv_small"},
    "vit-tiny": {"depth": 2},
    "vit-small": {"depth": 2},
    "place-mlp": {"count": 16, "width": 64},
}
_COLUMNS = ("vv", "red", "nir", "month", "latitude", "longitude")


def small_contract(name: str, layout: Layout, tile: int = 64) -> InputSpec:
    """A contract that the entry takes: reflectances with nodata 65535, months and places as they are."""
    if layout == "C":
        return InputSpec(bands=(BandSpec(name="longitude"), BandSpec(name="latitude")), layout="C", dtype="float32")
    if layout == "TC":
        bands = [
            BandSpec(name=c, **({"nodata": 65535, "std": 10_000} if i < 3 else {})) for i, c in enumerate(_COLUMNS)
        ]
        return InputSpec(bands=tuple(bands), layout="TC", frames=6, dtype="float32")
    names = ("blue", "green", "red", "nir")
    bands = [BandSpec(name=n, scale=1e-4, nodata=0, mean=0.2, std=0.2) for n in names]
    return InputSpec(bands=tuple(bands), layout=layout, tile=tile, frames=2 if layout == "TCHW" else 1)


def small_arguments(name: str, spec: InputSpec) -> dict[str, Any]:
    """Keyword arguments of the builder."""
    return {**contract_arguments(name, spec, OUTPUTS, FINER, stride=STRIDE), **_OPTIONS.get(name, {})}


def output_shape(name: str, spec: InputSpec) -> tuple[int, ...]:
    """Of the output for one input."""
    task = CATALOGUE[name].tasks[0]
    if task == "detection":
        return (1, sum((spec.tile // stride) ** 2 for stride in (4, 8, 16)), 5 + OUTPUTS)
    if task == "super-resolution":
        return (1, OUTPUTS, FINER * spec.tile, FINER * spec.tile)
    if task == "features":
        return (1, OUTPUTS, spec.tile // STRIDE, spec.tile // STRIDE)
    return (1, OUTPUTS, spec.tile, spec.tile) if task == "segmentation" else (1, OUTPUTS)
