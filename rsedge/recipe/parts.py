"""Recipes of networks of several parts: which parts, what runs between them, and what must hold of each and of all together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS
from rsedge.recipe.schema import GateSection, SigningSection, parse_target
from rsedge.recipe.section import Fraction, Section, one_of
from rsedge.recipe.track import TrackSection
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.wholes.table import WHOLES

PART_STEPS = ("distill", "quantize")
PART_METRICS = ("agreement", "size")
"""What gates of one part may hold."""


class WholeSection(BaseModel):
    """What runs between the parts; every field beside ``name`` is a setting of it (docs/parts.md)."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    name: str = Field(description=f"{', '.join(WHOLES)}", examples=["prompted-masks"])
    picture: dict[str, Any] | None = Field(
        default=None,
        description="sampled pictures: the band contract of the picture, which a GeoTIFF of it is written by",
        examples=[{"bands": ["red", "green", "blue"], "tile": 512, "mean": 0.5, "std": 0.5}],
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class PartTeacherSection(Section):
    """A teacher that gives parts, or a whole network that is one."""

    name: str = Field(min_length=1, description="a name that `rsedge teachers` lists", examples=["sam-base"])
    checkpoint: Path | None = Field(default=None, description="the authors' file", examples=["model.safetensors"])
    arch: dict[str, Any] = Field(
        default_factory=dict,
        description="sizes that the file does not say, over the row's own, such as how many prompts run at once",
        examples=[{"prompts": 16}],
    )


class PartStudentSection(Section):
    """A smaller network of the teacher's own family, which gives the part of the same name."""

    arch: dict[str, Any] = Field(
        min_length=1, description="arguments that are smaller than the teacher's", examples=[{"dim": 384, "depth": 6}]
    )


class PartDistillSection(Section):
    """Teach the student what the teacher's part gives on the recorded samples (``compress/distill/training.py``)."""

    steps: int = Field(default=1000, ge=1, description="training steps")
    batch: int = Field(default=4, ge=1, description="samples per step; 1 for inputs without a batch axis of 1")
    lr: float = Field(default=2e-3, gt=0, description="highest learning rate, after the warm-up")
    optimizer: Literal["muon", "adamw"] = Field(default="muon", description="as of distill")
    loss: Literal["outputs", "embedding"] = Field(
        default="outputs", description="squared distance of all outputs; embedding: cosine and distance, for vectors"
    )
    validate_every: int = Field(default=200, ge=1, description="steps between two looks at the selection set")
    patience: int = Field(default=6, ge=1, description="looks without a better score after which it stops")
    checkpoint_every: int = Field(default=100, ge=1, description="steps that an interruption loses at most")


class PartQuantizeSection(Section):
    """INT8 that holds the part's gates on the selection set, and those of the whole."""

    max_drop: float = Field(
        default=0.02, ge=0, description="how far the part's agreement may fall under its f32 file's"
    )
    max_trials: int = Field(default=6, ge=1, description="settings that are tried at most")
    max_reversions: int = Field(default=16, ge=0, description="trials with layers left in float, where none passed")
    hosts: Literal["any", "vnni"] = Field(default="any", description="vnni: every host has VNNI or AMX")


class PartStep(Section):
    """One entry of a part's ``steps``: a map with the step's name as its only key."""

    distill: PartDistillSection | None = Field(default=None, description="teach a smaller network the part's outputs")
    quantize: PartQuantizeSection | None = Field(default=None, description="make it INT8")

    @model_validator(mode="after")
    def _one_key(self) -> PartStep:
        one_of(self, PART_STEPS)
        return self

    @property
    def name(self) -> str:
        return next(n for n in PART_STEPS if getattr(self, n) is not None)


class PartSection(Section):
    """One part: where it comes from, what is done with it, what must hold of it."""

    teacher: PartTeacherSection | None = Field(
        default=None, description="where it comes from; the recipe's own teacher when not given"
    )
    part: str | None = Field(
        default=None,
        description="its name among those that the teacher gives; its own when not given",
        examples=["step"],
    )
    student: PartStudentSection | None = Field(
        default=None, description="a smaller network; the teacher's part as it is when not given"
    )
    steps: tuple[PartStep, ...] = Field(default=(), description="what is done: distill, quantize")
    gates: tuple[GateSection, ...] = Field(
        default=(),
        description="what must hold of it alone (agreement, size)",
        examples=[[{"metric": "agreement", "min": 0.98}]],
    )

    @model_validator(mode="after")
    def _goes_together(self) -> PartSection:
        names = [step.name for step in self.steps]
        if names != sorted(set(names), key=PART_STEPS.index):
            raise ValueError(f"steps are {', '.join(PART_STEPS)}, in this order, each once; found {', '.join(names)}")
        if (self.student is None) != (self.distill is None):
            raise ValueError(
                "student and the step distill go together: a smaller network learns, the part as it is does not"
            )
        odd = [g.metric for g in self.gates if g.metric not in PART_METRICS]
        if odd:
            raise ValueError(
                f"gates of a part hold {' or '.join(PART_METRICS)}, not {odd[0]}; those of the whole stand above"
            )
        return self

    @property
    def distill(self) -> PartDistillSection | None:
        return next((s.distill for s in self.steps if s.distill is not None), None)

    @property
    def quantize(self) -> PartQuantizeSection | None:
        return next((s.quantize for s in self.steps if s.quantize is not None), None)


class PartDataSection(Section):
    """Samples of the whole, recorded where it is used; what each part is given is recorded by running the teacher on them."""

    samples: Path = Field(
        description=".npz: the arrays that the whole takes, samples along the first axis; perhaps `group` (N,), what roles keep "
        "together",
        examples=["prompts.npz"],
    )
    test: Fraction = Field(default=0.25, description="share of the groups that judges; nothing is chosen by it")
    selection: Fraction = Field(default=0.25, description="share of the groups that choices look at")
    calls: Annotated[int, Field(ge=1)] = Field(
        default=8, description="calls of a part that are kept of each sample, where it runs more often (denoisers)"
    )

    @model_validator(mode="after")
    def _leaves_some(self) -> PartDataSection:
        if self.test + self.selection >= 1:
            raise ValueError(
                f"test {self.test:g} and selection {self.selection:g} leave nothing to train on; take less"
            )
        return self


class PartsRecipe(Section):
    """A recipe of several parts."""

    aside = ("track",)
    name: str = Field(
        description="names the run folder; letters, digits, dot, dash, underscore", examples=["prompted-masks"]
    )
    seed: int = Field(default=0, ge=0, description="of all random draws")
    threads: int | None = Field(default=None, ge=1, description="CPU threads, for latency too; all when not given")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where training runs")
    teacher: PartTeacherSection | None = Field(default=None, description="of the parts that name none of their own")
    whole: WholeSection = Field(description="what runs between the parts; its name alone takes the defaults")
    parts: dict[str, PartSection] = Field(
        min_length=1,
        description="in the order in which they run",
        examples=[{"encoder": {"steps": ["quantize"]}, "decoder": {}}],
    )
    data: PartDataSection = Field(description="samples of the whole")
    targets: tuple[str, ...] = Field(
        min_length=1,
        description="what is delivered: `<runtime>-<device>-<precision>`",
        examples=[["openvino-cpu-int8"]],
    )
    gates: tuple[GateSection, ...] = Field(
        default=(),
        description="what must hold of all parts together, beside the teacher",
        examples=[[{"metric": "agreement", "min": 0.9}]],
    )
    strict: bool = Field(default=False, description="undecided gates count as failed (`rsedge run --strict`)")
    signing: SigningSection = Field(default=SigningSection(), description="who signs the bundles")
    track: TrackSection | None = Field(default=None, description="as of recipes of one network", examples=["mlflow"])

    @model_validator(mode="after")
    def _check(self) -> PartsRecipe:
        problems = [*self._names(), *self._teachers(), *self._targets(), *self._gates()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _names(self) -> list[str]:
        problems = []
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            problems.append(
                f"name '{self.name}' must start with a letter or digit and hold only letters, digits, '.', '-', '_'"
            )
        odd = [part for part in self.parts if not re.fullmatch(r"[a-z][a-z0-9_]*", part)]
        if odd:
            problems.append(f"part '{odd[0]}': names hold small letters, digits and '_', and begin with a letter")
        return problems

    def _teachers(self) -> list[str]:
        lacking = [name for name, part in self.parts.items() if part.teacher is None and self.teacher is None]
        return [f"parts.{lacking[0]}: names no teacher, and the recipe has none of its own"] if lacking else []

    def _targets(self) -> list[str]:
        problems = [
            f"target '{n}' is listed twice" for n in sorted({t for t in self.targets if self.targets.count(t) > 1})
        ]
        for name in self.targets:
            try:
                target = Target.parse(name)
            except RequestError as error:
                problems.append(str(error))
                continue
            if not target.backend.parts:
                problems.append(f"target '{name}': {target.backend.title} runs no networks of several parts")
            if target.quantized and not any(part.quantize for part in self.parts.values()):
                problems.append(f"target '{name}' is INT8, but no part's steps hold 'quantize'")
        return problems

    def _gates(self) -> list[str]:
        problems = []
        for gate in (*self.gates, *(g for part in self.parts.values() for g in part.gates)):
            if gate.target is not None and gate.target not in self.targets:
                problems.append(f"a gate names target '{gate.target}', which is not in targets")
        if row := WHOLES.get(self.whole.name):
            problems += [words for gate in self.gates if (words := _not_for(gate, row.load().task, self.whole.name))]
        if self.strict and not self.gates:
            problems.append("strict asks for decided gates, but gates has none: nothing would be judged of the whole")
        return problems

    @property
    def parsed_targets(self) -> tuple[Target, ...]:
        return tuple(parse_target(t) for t in self.targets)

    def gates_for(self, target: str, part: str | None = None) -> tuple[GateSection, ...]:
        """The gates that judge a part for ``target``; None: all parts together."""
        gates = self.gates if part is None else self.parts[part].gates
        return tuple(g for g in gates if g.target in (None, target))

    def teacher_of(self, part: str) -> PartTeacherSection:
        """Where a part comes from."""
        section = self.parts[part].teacher or self.teacher
        assert section is not None
        return section


def _not_for(gate: GateSection, task: str, whole: str) -> str | None:
    """Why a gate cannot be judged of a whole, in words."""
    row = METRICS[gate.metric]
    if gate.metric == "memory" or "folds" in row.needs or gate.over == "teacher-openvino-int8":
        what = "over teacher-openvino-int8" if gate.over else gate.metric
        return f"gates: {what} is not taken of networks of several parts"
    if row.tasks and task not in row.tasks:
        return f"gates: {gate.metric} is for {', '.join(row.tasks)}; {whole} does {task}"
    return None
