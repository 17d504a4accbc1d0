"""How a student becomes INT8 for a backend, and what the outcome does on the selection set, on its own executable."""

from __future__ import annotations

import contextlib
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance, Limit
from rsedge.compress.quantize.int8 import Hooks, Quantized, to_int8
from rsedge.compress.quantize.ptq import PtqSettings, Tiles, check_calibration
from rsedge.compress.quantize.qat import Grid, QatRecord, QatSettings, edge_layers, qat
from rsedge.compress.quantize.search import Fastest, Ground, M, SearchSettings, Trial
from rsedge.data.errors import GateFailed
from rsedge.devices.measure.decide import Contender, Race, pick, race
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.models.structure import tensors_digest
from rsedge.recipe.checks import measured_here
from rsedge.recipe.schema import Recipe
from rsedge.recipe.steps import QuantizeSection
from rsedge.results.gates import MARGIN, check_on_selection, of_evidence
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.session import INPUT, Session
from rsedge.stages.context import RunContext
from rsedge.stages.training import batch_loss
from rsedge.tasks.base import Inputs, Prediction

AUTO_SHARE, AUTO_LEAST, AUTO_MOST = 0.1, 50, 200
"""``qat: {steps: auto}``: a tenth of the distillation's steps, within these."""
RACE_SECONDS = 0.5
Run = Callable[[Inputs], Prediction]


class Int8Runtime(ABC, Generic[M]):
    """One runtime's way: ``runtime(net)`` is the :class:`Ground` of a network.

    Attributes:
        targets: the recipe's INT8 targets that the model is for; may be none.
        margin: standard errors by which gates are to be kept.
    """

    name: str
    """The backend's."""

    def __init__(self, ctx: RunContext, targets: Sequence[Target], folder: Path) -> None:
        section = ctx.recipe.quantize
        assert section is not None
        self.ctx, self.targets, self.folder = ctx, tuple(targets), folder
        self.section: QuantizeSection = section
        self.margin = MARGIN
        self._numbers = itertools.count()
        self._files: dict[tuple[str, int | None, Any], Path] = {}

    @abstractmethod
    def __call__(self, net: nn.Module) -> Ground[M]:
        """How ``net`` is quantized and judged here."""

    @abstractmethod
    def planned(self, net: nn.Module) -> list[PtqSettings]:
        """Settings to try, in this order."""

    @abstractmethod
    def grid(self, chosen: PtqSettings) -> Grid:
        """What the runtime rounds inputs of layers to."""

    def accept(self, run: Run, size_bytes: int | None = None) -> Acceptance:
        """The recipe's gates of these targets on the selection set, and likeness to the teacher, of a model that ``run`` runs."""
        ctx = self.ctx
        kept = run(ctx.selection.inputs)
        score = ctx.likeness(kept, run(ctx.seen(ctx.selection_views)))["score"]
        evidence = ctx.selection.evidence(kept, ctx.teacher_on(ctx.selection))
        checks = [check_on_selection(ctx.recipe, t.name, evidence, size_bytes, self.margin) for t in self.targets]
        gates = {g.name: g for t in self.targets for g in ctx.recipe.gates_for(t.name) if g.metric in evidence}
        values = {name: of_evidence(gate, evidence[gate.metric]).value for name, gate in gates.items()}
        missed = list(dict.fromkeys(words for check in checks for words in check.shortfalls))
        unchecked = list(dict.fromkeys(f"not told by selection: {w}" for check in checks for w in check.unchecked))
        return Acceptance(
            score=score,
            holds=all(check.holds for check in checks),
            missed=tuple(f"{t.name}: {n}" for t, c in zip(self.targets, checks, strict=True) for n in c.missed),
            shortfall=max((check.shortfall for check in checks), default=0.0),
            reason="; ".join([*missed, *unchecked]),
            gates={name: value for name, value in values.items() if value is not None},
        )

    def reference(self, net: nn.Module) -> Acceptance:
        """What the network does here in f32.

        Where it keeps no margin to a gate, none can be asked of the quantized one: from then on the limit itself counts.
        """
        run = self.f32(net)
        found = self.accept(run)
        if not found.holds:
            self.margin = 0.0
            found = self.accept(run)
        return found

    @abstractmethod
    def f32(self, net: nn.Module) -> Run:
        """Runs the network in f32."""

    @abstractmethod
    def int8(self, made: M) -> Run:
        """Runs a quantized model."""

    def exported(self, net: nn.Module, opset: int | None = None, dtype: Any = None) -> Path:
        """``net`` as an ONNX file, made once for the same weights."""
        key = (tensors_digest(net), opset, dtype)
        if key not in self._files:
            graph = Deployable(net, self.ctx.spec, self.ctx.task.output)
            path = self.fresh("f32.onnx")
            more = {} if opset is None else {"opset": opset}
            made = export_onnx(graph, self.ctx.spec, self.ctx.classes, path, input_dtype=dtype, **more)
            self._files[key] = made.path
        return self._files[key]

    def fresh(self, name: str) -> Path:
        """A path that no other file has."""
        path = self.folder / f"{next(self._numbers)}" / name
        path.parent.mkdir(parents=True)
        return path

    def chosen(self, trials: Mapping[str, Trial], raced: Race | None, predicted: Mapping[str, float]) -> Fastest:
        """The fastest of equally good models: by the race, or by the predicted order where there is none or it was too noisy."""
        contenders = {
            n: Contender(size=t.size_bytes or 0, score=t.score or 0.0, predicted=predicted[n])
            for n, t in trials.items()
        }
        choice = pick(contenders, raced, self.section.latency_tolerance)
        return Fastest(choice.name, choice.reason, {} if raced is None else {n: raced.ms(n) for n in trials})


