"""How a student becomes INT8 for each runtime, and what the outcome does on the selection set, on its own executable."""

from __future__ import annotations

import contextlib
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
import onnx
import openvino as ov
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance
from rsedge.compress.quantize.litert import is_litert_transformer, litert_ladder, litert_layers, quantize_litert
from rsedge.compress.quantize.ptq import PtqSettings, Tiles, compute_layers, is_transformer, model_bytes, quantize
from rsedge.compress.quantize.qat import Grid
from rsedge.compress.quantize.qdq import is_onnx_transformer, onnx_layers, quantize_onnx
from rsedge.compress.quantize.search import Fastest, Ground, M, Trial, ladder, onnx_ladder, weights_ladder
from rsedge.data.temporary import TemporaryFolder
from rsedge.devices.measure.decide import Contender, Race, pick, race
from rsedge.devices.predict.latency import predict_target
from rsedge.export.onnx.graph import Deployable
from rsedge.export.onnx.writing import export_onnx
from rsedge.export.targets.litert import export_litert
from rsedge.export.targets.openvino import read_openvino
from rsedge.export.targets.tensorrt import type_for_tensorrt
from rsedge.models.structure import tensors_digest
from rsedge.recipe.checks import measured_here
from rsedge.recipe.schema import QuantizeSection
from rsedge.results.gates import MARGIN, check_on_selection, of_evidence
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.openvino.core import settings, shared_core
from rsedge.runtimes.session import INPUT, LOGITS, VALID, Session
from rsedge.stages.artefacts import tensorrt_settings
from rsedge.stages.context import RunContext
from rsedge.tasks.base import Inputs, Prediction

RACE_SECONDS = 0.5
Run = Callable[[Inputs], Prediction]


class Int8Runtime(ABC, Generic[M]):
    """One runtime's way: ``runtime(net)`` is the :class:`Ground` of a network.

    Attributes:
        targets: the recipe's INT8 targets that the model is for; may be none.
        margin: standard errors by which gates are to be kept.
    """

    name: str

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
        score = ctx.likeness(kept, run(ctx.selection_views))["score"]
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


class OpenVinoInt8(Int8Runtime[ov.Model]):
    """OpenVINO's graphs, on this CPU."""

    name = "openvino"

    def __call__(self, net: nn.Module) -> Ground[ov.Model]:
        model = self._model(net)
        return Ground(
            lambda tiles, chosen: quantize(model, tiles, chosen),
            lambda made: self.accept(self.int8(made), model_bytes(made)),
            model_bytes,
            self._fastest,
            compute_layers(model),
        )

    def f32(self, net: nn.Module) -> Run:
        return self._run(self._model(net))

    def int8(self, made: ov.Model) -> Run:
        return self._run(made)

    def planned(self, net: nn.Module) -> list[PtqSettings]:
        if self.section.weights_only:
            return weights_ladder(self.section.weights_only)
        return ladder(is_transformer(self._model(net)), self.section.hosts)

    def grid(self, chosen: PtqSettings) -> Grid:
        return chosen.preset

    def _model(self, net: nn.Module) -> ov.Model:
        return read_openvino(self.exported(net))

    def _run(self, model: ov.Model) -> Run:
        executable = compiled(model, self.ctx)

        def run(inputs: Inputs) -> Prediction:
            found = (executable({0: one[None]}) for one in inputs)
            return np.stack(
                [self.ctx.task.keep({name: outputs[name] for name in (LOGITS, VALID)}) for outputs in found]
            )

        return run

    def _fastest(self, models: Mapping[str, tuple[ov.Model, Trial]]) -> Fastest:
        trials = {name: trial for name, (_, trial) in models.items()}
        predicted = {n: 1 + _float_share(t.settings, len(compute_layers(models[n][0]))) for n, t in trials.items()}
        if self.targets and not any(measured_here(t) for t in self.targets):
            return self.chosen(trials, None, predicted)
        tile: Any = {0: self.ctx.selection.inputs[:1]}
        requests = {name: compiled(model, self.ctx).create_infer_request() for name, (model, _) in models.items()}
        runners = {name: functools.partial(request.infer, tile) for name, request in requests.items()}
        return self.chosen(trials, race(runners, seconds=RACE_SECONDS), predicted)


