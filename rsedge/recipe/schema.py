"""The recipe: what to compress, from what, for which targets, and what must hold at the end.

Every section has defaults, so that a short recipe is enough; unknown fields are refused. This module imports no torch:
a recipe is checked before anything heavy is loaded. Sections that steer a room mirror the dataclass of that room (a
test holds fields and defaults together). Reading YAML, ``$import`` and ``--set`` live in :mod:`rsedge.recipe.reading`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rsedge.data.bands import InputSpec
from rsedge.data.errors import RequestError
from rsedge.data.metrics.table import METRICS, Constraint, MetricName
from rsedge.models.zoo import STUDENT, Task, from_columns, named_feature, zoo
from rsedge.recipe.data import Data, DataSection, SampleDataSection
from rsedge.recipe.importance import ImportanceSection
from rsedge.recipe.section import Section, one_of, unit
from rsedge.recipe.steps import (
    STEP_ORDER,
    TRAINING,
    DistillSection,
    PruneSection,
    QuantizeSection,
    ReplaceSection,
    Step,
)
from rsedge.recipe.student import StudentSection
from rsedge.recipe.track import TrackSection
from rsedge.runtimes.bundle.manifest import MAX_LETTERS, MAX_TOKENS, BoxSettings, Target, checked_template

PLAIN_INT8 = "teacher-openvino-int8"
BASELINES = ("teacher-openvino-f32", PLAIN_INT8)
TEACHER_ITSELF = "teacher"
"""The student's name where there is no smaller one: the teacher is pruned or quantized as it is."""
COPIES = (TEACHER_ITSELF, "narrow-copy")
"""Students that start from the teacher's weights."""


class FitSection(Section):
    """Train a detector of the zoo on the data's labels first, from random weights (settings as those of distill)."""

    steps: int = Field(ge=1, description="training steps", examples=[4000])
    views: int = Field(default=2400, ge=1, description="augmented views it learns from")
    batch: int = Field(default=8, ge=1, description="views per step")
    lr: float = Field(default=2e-3, gt=0, description="highest learning rate, after the warm-up")
    tile: int | None = Field(
        default=None,
        ge=32,
        description="edge of its input; default: the published one",
        examples=[320],
        json_schema_extra=unit("pixels"),
    )
    arch: dict[str, Any] = Field(
        default_factory=dict,
        description="over the published arguments, such as width and depth",
        examples=[{"width": 0.25}],
    )
    validate_every: int = Field(default=200, ge=1, description="steps between two looks at the selection set")
    patience: int = Field(default=6, ge=1, description="looks without a better score after which it stops")
    checkpoint_every: int = Field(default=100, ge=1, description="steps that an interruption loses at most")


class ProbeSection(Section):
    """Put a linear head on a teacher for embeddings and fit it on the data's labels first; the encoder stays as it is."""

    task: Literal["classification", "regression"] = Field(
        default="classification", description="classification (one class, several labels, yes or no) or regression"
    )


