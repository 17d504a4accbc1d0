"""INT8 on OpenVINO's CPU plugin: how a network gets there, how it is judged, and what makes it faster once it passes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from torch import nn

from rsedge.compress.quantize.acceptance import Acceptance
from rsedge.compress.quantize.alone import Damage, rounded_layers
from rsedge.compress.quantize.layer_times import LayerTimes, layer_times, node_times
from rsedge.compress.quantize.ptq import PtqSettings, Tiles, compute_layers, is_transformer, quantize, with_float
from rsedge.compress.quantize.qat import Grid
from rsedge.compress.quantize.search import Fastest, Ground, Speed, Trial, Tuning, ladder, weights_ladder
from rsedge.compress.quantize.sensitivity import Probe
from rsedge.devices.measure.decide import Race, race
from rsedge.export.bundle import golden_record
from rsedge.export.parity import compare, run_session
from rsedge.export.targets.openvino import read_openvino, save_openvino
from rsedge.recipe.checks import measured_here
from rsedge.runtimes.opening import open_session
from rsedge.runtimes.openvino.core import float_options, float_precision, has_bf16, settings, shared_core
from rsedge.runtimes.registry import backend
from rsedge.runtimes.session import LOGITS, VALID
from rsedge.stages.context import RunContext
from rsedge.stages.makers.int8 import RACE_SECONDS, Int8Runtime, Run, float_share
from rsedge.stages.samples import GOLDEN_TILES, sample_tiles
from rsedge.tasks.base import Inputs, Prediction

PROBED = 8
"""Inputs of the selection set on which each layer is judged alone."""


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
            self._accepted,
            self.size,
            self._fastest,
            compute_layers(model),
            self._tuning(model) if self._timed_here else None,
            functools.partial(self._probe, model),
        )

    @property
    def _timed_here(self) -> bool:
        """Whether the models run on this CPU in flight, for all that is known."""
        return not self.targets or any(measured_here(t) for t in self.targets)

    def _tuning(self, model: ov.Model) -> Tuning[Path]:
        times = functools.partial(self._layer_times, model)
        return Tuning(self._speed, self._in_bf16 if has_bf16(shared_core()) else None, times)

    def _layer_times(self, model: ov.Model, file: Path) -> list[LayerTimes]:
        int8 = read_openvino(file)
        rest = with_float(model.clone(), float_precision(file, int8))
        first, second = (compiled(one, self.ctx, PERF_COUNT="YES").create_infer_request() for one in (int8, rest))
        times = node_times(first, second, {0: self.ctx.selection.inputs[:1]})
        return layer_times(*times, compute_layers(model), rounded_layers(int8))

    def _probe(self, model: ov.Model, file: Path) -> Probe:
        int8 = read_openvino(file)
        inputs = self.ctx.selection.inputs
        inputs = inputs[:: max(1, len(inputs) // PROBED)][:PROBED]
        damage = Damage(model, int8, list(inputs), self.ctx.threads)
        return Probe(rounded_layers(int8), damage, len(inputs))

    def _in_bf16(self, file: Path) -> Path:
        path = self.fresh("int8.xml")
        save_openvino(with_float(read_openvino(file), "bf16"), path, self.ctx.spec, self.ctx.classes)
        return path

    def _accepted(self, made: Path) -> Acceptance:
        """What is asked for; and of bf16 for the rest that hosts which compute it in f32 keep the golden vector's limits."""
        found = self.accept(self.int8(made), self.size(made))
        elsewhere = self._elsewhere(made)
        if elsewhere is None:
            return found
        reason = "; ".join(words for words in (found.reason, elsewhere) if words)
        return found.model_copy(update={"holds": False, "missed": (*found.missed, elsewhere), "reason": reason})

    def _elsewhere(self, made: Path) -> str | None:
        """Why hosts without bf16 could not tell that a file is whole; None where they can."""
        if float_precision(made, read_openvino(made)) == "f32":
            return None
        samples, outputs = sample_tiles(self.ctx, GOLDEN_TILES), []
        for how in ("f32", "int8"):
            with contextlib.closing(open_session(made, self.name, precision=how, threads=self.ctx.threads)) as session:
                outputs.append(run_session(session, samples))
        found = compare(outputs[0], outputs[1], self.ctx.task.output)
        asked = golden_record(backend(self.name).tolerance("int8"), outputs[0], self.ctx.teacher.spec.task)
        if found.max_abs <= asked.atol and found.agreement >= asked.agreement_min:
            return None
        return (
            f"the golden vector of a host without bf16 differs by {found.max_abs:.3g}, agrees by {found.agreement:.3f}"
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
        if not self._timed_here:
            return self.chosen(trials, None, predicted)
        return self.chosen(trials, self._raced({name: file for name, (file, _) in models.items()}), predicted)

    def _raced(self, files: Mapping[str, Path]) -> Race:
        tile: Any = {0: self.ctx.selection.inputs[:1]}
        requests = {n: compiled(read_openvino(file), self.ctx).create_infer_request() for n, file in files.items()}
        return race(
            {n: functools.partial(request.infer, tile) for n, request in requests.items()}, seconds=RACE_SECONDS
        )

    def _speed(self, step: Path, before: Path) -> Speed:
        raced = self._raced({"step": step, "before": before})
        ratio = raced.ratio("step", "before")
        return Speed(ratio=ratio.value, low=ratio.low, high=ratio.high, noise=raced.too_noisy())


def compiled(model: ov.Model, ctx: RunContext, **more: str) -> Any:
    """A graph that takes digital numbers, ready to run on this CPU as a bundle would run it."""
    core = shared_core()
    wish = float_options(core, Path("the network"), model, "CPU", "int8")
    return core.compile_model(model, "CPU", {**settings("CPU", "int8", ctx.threads), **wish, **more})
