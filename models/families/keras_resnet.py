"""The So2Sat local climate zone ResNet: pre-activation bottlenecks (ResNet v2 for small images), read from a Keras file.

Sources: He et al. 2016, "Identity mappings in deep residual networks"; Qiu et al. 2020 for the So2Sat networks. Layers carry
Keras's names, numbered as Keras made them: in each block three convolutions, then the shortcut's.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from rsedge.data.errors import RequestError
from rsedge.models.families import Family
from rsedge.models.features import Features, Shape, maps

KERAS_EPSILON = 1e-3


class KerasResNet(nn.Module):
    """x (N, bands, H, W), H and W multiples of 4 -> logits (N, classes).

    Args:
        depth: 9 * blocks per stage + 2.
        width: channels of the stem; the three stages give 4, 8 and 16 times as many.
    """

    def __init__(self, bands: int, classes: int, depth: int = 20, width: int = 16) -> None:
        super().__init__()
        if depth < 11 or (depth - 2) % 9:
            raise RequestError(f"arch.depth: must be 9 * blocks + 2 (11, 20, 29 ...), not {depth}")
        self.blocks = (depth - 2) // 9
        self._convs = self._norms = 0
        self._conv(bands, width, 3)
        self._norm(width)
        inner, channels = width, width
        for stage in range(3):
            outer = 4 * inner if stage == 0 else 2 * inner
            for block in range(self.blocks):
                if stage or block:
                    self._norm(channels)
                self._conv(channels, inner, 1, 2 if stage and not block else 1)
                self._norm(inner)
                self._conv(inner, inner, 3)
                self._norm(inner)
                self._conv(inner, outer, 1)
                if not block:
                    self._conv(channels, outer, 1, 2 if stage else 1)
                channels = outer
            inner = outer
        self._norm(channels)
        self.dense_1 = nn.Linear(channels, classes)

    def _conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        self._convs += 1
        self.add_module(f"conv2d_{self._convs}", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2))

    def _norm(self, channels: int) -> None:
        self._norms += 1
        self.add_module(f"batch_normalization_{self._norms}", nn.BatchNorm2d(channels, eps=KERAS_EPSILON))

    def forward(self, x: Tensor) -> Tensor:
        convs = iter([self.get_submodule(f"conv2d_{i + 1}") for i in range(self._convs)])
        norms = iter([self.get_submodule(f"batch_normalization_{i + 1}") for i in range(self._norms)])

        def activate(y: Tensor) -> Tensor:
            return F.relu(next(norms)(y))

        x = activate(next(convs)(x))
        for stage in range(3):
            for block in range(self.blocks):
                y = next(convs)(activate(x) if stage or block else x)
                y = next(convs)(activate(y))
                y = next(convs)(activate(y))
                x = y + (x if block else next(convs)(x))
        return self.dense_1(activate(x).mean((2, 3)))  # type: ignore[no-any-return]


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keras keeps kernels as (height, width, in, out) and matrices as (in, out)."""
    turned = {}
    for name, value in state.items():
        if name.endswith(".weight") and value.ndim == 4:
            value = value.permute(3, 2, 0, 1).contiguous()
        elif name.endswith(".weight") and value.ndim == 2:
            value = value.T.contiguous()
        turned[name] = value
    return turned


def features(net: nn.Module, shape: Shape) -> Features:
    """The sums at the ends of the three stages, each behind the norm that reads it first."""
    assert isinstance(net, KerasResNet)
    norms = [f"batch_normalization_{3 * net.blocks * (stage + 1) + 1}" for stage in range(3)]
    layers: list[Any] = [net.get_submodule(name) for name in norms]
    return maps(*((name, 2**i, layer.num_features) for i, (name, layer) in enumerate(zip(norms, layers, strict=True))))


FAMILY = Family(KerasResNet, convert=convert, features=features)
