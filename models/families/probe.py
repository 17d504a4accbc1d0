"""A linear head on a frozen encoder, the linear probe of self-supervised learning (Alain & Bengio 2017), as one network.

``models/probe.py`` puts it on a teacher and fits it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rsedge.models.families import Family, family, network_features
from rsedge.models.features import Features, Shape, inside


class Probe(nn.Module):
    """Encoder of the family ``probed`` giving (N, D), tokens (N, T, D) or maps (N, D, H, W), the latter averaged -> logits or
    values (N, K)."""

    def __init__(self, encoder: nn.Module, features: int, outputs: int, probed: str) -> None:
        super().__init__()
        self.encoder, self.head, self.probed = encoder, nn.Linear(features, outputs), probed

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(pooled(self.encoder(*inputs)))  # type: ignore[no-any-return]


def pooled(features: Tensor) -> Tensor:
    """One vector per sample, (N, D)."""
    return features.mean(1) if features.ndim == 3 else features.flatten(2).mean(2) if features.ndim == 4 else features


def build(probed: str, features: int, outputs: int, **arch: Any) -> Probe:
    """The probe over a family's network.

    Args:
        probed: the family that builds the encoder with ``arch``.
        features: length of its vectors.
        outputs: of the head.
    """
    return Probe(family(probed).build(**arch), features, outputs, probed)


def features(net: nn.Module, shape: Shape) -> Features:
    """The encoder's."""
    assert isinstance(net, Probe)
    return inside("encoder", network_features(net.probed, net.encoder, shape))


FAMILY = Family(build, features=features)
