"""torchvision's classifiers, of three bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.outside.arguments import check_free


def torchvision_network(name: str, spec: InputSpec, classes: int, arch: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise RequestError(f"torchvision has no classifier '{name}'")
    if spec.channels != 3:
        raise RequestError(f"torchvision:{name} takes three bands, not {spec.channels}; timm: takes any number")
    check_free(arch, ("num_classes", "weights"))
    sized = {"image_size": spec.tile} if name.startswith("vit_") else {}
    return models.get_model(name, weights=None, **{**sized, **arch, **({"num_classes": classes} if classes else {})})  # type: ignore[no-any-return]
