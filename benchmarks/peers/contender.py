"""What a contender is, and who competes: one module each, which has a ``make(material, folder)``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rsedge.data.record import Record

if TYPE_CHECKING:
    from material import Material


class Made(Record):
    """What a contender made of the teacher: a model file, and how it came about."""

    model: str
    runtime: str = "openvino"
    precision: str = "int8"
    macs: int | None = Field(default=None, ge=0)
    steps: int | None = Field(default=None, ge=0, description="training steps")
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Attributes:
        title: in the page's words.
        module: in this folder.
        options: given to the module's ``make``.
    """

    name: str
    title: str
    module: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def make(self) -> Callable[[Material, Path], Made]:
        made: Callable[..., Made] = importlib.import_module(self.module).make
        return lambda material, folder: made(material, folder, **dict(self.options))


OURS, TEACHER, NNCF = "ours", "teacher-f32", "nncf"
CONTENDERS = {
    one.name: one
    for one in (
        Contender(TEACHER, "the teacher as it is, f32", "own", (("what", "teacher"),)),
        Contender(OURS, "rsedge: the recipe's student, INT8", "own", (("what", "student"),)),
        Contender(NNCF, "NNCF, default post-training INT8", "nncf_default"),
        Contender("nncf-accuracy", "NNCF with accuracy control", "nncf_accuracy"),
        Contender("torch-pruning-half", "Torch-Pruning to half the MACs, distilled, NNCF", "torch_pruner",
                  (("share", 0.5),)),
        Contender("torch-pruning-equal", "Torch-Pruning to the MACs of ours, distilled, NNCF", "torch_pruner"),
        Contender("olive", "Olive, static INT8 for ONNX Runtime", "olive_static"),
        Contender("ours-teacher", "rsedge: the teacher itself, INT8 searched", "own", (("what", "teacher-int8"),)),
    )
}  # fmt: skip
"""In the order in which they are made: those behind ``ours`` are given its time and its MACs."""
