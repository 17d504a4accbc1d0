"""The recipe's ``steps``: what distills, prunes, replaces and quantizes, in this order; each mirrors the dataclass of its room."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rsedge.compress.distill.loss_table import LOSSES, unknown
from rsedge.recipe.section import Fraction, Section, Unit, one_of, unit

STEP_ORDER = ("distill", "prune", "replace", "quantize")
TRAINING = STEP_ORDER[:-1]
"""Those that leave a network in torch, of which the last one's is shipped."""


class LossSection(Section):
    """A loss by name; docs/distillation.md lists them."""

    name: str = Field(description="of the loss", examples=["dkd"], json_schema_extra={"enum": list(LOSSES)})
    weight: float = Field(default=1.0, gt=0, description="beside the others that are added")
    options: dict[str, float] = Field(default={}, description="of this loss, by name", examples=[{"beta": 2.0}])

    @model_validator(mode="after")
    def _known(self) -> LossSection:
        wrong = unknown(self.name, self.options)
        if wrong is not None:
            raise ValueError(wrong)
        return self


class TapSection(Section):
    """A teacher feature and the student feature that imitates it: what is compared, by which loss, through which connector."""

    teacher: str = Field(
        description="a feature of the teacher (`rsedge teachers NAME` lists them)", examples=["net.encoder[3]"]
    )
    student: str = Field(description="a feature of the student; a wrong name lists them", examples=["encoder.2"])
    weight: float = Field(default=0.1, gt=0, description="of its loss beside that of the outputs")
    loss: LossSection = Field(
        default=LossSection(name="mse"), description="how they are compared", examples=[{"name": "cwd"}]
    )
    connector: Literal["linear", "mlp", "masked", "pooled", "none"] = Field(
        default="linear", description="how the student's channels become the teacher's"
    )


class DistillSection(Section):
    """Teach the student the teacher's outputs (``compress/distill/training.py``)."""

    steps: int = Field(default=1000, ge=0, description="0 with students 'teacher' and 'narrow-copy': no training")
    views: int = Field(default=2400, ge=1, description="augmented views the student learns from")
    cache: Literal["auto", "always", "never"] = Field(default="auto", description="keep the teacher's outputs on disk")
    teacher_autocast: Literal["auto", "bf16", "off"] = Field(
        default="auto",
        description="bfloat16 in the teacher; auto: on a GPU where its answers hardly change and come faster, or f32 does not fit",
    )
    batch: int = Field(default=16, ge=1, description="views per step")
    lr: float = Field(default=2e-3, gt=0, description="highest learning rate, after the warm-up; falls as a cosine")
    optimizer: Literal["muon", "adamw"] = Field(
        default="muon", description="adamw is quicker per step where layers are wide and inputs small (places, vectors)"
    )
    weight_decay: float = Field(default=1e-2, ge=0, description="decoupled, of the optimizer")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps in which the rate rises")
    ema: float = Field(
        default=0.995, ge=0, lt=1, description="decay of the moving average of weights, which is the student; 0: none"
    )
    loss: tuple[LossSection, ...] = Field(
        default=(),
        description="losses of the outputs, added up; none: kl of classes and labels, mse of values, cosine and mse of embeddings",
        examples=[[{"name": "dkd"}]],
    )
    temperature: float = Field(default=1.0, gt=0, description="softens both distributions of classes")
    balance: Unit = Field(
        default=0.25, description="maps: pixels count by class frequency to minus this power; 0: alike"
    )
    labels: Unit = Field(
        default=0.0,
        description="share of the loss that labels make up beside the teacher, where training data have some and views show them",
    )
    hard_views: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of each batch drawn by how far student and teacher differ on a view, times how far the teacher agrees "
        "with itself on it without its change",
    )
    taps: tuple[TapSection, ...] = Field(
        default=(),
        description="features learned beside the outputs",
        examples=[[{"teacher": "net.encoder[3]", "student": "encoder.2"}]],
    )
    validate_every: int = Field(default=200, ge=1, description="steps between two looks at the selection set")
    patience: int = Field(default=6, ge=1, description="looks without a better score after which it stops")
    checkpoint_every: int = Field(default=100, ge=1, description="steps that an interruption loses at most")
    autocast: Literal["auto", "bf16", "off"] = Field(
        default="auto", description="bfloat16 in passes; auto: where timed passes show that it is faster"
    )


