"""OpenVINO's files: an IR in f32 and fp16 of one graph, and in INT8 by NNCF."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from rsedge.compress.quantize.ptq import plain_ptq, saturation
from rsedge.export.onnx.graph import Deployable
from rsedge.export.targets.openvino import export_openvino, read_openvino, save_openvino
from rsedge.runtimes.bundle.manifest import Target
from rsedge.runtimes.openvino.core import settings, shared_core
from rsedge.runtimes.precision import precision
from rsedge.stages.context import RunContext
from rsedge.stages.makers.base import Delivered, Exported, Maker, gap
from rsedge.stages.makers.int8 import Int8Runtime, searched
from rsedge.stages.makers.openvino_int8 import OpenVinoInt8
from rsedge.stages.outputs import STUDENT_IR
from rsedge.stages.teacher_model import as_openvino


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


MAKER = OpenVinoMaker()
