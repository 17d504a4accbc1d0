"""A layer as a runtime sees it: what its time depends on, and nothing of its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["conv", "transposed", "linear", "attention"]


@dataclass(frozen=True)
class LayerShape:
    """A layer as a runtime sees it: two of the same shape take the same time.

    ``input`` is the shape of what it gets: (N, channels, ...) of convolutions, (..., channels) of linear layers, (N, heads, tokens,
    width) of attention (queries, keys and values alike).
    """

    kind: Kind
    input: tuple[int, ...]
    out: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def cin(self) -> int:
        """Channels that go in; heads of attention."""
        return self.input[-1] if self.kind == "linear" else self.input[1]

    @property
    def depthwise(self) -> bool:
        """Whether one width is both: a filter per channel, or attention head by head."""
        return self.kind == "attention" or (self.groups > 1 and self.groups == self.cin == self.out)

    def resized(self, cin: int, out: int) -> LayerShape:
        """The same layer at other widths."""
        shape = list(self.input)
        shape[-1 if self.kind == "linear" else 1] = out if self.depthwise else cin
        groups = out if self.depthwise and self.kind != "attention" else self.groups
        return replace(self, input=tuple(shape), out=out, groups=groups)

    @property
    def positions(self) -> int:
        """Values that it writes per output channel; tokens times width of a head."""
        if self.kind == "linear":
            return math.prod(self.input[:-1])
        if self.kind == "attention":
            return math.prod(self.input) // self.input[1]
        return self.input[0] * math.prod(self.places)

    @property
    def places(self) -> tuple[int, ...]:
        """Height and width (or length) of what a convolution gives."""
        sides = zip(self.input[2:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(
            n * s if self.kind == "transposed" else (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides
        )