@dataclass(frozen=True)
class Int8File:
    """A quantized file as it was made, and the one that runs (for TensorRT typed)."""

    quantized: Path
    runs: Path


class FileInt8(Int8Runtime[Int8File]):
    """Runtimes whose models are files, on this CPU."""

    opened_by = ""
    """The backend that stands in here; else its own."""
    as_written = False

    def __call__(self, net: nn.Module) -> Ground[Int8File]:
        source = self.source(net)

        def make(tiles: Tiles, chosen: PtqSettings) -> Int8File:
            path = self.fresh(f"int8{source.suffix}")
            self.round(source, path, tiles, chosen)
            return Int8File(path, self.typed(path))

        return Ground(
            make,
            lambda made: self.accept(self.int8(made), made.runs.stat().st_size),
            lambda made: made.runs.stat().st_size,
            self._fastest,
            self.layers(source),
        )

    def f32(self, net: nn.Module) -> Run:
        return self._run(self.source(net), "f32")

    def int8(self, made: Int8File) -> Run:
        return self._run(made.runs, "int8")

    @abstractmethod
    def source(self, net: nn.Module) -> Path:
        """The f32 file that is quantized, made once for the same weights."""

    @abstractmethod
    def round(self, source: Path, path: Path, tiles: Tiles, chosen: PtqSettings) -> None:
        """Writes ``source`` in INT8 to ``path``."""

    @abstractmethod
    def layers(self, path: Path) -> tuple[str, ...]:
        """Layers of a file that may be left in float."""

    def typed(self, path: Path) -> Path:
        """The file that runs, of a quantized one."""
        return path

    def _run(self, path: Path, precision: str) -> Run:
        def run(inputs: Inputs) -> Prediction:
            with contextlib.closing(self._session(path, precision, self.ctx.threads)) as session:
                return self.ctx.task.predict(session, inputs)

        return run

    def _session(self, path: Path, precision: str, threads: int) -> Session:
        runtime = self.opened_by or self.name
        return open_session(path, runtime, precision=precision, threads=threads, as_written=self.as_written)

    def predicted(self, models: Mapping[str, tuple[Int8File, Trial]]) -> dict[str, float]:
        """The order in which models are expected to run, as a number each."""
        layers = len(self.layers(next(iter(models.values()))[0].quantized))
        return {n: 1 + float_share(t.settings, layers) for n, (_, t) in models.items()}

    def _fastest(self, models: Mapping[str, tuple[Int8File, Trial]]) -> Fastest:
        here = any(measured_here(t) for t in self.targets)
        raced = self._raced({n: m.runs for n, (m, _) in models.items()}) if here else None
        return self.chosen({n: trial for n, (_, trial) in models.items()}, raced, self.predicted(models))

    def _raced(self, paths: Mapping[str, Path]) -> Race:
        tile = {INPUT: self.ctx.selection.inputs[:1]}
        with contextlib.ExitStack() as stack:
            # One thread: ONNX Runtime's others spin while they wait, and what they burn is not what a model costs.
            sessions = {
                n: stack.enter_context(contextlib.closing(self._session(p, "int8", 1))) for n, p in paths.items()
            }
            return race({n: functools.partial(s, tile) for n, s in sessions.items()}, seconds=RACE_SECONDS)