class PruneTargetSection(Section):
    """How far to prune: a latency (ms), or a share of the unpruned student's latency, MACs or parameters."""

    latency_ms: float | None = Field(
        default=None, gt=0, description="of one inference", examples=[5.0], json_schema_extra=unit("ms")
    )
    latency_ratio: Fraction | None = Field(default=None, description="share of the latency", examples=[0.7])
    macs_ratio: Fraction | None = Field(default=None, description="share of the multiply-accumulates", examples=[0.8])
    params_ratio: Fraction | None = Field(default=None, description="share of the parameters", examples=[0.8])

    @model_validator(mode="after")
    def _exactly_one(self) -> PruneTargetSection:
        one_of(self, ("latency_ms", "latency_ratio", "macs_ratio", "params_ratio"))
        return self


class PruneSection(Section):
    """Remove whole channel groups step by step, with recovery distillation (``compress/prune/pruning.py``)."""

    target: PruneTargetSection = Field(
        default=PruneTargetSection(latency_ratio=0.7), description="how far: exactly one aim"
    )
    steps: int = Field(default=4, ge=1, le=64, description="cuts on the way to the target")
    importance: Literal["magnitude", "taylor", "bn-scale", "lamp", "random"] = Field(
        default="taylor", description="which channels matter; taylor: by gradients of the loss"
    )
    scope: Literal["uniform", "global", "global-per-cost", "latency"] = Field(
        default="global-per-cost",
        description="uniform: the same share of every layer; global: the least of all; global-per-cost: by what each saves; "
        "latency: widths and whole blocks that keep the loss lowest within the milliseconds of a table of layers",
    )
    round_to: int = Field(
        default=8, ge=1, le=64, description="channels stay multiples of it", json_schema_extra=unit("channels")
    )
    min_gain: float = Field(
        default=0.02, ge=0, lt=1, description="less latency gained: rolled back, but for params_ratio"
    )
    max_drop: float = Field(default=0.01, ge=0, description="a step that costs more score is rolled back")
    max_layer_ratio: float = Field(default=0.75, gt=0, lt=1, description="share of a layer that may go in all")
    ignored: tuple[str, ...] = Field(default=(), description="layers whose outputs stay", examples=[["head"]])
    taylor_batches: int = Field(default=8, ge=1, description="batches whose gradients taylor looks at")
    refit_batches: int = Field(
        default=0, ge=0, description="batches on which layers behind a cut are fitted by least squares; 0: not at all"
    )
    norm_batches: int = Field(
        default=8,
        ge=0,
        description="batches on which batch norms take their statistics anew after each cut; 0: not at all",
    )
    kinds: tuple[Literal["channels", "heads", "head-dims", "units", "width", "blocks"], ...] = Field(
        default=("channels", "heads", "head-dims", "units", "blocks"),
        min_length=1,
        description="what may go: channels of convolutions, heads of attention, dimensions of heads, hidden units of MLPs, the "
        "width between blocks, and with scope: latency whole residual blocks",
        examples=[["heads", "head-dims", "units", "width", "blocks"]],
    )
    damage_batches: int = Field(
        default=2, ge=1, description="with scope: latency, selection batches on which each cut's damage is measured"
    )
    recovery_steps: int = Field(default=150, ge=0, description="distillation steps after each cut")
    recovery_lr: float = Field(default=1e-3, gt=0, description="learning rate of those steps")
    latency_on: str = Field(
        default="openvino-cpu-f32", description="target whose latency decides, measured or predicted"
    )

    @model_validator(mode="after")
    def _latency_by_latency(self) -> PruneSection:
        if self.scope == "latency" and self.target.latency_ms is None and self.target.latency_ratio is None:
            raise ValueError(
                "scope: latency plans by milliseconds; give target: latency_ms or latency_ratio, or another scope"
            )
        return self

    @model_validator(mode="after")
    def _blocks_by_latency(self) -> PruneSection:
        if set(self.kinds) == {"blocks"} and self.scope != "latency":
            raise ValueError("kinds: blocks alone go with scope: latency; name another kind too, or that scope")
        return self


