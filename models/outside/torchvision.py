"""torchvision's classifiers, of three bands."""

from __future__ import annotations

from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError


def torchvision_network(name: str, spec: InputSpec, classes: int) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise RequestError(f"torchvision has no classifier '{name}'")
    if spec.channels != 3:
        raise RequestError(f"torchvision:{name} takes three bands, not {spec.channels}; timm: takes any number")
    return models.get_model(name, weights=None, **({"num_classes": classes} if classes else {}))  # type: ignore[no-any-return]
