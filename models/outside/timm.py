"""timm's classifiers and encoders, with any number of bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.models.outside.arguments import check_free


def timm_network(name: str, spec: InputSpec, classes: int, arch: Mapping[str, Any]) -> nn.Module:
    """With ``img_size`` at the contract's tile where a network is built for one image size."""
    import timm

    if name not in timm.list_models():
        raise RequestError(f"timm has no model '{name}'; timm.list_models() lists all")
    check_free(arch, ("in_chans", "num_classes", "pretrained"))
    config = timm.get_pretrained_cfg(name)
    sized = {"img_size": spec.tile} if config is not None and config.fixed_input_size and spec.is_image else {}
    arguments = {**sized, **arch, "in_chans": spec.channels, "num_classes": classes}
    return timm.create_model(name, pretrained=False, **arguments)  # type: ignore[no-any-return]