def float_share(chosen: PtqSettings, layers: int) -> float:
    """Share of the layers that settings leave in float: the order in which graphs of one network are predicted to run."""
    ends = {"none": 0, "first": 1, "last": 1, "first-last": 2}[chosen.float_layers]
    return (ends + len(chosen.float_names)) / max(1, layers)


def _section(ctx: RunContext) -> QuantizeSection:
    section = ctx.recipe.quantize
    assert section is not None
    return section


def searched(runtime: Int8Runtime[M], net: nn.Module, ctx: RunContext) -> tuple[Quantized[M], M]:
    """What the search found, and its model.

    Raises:
        GateFailed: it has none; the record says why.
    """
    section = _section(ctx)
    limit = Limit(runtime.reference(net), section.max_drop)
    settings = SearchSettings(**section.model_dump(exclude={"max_drop", "qat"}))

    def train(trial: Trial) -> tuple[nn.Module, QatRecord]:
        return _trained(net, trial, runtime, limit, ctx)

    hooks = Hooks(
        train=train if qat_steps(ctx.recipe) else None,
        on_trial=lambda what, done, total, trial: _report_trial(ctx, f"{what}, {runtime.name}", done, total, trial),
        say=lambda text: ctx.reporter.note(f"  quantize, {runtime.name}: {text}"),
    )
    _, record = check_calibration(list(ctx.calibration))
    draws = [list(tiles) for tiles in ctx.calibration_draws]
    made = to_int8(
        net, runtime, list(ctx.calibration), runtime.planned(net), limit, settings, record, runtime.name, hooks, draws
    )
    if made.model is None or made.record.found is None:
        raise GateFailed(f"quantize for {', '.join(t.name for t in runtime.targets)}: {made.record.reason}")
    return made, made.model


def qat_steps(recipe: Recipe) -> int:
    """Steps of training under rounding; ``auto`` is a part of the distillation's, none where nothing was distilled."""
    section = recipe.quantize
    assert section is not None
    if section.qat.steps != "auto":
        return section.qat.steps
    steps = recipe.distill.steps
    return 0 if section.weights_only or not steps else min(AUTO_MOST, max(AUTO_LEAST, round(AUTO_SHARE * steps)))


def _trained(
    net: nn.Module, trial: Trial, runtime: Int8Runtime[M], limit: Limit, ctx: RunContext
) -> tuple[nn.Module, QatRecord]:
    """Trains on the grid of the runtime, with the settings of the best trial."""
    x = ctx.spec.normalise(ctx.calibration)
    batches = [torch.from_numpy(x[i : i + 8]) for i in range(0, len(x), 8)]
    chosen, section = trial.settings, _section(ctx)
    steps = qat_steps(ctx.recipe)
    settings = QatSettings(
        steps=steps, lr=section.qat.lr, score_every=min(50, steps), weight_bits=8 if chosen.overflow == "disable" else 7,
        activations=runtime.grid(chosen), float_layers=edge_layers(net, batches[0][:1], chosen.float_layers),
        seed=ctx.recipe.seed,
    )  # fmt: skip
    tiles = list(ctx.calibration)

    def accept(module: nn.Module) -> Any:
        ground = runtime(module)
        return ground.accept(ground.make(tiles, chosen))

    return qat(
        net, batches, lambda module, step: batch_loss(module, step, ctx), accept, limit, settings,
        lambda step, total, point: ctx.reporter.note(f"  qat {step}/{total}: score {point.score:.4f}"),
    )  # fmt: skip


def _report_trial(ctx: RunContext, what: str, done: int, total: int, trial: Trial) -> None:
    ctx.reporter.note(f"  {what} {done}/{total}: {trial.settings.label()}: {trial.outcome} ({trial.reason})")