class TeacherSection(Section):
    """Which teacher to load."""

    name: str = Field(
        min_length=1,
        description="a name that `rsedge teachers` lists, or of another library: `timm:...`",
        examples=["ukis-csmask-6b-l1c", "timm:resnet50", "onnx:model.onnx"],
    )
    checkpoint: Path | None = Field(
        default=None,
        description="own weights instead of the published ones; of vision-language models their folder",
        examples=["my.safetensors"],
    )
    adapter: Path | None = Field(
        default=None, description="captioning: PEFT adapter folder, merged first", examples=["adapter"]
    )
    vision: Path | None = Field(
        default=None,
        description="captioning: folder or file of the vision tower, where checkpoint does not hold it",
        examples=["vision_tower"],
    )
    input: dict[str, Any] | None = Field(
        default=None,
        description="band contract of another library's network; band fields take one value, or one per band",
        examples=[{"bands": ["red", "nir"], "tile": 256, "scale": 1e-4, "mean": [0.1, 0.3], "std": [0.05, 0.1]}],
    )
    classes: tuple[str, ...] = Field(
        default=(), description="names of its outputs, in order; none for embeddings", examples=[["clear", "cloud"]]
    )
    fit: FitSection | None = Field(
        default=None, description="train it on labels first, where it comes without weights", examples=[{"steps": 4000}]
    )
    probe: ProbeSection | None = Field(
        default=None,
        description="fit a linear head on labels first, for embeddings",
        examples=[{"task": "classification"}],
    )
    task: Task | None = Field(
        default=None, description="what it does, where its outputs do not say", examples=["regression"]
    )
    arch: dict[str, Any] = Field(
        default_factory=dict,
        description="arguments of the constructor of another library's network",
        examples=[{"img_size": 128}],
    )
    entry: str | None = Field(
        default=None,
        description="which weights of the checkpoint of another library's network, where it holds several sets",
        examples=["state_dict_ema"],
    )

    @field_validator("input", mode="after")
    @classmethod
    def _bands(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        """Errors name the fields below ``input``."""
        if value is not None:
            InputSpec.model_validate(from_columns(value))
        return value

    @model_validator(mode="after")
    def _contract(self) -> TeacherSection:
        if not self.is_outside and (self.input or self.task):
            raise ValueError(f"'{self.name}' has its own input and task; they go with names such as `timm:...`")
        if not self.is_outside and (self.arch or self.entry):
            raise ValueError(
                f"'{self.name}': arch and entry are of other libraries' networks, such as `timm:...`; leave them out"
            )
        if self.entry is not None and self.checkpoint is None:
            raise ValueError("entry says which weights of the checkpoint; give checkpoint, or leave it out")
        outside = self.is_outside and not self.is_student
        if self.fit is not None and (outside or self.checkpoint is not None or not self.classes):
            raise ValueError(
                "fit trains a network of the zoo, or `student:...`, from random weights: give classes, and no checkpoint"
            )
        if self.fit is not None and self.is_student and self.fit.tile is not None:
            raise ValueError(f"fit.tile: '{self.name}' takes the tile under input; leave it out")
        if self.probe is not None and (self.fit is not None or not self.classes):
            raise ValueError("probe fits a linear head on labels: name its outputs under classes, and leave fit out")
        if self.is_outside and self.input is None:
            raise ValueError(f"'{self.name}' is another library's; give its bands under input")
        return self

    @property
    def network(self) -> str:
        """The name without a feature to take in place of the output."""
        return named_feature(self.name)[0]

    @property
    def feature(self) -> str | None:
        """The published feature that is taken in place of the output."""
        return named_feature(self.name)[1]

    @property
    def is_outside(self) -> bool:
        """Whether another library builds it (:mod:`rsedge.models.outside.loading`)."""
        return ":" in self.name

    @property
    def is_student(self) -> bool:
        """Whether it is a student of the catalogue, bigger or fitted before."""
        return self.name.startswith(f"{STUDENT}:")

    @property
    def contract(self) -> InputSpec:
        """The band contract under ``input``, written as rows of the zoo write theirs."""
        return InputSpec.model_validate(from_columns(self.input or {}))


class OtherTeacherSection(TeacherSection):
    """Another teacher of the same outputs, which the student learns from beside the first."""

    weight: float = Field(default=1.0, gt=0, description="beside the first teacher's, which is 1")

    @model_validator(mode="after")
    def _as_it_is(self) -> OtherTeacherSection:
        if self.fit is not None or self.probe is not None:
            raise ValueError("another teacher comes with its weights: fit and probe are the first teacher's alone")
        return self


class GateSection(Section):
    """One thing that must hold for the targets it names (all, when it names none)."""

    metric: MetricName = Field(description="what is held", examples=["kappa"])
    max_drop: float | None = Field(
        default=None, ge=0, description="at most this much under the teacher", examples=[0.04]
    )
    max_relative_drop: float | None = Field(
        default=None, ge=0, le=1, description="at most this share of the teacher's under it", examples=[0.05]
    )
    min: float | None = Field(default=None, description="no less than this", examples=[0.93])
    max: float | None = Field(
        default=None,
        ge=0,
        description="no more than this; latency is that at p50",
        examples=[600000],
        json_schema_extra=unit("the metric's: ms, bytes"),
    )
    min_speedup: float | None = Field(
        default=None,
        gt=0,
        description="times faster than `over` at p50",
        examples=[15],
        json_schema_extra=unit("times"),
    )
    over: Literal["teacher-openvino-f32", "teacher-openvino-int8"] | None = Field(
        default=None, description="the baseline of min_speedup", examples=["teacher-openvino-f32"]
    )
    target: str | None = Field(
        default=None, description="the target that it judges; all when not given", examples=["openvino-cpu-int8"]
    )

    @model_validator(mode="after")
    def _check(self) -> GateSection:
        kind = one_of(self, ("max_drop", "max_relative_drop", "min", "max", "min_speedup"))
        allowed = METRICS[self.metric].constraints
        if kind not in allowed:
            raise ValueError(f"metric '{self.metric}' takes {' or '.join(allowed)}, not {kind}")
        highest = METRICS[self.metric].highest
        if self.min is not None and highest is not None and self.min > highest:
            raise ValueError(
                f"{self.metric} is {highest:g} at the most, so min {self.min:g} never holds; shares go from 0 to 1"
            )
        if (kind == "min_speedup") != (self.over is not None):
            raise ValueError(f"min_speedup and over go together; over is one of {', '.join(BASELINES)}")
        return self

    @property
    def constraint(self) -> Constraint:
        return next(c for c in METRICS[self.metric].constraints if getattr(self, c) is not None)

    @property
    def limit(self) -> float:
        return float(getattr(self, self.constraint))

    @property
    def name(self) -> str:
        """A short name for reports, e.g. ``latency min_speedup 15 over teacher-openvino-f32``."""
        over = f" over {self.over}" if self.over else ""
        return f"{self.metric} {self.constraint} {self.limit:g}{over}"


class TensorRtSection(Section):
    """How TensorRT targets are exported (``export/targets/tensorrt.py``)."""

    max_batch: int = Field(
        default=1,
        ge=1,
        le=64,
        description="tiles that an engine may run at once, for throughput",
        json_schema_extra=unit("tiles"),
    )
    dla: int | None = Field(
        default=None,
        ge=0,
        description="DLA core that engines prefer; convolutional students only, one tile at a time",
        examples=[0],
    )


class LanguageSection(Section):
    """The language model behind a captioning teacher: how it is asked, and how its weights are stored.

    It is not distilled or pruned here: the vision tower in front of it is.
    """

    prompt: str = Field(
        default="Describe this image in one sentence.",
        min_length=1,
        max_length=MAX_LETTERS,
        description="what is asked, where the flight asks nothing else",
    )
    template: str = Field(
        default="USER: <image>\n{prompt} ASSISTANT:",
        max_length=MAX_LETTERS,
        description="how the model was trained to be asked (LLaVA-1.5's)",
    )
    max_tokens: int = Field(
        default=48, ge=1, le=MAX_TOKENS, description="of a caption at most", json_schema_extra=unit("tokens")
    )
    images: int = Field(default=32, ge=1, description="held-out images whose captions are compared")
    weights: Literal["int4", "int8", "fp16", "f32"] = Field(default="int4", description="how they are stored")
    group_size: int = Field(default=128, ge=1, description="INT4: weights that share a scale")
    ratio: float = Field(default=1.0, gt=0, le=1, description="INT4: share of the layers; the others get INT8")
    expert: int | None = Field(
        default=None, ge=0, description="granularity, for models with one MLP for each", examples=[0]
    )

    @model_validator(mode="after")
    def _one_place_each(self) -> LanguageSection:
        try:
            checked_template(self.template)
        except ValueError as error:
            raise ValueError(f"template: {error}") from error
        if "<image>" in self.prompt:
            raise ValueError("prompt: <image> stands in the template")
        return self


class SigningSection(Section):
    """The Ed25519 private key (PEM) that signs bundles; without one a key pair is made in the run folder."""

    key: Path | None = Field(
        default=None,
        description="private key; without one a pair is made in the run folder",
        examples=["keys/mission.pem"],
    )


def parse_target(name: str) -> Target:
    """Takes ``<runtime>-<device>-<precision>`` apart.

    Raises:
        ValueError: not of that shape, or no such runtime or precision.
    """
    try:
        return Target.parse(name)
    except RequestError as error:
        raise ValueError(str(error)) from error


class Recipe(Section):
    """A whole recipe."""

    aside = ("track",)
    name: str = Field(
        description="names the run folder; letters, digits, dot, dash, underscore", examples=["cloud-mask"]
    )
    seed: int = Field(default=0, ge=0, description="of all random draws")
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads, for latency too; all when not given", examples=[2]
    )
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where training runs")
    teacher: TeacherSection = Field(
        description="the large model that is made small", examples=[{"name": "ukis-csmask-6b-l1c"}]
    )
    teachers: tuple[OtherTeacherSection, ...] = Field(
        default=(),
        description="more teachers of the same outputs; the student is judged against the first",
        examples=[[{"name": "ukis-csmask-4b-l1c", "weight": 0.5}]],
    )
    data: Data = Field(
        description="scenes (train, test) or samples, and how they are split",
        examples=[{"samples": {"source": "pairs"}}],
    )
    student: StudentSection = Field(
        default=StudentSection(), description="the small model; its name alone takes the defaults"
    )
    steps: tuple[Step, ...] = Field(
        min_length=1,
        description="what is done, in the order distill, prune, replace, quantize; a name alone takes the defaults",
        examples=[["distill", {"quantize": {"max_drop": 0.005}}]],
    )
    targets: tuple[str, ...] = Field(
        min_length=1,
        description="what is delivered: `<runtime>-<device>-<precision>`; `rsedge devices` lists devices",
        examples=[["openvino-cpu-int8", "tensorrt-jetson-orin-nano-8gb-fp16"]],
    )
    gates: tuple[GateSection, ...] = Field(
        default=(), description="what must hold at the end", examples=[[{"metric": "agreement", "min": 0.93}]]
    )
    strict: bool = Field(default=False, description="undecided gates count as failed (`rsedge run --strict`)")
    signing: SigningSection = Field(default=SigningSection(), description="who signs the bundles")
    mission: Path | None = Field(
        default=None, description="a mission file; its budget goes into the report", examples=["orbit.yaml"]
    )
    tensorrt: TensorRtSection = Field(default=TensorRtSection(), description="how TensorRT targets are exported")
    language: LanguageSection | None = Field(
        default=None,
        description="captioning: how the language model is asked and stored; has defaults",
        examples=[{"weights": "int8"}],
    )
    importance: ImportanceSection | None = Field(
        default=None,
        description="measure which bands matter, for the report",
        examples=[{"of": ["teacher", "student"], "orders": 32}],
    )
    boxes: BoxSettings = Field(default=BoxSettings(), description="detection: which candidates are reported")
    track: TrackSection | None = Field(
        default=None,
        description="log the run to mlflow or tensorboard too (extra `tracking`); says nothing about the result",
        examples=["mlflow"],
    )

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        problems = [*self._name_problems(), *self._step_problems(), *self._target_problems(), *self._gate_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _name_problems(self) -> list[str]:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            return []
        return [f"name '{self.name}' must start with a letter or digit and hold only letters, digits, '.', '-', '_'"]

    def _step_problems(self) -> list[str]:
        names = [s.name for s in self.steps]
        problems = [f"step '{n}' occurs {names.count(n)} times" for n in STEP_ORDER if names.count(n) > 1]
        if names != sorted(names, key=STEP_ORDER.index):
            problems.append(f"steps must be in the order {', '.join(STEP_ORDER)}; found {', '.join(names)}")
        itself = self.student.name == TEACHER_ITSELF
        trains = "distill" in names and self.distill.steps > 0
        if itself and trains:
            problems.append(
                "student 'teacher' is the teacher as it is: leave 'distill' out, or give it steps: 0 to say how pruning "
                "recovers"
            )
        # A narrow copy has the teacher's weights and may do without.
        elif not trains and self.student.name not in COPIES:
            problems.append(
                "steps must hold 'distill': the student starts from the teacher's outputs (or take it as it is, with "
                "student: {name: teacher})"
            )
        if "quantize" in names and self.data.calibration.tiles == 0:
            problems.append("data.calibration.tiles is 0, but 'quantize' refuses to run without calibration data")
        if "quantize" in names and not any(name.endswith("-int8") for name in self.targets):
            problems.append(
                "steps hold 'quantize', but no target is INT8: add one, such as openvino-cpu-int8, or leave the step out"
            )
        return problems

    def _target_problems(self) -> list[str]:
        problems = [
            f"target '{n}' occurs twice" for n in sorted({t for t in self.targets if self.targets.count(t) > 1})
        ]
        for name in self.targets:
            try:
                target = parse_target(name)
            except ValueError as error:
                problems.append(str(error))
                continue
            if not target.quantized:
                continue
            if self.quantize is None:
                problems.append(f"target '{name}' is INT8, but steps hold no 'quantize'")
            elif self.quantize.weights_only and not target.backend.weights_only:
                problems.append(
                    f"target '{name}': quantize.weights_only is not for {target.backend.title}; leave one of them out"
                )
        return problems

    def _gate_problems(self) -> list[str]:
        unknown = sorted({g.target for g in self.gates if g.target is not None and g.target not in self.targets})
        problems = [f"a gate names target '{n}', which is not in targets" for n in unknown]
        ungated = [name for name in self.targets if not self.gates_for(name)]
        if self.strict and ungated:
            where = f"for target {', '.join(ungated)}" if self.gates else "under gates"
            problems.append(
                f"strict (--strict) asks for decided gates, but gates has none {where}: nothing would be judged; "
                "name a gate there, such as {metric: agreement, min: 0.9}, or leave strict out"
            )
        return problems

    def _step(self, name: str) -> Any:
        return next((getattr(s, name) for s in self.steps if s.name == name), None)

    @property
    def distill(self) -> DistillSection:
        """The step's settings; where it is left out no training, and the defaults for how pruning recovers."""
        section: DistillSection | None = self._step("distill")
        return section or DistillSection(steps=0)

    @property
    def scenes(self) -> DataSection:
        """The data of a recipe over scenes."""
        assert isinstance(self.data, DataSection)
        return self.data

    @property
    def samples(self) -> SampleDataSection:
        """The data of a recipe over samples."""
        assert isinstance(self.data, SampleDataSection)
        return self.data

    @property
    def texts(self) -> LanguageSection:
        """How a captioning recipe's language model is asked and stored."""
        return self.language or LanguageSection()

    @property
    def captions(self) -> bool:
        """Whether the teacher is a vision-language model."""
        return any(row.name == self.teacher.name and row.task == "captioning" for row in zoo())

    @property
    def prune(self) -> PruneSection | None:
        section: PruneSection | None = self._step("prune")
        return section

    @property
    def replace(self) -> ReplaceSection | None:
        section: ReplaceSection | None = self._step("replace")
        return section

    @property
    def trained(self) -> tuple[str, ...]:
        """The stages that leave a student in torch, in their order; the last one's is shipped."""
        return ("distill", *(name for name in TRAINING[1:] if self._step(name) is not None))

    @property
    def quantize(self) -> QuantizeSection | None:
        section: QuantizeSection | None = self._step("quantize")
        return section

    @property
    def parsed_targets(self) -> tuple[Target, ...]:
        return tuple(parse_target(t) for t in self.targets)

    @property
    def plain_int8_asked(self) -> bool:
        """Whether a gate compares with the teacher quantized as it is."""
        return any(gate.over == PLAIN_INT8 for gate in self.gates)

    def gates_for(self, target: str) -> tuple[GateSection, ...]:
        """The gates that judge ``target``."""
        return tuple(g for g in self.gates if g.target in (None, target))
