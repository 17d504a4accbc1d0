"""A network of which one published feature is taken in place of its output: the encoder inside of it, as one network.

``models/tapped.py`` cuts a teacher so. What comes behind the feature takes no part in what is exported; its weights stay in the
module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rsedge.models.families import Family, family, network_features
from rsedge.models.features import Feature, Features, Shape, inside


class Tapped(nn.Module):
    """Network of the family ``cut_from`` -> its feature as a map (N, D, h, w), whatever its own layout is."""

    def __init__(self, network: nn.Module, feature: Feature, cut_from: str) -> None:
        super().__init__()
        self.network, self.feature, self.cut_from = network, feature, cut_from

    def forward(self, *inputs: Tensor) -> Tensor:
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: Any) -> None:
            kept.append(self.feature.channels_first(self.feature.taken(output)))

        handle = self.network.get_submodule(self.feature.module).register_forward_hook(keep)
        try:
            self.network(*inputs)
        finally:
            handle.remove()
        return kept[-1]


def build(tapped: str, feature: Mapping[str, Any], **arch: Any) -> Tapped:
    """The cut network over a family's.

    Args:
        tapped: the family that builds it with ``arch``.
        feature: fields of :class:`rsedge.models.features.Feature`.
    """
    return Tapped(family(tapped).build(**arch), Feature(**feature), tapped)


def features(net: nn.Module, shape: Shape) -> Features:
    """The network's own."""
    assert isinstance(net, Tapped)
    return inside("network", network_features(net.cut_from, net.network, shape))


FAMILY = Family(build, features=features)
