"""Connectors: what brings a student's and a teacher's feature, both channels first, to where a loss compares them.

Maps (N, C, H, W) meet on the teacher's grid, lines of one length (N, C, L) place by place, vectors (N, C) as they are; whatever
else meets (a map and a vector, tokens without places and a map) by the means over places. The names are those of
:data:`.loss_table.CONNECTORS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rsedge.compress.distill.taps import MAP_AXES, pooled, resampled

HIDDEN = 0.5
"""Share of the places that ``masked`` hides."""
_KINDS: dict[int, type[nn.Module]] = {2: nn.Linear, 3: nn.Conv1d, MAP_AXES: nn.Conv2d}


class Connector(nn.Module):
    """``forward(student, teacher)`` gives both sides as they are compared.

    Args:
        project: from the student's channels, at the axes at which both meet, to what is compared.
        means: whether means over places are compared.
    """

    def __init__(self, project: nn.Module, means: bool) -> None:
        super().__init__()
        self.project, self.pooled = project, means

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if self.pooled:
            return self.project(pooled(student)), pooled(teacher)
        projected = self.project(student)
        return resampled(projected, teacher.shape[2:]) if teacher.ndim == MAP_AXES else projected, teacher


class _Masked(nn.Module):
    """While it learns, half of the places of a map or line are hidden before two convolutions give all of them (MGD)."""

    def __init__(self, student: int, teacher: int, kind: type[nn.Conv1d] | type[nn.Conv2d]) -> None:
        super().__init__()
        self.project = kind(student, teacher, 1)
        self.generate = nn.Sequential(
            kind(teacher, teacher, 3, padding=1), nn.ReLU(), kind(teacher, teacher, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        if self.training:
            x = x * (torch.rand_like(x[:, :1]) >= HIDDEN)
        return self.generate(x)  # type: ignore[no-any-return]


def connector(name: str, student: Tensor, teacher: Tensor) -> Connector:
    """The connector of this name between two features, by a sample of each.

    Raises:
        ValueError: ``masked`` between features that do not meet place by place.
    """
    meet_as_maps = student.ndim == teacher.ndim == MAP_AXES
    means = name == "pooled" or (not meet_as_maps and student.shape[2:] != teacher.shape[2:])
    axes = 2 if means else teacher.ndim
    return Connector(_PROJECTIONS[name](student.shape[1], teacher.shape[1], axes), means)


def _linear(student: int, teacher: int, axes: int) -> nn.Module:
    return _layer(axes, student, teacher)


def _layer(axes: int, inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs) if axes == 2 else _KINDS[axes](inputs, outputs, 1)


def _mlp(student: int, teacher: int, axes: int) -> nn.Module:
    wide = max(student, teacher)
    return nn.Sequential(_layer(axes, student, wide), nn.GELU(), _layer(axes, wide, teacher))


def _masked(student: int, teacher: int, axes: int) -> nn.Module:
    if axes == 2:
        raise ValueError("masked hides places, and these features do not meet place by place; use linear")
    return _Masked(student, teacher, nn.Conv2d if axes == MAP_AXES else nn.Conv1d)


_PROJECTIONS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "masked": _masked,
    "pooled": _linear,
    "none": lambda *_: nn.Identity(),
}
