"""torchgeo's networks that take images alone: ResNet, ViT, Swin, and siamese ones of two dates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.outside import torchgeo_foundation as outside_geo
from rsedge.models.outside.arguments import check_free

_SIAMESE = {"fcsiamdiff": "FCSiamDiff", "fcsiamconc": "FCSiamConc"}


def torchgeo_network(name: str, spec: InputSpec, classes: int, arch: Mapping[str, Any]) -> nn.Module:
    from torchgeo import models

    check_free(arch, ("in_chans", "in_channels", "num_classes", "classes", "weights"))
    plain = name.startswith(("resnet", "vit", "swin"))
    if arch and not plain:
        raise RequestError(f"teacher.arch: 'torchgeo:{name}' takes none here; leave it out")
    if name.partition("/")[0] in _SIAMESE:
        return _siamese(name, spec, classes)
    if name not in models.list_models():
        raise RequestError(f"torchgeo has no model '{name}'; it has: {', '.join(models.list_models())}")
    made = outside_geo.build(name, getattr(models, name), spec, classes)
    if made is not None:
        return made
    if not plain:
        kinds = ", ".join(f"{kind}*" for kind in ("resnet", "vit", "swin", *outside_geo.FAMILIES))
        raise RequestError(f"torchgeo:{name} takes more than an image; taken here: {kinds}")
    options: dict[str, Any] = {} if name.startswith("swin") else {"in_chans": spec.channels}
    options = ({"img_size": spec.tile} if name.startswith("vit") else {}) | dict(arch) | options
    return models.get_model(name, weights=None, num_classes=classes, **options)


def _siamese(name: str, spec: InputSpec, classes: int) -> nn.Module:
    """Fully convolutional siamese networks (Daudt et al. 2018) of torchgeo: two dates (N, 2, C, H, W) -> (N, K, H, W)."""
    from torchgeo import models

    kind, _, encoder = name.partition("/")
    if spec.layout != "TCHW" or spec.frames != 2 or not encoder or not classes:
        raise RequestError(
            f"torchgeo:{name} compares two dates: give its encoder ({kind}/resnet34), classes, and an input with layout: TCHW and "
            "frames: 2"
        )
    try:
        net: nn.Module = getattr(models, _SIAMESE[kind])(
            encoder_name=encoder, encoder_weights=None, in_channels=spec.channels, classes=classes
        )
    except KeyError as error:
        raise RequestError(f"torchgeo:{name}: no such encoder: {error}") from error
    return net
