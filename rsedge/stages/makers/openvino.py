"""OpenVINO's files: an IR in f32 and fp16 of one graph, and in INT8 by NNCF."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from torch import nn

from rsedge.compress.quantize.ptq import (
    PtqSettings,
    Tiles,
    compute_layers,
    is_transformer,
    plain_ptq,
    quantize,
    saturation,
)
from rsedge.compress.quantize.qat import Grid
from rsedge.compress.quantize.search import Fastest, Ground, Trial, ladder, weights_ladder
from rsedge.devices.measure.decide import race
from rsedge.export.onnx.graph import Deployable
from rsedge.export.targets.openvino import export_openvino, read_openvino, save_openvino
from rsedge.recipe.checks import measured_here
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.openvino.core import settings, shared_core
from rsedge.runtimes.precision import precision
from rsedge.runtimes.session import LOGITS, VALID
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Delivered, Exported, Maker, gap
from rsedge.stages.makers.int8 import RACE_SECONDS, Int8Runtime, Run, float_share, searched
from rsedge.stages.outputs import STUDENT_IR
from rsedge.stages.teacher_model import as_openvino
from rsedge.tasks.base import Inputs, Prediction


class OpenVinoMaker(Maker):
    """``student-f32.xml`` is there for every run; this adds fp16 and INT8."""

    backend = "openvino"
    suffixes = (".xml", ".bin")
    times_networks = True

    def export(
        self, folder: Path, ctx: RunContext, graph: Deployable, onnx: Path, targets: Sequence[Target]
    ) -> Exported:
        if not any(precision(t.precision).graph == "half" for t in targets):
            return Exported()
        half = export_openvino(onnx, folder / "student-fp16.xml", ctx.spec, ctx.classes, True)
        return Exported({"openvino-fp16": half.size_bytes})

    def int8(self, ctx: RunContext, targets: Sequence[Target], scratch: Path) -> Int8Runtime[Path]:
        return OpenVinoInt8(ctx, targets, scratch)

    def quantize(
        self, folder: Path, ctx: RunContext, net: nn.Module, targets: Sequence[Target], scratch: Path
    ) -> Delivered:
        made, file = searched(self.int8(ctx, targets, scratch), net, ctx)
        model = read_openvino(file)
        record = made.record.model_copy(update={"saturation": saturation(model, list(ctx.calibration))})
        xml = folder / "student-int8.xml"
        written = save_openvino(model, xml, ctx.spec, ctx.classes)
        found = gap(STUDENT_IR.of(ctx.folders), xml, self.backend, ctx)
        names = tuple(t.name for t in targets)
        return Delivered(names, record, written.size_bytes, dict.fromkeys(names, found))

    def runner(self, ctx: RunContext, net: nn.Module, target: Target) -> Callable[[], Any]:
        """After a quick quantization where INT8 is asked for (its accuracy does not matter)."""
        model = as_openvino(copy.deepcopy(net).cpu().eval(), ctx.spec)
        if target.quantized:
            model = plain_ptq(model, list(ctx.spec.normalise(ctx.calibration[:8])))
        config = settings("CPU", target.precision, ctx.threads)
        request = shared_core().compile_model(model, "CPU", config).create_infer_request()
        return functools.partial(request.infer, {0: ctx.spec.normalise(ctx.selection.inputs[:1])})


class OpenVinoInt8(Int8Runtime[Path]):
    """OpenVINO's graphs, on this CPU. What is made of one setting is written before the next is tried: memory holds one."""

    name = "openvino"

    def __call__(self, net: nn.Module) -> Ground[Path]:
        model = self._model(net)

        def make(tiles: Tiles, chosen: PtqSettings) -> Path:
            path = self.fresh("int8.xml")
            save_openvino(quantize(model, tiles, chosen), path, self.ctx.spec, self.ctx.classes)
            return path

        return Ground(
            make,
            lambda made: self.accept(self.int8(made), self.size(made)),
            self.size,
            self._fastest,
            compute_layers(model),
        )

    def size(self, file: Path) -> int:
        """Bytes of the two files that a bundle would hold: with the contract and the classes, as they are delivered."""
        return sum(path.stat().st_size for path in (file, file.with_suffix(".bin")))

    def f32(self, net: nn.Module) -> Run:
        return self._run(self._model(net))

    def int8(self, made: Path) -> Run:
        return self._run(read_openvino(made))

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

    def _fastest(self, models: Mapping[str, tuple[Path, Trial]]) -> Fastest:
        trials = {name: trial for name, (_, trial) in models.items()}
        layers = {name: len(compute_layers(read_openvino(file))) for name, (file, _) in models.items()}
        predicted = {name: 1 + float_share(trial.settings, layers[name]) for name, trial in trials.items()}
        if self.targets and not any(measured_here(t) for t in self.targets):
            return self.chosen(trials, None, predicted)
        tile: Any = {0: self.ctx.selection.inputs[:1]}
        requests = {
            name: compiled(read_openvino(file), self.ctx).create_infer_request() for name, (file, _) in models.items()
        }
        runners = {name: functools.partial(request.infer, tile) for name, request in requests.items()}
        return self.chosen(trials, race(runners, seconds=RACE_SECONDS), predicted)


def compiled(model: ov.Model, ctx: RunContext) -> Any:
    """A graph that takes digital numbers, ready to run on this CPU as a bundle would run it."""
    return shared_core().compile_model(model, "CPU", settings("CPU", "int8", ctx.threads))


MAKER = OpenVinoMaker()
