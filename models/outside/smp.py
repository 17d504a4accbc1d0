"""segmentation-models-pytorch: architecture/encoder, with any number of bands."""

from __future__ import annotations

from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError


def smp_network(name: str, spec: InputSpec, classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp

    arch, _, encoder = name.partition("/")
    if not encoder or not classes:
        raise RequestError("smp takes architecture/encoder and the classes, e.g. smp:unet/resnet34")
    try:
        net: nn.Module = smp.create_model(arch, encoder, None, in_channels=spec.channels, classes=classes)
    except (KeyError, ValueError) as error:
        raise RequestError(f"smp has no '{name}': {error}") from error
    return net