class ReplaceSection(Section):
    """Replace what is slow by what is faster (``compress/replace/replacing.py``): activations, and tokens by merged ones.

    What a replacement brings is measured, or predicted, on every target before any training. One that is faster on no target,
    slower on some, or costs too much score is undone.
    """

    activations: tuple[Literal["hardswish", "relu"], ...] = Field(
        default=("hardswish", "relu"), description="tried in place of SiLU and GELU layers; none: they stay"
    )
    merge: tuple[Fraction, ...] = Field(
        default=(0.5, 0.25),
        description="shares of tokens to try merging, as many in each block of a transformer; none: all stay",
    )
    min_gain: float = Field(
        default=0.02, ge=0, lt=1, description="less latency gained on every target, or some lost on one: undone"
    )
    max_drop: float = Field(
        default=0.01,
        ge=0,
        description="a replacement that brings the score further under that before the step is undone",
    )
    recovery_steps: int = Field(
        default=300, ge=0, description="distillation steps after one that costs more score as it is; 0: none"
    )
    recovery_lr: float = Field(default=1e-3, gt=0, description="learning rate of those steps")

    @model_validator(mode="after")
    def _something(self) -> ReplaceSection:
        if not self.activations and not self.merge:
            raise ValueError("neither activations nor merge name something to try; leave the step out")
        return self


class QatSection(Section):
    """Quantization-aware distillation when no setting of calibration is good enough."""

    steps: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto", description="0 turns it off; auto: a tenth of the distillation's, 50 to 200"
    )
    lr: float = Field(default=1e-4, gt=0, description="learning rate")


class QuantizeSection(Section):
    """INT8 that holds the recipe's gates on the selection set (``compress/quantize/int8.py``).

    Settings of calibration are searched, then training under rounding and layers left in float follow until every gate holds
    with a margin; beside the gates likeness to the teacher must not fall by more than ``max_drop``.
    """

    max_drop: float = Field(default=0.005, ge=0, description="how far the score may fall under the f32 student's")
    max_trials: int = Field(default=8, ge=1, description="settings of calibration that are tried at most")
    max_reversions: int = Field(default=24, ge=0, description="trials with layers left in float, where none passed")
    max_probes: int = Field(
        default=64, ge=0, description="OpenVINO: layers, or groups of them, whose damage alone is measured; 0: none"
    )
    max_tunings: int = Field(
        default=2, ge=0, description="OpenVINO on this CPU: trials with layers in float whose INT8 takes longer"
    )
    float_precision: Literal["auto", "f32"] = Field(
        default="auto",
        description="OpenVINO on this CPU: of what is left in float; auto: bf16 where that is faster and good enough",
    )
    seconds: float = Field(
        default=900.0, gt=0, description="no trial starts later than this", json_schema_extra=unit("s")
    )
    hosts: Literal["any", "vnni"] = Field(default="any", description="vnni: every host has VNNI or AMX")
    latency_tolerance: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="trials slower than the fastest by no more than this share are equally fast",
    )
    weights_only: Literal["int8", "int4"] | None = Field(
        default=None,
        description="OpenVINO: weights alone; int8: a quarter of the size, int4: 4 bits where max_drop bears it, else 8",
        examples=["int8"],
    )
    qat: QatSection = Field(
        default=QatSection(), description="training under rounding, where no setting is good enough"
    )

    @model_validator(mode="after")
    def _nothing_to_train(self) -> QuantizeSection:
        if self.weights_only and self.qat.steps not in (0, "auto"):
            raise ValueError("weights_only leaves nothing for qat to train; set one of them")
        return self


class Step(Section):
    """One entry of ``steps``: a map with the step's name as its only key."""

    distill: DistillSection | None = Field(
        default=None, description="teach the student the teacher's outputs", examples=[{"steps": 1000}]
    )
    prune: PruneSection | None = Field(
        default=None, description="remove whole channel groups", examples=[{"target": {"latency_ratio": 0.7}}]
    )
    replace: ReplaceSection | None = Field(
        default=None, description="replace activations and tokens by faster ones", examples=[{"merge": [0.5]}]
    )
    quantize: QuantizeSection | None = Field(default=None, description="make it INT8", examples=[{"max_drop": 0.005}])

    @model_validator(mode="after")
    def _one_key(self) -> Step:
        one_of(self, STEP_ORDER)
        return self

    @property
    def name(self) -> str:
        return next(n for n in STEP_ORDER if getattr(self, n) is not None)