def _float_share(chosen: PtqSettings, layers: int) -> float:
    """Share of the layers that settings leave in float: the order in which graphs of one network are predicted to run."""
    ends = {"none": 0, "first": 1, "last": 1, "first-last": 2}[chosen.float_layers]
    return (ends + len(chosen.float_names)) / max(1, layers)


@dataclass(frozen=True)
class OnnxInt8:
    """Explicit INT8: the file as quantized, and the one that runs (for TensorRT typed)."""

    quantized: Path
    runs: Path


class _OnnxRuntimeBase(Int8Runtime[OnnxInt8]):
    as_written = False
    saturates = False

    def __call__(self, net: nn.Module) -> Ground[OnnxInt8]:
        source = self.source(net)

        def make(tiles: Tiles, chosen: PtqSettings) -> OnnxInt8:
            path = self.fresh("int8.onnx")
            quantize_onnx(source, path, tiles, chosen)
            return OnnxInt8(path, self.typed(path))

        return Ground(
            make,
            lambda made: self.accept(self.int8(made), made.runs.stat().st_size),
            lambda made: made.runs.stat().st_size,
            self._fastest,
            onnx_layers(onnx.load(str(source))),
        )

    def f32(self, net: nn.Module) -> Run:
        return self._run(self.source(net), "f32")

    def int8(self, made: OnnxInt8) -> Run:
        return self._run(made.runs, "int8")

    def planned(self, net: nn.Module) -> list[PtqSettings]:
        return onnx_ladder(is_onnx_transformer(onnx.load(str(self.source(net)))), self.saturates)

    def grid(self, chosen: PtqSettings) -> Grid:
        return "signed"

    @abstractmethod
    def source(self, net: nn.Module) -> Path:
        """The f32 file that is quantized."""

    def typed(self, path: Path) -> Path:
        """The file that runs."""
        return path

    def _run(self, path: Path, precision: str) -> Run:
        def run(inputs: Inputs) -> Prediction:
            with contextlib.closing(self._session(path, precision, self.ctx.threads)) as session:
                return self.ctx.task.run(session, inputs)

        return run

    def _session(self, path: Path, precision: str, threads: int) -> Any:
        return open_session(path, "onnxruntime", precision=precision, threads=threads, as_written=self.as_written)

    @abstractmethod
    def _fastest(self, models: Mapping[str, tuple[OnnxInt8, Trial]]) -> Fastest:
        """The choice between models that passed."""


class OnnxRuntimeInt8(_OnnxRuntimeBase):
    """ONNX Runtime's files, on this CPU."""

    name = "onnxruntime"

    @property
    def saturates(self) -> bool:  # type: ignore[override]
        """Whether some host may add 8-bit products in 16 bits."""
        return self.section.hosts == "any"

    def source(self, net: nn.Module) -> Path:
        return self.exported(net, dtype="float32")

    def _fastest(self, models: Mapping[str, tuple[OnnxInt8, Trial]]) -> Fastest:
        trials = {name: trial for name, (_, trial) in models.items()}
        layers = len(onnx_layers(onnx.load(str(next(iter(models.values()))[0].quantized))))
        predicted = {n: 1 + _float_share(t.settings, layers) for n, t in trials.items()}
        if not any(measured_here(t) for t in self.targets):
            return self.chosen(trials, None, predicted)
        tile = {INPUT: self.ctx.selection.inputs[:1]}
        with contextlib.ExitStack() as stack:
            # One thread: ONNX Runtime's others spin while they wait, and what they burn is not what a model costs.
            sessions = {
                n: stack.enter_context(contextlib.closing(self._session(m.runs, "int8", 1)))
                for n, (m, _) in models.items()
            }
            raced = race({n: functools.partial(s, tile) for n, s in sessions.items()}, seconds=RACE_SECONDS)
        return self.chosen(trials, raced, predicted)


