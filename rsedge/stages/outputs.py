"""Files that one stage writes and others read, each named once: who writes one and who reads it ask here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rsedge.runtimes.precision import precision


@dataclass(frozen=True)
class Output:
    """A file or a folder of a stage.

    Attributes:
        stage: that writes it.
        name: in that stage's folder.
    """

    stage: str
    name: str

    def of(self, folders: Mapping[str, Path]) -> Path:
        """Where it lies, by the folders of the stages that are done."""
        return folders[self.stage] / self.name


TEACHER_IR = {made: Output("teacher", f"teacher-{made}.xml") for made in ("f32", "int8")}
"""The teacher for OpenVINO, by precision."""
STUDENT_ONNX = Output("export", f"{precision('f32').stem}.onnx")
STUDENT_IR = Output("export", f"{precision('f32').stem}.xml")
F32_ON_OPENVINO = "openvino-cpu-f32"
"""The target whose file :data:`STUDENT_IR` is, on this machine."""
LANGUAGE = Output("language", "language")
"""The language model's files."""
VECTORS = Output("probe", "vectors.npy")
"""Features of the samples that the head was fitted on."""


def weights_of(stage: str) -> Output:
    """The student as a training stage leaves it: structure and weights."""
    return Output(stage, "model")


def predictions(stage: str, name: str) -> Output:
    """What is kept of outputs on a role (the teacher's) or of a target (on test)."""
    return Output(stage, f"{name}.npz")


def cases_of(target: str) -> Output:
    """Who of teacher and target is right where, on the grid of the scene that judges."""
    return Output("verify", f"{target}-cases.npz")


def ir_bytes(xml: Path) -> int:
    """Size of an OpenVINO model, its weights with it."""
    return xml.stat().st_size + xml.with_suffix(".bin").stat().st_size
