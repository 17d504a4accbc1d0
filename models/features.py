"""What a network gives on the way to its output: features by name, with stride, channels and layout (as timm's ``feature_info``).

Whoever builds a network publishes its features, so that nobody has to read a meaning out of a tensor's shape: NHWC maps and tokens
look like something else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from rsedge.data.document_check import nearest
from rsedge.data.errors import RequestError

Layout = Literal["NCHW", "NHWC", "NLC", "NCL", "NC"]
Shape = tuple[int, ...]
"""Of one input, without the batch axis."""
LISTED = 40
"""Features that a message names at most."""


@dataclass(frozen=True)
class Feature:
    """One tensor inside a network.

    Attributes:
        name: the submodule that gives it; ``name[2]`` where it gives several tensors.
        channels: how many.
        layout: of the tensor. ``NLC`` are tokens; ``NCL`` is a line of places, along time for instance; ``NC`` a vector.
        stride: pixels (or steps along the line) of the input per place; 0 where it has no places.
        grid: rows and columns of tokens, row by row; None where they do not lie on the image.
        prefix: tokens ahead of the grid's (class token, registers).
        planes: grids that follow one another (groups of bands, dates).
    """

    name: str
    channels: int
    layout: Layout
    stride: int = 0
    grid: tuple[int, int] | None = None
    prefix: int = 0
    planes: int = 1

    @property
    def module(self) -> str:
        """Name of the submodule."""
        return self.name.partition("[")[0]

    @property
    def index(self) -> int | None:
        """Which of its tensors it is; None where it gives one."""
        _, _, number = self.name.partition("[")
        return int(number[:-1]) if number else None

    @property
    def tokens(self) -> int:
        """Tokens of all grids; 0 without one."""
        return self.planes * self.grid[0] * self.grid[1] if self.grid else 0

    def taken(self, output: Any) -> Any:
        """The feature in what its submodule gives."""
        return output if self.index is None else output[self.index]

    def holds(self, shape: Sequence[int]) -> bool:
        """Whether a tensor (batch axis first) can be this feature."""
        axis = self.layout.index("C")
        if len(shape) != len(self.layout) or shape[axis] != self.channels:
            return False
        return self.layout != "NLC" or shape[1] >= self.prefix + max(self.tokens, 1)

    def lies_on(self, shape: Sequence[int], edge: int) -> bool:
        """Whether the tensor's places cover an image of ``edge`` pixels at this stride, up to what rounding adds or leaves."""
        if self.layout in ("NC", "NCL") or not self.stride:
            return True
        rows = {"NCHW": shape[2:3], "NHWC": shape[1:2]}.get(self.layout, self.grid or ())
        return all(abs(n * self.stride - edge) < max(self.stride, 2) for n in rows)

    def channels_first(self, x: Tensor) -> Tensor:
        """The tensor as (N, C, H, W) where it has places on the image, else (N, C, L) or (N, C).

        Tokens of a grid become the map that they stand for: without those ahead of and behind it, the mean over planes.

        Raises:
            RequestError: it is not what was published.
        """
        if not self.holds(x.shape):
            raise RequestError(f"feature '{self.name}' gives {tuple(x.shape)}, but is published as {self.words}")
        if self.layout == "NHWC":
            return x.permute(0, 3, 1, 2)
        if self.layout != "NLC":
            return x
        if self.grid is None:
            return x[:, self.prefix :].transpose(1, 2)
        placed = x[:, self.prefix : self.prefix + self.tokens]
        return placed.unflatten(1, (self.planes, *self.grid)).mean(1).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call]

    @property
    def words(self) -> str:
        """``stride 16, 768 channels, NLC (1 + 14x14 tokens)``."""
        parts = ([f"stride {self.stride}"] if self.stride else []) + [f"{self.channels} channels", self.layout]
        if self.layout == "NLC":
            planes = f"{self.planes} x " if self.planes > 1 else ""
            grid = f"{planes}{self.grid[0]}x{self.grid[1]} tokens" if self.grid else "tokens without places"
            parts[-1] += f" ({f'{self.prefix} + ' if self.prefix else ''}{grid})"
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return dataclasses.asdict(self)


Features = tuple[Feature, ...]


def maps(*found: tuple[str, int, int]) -> Features:
    """NCHW maps as (name, stride, channels)."""
    return tuple(Feature(name, channels, "NCHW", stride) for name, stride, channels in found)


def vectors(*found: tuple[str, int]) -> Features:
    """Vectors as (name, channels)."""
    return tuple(Feature(name, channels, "NC") for name, channels in found)


def tokens(
    names: Iterable[str], channels: int, shape: Shape, stride: int, prefix: int = 0, planes: int = 1
) -> Features:
    """Tokens of patches of ``stride`` pixels over an input (..., H, W)."""
    grid = shape[-2] // stride, shape[-1] // stride
    return tuple(Feature(name, channels, "NLC", stride, grid, prefix, planes) for name in names)


def numbered(name: str, count: int) -> list[str]:
    """``name`` itself, which gives what its last submodule gives, and all of its ``count`` submodules."""
    return [name, *(f"{name}.{i}" for i in range(count))]


def inside(name: str, features: Features) -> Features:
    """The features of a submodule, under the names that they have in the whole network."""
    return tuple(
        dataclasses.replace(f, name=f"{name}{f.name}" if f.name.startswith("[") else f"{name}.{f.name}")
        for f in features
    )


def chosen(features: Features, names: Sequence[str], field: str, whose: str) -> Features:
    """The published features of these names.

    Args:
        field: where the names stand in a recipe.
        whose: ``the teacher`` or ``the student``.

    Raises:
        RequestError: one is not published; names all that are, with stride and channels.
    """
    known = {f.name: f for f in features}
    for name in names:
        if not known:
            raise RequestError(f"{field}: {whose} publishes no features, so '{name}' cannot be tapped; leave it out")
        if name not in known:
            listed = "; ".join(f"{f.name} ({f.words})" for f in features[:LISTED])
            more = f"; and {len(features) - LISTED} more" if len(features) > LISTED else ""
            raise RequestError(
                f"{field}: '{name}' is no feature of {whose}{nearest(name, list(known))}; it has: {listed}{more}"
            )
    return tuple(known[name] for name in names)