class TensorRtInt8(_OnnxRuntimeBase):
    """Files typed for a TensorRT, as written on ONNX Runtime: the numbers of the graph, not of an engine."""

    name = "tensorrt"
    as_written = True

    def source(self, net: nn.Module) -> Path:
        return self.exported(net, tensorrt_settings(self.targets[0])[1], "float32")

    def typed(self, path: Path) -> Path:
        version = tensorrt_settings(self.targets[0])[0]
        made = type_for_tensorrt(path, self.fresh("model.onnx"), "int8", version, self.ctx.recipe.tensorrt.max_batch)
        return made.onnx.path

    def _fastest(self, models: Mapping[str, tuple[OnnxInt8, Trial]]) -> Fastest:
        predicted = {n: predict_target(m.quantized, self.targets[0].name).mid_ms for n, (m, _) in models.items()}
        return self.chosen({name: trial for name, (_, trial) in models.items()}, None, predicted)


class LiteRtInt8(Int8Runtime[Path]):
    """LiteRT's files, on this CPU: signed activations with a zero-point, sums 32 bits wide on every host."""

    name = "litert"

    def __call__(self, net: nn.Module) -> Ground[Path]:
        source = self.source(net)

        def make(tiles: Tiles, chosen: PtqSettings) -> Path:
            path = self.fresh("int8.tflite")
            quantize_litert(source, path, tiles, chosen)
            return path

        return Ground(
            make,
            lambda made: self.accept(self.int8(made), made.stat().st_size),
            lambda made: made.stat().st_size,
            self._fastest,
            litert_layers(source),
        )

    def f32(self, net: nn.Module) -> Run:
        return self._run(self.source(net), "f32")

    def int8(self, made: Path) -> Run:
        return self._run(made, "int8")

    def planned(self, net: nn.Module) -> list[PtqSettings]:
        return litert_ladder(is_litert_transformer(self.source(net)))

    def grid(self, chosen: PtqSettings) -> Grid:
        return "mixed"

    def source(self, net: nn.Module) -> Path:
        """The f32 file that is quantized, made once for the same weights."""
        key = (tensors_digest(net), None, "litert")
        if key not in self._files:
            graph = Deployable(net, self.ctx.spec, self.ctx.task.output)
            self._files[key] = export_litert(graph, self.fresh("f32.tflite"), self.ctx.spec, self.ctx.classes).path
        return self._files[key]

    def _run(self, path: Path, precision: str) -> Run:
        def run(inputs: Inputs) -> Prediction:
            with contextlib.closing(self._session(path, precision, self.ctx.threads)) as session:
                return self.ctx.task.run(session, inputs)

        return run

    def _session(self, path: Path, precision: str, threads: int) -> Session:
        return open_session(path, "litert", precision=precision, threads=threads)

    def _fastest(self, models: Mapping[str, tuple[Path, Trial]]) -> Fastest:
        trials = {name: trial for name, (_, trial) in models.items()}
        layers = len(litert_layers(next(iter(models.values()))[0]))
        predicted = {n: 1 + _float_share(t.settings, layers) for n, t in trials.items()}
        if not any(measured_here(t) for t in self.targets):
            return self.chosen(trials, None, predicted)
        return self.chosen(trials, self._raced({n: path for n, (path, _) in models.items()}), predicted)

    def _raced(self, paths: Mapping[str, Path]) -> Race:
        tile = {INPUT: self.ctx.selection.inputs[:1]}
        with contextlib.ExitStack() as stack:
            sessions = {
                n: stack.enter_context(contextlib.closing(self._session(p, "int8", 1))) for n, p in paths.items()
            }
            return race({n: functools.partial(s, tile) for n, s in sessions.items()}, seconds=RACE_SECONDS)


INT8_RUNTIMES: dict[str, type[Int8Runtime[Any]]] = {
    kind.name: kind for kind in (OpenVinoInt8, OnnxRuntimeInt8, TensorRtInt8, LiteRtInt8)
}


def compiled(model: ov.Model, ctx: RunContext) -> Any:
    """A graph that takes digital numbers, ready to run on this CPU as a bundle would run it."""
    return shared_core().compile_model(model, "CPU", settings("CPU", "int8", ctx.threads))


@contextlib.contextmanager
def scratch(folder: Path) -> Any:
    """A folder inside ``folder`` that is gone afterwards."""
    with TemporaryFolder(folder) as name:
        yield name
