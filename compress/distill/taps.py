"""Feature taps: named submodules whose output is read, and connectors that bring the student's to the teacher's shape."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rsedge.data.errors import RequestError


class TapRecorder:
    """Context manager: inside it, every forward pass of ``module`` leaves the outputs of the named submodules in ``out``.

    Raises:
        RequestError: a name is no submodule; the message lists the names one level up.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.out: dict[str, Tensor] = {}
        self._module, self._names, self._handles = module, names, []  # type: ignore[var-annotated]

    def __enter__(self) -> TapRecorder:
        modules = dict(self._module.named_modules())
        for name in self._names:
            if name not in modules:
                parent = name.rpartition(".")[0]
                near = [n for n in modules if n.startswith(parent) and n.count(".") <= name.count(".")]
                raise RequestError(
                    f"tap '{name}' is no submodule of {type(self._module).__name__}; near: {', '.join(near[:12])}"
                )
            self._handles.append(modules[name].register_forward_hook(self._keep(name)))
        return self

    def _keep(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Any) -> None:
            self.out[name] = output[-1] if isinstance(output, (list, tuple)) else output

        return hook

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()


class Connector(nn.Module):
    """Student features -> the teacher's shape: maps (N, C, H, W) by a 1x1 convolution and bilinear resampling, vectors (N, C)
    by a linear layer.
    """

    def __init__(self, student: Tensor, teacher: Tensor) -> None:
        super().__init__()
        self.vectors = student.ndim == 2
        sizes = student.shape[1], teacher.shape[1]
        self.project: nn.Module = nn.Linear(*sizes) if self.vectors else nn.Conv2d(*sizes, 1)

    def forward(self, x: Tensor, teacher: Tensor) -> Tensor:
        y: Tensor = self.project(x)
        size = teacher.shape[2:]
        return y if y.shape[2:] == size else F.interpolate(y, size=size, mode="bilinear", align_corners=False)
