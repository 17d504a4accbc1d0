"""What all contenders are given: one teacher, one draw of data, the same held-out tiles. Made by a recipe's first stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results import ROOT

from rsedge.pipeline.run import Line, run_until
from rsedge.recipe.reading import load_recipe
from rsedge.recipe.schema import Recipe
from rsedge.stages.context import RunContext
from rsedge.stages.outputs import TEACHER_IR
from rsedge.tasks.base import HeldOut

RUNS = ROOT / "runs" / "peers"
THREADS = 1
"""Of all measurements: ratios of processor time, and ONNX Runtime's other threads burn it while they wait."""


@dataclass(frozen=True)
class Case:
    """A teacher with real weights and its data: a ready recipe, and which of its fields are set otherwise for all contenders."""

    name: str
    recipe: str
    settings: tuple[str, ...] = ()

    def folder(self, seed: int) -> Path:
        return RUNS / f"{self.name}-{seed}"

    def loaded(self, seed: int, more: Sequence[str] = ()) -> Recipe:
        """The recipe as it runs here: for this machine's CPU alone, without gates, which the page does not judge by."""
        here = (f"seed={seed}", f"threads={THREADS}", "targets=[openvino-cpu-f32, openvino-cpu-int8]", "gates=[]")
        return load_recipe(ROOT / "recipes" / f"{self.recipe}.yaml", [*self.settings, *here, *more])


HALF = (
    "{distill: {steps: 0, views: 1024, batch: 64}}",
    "{prune: {steps: 1, target: {macs_ratio: 0.5}, recovery_steps: 60, max_drop: 0.5}}",
    "{quantize: {max_drop: 0.05, max_trials: 3, max_reversions: 4, qat: {steps: 0}}}",
)
SHORT = ("steps.0.distill.steps=200", "steps.0.distill.views=480", "steps.1.prune.recovery_steps=40")
CASES = {
    case.name: case
    for case in (
        Case("quickstart", "quickstart"),
        Case("local-climate-zones-half", "local-climate-zones", (f"steps=[{', '.join(HALF)}]",)),
        Case("cloud-mask", "cloud-mask"),
        Case("cloud-mask-short", "cloud-mask", SHORT),
    )
}
"""``local-climate-zones-half``: nothing but a cut to half the MACs, its recovery and INT8. ``cloud-mask-short``: a fifth of the
recipe's training for everybody, for machines and sessions with little time."""


@dataclass(frozen=True)
class Material:
    """A case's teacher and data for one seed, ready for contenders; ``line`` has run up to the stage that was asked for."""

    case: Case
    seed: int
    line: Line

    @property
    def ctx(self) -> RunContext:
        return self.line.ctx

    @property
    def teacher(self) -> Path:
        """The teacher as OpenVINO IR, f32."""
        return TEACHER_IR["f32"].of(self.ctx.folders)

    def held_out(self, role: str) -> HeldOut:
        """What one role holds out; contenders choose on ``selection``, the page judges on ``test``."""
        return self.ctx.task.held_out("test" if role == "test" else "selection")


def open_material(case: Case, seed: int, until: str = "teacher", more: Sequence[str] = ()) -> Material:
    """Runs the case's recipe up to a stage; what is done already is not done again."""
    return Material(case, seed, run_until(case.loaded(seed, more), case.folder(seed), until))
