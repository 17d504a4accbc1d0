"""Feature taps: published features read as a network runs, and connectors that bring the student's and the teacher's together."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.models.features import Feature

MAP_AXES = 4


class TapRecorder:
    """Context manager: inside it, every forward pass of ``module`` leaves its features in ``out``, channels first: maps
    (N, C, H, W), places along a line or tokens (N, C, L), vectors (N, C).

    Args:
        features: what to read, under the names that the submodules have in ``module``.
    """

    def __init__(self, module: nn.Module, features: Sequence[Feature]) -> None:
        self.out: dict[str, Tensor] = {}
        self._module, self._features, self._handles = module, features, []  # type: ignore[var-annotated]

    def __enter__(self) -> TapRecorder:
        for feature in self._features:
            submodule = self._module.get_submodule(feature.module)
            self._handles.append(submodule.register_forward_hook(self._keep(feature)))
        return self

    def _keep(self, feature: Feature) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
            self.out[feature.name] = feature.channels_first(feature.taken(output))

        return hook

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()


class Connector(nn.Module):
    """The student's and the teacher's features, both channels first, in the shape in which they are compared.

    The student's channels become the teacher's by a linear layer. Maps are compared on the teacher's grid, lines of one length
    place by place; whatever else meets (a map and a vector, tokens without places and a map) by the means over places.
    """

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        sizes = student.shape[1], teacher.shape[1]
        both_maps = student.ndim == teacher.ndim == MAP_AXES
        self.pooled = not both_maps and student.shape[2:] != teacher.shape[2:]
        kinds = {3: nn.Conv1d, MAP_AXES: nn.Conv2d}
        kind = None if self.pooled else kinds.get(teacher.ndim)
        self.project: nn.Module = nn.Linear(*sizes) if kind is None else kind(*sizes, 1)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        if self.pooled:
            return self.project(pooled(student)), pooled(teacher)
        projected = self.project(student)
        return resampled(projected, teacher.shape[2:]) if teacher.ndim == MAP_AXES else projected, teacher


def pooled(x: Tensor) -> Tensor:
    """The mean over places: (N, C, ...) -> (N, C)."""
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def resampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map (N, C, H, W) on a grid of another size: coarser by the means of areas, finer bilinearly."""
    rows, columns = size
    if x.shape[2] >= rows and x.shape[3] >= columns:
        return x if x.shape[2:] == (rows, columns) else F.adaptive_avg_pool2d(x, (rows, columns))
    return F.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=False)
