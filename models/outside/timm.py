"""timm's classifiers and encoders, with any number of bands."""

from __future__ import annotations

from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError


def timm_network(name: str, spec: InputSpec, classes: int) -> nn.Module:
    import timm

    if name not in timm.list_models():
        raise RequestError(f"timm has no model '{name}'; timm.list_models() lists all")
    return timm.create_model(name, pretrained=False, in_chans=spec.channels, num_classes=classes)  # type: ignore[no-any-return]
