"""Feature taps: published features read as a network runs."""

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


def pooled(x: Tensor) -> Tensor:
    """The mean over places: (N, C, ...) -> (N, C)."""
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def resampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """A map (N, C, H, W) on a grid of another size: coarser by the means of areas, finer bilinearly."""
    rows, columns = size
    if x.shape[2] >= rows and x.shape[3] >= columns:
        return x if x.shape[2:] == (rows, columns) else F.adaptive_avg_pool2d(x, (rows, columns))
    return F.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=False)
