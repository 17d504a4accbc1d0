"""segmentation-models-pytorch: architecture/encoder, with any number of bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.outside.arguments import check_free


def smp_network(name: str, spec: InputSpec, classes: int, arch: Mapping[str, Any]) -> nn.Module:
    import segmentation_models_pytorch as smp

    kind, _, encoder = name.partition("/")
    if not encoder or not classes:
        raise RequestError("smp takes architecture/encoder and the classes, e.g. smp:unet/resnet34")
    check_free(arch, ("in_channels", "classes", "encoder_name", "encoder_weights", "arch"))
    try:
        net: nn.Module = smp.create_model(kind, encoder, None, in_channels=spec.channels, classes=classes, **arch)
    except (KeyError, ValueError) as error:
        raise RequestError(f"smp has no '{name}': {error}") from error
    return net
