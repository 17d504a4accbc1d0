"""What other libraries declare of their networks' features: modules, strides and channels.

Both kinds of claim leave the layout open; each is a list of readings of one module, of which a run shows which holds.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from rsedge.models.features import Feature, Features, Layout

Claim = list[Feature]


def timm_maps(net: nn.Module, layout: Layout) -> Features:
    """timm's ``feature_info``, whose maps are known to be of one layout."""
    info: Any = net.feature_info
    return tuple(Feature(i["module"], i["num_chs"], layout, i["reduction"]) for i in info)


def timm_claims(net: nn.Module) -> list[Claim]:
    """Readings of each entry of timm's ``feature_info``; none where there is no such list."""
    info: Any = getattr(net, "feature_info", None)
    modules = dict(net.named_modules())
    if not isinstance(info, list):
        return []
    last: tuple[Layout, Layout] = ("NHWC", "NCHW") if getattr(net, "output_fmt", "") == "NHWC" else ("NCHW", "NHWC")
    prefix, grid = int(getattr(net, "num_prefix_tokens", 0)), _grid(net)
    claims = []
    for entry in info:
        name, channels, stride = entry["module"], entry["num_chs"], entry["reduction"]
        if name in modules:
            readings = [Feature(name, channels, layout, stride) for layout in last]
            readings += [Feature(name, channels, "NLC", stride, grid, prefix)] if grid else []
            claims.append(readings)
    return claims


def _grid(net: nn.Module) -> tuple[int, int] | None:
    """Rows and columns of patches of a network with one patch size."""
    found: Any = getattr(getattr(net, "patch_embed", None), "grid_size", None)
    return None if found is None else (int(found[0]), int(found[1]))


def smp_claims(net: nn.Module) -> list[Claim]:
    """The encoder's levels and the decoder's map of segmentation-models-pytorch; none where it is no network of that kind."""
    kinds = {"encoder": nn.Module, "decoder": nn.Module, "segmentation_head": nn.Sequential}
    if not all(isinstance(getattr(net, name, None), kind) for name, kind in kinds.items()):
        return []
    return [[feature] for feature in smp_maps(net)]


def smp_maps(net: nn.Module) -> Features:
    """The encoder's levels ``encoder[1]``, ``encoder[2]`` ... and the decoder's map."""
    encoder: Any = net.encoder
    head: Any = net.segmentation_head
    levels = [
        Feature(f"encoder[{i}]", channels, "NCHW", min(2**i, encoder.output_stride))
        for i, channels in enumerate(encoder.out_channels)
        if i and channels
    ]
    scale = int(getattr(head[1], "scale_factor", 1))
    return (*levels, Feature("decoder", head[0].in_channels, "NCHW", scale))
